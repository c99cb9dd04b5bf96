"""The classics: same protocols, same tests, tuned as hard."""
