"""Synthetic worlds whose truth is known; `atelier` is the embedded default."""
