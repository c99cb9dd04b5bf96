"""Sinusoids of the level."""

import math

import torch
from torch import Tensor


def sinusoids(position: Tensor, width: int, max_period: float = 10_000.0) -> Tensor:
    """concat(cos, sin)(position * max_period^(-k / half)), k = 0 .. half-1; an odd width is padded with 0.

    Args: position: (B,) any number format.
    Returns: (B, width) float32 (float64 for float64 positions).
    Reference: Vaswani et al. 2017, section 3.5; the order cos, sin is that of DiffRec's authors.
    """
    half = width // 2
    real = position.to(torch.float64)
    frequency = torch.exp(-math.log(max_period) * torch.arange(half, dtype=torch.float64, device=real.device) / half)
    angle = real.unsqueeze(-1) * frequency
    out = torch.cat((torch.cos(angle), torch.sin(angle)), dim=-1)
    out = torch.nn.functional.pad(out, (0, width - 2 * half))
    return out if position.dtype == torch.float64 else out.to(torch.float32)
