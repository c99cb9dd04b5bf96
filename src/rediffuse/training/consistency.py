"""Temporal consistency: near levels of one trajectory shall answer alike, so that one step says what many say.

    x_t = alpha_t x_0 + sigma_t eps,   x_s = alpha_s x_0 + sigma_s eps,   s = max(t - stride, 0),   the same eps
    loss = mean_d (x0_hat(x_t, t) - stopgrad x0_hat(x_s, s))_d^2,   x0_hat(x_0, 0) = x_0

Given x_t, the mean of x_s over trajectories is the step of DDIM with the ideal denoiser. Where the answers are affine, the
minimum is therefore DDIM's whole walk, in steps of the stride, in a single pass (tests/theory/test_consistency.py).

Reference: Song et al. 2023 (consistency models), eq. 10 and theorem 2; TA-Rec 2025 adds it to the squared error.
"""

import torch
from torch import Tensor

from rediffuse.noise.process import add_noise
from rediffuse.protocols import Denoiser, Schedule
from rediffuse.types import Condition


def consistency(x0_hat_t: Tensor, x0_hat_s: Tensor) -> Tensor:
    """mean_d (x0_hat_t - stopgrad x0_hat_s)_d^2.

    Args: x0_hat_t, x0_hat_s: (B, *D), answers at two levels of the same trajectories; the latter is held fixed.
    Returns: (B,).
    """
    return (x0_hat_t - x0_hat_s.detach()).square().flatten(1).mean(1)


@torch.no_grad()
def estimate_below(
    denoise: Denoiser,
    x0: Tensor,
    eps: Tensor,
    t: Tensor,
    schedule: Schedule,
    *,
    cond: Condition | None = None,
    stride: int = 1,
) -> Tensor:
    """What `denoise` answers at level max(t - stride, 0) of the same trajectories; x_0 itself at level 0. No gradient.

    Args: x0, eps: (B, *D).   t: (B,) int64 levels 1..T.   stride: 1 or more.
    Returns: (B, *D).
    """
    s = (t - stride).clamp(min=0)
    answer = denoise(add_noise(x0, s, eps, schedule), s.clamp(min=1), cond)
    return torch.where((s > 0).reshape(-1, *[1] * (x0.dim() - 1)), answer, x0)
