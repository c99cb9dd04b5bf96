"""Samplers on Gaussian data with the ideal denoiser, where every moment is known.

A sampler is an affine map of its start and its draws as long as the denoiser is one. So its mean and covariance
follow exactly from its answers to unit impulses; Monte-Carlo only confirms them.
"""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from rediffuse.denoisers.ideal import GaussianDenoiser
from rediffuse.errors import InvalidInput
from rediffuse.noise import NoiseSchedule, cosine, linear
from rediffuse.protocols import Sampler
from rediffuse.random import PhiloxNoise
from rediffuse.samplers import (
    SAMPLERS,
    ancestral,
    ddim,
    dpmpp,
    evenly,
    heun,
    history,
    noised_history,
    pure_noise,
)
from rediffuse.types import Condition

T = 1024
MEAN = torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64)
COVARIANCE = torch.tensor([[1.0, 0.6, 0.0], [0.6, 0.5, -0.1], [0.0, -0.1, 0.3]], dtype=torch.float64)


def flow(levels: int = T) -> NoiseSchedule:
    t = torch.arange(levels + 1, dtype=torch.float64) / levels
    return NoiseSchedule(1 - t, t)


def variance_exploding(levels: int = T) -> NoiseSchedule:
    t = torch.arange(levels + 1, dtype=torch.float64) / levels
    return NoiseSchedule(torch.ones_like(t), 20 * t**3)


SCHEDULES = {
    "vp": linear(T, low=1e-4, high=0.02),
    "cosine": cosine(T),
    "ve": variance_exploding(),
    "flow": flow(),
}
DDIM_HALF = partial(ddim, eta=0.5)
WALKS: Mapping[str, Sampler] = {
    **SAMPLERS,
    "ddim eta .5": DDIM_HALF,
    "ddim eta 1": partial(ddim, eta=1.0),
    "dpmpp eta .5": partial(dpmpp, eta=0.5),
    "dpmpp eta 1": partial(dpmpp, eta=1.0),
}
FIRST_ORDER: Mapping[str, Sampler] = {"ancestral": ancestral, "ddim": ddim, "ddim eta .5": DDIM_HALF}


def marginal(schedule: NoiseSchedule, t: int) -> tuple[Tensor, Tensor]:
    """Mean and covariance of x_t."""
    alpha, sigma = schedule.alpha[t], schedule.sigma[t]
    return alpha * MEAN, alpha**2 * COVARIANCE + sigma**2 * torch.eye(3, dtype=torch.float64)


