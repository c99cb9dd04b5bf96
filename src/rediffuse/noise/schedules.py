"""How the signal fades and the noise grows: functions that return a `NoiseSchedule`, float64 throughout.

    x_t = alpha[t] x_0 + sigma[t] eps,   t = 0 clean .. T noisiest

`alpha` is the coefficient of x_0 (sqrt(abar_t) of the papers), not 1 - beta_t.
A schedule given by betas has abar_t = prod_{k<=t} (1 - beta_k), alpha = sqrt(abar), sigma = sqrt(1 - abar).
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
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


def cosine(T: int, *, least: float = 0.0, most: float = _MOST, **_: float | None) -> NoiseSchedule:
    """abar(u) = cos^2((u + .008) / 1.008 * pi/2), its betas kept within `least` .. `most`.

    Reference: Nichol & Dhariwal 2021, eq. 17; DreamRec's code keeps them within 1e-4 .. .9999.
    """
    return _from_abar(T, lambda u: torch.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2, least, most)


def sqrt(T: int, **_: float | None) -> NoiseSchedule:
    """The share of noise is a square root, 1 - abar(u) = (u + 1e-4)^(1/2), betas capped at .999.

    Reference: Li et al. 2022 (Diffusion-LM), appendix A.
    """
    return _from_abar(T, lambda u: 1 - torch.sqrt(u + 1e-4))


def exponential(T: int, **_: float | None) -> NoiseSchedule:
    """beta_t = 1 - exp(-.1 / T - 9.9 x_t / (2 T^2)), x from 1 to 2T + 1: the continuous process in T steps.

    Reference: Song et al. 2021 (score SDE), appendix C, with rates from .1 to 10, as in DreamRec's code; the integral of the
        rate over step t has x_t = 2t - 1, which ends at 2T - 1.
    """
    x = torch.linspace(1, 2 * T + 1, T, dtype=torch.float64)
    return NoiseSchedule.from_betas(-torch.expm1(-0.1 / T - x * 0.5 * 9.9 / T**2))


def truncated_linear(T: int, **_: float | None) -> NoiseSchedule:
    """A line of betas from .1 / T + .01 to 20 / T + .01, or to 1 / T + .01 where that end exceeds 1 (T < 21).

    Reference: DiffuRec's code, `trunc_lin` (Li et al. 2023), which has T = 32.
    """
    last = 20 / T + 0.01
    if last > 1:
        last = 1 / T + 0.01
    return NoiseSchedule.from_betas(torch.linspace(0.1 / T + 0.01, last, T, dtype=torch.float64))


def binomial(T: int, **_: float | None) -> NoiseSchedule:
    """beta_t = 1 / (T - t + 2), as in the code of DiffRec; Sohl-Dickstein et al. 2015, section 2.4.1 has T - t + 1."""
    return NoiseSchedule.from_betas(1.0 / torch.arange(T + 1, 1, -1, dtype=torch.float64))


SCHEDULES: Mapping[str, Callable[..., NoiseSchedule]] = {
    "linear": linear,
    "linear_variance": linear_variance,
    "cosine": cosine,
    "clipped_cosine": partial(cosine, least=1e-4, most=0.9999),
    "binomial": binomial,
    "sqrt": sqrt,
    "exponential": exponential,
    "truncated_linear": truncated_linear,
}


def _from_abar(T: int, abar: Callable[[Tensor], Tensor], least: float = 0.0, most: float = _MOST) -> NoiseSchedule:
    """beta_t = 1 - abar(t / T) / abar((t - 1) / T), kept within `least` .. `most`."""
    values = abar(torch.arange(T + 1, dtype=torch.float64) / T)
    return NoiseSchedule.from_betas(torch.clamp(1 - values[1:] / values[:-1], least, most))


def _ramp(T: int, scale: float, low: float, high: float) -> Tensor:
    if T > 1 and not low < high:
        raise InvalidInput(say("noise_min must be below noise_max", got=(low, high), remedy="Exchange the two"))
    if not scale * max(low, high) < 1:
        raise InvalidInput(
            say("noise_scale times noise_max must be below 1", got=scale * max(low, high), remedy="Lower noise_scale")
        )
    return scale * torch.linspace(low, high, T, dtype=torch.float64)
