"""How fast samplers tend to what they approximate: the slope of the error in the number of steps, both in logarithms.

An order shows where a walk is smooth in its own coordinate. Levels even in lambda = log(alpha / sigma) make every step
alike; such a walk ends above level 0, and the flow carries both what it reached and what it should have reached to x_0.
"""

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from rediffuse.denoisers.ideal import GaussianDenoiser
from rediffuse.noise import NoiseSchedule
from rediffuse.protocols import Sampler
from rediffuse.samplers import ddim, dpmpp, evenly, heun

T = 961
MEAN = torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64)
COVARIANCE = torch.tensor([[1.0, 0.6, 0.0], [0.6, 0.5, -0.1], [0.0, -0.1, 0.3]], dtype=torch.float64)
ORDERS: Sequence[tuple[Sampler, int]] = [(ddim, 1), (heun, 2), (dpmpp, 2)]


def even_in_lambda() -> NoiseSchedule:
    """alpha^2 + sigma^2 = 1, lambda = 3 .. -3 evenly over the levels 1 .. T."""
    rate = torch.linspace(3, -3, T, dtype=torch.float64)
    clean = torch.ones(1, dtype=torch.float64)
    return NoiseSchedule(
        torch.cat((clean, torch.sigmoid(2 * rate).sqrt())), torch.cat((0 * clean, torch.sigmoid(-2 * rate).sqrt()))
    )


def variance_exploding() -> NoiseSchedule:
    """Alpha = 1, sigma = 20 (t / T)^3: steps that shrink towards level 0, as those of Karras et al. 2022 (rho = 3)."""
    t = torch.arange(T + 1, dtype=torch.float64) / T
    return NoiseSchedule(torch.ones_like(t), 20 * t**3)


def slope(steps: Sequence[int], error: Callable[[int], float]) -> float:
    """- d log(error) / d log(steps), by least squares."""
    n = torch.tensor(steps, dtype=torch.float64).log()
    e = torch.tensor([error(count) for count in steps], dtype=torch.float64).log()
    n = n - n.mean()
    return -float((n * e).sum() / (n * n).sum())


def start(schedule: NoiseSchedule) -> Tensor:
    """States at level T."""
    z = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return float(schedule.alpha[T]) * MEAN + float(schedule.sigma[T]) * z


@pytest.mark.parametrize(("sampler", "order"), ORDERS)
def test_orders_on_steps_even_in_lambda(sampler: Sampler, order: int) -> None:
    schedule = even_in_lambda()
    ideal, x = GaussianDenoiser(MEAN, COVARIANCE, schedule), start(schedule)

    def error(steps: int) -> float:
        reached = sampler(ideal, x, 1 + evenly(T - 1, steps), schedule, noise=None)
        return float((ideal.flow(reached, 1) - ideal.flow(x, T)).norm())

    assert slope([40, 80, 160, 320], error) == pytest.approx(order, abs=0.15)


@pytest.mark.parametrize(("sampler", "order"), ORDERS)
def test_orders_of_whole_walks(sampler: Sampler, order: int) -> None:
    """Down to level 0, with the first-order steps at both ends."""
    schedule = variance_exploding()
    ideal, x = GaussianDenoiser(MEAN, COVARIANCE, schedule), start(schedule)

    def error(steps: int) -> float:
        return float((sampler(ideal, x, evenly(T, steps), schedule, noise=None) - ideal.flow(x, T)).norm())

    assert slope([120, 240, 480, 960], error) == pytest.approx(order, abs=0.15)
