"""The forward process: how much of x_0 is left at each level, and how to walk one level back."""

from rediffuse.noise.predictions import PREDICTIONS, as_denoiser
from rediffuse.noise.process import add_noise, posterior, snr
from rediffuse.noise.schedules import (
    SCHEDULES,
    NoiseSchedule,
    binomial,
    cosine,
    exponential,
    linear,
    linear_variance,
    sqrt,
    truncated_linear,
)

__all__ = [
    "PREDICTIONS",
    "SCHEDULES",
    "NoiseSchedule",
    "add_noise",
    "as_denoiser",
    "binomial",
    "cosine",
    "exponential",
    "linear",
    "linear_variance",
    "posterior",
    "snr",
    "sqrt",
    "truncated_linear",
]
