"""Foreign files -> a dataset, one source a file."""
