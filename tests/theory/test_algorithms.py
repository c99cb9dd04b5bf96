"""The steps of the samplers against the algorithms as their papers write them, and the ends of eta."""

import math
from collections.abc import Callable
from functools import partial
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from rediffuse.errors import InvalidInput
from rediffuse.noise import cosine, linear
from rediffuse.noise.schedules import SCHEDULES
from rediffuse.random import PhiloxNoise
from rediffuse.samplers import ancestral, ddim, dpmpp, evenly, heun
from rediffuse.types import Condition

T = 200
WithEta = Callable[..., Tensor]


def tanh(x: Tensor, t: Tensor, cond: Condition | None = None) -> Tensor:
    """A curved denoiser that depends on the level."""
    return torch.tanh(x * (1 + t / 10).to(x).unsqueeze(1))


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("steps", [1, 7, T])
def test_ddim_with_all_noise_is_ancestral(name: str, steps: int) -> None:
    schedule, noise = SCHEDULES[name](T, low=1e-3, high=0.3), PhiloxNoise(3, torch.arange(5))
    x = torch.randn(5, 3, dtype=torch.float64)
    ends = [walk(tanh, x, evenly(T, steps), schedule, noise=noise) for walk in (partial(ddim, eta=1.0), ancestral)]
    torch.testing.assert_close(*ends, rtol=0, atol=1e-10)


@pytest.mark.parametrize("sampler", [ddim, dpmpp])
def test_without_noise_or_without_eta_nothing_is_drawn(sampler: WithEta) -> None:
    schedule, x = cosine(T), torch.randn(5, 3)
    ends = [
        sampler(tanh, x, evenly(T, 9), schedule, noise=noise, eta=eta)
        for eta, noise in ((0.0, None), (0.7, None), (0.0, PhiloxNoise(3, torch.arange(5))))
    ]
    assert torch.equal(ends[0], ends[1])
    assert torch.equal(ends[0], ends[2])


@pytest.mark.parametrize("eta", [-0.1, 1.01, math.nan])
@pytest.mark.parametrize("sampler", [ddim, dpmpp])
def test_an_eta_out_of_range_is_refused(sampler: WithEta, eta: float) -> None:
    with pytest.raises(InvalidInput, match=r"eta must be 0\.\.1\. Got"):
        sampler(tanh, torch.zeros(1, 1), evenly(4), cosine(4), noise=None, eta=eta)


def test_heun_is_the_algorithm_of_the_paper() -> None:
    """Karras et al. 2022, algorithm 1, literally, over sigma / alpha of a schedule that scales."""
    schedule = linear(6, low=0.01, high=0.3)
    start = torch.randn(4, 3, dtype=torch.float64)
    y, rho = start / schedule.alpha[6], schedule.sigma / schedule.alpha
    for t, s in pairwise((6, 4, 3, 0)):
        d = (y - tanh(schedule.alpha[t] * y, torch.full((4,), t))) / rho[t]
        end = y + (rho[s] - rho[t]) * d
        if s > 0:
            d_end = (end - tanh(schedule.alpha[s] * end, torch.full((4,), s))) / rho[s]
            end = y + (rho[s] - rho[t]) * (d / 2 + d_end / 2)
        y = end
    found = heun(tanh, start, torch.tensor([6, 4, 3, 0]), schedule)
    torch.testing.assert_close(found, y, rtol=0, atol=1e-12)


@pytest.mark.parametrize("eta", [0, 1])
def test_dpmpp_is_the_algorithm_of_the_paper(eta: int) -> None:
    """Lu et al. 2022 (DPM-Solver++), algorithm 2 and its SDE variant, literally."""
    schedule, noise = linear(6, low=0.01, high=0.3), PhiloxNoise(1, torch.arange(4))
    x = start = torch.randn(4, 3, dtype=torch.float64)
    walk, answers = (6, 5, 3, 2), []
    rate = (schedule.alpha / schedule.sigma).log()
    for i, (t, s) in enumerate(pairwise(walk)):
        answers.append(tanh(x, torch.full((4,), t)))
        h = rate[s] - rate[t]
        ahead = answers[i]
        if i > 0:
            r = (rate[t] - rate[walk[i - 1]]) / h
            ahead = (1 + 1 / (2 * r)) * answers[i] - 1 / (2 * r) * answers[i - 1]
        x = schedule.sigma[s] / schedule.sigma[t] * torch.exp(-eta * h) * x
        x = x + schedule.alpha[s] * (1 - torch.exp(-(1 + eta) * h)) * ahead
        if eta:
            x = x + schedule.sigma[s] * (1 - torch.exp(-2 * h)).sqrt() * noise(s, x)
    found = dpmpp(tanh, start, torch.tensor(walk), schedule, noise=noise, eta=float(eta))
    torch.testing.assert_close(found, x, rtol=0, atol=1e-12)
