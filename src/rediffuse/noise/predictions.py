"""What a network may predict, and the one wrapper that makes a denoiser of it.

    eps:  x_0 = (x_t - sigma eps) / alpha
    v  = alpha eps - sigma x_0:   x_0 = (alpha x_t - sigma v) / (alpha^2 + sigma^2)

Reference: Ho et al. 2020, eq. 15 (eps); Salimans & Ho 2022, section 4 and appendix D (x_0, v).
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from rediffuse.errors import InvalidConfig, unknown
from rediffuse.noise.process import at_level
from rediffuse.protocols import Denoiser, Schedule
from rediffuse.types import Condition

Formula = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


class Prediction(NamedTuple):
    """How one kind of prediction and x_0 give each other; each formula takes (x_t, value, alpha, sigma)."""

    to_x0: Formula
    from_x0: Formula


def _same(_x_t: Tensor, value: Tensor, _alpha: Tensor, _sigma: Tensor) -> Tensor:
    return value


def _x0_of_eps(x_t: Tensor, eps: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    return (x_t - sigma * eps) / alpha


def _eps_of_x0(x_t: Tensor, x0: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    return (x_t - alpha * x0) / sigma


def _x0_of_v(x_t: Tensor, v: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    return (alpha * x_t - sigma * v) / (alpha**2 + sigma**2)


def _v_of_x0(x_t: Tensor, x0: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    return (alpha * x_t - (alpha**2 + sigma**2) * x0) / sigma


PREDICTIONS: Mapping[str, Prediction] = {
    "x0": Prediction(to_x0=_same, from_x0=_same),
    "eps": Prediction(to_x0=_x0_of_eps, from_x0=_eps_of_x0),
    "v": Prediction(to_x0=_x0_of_v, from_x0=_v_of_x0),
}


def gain(prediction: str, schedule: Schedule) -> Tensor:
    """By how much an error of the prediction grows in x_0 at each level, without its sign, (T+1,) float64."""
    zero, one = torch.zeros_like(schedule.alpha), torch.ones_like(schedule.alpha)
    to_x0 = _found(prediction).to_x0
    return (to_x0(zero, one, schedule.alpha, schedule.sigma) - to_x0(zero, zero, schedule.alpha, schedule.sigma)).abs()


def target(prediction: str, x_t: Tensor, x0: Tensor, t: Tensor, schedule: Schedule) -> Tensor:
    """What the network is to answer. Args: x_t, x0: (B, *D).   t: (B,) levels with noise. Returns: (B, *D)."""
    return _found(prediction).from_x0(x_t, x0, at_level(schedule.alpha, t, x_t), at_level(schedule.sigma, t, x_t))


def _found(prediction: str) -> Prediction:
    if prediction not in PREDICTIONS:
        raise InvalidConfig(unknown("prediction", prediction, PREDICTIONS))
    return PREDICTIONS[prediction]


def as_denoiser(network: Denoiser, prediction: str, schedule: Schedule) -> Denoiser:
    """Turn a network that predicts `prediction` into one that estimates x_0.

    Args: network: (x_t (B, *D), t (B,), cond) -> (B, *D).   prediction: x0, eps or v.
    Raises: InvalidConfig for another name.
    """
    to_x0 = _found(prediction).to_x0

    def denoise(x_t: Tensor, t: Tensor, cond: Condition | None = None) -> Tensor:
        alpha, sigma = at_level(schedule.alpha, t, x_t), at_level(schedule.sigma, t, x_t)
        return to_x0(x_t, network(x_t, t, cond), alpha, sigma)

    return network if prediction == "x0" else denoise
