"""Where x_0 lives: events <-> points."""
