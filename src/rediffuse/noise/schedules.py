"""How the signal fades and the noise grows: functions that return a `NoiseSchedule`, float64 throughout.

    x_t = alpha[t] x_0 + sigma[t] eps,   t = 0 clean .. T noisiest

`alpha` is the coefficient of x_0 (sqrt(abar_t) of the papers), not 1 - beta_t.
A schedule given by betas has abar_t = prod_{k<=t} (1 - beta_k), alpha = sqrt(abar), sigma = sqrt(1 - abar).
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from rediffuse.errors import InvalidInput, say

_MOST = 0.999


@dataclass(frozen=True)
class NoiseSchedule:
    """Two tables over the levels 0 .. T.

    Raises: InvalidInput when level 0 is not clean or the signal-to-noise ratio does not strictly fall.
    """

    alpha: Tensor
    """(T+1,) float64, alpha[0] = 1."""
    sigma: Tensor
    """(T+1,) float64, sigma[0] = 0; zero everywhere means no noise at all."""

    def __post_init__(self) -> None:
        """Check what every formula relies on."""
        exact = self.alpha.dtype == self.sigma.dtype == torch.float64
        if not exact or self.alpha.shape != self.sigma.shape or self.alpha.numel() < 2:
            raise InvalidInput(say("alpha and sigma must be float64 tables of one length, T + 1 >= 2"))
        if self.alpha[0] != 1 or self.sigma[0] != 0:
            raise InvalidInput(say("Level 0 must be clean", got=(float(self.alpha[0]), float(self.sigma[0]))))
        if self.noisy:
            ratio = self.alpha[1:] / self.sigma[1:]
            if not bool((self.sigma[1:] > 0).all() and (ratio.diff() < 0).all() and torch.isfinite(ratio).all()):
                raise InvalidInput(
                    say(
                        "alpha / sigma must strictly fall with the level",
                        remedy="Check noise_min < noise_max and noise_scale >= 0",
                    )
                )

    @property
    def T(self) -> int:
        """The noisiest level."""
        return self.alpha.numel() - 1

    @property
    def noisy(self) -> bool:
        """Whether any level holds noise."""
        return bool((self.sigma > 0).any())

    @classmethod
    def from_betas(cls, beta: Tensor) -> Self:
        """The variance-preserving schedule of (T,) float64 betas, each in (0, 1).

        abar is accumulated as a sum of log1p(-beta), so 1 - abar keeps its digits where noise is tiny.
        """
        if not bool(((beta > 0) & (beta < 1)).all()):
            raise InvalidInput(say("Every beta must lie in (0, 1)", got=[float(beta.min()), float(beta.max())]))
        log_abar = torch.cat((beta.new_zeros(1), torch.log1p(-beta).cumsum(0)))
        return cls(torch.exp(0.5 * log_abar), torch.sqrt(-torch.expm1(log_abar)))

    @classmethod
    def clean(cls, levels: int) -> Self:
        """No noise at any of T levels: x_t = x_0."""
        return cls(torch.ones(levels + 1, dtype=torch.float64), torch.zeros(levels + 1, dtype=torch.float64))


def linear(T: int, *, scale: float = 1.0, low: float, high: float, **_: float | None) -> NoiseSchedule:
    """beta_t = scale * linspace(low, high, T). Reference: Ho et al. 2020, section 4; diffrec `linear`."""
    if scale == 0:
        return NoiseSchedule.clean(T)
    return NoiseSchedule.from_betas(_ramp(T, scale, low, high))


def linear_variance(
    T: int, *, scale: float = 1.0, low: float, high: float, first_beta: float | None = None
) -> NoiseSchedule:
    """The variance of the noise grows linearly: 1 - abar_t = v_t = scale * linspace(low, high, T).

    Args: first_beta: the authors' code then replaces beta_1 and accumulates anew, which moves every abar to
        about first_beta + v_t - v_1; None keeps the prescribed variances.
    Reference: Wang et al. 2023 (DiffRec), eq. 4.
    """
    if scale == 0:
        return NoiseSchedule.clean(T)
    variance = _ramp(T, scale, low, high)
    abar = torch.cat((variance.new_ones(1), 1 - variance))
    beta = torch.clamp((abar[:-1] - abar[1:]) / abar[:-1], max=_MOST)
    if first_beta is not None:
        beta[0] = first_beta
    return NoiseSchedule.from_betas(beta)


def cosine(T: int, **_: float | None) -> NoiseSchedule:
    """abar(u) = cos^2((u + .008) / 1.008 * pi/2), beta_t capped at .999.

    Reference: Nichol & Dhariwal 2021, eq. 17.
    """
    u = torch.arange(T + 1, dtype=torch.float64) / T
    abar = torch.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2
    return NoiseSchedule.from_betas(torch.clamp(1 - abar[1:] / abar[:-1], max=_MOST))


def binomial(T: int, **_: float | None) -> NoiseSchedule:
    """beta_t = 1 / (T - t + 2), as in the code of DiffRec; Sohl-Dickstein et al. 2015, section 2.4.1 has T - t + 1."""
    return NoiseSchedule.from_betas(1.0 / torch.arange(T + 1, 1, -1, dtype=torch.float64))


SCHEDULES: Mapping[str, Callable[..., NoiseSchedule]] = {
    "linear": linear,
    "linear_variance": linear_variance,
    "cosine": cosine,
    "binomial": binomial,
}


def _ramp(T: int, scale: float, low: float, high: float) -> Tensor:
    if T > 1 and not low < high:
        raise InvalidInput(say("noise_min must be below noise_max", got=(low, high), remedy="Exchange the two"))
    if not scale * max(low, high) < 1:
        raise InvalidInput(
            say("noise_scale times noise_max must be below 1", got=scale * max(low, high), remedy="Lower noise_scale")
        )
    return scale * torch.linspace(low, high, T, dtype=torch.float64)
