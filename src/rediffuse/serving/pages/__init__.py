"""Pages for people: a small shop on the loaded catalog, and a view of the running service.

They are rendered here, need nothing from elsewhere and work without scripts; with them, only what changed is swapped.
"""
