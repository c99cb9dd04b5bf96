"""The one posterior against conditioning a joint Gaussian, for every kind of table."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rediffuse.noise import NoiseSchedule, add_noise, cosine, linear, linear_variance, posterior, snr
from rediffuse.noise.process import at_level, posterior_weights


def variance_exploding(T: int = 12) -> NoiseSchedule:
    sigma = torch.cat((torch.zeros(1, dtype=torch.float64), torch.logspace(-2, 1.5, T, dtype=torch.float64)))
    return NoiseSchedule(torch.ones(T + 1, dtype=torch.float64), sigma)


def flow(T: int = 12) -> NoiseSchedule:
    t = torch.arange(T + 1, dtype=torch.float64) / T
    return NoiseSchedule(1 - t, t)


TABLES = {
    "vp linear": linear(12, low=1e-3, high=0.3),
    "vp cosine": cosine(12),
    "vp diffrec": linear_variance(12, scale=0.5, low=0.001, high=0.01, first_beta=1e-5),
    "ve": variance_exploding(),
    "flow": flow(),
}


def conditioned(schedule: NoiseSchedule, t: int, s: int, x_t: float, x0: float) -> tuple[float, float]:
    """x_s | x_t, x_0 by the Schur complement of Cov(x_s, x_t | x_0), each a linear map of independent draws."""
    alpha, sigma = schedule.alpha.numpy(), schedule.sigma.numpy()
    a = alpha[t] / alpha[s]
    maps = np.array([[sigma[s], 0.0], [a * sigma[s], np.sqrt(sigma[t] ** 2 - a**2 * sigma[s] ** 2)]])
    cov = maps @ maps.T
    gain = cov[0, 1] / cov[1, 1]
    return alpha[s] * x0 + gain * (x_t - alpha[t] * x0), cov[0, 0] - gain * cov[1, 0]


@pytest.mark.parametrize("name", TABLES)
def test_posterior_is_that_of_the_joint_gaussian(name: str) -> None:
    schedule = TABLES[name]
    x_t, x0 = torch.tensor([[1.7]], dtype=torch.float64), torch.tensor([[-0.4]], dtype=torch.float64)
    for t in range(1, schedule.T + 1):
        for s in range(t):
            mean, variance = posterior(x_t, x0, torch.tensor([t]), torch.tensor([s]), schedule)
            expected = conditioned(schedule, t, s, 1.7, -0.4)
            assert (float(mean), float(variance)) == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("name", TABLES)
def test_the_walk_through_a_middle_level_is_the_direct_one(name: str) -> None:
    """x_t -> x_s -> x_r by posteriors with the same x_0 has the mean and variance of x_t -> x_r."""
    schedule = TABLES[name]
    t, s, r = 11, 7, 3
    first, second, direct = (posterior_weights(schedule, *pair) for pair in ((t, s), (s, r), (t, r)))
    assert float(second[0] * first[0]) == pytest.approx(float(direct[0]), rel=1e-9)
    assert float(second[0] * first[1] + second[1]) == pytest.approx(float(direct[1]), rel=1e-9)
    assert float(second[0] ** 2 * first[2] + second[2]) == pytest.approx(float(direct[2]), rel=1e-9)


@pytest.mark.parametrize("name", [*TABLES, "none"])
def test_level_0_gives_x0_exactly(name: str) -> None:
    schedule = TABLES.get(name) or NoiseSchedule.clean(12)
    for t in range(1, 13):
        assert [float(w) for w in posterior_weights(schedule, t, 0)] == [0, 1, 0]
    x = torch.randn(2, 3)
    mean, variance = posterior(torch.randn(2, 3), x, torch.tensor([1, 12]), torch.tensor([0, 0]), schedule)
    assert torch.equal(mean, x)
    assert torch.equal(variance, torch.zeros(2, 1))


def test_without_noise_every_level_gives_x0() -> None:
    schedule = NoiseSchedule.clean(4)
    assert not schedule.noisy
    assert torch.isinf(snr(schedule)).all()
    for t in range(1, 5):
        for s in range(t):
            assert [float(w) for w in posterior_weights(schedule, t, s)] == [0, 1, 0]
    x = torch.randn(3, 2)
    assert torch.equal(add_noise(x, torch.tensor(3), torch.randn(3, 2), schedule), x)


def test_levels_may_differ_by_row_and_values_have_any_shape() -> None:
    schedule = TABLES["vp linear"]
    x0, eps = torch.randn(4, 3, 2), torch.randn(4, 3, 2)
    t = torch.tensor([0, 1, 7, 12])
    x_t = add_noise(x0, t, eps, schedule)
    assert x_t.dtype == torch.float32
    assert torch.equal(x_t[0], x0[0])
    for row, level in enumerate(t.tolist()):
        alone = add_noise(x0[row : row + 1], torch.tensor(level), eps[row : row + 1], schedule)
        assert torch.equal(alone[0], x_t[row])
    mean, variance = posterior(x_t[1:], x0[1:], t[1:], t[1:] - 1, schedule)
    assert mean.shape == (3, 3, 2)
    assert variance.shape == (3, 1, 1)
    assert at_level(schedule.alpha, torch.tensor(3), x0).shape == ()


@given(st.sampled_from(sorted(TABLES)), st.integers(1, 12), st.data())
def test_posterior_variance_lies_between_0_and_that_of_x_s(name: str, t: int, data: st.DataObject) -> None:
    schedule = TABLES[name]
    s = data.draw(st.integers(0, t - 1))
    w_xt, w_x0, variance = (float(w) for w in posterior_weights(schedule, t, s))
    assert 0 <= variance <= float(schedule.sigma[s]) ** 2
    assert w_xt >= 0
    assert w_x0 >= 0
    # The mean of x_s, averaged over x_t given x_0, is alpha_s x_0.
    assert w_xt * float(schedule.alpha[t]) + w_x0 == pytest.approx(float(schedule.alpha[s]), rel=1e-9)


def test_noised_values_have_the_stated_moments() -> None:
    schedule = TABLES["vp linear"]
    generator = torch.Generator().manual_seed(0)
    eps = torch.randn(200_000, 1, dtype=torch.float64, generator=generator)
    x_t = add_noise(torch.full_like(eps, 2.0), torch.tensor(6), eps, schedule)
    alpha, sigma = float(schedule.alpha[6]), float(schedule.sigma[6])
    assert float(x_t.mean()) == pytest.approx(2 * alpha, abs=5 * sigma / 200_000**0.5)
    assert float(x_t.var()) == pytest.approx(sigma**2, rel=5 * (2 / 200_000) ** 0.5)
