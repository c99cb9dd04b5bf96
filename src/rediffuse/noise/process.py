"""One forward process and one posterior for every Gaussian diffusion; kinds differ only in their two tables."""

import torch
from torch import Tensor

from rediffuse.protocols import Schedule


def add_noise(x0: Tensor, t: Tensor, eps: Tensor, schedule: Schedule) -> Tensor:
    """x_t = alpha[t] x_0 + sigma[t] eps.

    Args: x0, eps: (B, *D).   t: (B,) int64 levels, or a single one.
    Returns: (B, *D).
    Reference: Ho et al. 2020, eq. 4.
    """
    return at_level(schedule.alpha, t, x0) * x0 + at_level(schedule.sigma, t, x0) * eps


def snr(schedule: Schedule) -> Tensor:
    """Signal-to-noise ratio alpha^2 / sigma^2 of each level, (T+1,) float64; infinite where there is no noise."""
    return (schedule.alpha / schedule.sigma) ** 2


def posterior_weights(schedule: Schedule, t: Tensor | int, s: Tensor | int) -> tuple[Tensor, Tensor, Tensor]:
    """Weights of x_t and x_0 in the mean of x_s given both, and its variance, for s < t.

        a = alpha_t / alpha_s;   v = sigma_t^2 - a^2 sigma_s^2
        mean = (a sigma_s^2 / sigma_t^2) x_t + (alpha_s v / sigma_t^2) x_0;   variance = v sigma_s^2 / sigma_t^2

    At s = 0, and where there is no noise, the mean is x_0 and the variance 0.

    Returns: three float64 tensors shaped as t and s.
    Reference: Ho et al. 2020, eq. 7, here for any pair of levels (Kingma et al. 2021).
    """
    alpha_t, alpha_s = schedule.alpha[t], schedule.alpha[s]
    var_t, var_s = schedule.sigma[t] ** 2, schedule.sigma[s] ** 2
    ratio = torch.where(var_t > 0, var_s / var_t, 0.0)
    a = alpha_t / alpha_s
    # v / sigma_t^2, written so that it is exactly 1 where s is clean.
    rest = 1 - a**2 * ratio
    w_x0 = torch.where(ratio > 0, alpha_s * rest, 1.0)
    return a * ratio, w_x0, rest * var_s


def posterior(x_t: Tensor, x0: Tensor, t: Tensor, s: Tensor, schedule: Schedule) -> tuple[Tensor, Tensor]:
    """Mean and variance of x_s given x_t and x_0, s < t.

    Args: x_t, x0: (B, *D).   t, s: (B,) int64 levels, or single ones.
    Returns: mean (B, *D), variance (B, 1, ..) broadcast over D.
    """
    w_xt, w_x0, variance = (_broadcast(w, x0) for w in posterior_weights(schedule, t, s))
    return w_xt * x_t + w_x0 * x0, variance


def at_level(table: Tensor, t: Tensor, like: Tensor) -> Tensor:
    """table[t] in the number format of `like`, shaped to multiply it. Args: table: (T+1,) float64.   t: (B,) or ()."""
    return _broadcast(table.to(t.device)[t], like)


def _broadcast(values: Tensor, like: Tensor) -> Tensor:
    shape = (-1,) + (1,) * (like.dim() - 1) if values.dim() else ()
    return values.to(device=like.device, dtype=like.dtype).reshape(shape)
