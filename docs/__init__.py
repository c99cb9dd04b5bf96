"""Documentation; `python -m docs.reference` writes what can be generated."""
