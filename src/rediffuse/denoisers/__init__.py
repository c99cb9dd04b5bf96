"""(x_t, t, cond) -> estimate of x_0; none knows a dataset."""

from rediffuse.denoisers.collapsed import Collapsed, collapse
from rediffuse.denoisers.mlp import MLPDenoiser

__all__ = ["Collapsed", "MLPDenoiser", "collapse"]
