"""How a network learns: the loop, the levels to train on, stopping, checkpoints."""
