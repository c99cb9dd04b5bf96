"""Measurements on real data, run on demand; every published number names the command in here that yields it."""
