"""What happened: events, items and users, checked once and immutable after."""