def moments(sampler: Sampler, schedule: NoiseSchedule, levels: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and covariance of what a sampler returns from x_T ~ its marginal, by unit impulses."""
    denoise = GaussianDenoiser(MEAN, COVARIANCE, schedule)
    mean, covariance = marginal(schedule, int(levels[0]))
    root = torch.linalg.cholesky(covariance)
    sources: Sequence[int] = [-1, *levels[1:].tolist()]  # the start, then the draw of each level
    rows = 1 + 3 * len(sources)
    x = mean.repeat(rows, 1)
    x[1:4] += root.t()

    def noise(t: int, like: Tensor) -> Tensor:
        out = torch.zeros_like(like)
        first = 1 + 3 * sources.index(t)
        out[first : first + 3] = torch.eye(3, dtype=torch.float64)
        return out

    answers = sampler(denoise, x, levels, schedule, noise=noise)
    impulses = answers[1:] - answers[0]
    return answers[0], impulses.t() @ impulses


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("sampler", WALKS.values(), ids=WALKS)
def test_mean_and_covariance_are_those_of_the_data(sampler: Sampler, name: str) -> None:
    schedule = SCHEDULES[name]
    mean, covariance = moments(sampler, schedule, evenly(T, 512))
    torch.testing.assert_close(mean, MEAN, rtol=0, atol=1e-12)
    torch.testing.assert_close(covariance, COVARIANCE, rtol=0, atol=0.03)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("sampler", FIRST_ORDER.values(), ids=FIRST_ORDER)
def test_the_error_of_the_covariance_falls_with_order_1(sampler: Sampler, name: str) -> None:
    errors = [
        float((moments(sampler, SCHEDULES[name], evenly(T, steps))[1] - COVARIANCE).norm()) for steps in (256, 512, T)
    ]
    orders = [math.log2(a / b) for a, b in pairwise(errors)]
    assert orders == pytest.approx([1, 1], abs=0.15), errors


@pytest.mark.parametrize("name", SCHEDULES)
def test_ddim_tends_to_the_flow_that_the_ode_prescribes(name: str) -> None:
    schedule = SCHEDULES[name]
    denoise = GaussianDenoiser(MEAN, COVARIANCE, schedule)
    generator = torch.Generator().manual_seed(1)
    x = float(schedule.sigma[T]) * torch.randn(5, 3, dtype=torch.float64, generator=generator)
    errors = [
        float((ddim(denoise, x, evenly(T, steps), schedule) - denoise.flow(x, T)).abs().max())
        for steps in (256, 512, T)
    ]
    assert errors[-1] < 0.02
    orders = [math.log2(a / b) for a, b in pairwise(errors)]
    assert orders == pytest.approx([1, 1], abs=0.2), errors


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_walk_may_end_at_any_level(name: str) -> None:
    schedule = SCHEDULES[name]
    for sampler in WALKS.values():
        mean, covariance = moments(sampler, schedule, torch.arange(T, 255, -2))
        expected = marginal(schedule, 256)
        scale = float(expected[1].diagonal().max())
        torch.testing.assert_close(mean, expected[0], rtol=0, atol=1e-10)
        torch.testing.assert_close(covariance, expected[1], rtol=0, atol=0.02 * scale)


def sampled(sampler: Sampler, n: int, steps: int) -> Tensor:
    """From pure noise."""
    schedule = SCHEDULES["vp"]
    noise = PhiloxNoise(11, torch.arange(n))
    x = pure_noise(MEAN.expand(n, 3), T, schedule, noise)
    return sampler(GaussianDenoiser(MEAN, COVARIANCE, schedule), x, evenly(T, steps), schedule, noise=noise)


def within_error(x: Tensor, mean: Tensor, covariance: Tensor) -> None:
    """Sample moments lie within five standard errors."""
    n, spread = len(x), covariance.diagonal()
    assert ((x.mean(0) - mean).abs() < 5 * (spread / n).sqrt()).all()
    error = ((torch.outer(spread, spread) + covariance**2) / n).sqrt()
    assert ((torch.cov(x.t()) - covariance).abs() < 5 * error).all()


@pytest.mark.parametrize("sampler", WALKS.values(), ids=WALKS)
def test_monte_carlo_agrees_with_the_impulses(sampler: Sampler) -> None:
    within_error(sampled(sampler, 4000, 32), *moments(sampler, SCHEDULES["vp"], evenly(T, 32)))


@pytest.mark.slow
@pytest.mark.parametrize("sampler", WALKS.values(), ids=WALKS)
def test_monte_carlo_hits_the_data(sampler: Sampler) -> None:
    within_error(sampled(sampler, 20_000, T), MEAN, COVARIANCE)


def test_without_draws_ancestral_walks_the_means() -> None:
    schedule = linear(6, low=0.01, high=0.3)
    x, answer = torch.randn(4, 3), torch.randn(4, 3)
    found = ancestral(lambda x, t, cond=None: answer, x, torch.tensor([6, 2]), schedule, noise=None)
    a = schedule.alpha[6] / schedule.alpha[2]
    kept = float(a * schedule.sigma[2] ** 2 / schedule.sigma[6] ** 2)
    rest = float(schedule.alpha[2] * (1 - a**2 * schedule.sigma[2] ** 2 / schedule.sigma[6] ** 2))
    torch.testing.assert_close(found, kept * x + rest * answer)


@pytest.mark.parametrize("sampler", WALKS.values(), ids=WALKS)
def test_the_last_step_is_the_answer_itself(sampler: Sampler) -> None:
    schedule, answer = linear(6, low=0.01, high=0.3), torch.randn(4, 2, 3)
    for levels in ([6, 0], [1, 0], [6, 5, 3, 0]):
        x = torch.randn(4, 2, 3)
        kept = x.clone()
        noise = PhiloxNoise(1, torch.arange(4))
        found = sampler(lambda x, t, cond=None: answer, x, torch.tensor(levels), schedule, noise=noise)
        assert torch.equal(found, answer)
        assert torch.equal(x, kept)


@pytest.mark.parametrize("sampler", WALKS.values(), ids=WALKS)
def test_without_noise_the_denoiser_is_repeated(sampler: Sampler) -> None:
    x = torch.randn(4, 3)
    noise = PhiloxNoise(1, torch.arange(4))
    found = sampler(lambda x, t, cond=None: 2 * x, x, evenly(5), NoiseSchedule.clean(5), noise=noise)
    torch.testing.assert_close(found, 32 * x)


@pytest.mark.parametrize("sampler", WALKS.values(), ids=WALKS)
def test_every_step_is_shown_and_the_denoiser_gets_level_and_condition(sampler: Sampler) -> None:
    schedule = linear(6, low=0.01, high=0.3)
    seen: list[tuple[int, Tensor, Tensor]] = []
    levels: list[list[int]] = []
    marker = Condition({}, {})

    def denoise(x: Tensor, t: Tensor, cond: Condition | None = None) -> Tensor:
        assert cond is marker
        levels.append(t.tolist())
        return x / 2

    x = torch.randn(2, 3)
    sampler(
        denoise,
        x,
        torch.tensor([6, 4, 1]),
        schedule,
        cond=marker,
        noise=None,
        on_step=lambda t, x, x0: seen.append((t, x, x0)),
    )
    trials = sampler is heun
    assert levels == ([[6, 6], [4, 4], [4, 4], [1, 1]] if trials else [[6, 6], [4, 4]])
    assert [t for t, _, _ in seen] == [6, 4]
    assert torch.equal(seen[0][1], x)
    # Nothing that was shown is changed in place afterwards.
    assert all(torch.equal(x0, x_t / 2) for _, x_t, x0 in seen)


@pytest.mark.parametrize("sampler", WALKS.values(), ids=WALKS)
@pytest.mark.parametrize("levels", [[3, 3, 0], [1, 2], [2, 0, -1]])
def test_levels_that_do_not_fall_are_refused(sampler: Sampler, levels: list[int]) -> None:
    with pytest.raises(InvalidInput, match="Levels must strictly fall to 0 or above"):
        sampler(lambda x, t, cond=None: x, torch.zeros(1, 1), torch.tensor(levels), flow(4), noise=None)


def test_a_single_level_is_no_walk() -> None:
    x = torch.randn(2, 2)
    for sampler in WALKS.values():
        assert torch.equal(sampler(lambda x, t, cond=None: 0 * x, x, torch.tensor([3]), flow(4), noise=None), x)


def test_starts() -> None:
    schedule, x = linear(6, low=0.01, high=0.3), torch.randn(4, 3)
    noise = PhiloxNoise(1, torch.arange(4))
    z = noise(6, x)
    alpha, sigma = float(schedule.alpha[6]), float(schedule.sigma[6])
    assert torch.equal(history(x, 6, schedule, noise), x)
    torch.testing.assert_close(noised_history(x, 6, schedule, noise), alpha * x + sigma * z)
    torch.testing.assert_close(pure_noise(x, 6, schedule, noise), sigma * z)


def test_the_oracle_is_the_conditional_mean() -> None:
    """Against conditioning the joint Gaussian of x_0 and x_t; a singular covariance and a clean level are fine."""
    singular = torch.outer(MEAN, MEAN)
    x = torch.randn(4, 3, dtype=torch.float64)
    for covariance in (COVARIANCE, singular):
        denoise = GaussianDenoiser(MEAN, covariance, SCHEDULES["vp"])
        t = torch.tensor([1, 10, 500, T])
        for row, level in enumerate(t.tolist()):
            alpha, sigma = SCHEDULES["vp"].alpha[level], SCHEDULES["vp"].sigma[level]
            joint = alpha**2 * covariance + sigma**2 * torch.eye(3, dtype=torch.float64)
            expected = MEAN + alpha * covariance @ torch.linalg.solve(joint, x[row] - alpha * MEAN)
            torch.testing.assert_close(denoise(x, t)[row], expected, rtol=1e-8, atol=1e-10)
    clean = GaussianDenoiser(MEAN, COVARIANCE, NoiseSchedule.clean(2))
    torch.testing.assert_close(clean(x, torch.tensor([1, 2, 2, 1])), x)
    torch.testing.assert_close(clean.flow(x, 2), x)
