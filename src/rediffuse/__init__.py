"""rediffuse: the recommender system built on diffusion models."""

__version__ = "0.1.0"
