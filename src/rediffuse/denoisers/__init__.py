"""(x_t, t, cond) -> estimate of x_0; none knows a dataset."""

from rediffuse.denoisers.collapsed import Collapsed, collapse
from rediffuse.denoisers.mlp import MLPDenoiser
from rediffuse.denoisers.transformer import TransformerDenoiser

__all__ = ["Collapsed", "MLPDenoiser", "TransformerDenoiser", "collapse"]
