"""Schedules against the printed figures of the DiffRec specification, and what every table must keep."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rediffuse.errors import InvalidInput
from rediffuse.noise import (
    SCHEDULES,
    NoiseSchedule,
    binomial,
    cosine,
    exponential,
    linear,
    linear_variance,
    snr,
    sqrt,
    truncated_linear,
)
from rediffuse.noise.process import posterior_weights
from rediffuse.training.levels import loss_weights

# levels, scale, low, high, first beta | std 1, T | snr 1, T | weight 2, T | weights of x_0 and x_t in the mean at T
RELEASED = {
    "amazon clean": (5, 1e-4, 5e-4, 5e-3, 1e-5, 0.00316228, 0.00323265, 99999, 95692.82, 1112.474, 1041.398, 0.010766, 0.989234),
    "yelp clean": (5, 0.01, 0.001, 0.01, 1e-5, 0.00316228, 0.0100000, 99999, 9999, 69230.77, 2903.226, 0.225009, 0.774991),
    "ml-1m clean": (40, 0.005, 0.005, 0.01, 1e-5, 0.00316228, 0.00591611, 99999, 28570.12, 6024.181, 533.0457, 0.018315, 0.981685),
    "amazon noisy": (10, 0.005, 1e-4, 5e-4, 1e-5, 0.00316228, 0.00346410, 99999, 83332.47, 2173.893, 1572.317, 0.018518, 0.981482),
    "yelp noisy": (5, 0.001, 5e-4, 0.01, 1e-5, 0.00316228, 0.00441587, 99999, 51281.29, 19191.77, 7112.103, 0.121795, 0.878205),
    "ml-1m noisy": (5, 0.5, 0.001, 0.01, 1e-5, 0.00316228, 0.0671730, 99999, 220.6211, 99119.37, 73.65556, 0.249869, 0.750130),
    "t amazon clean": (10, 5e-4, 0.001, 0.005, 1e-5, 0.00316228, 0.00346410, 99999, 83332.47, 2173.893, 1572.317, 0.018518, 0.981482),
    "t yelp clean": (5, 0.005, 0.001, 0.01, 1e-5, 0.00316228, 0.00741618, 99999, 18180.89, 52941.05, 4675.338, 0.204550, 0.795450),
    "l amazon": (5, 0.5, 0.001, 0.005, None, 0.0223607, 0.0500000, 1999, 399, 1000, 100, 0.200200, 0.799800),
    "l yelp": (5, 0.01, 0.005, 0.01, None, 0.00707107, 0.0100000, 19999, 9999, 4000, 1428.571, 0.125005, 0.874995),
    "l ml-1m clean": (40, 0.005, 0.005, 0.02, None, 0.00500000, 0.0100000, 39999, 9999, 2857.143, 196.0784, 0.019232, 0.980768),
    "l ml-1m noisy": (100, 0.005, 0.005, 0.02, None, 0.00500000, 0.0100000, 39999, 9999, 1176.471, 76.33588, 0.007576, 0.992424),
    "lt amazon clean": (5, 0.7, 0.001, 0.005, None, 0.0264575, 0.0591608, 1427.571, 284.7143, 714.2857, 71.42857, 0.200281, 0.799719),
}  # fmt: skip


@pytest.mark.parametrize("name", RELEASED)
def test_released_settings(name: str) -> None:
    T, scale, low, high, first, *golden = RELEASED[name]
    schedule = linear_variance(T, scale=scale, low=low, high=high, first_beta=first)
    ratio, weight = snr(schedule), loss_weights(schedule, "elbo")
    w_xt, w_x0, _ = posterior_weights(schedule, T, T - 1)
    # Printed with six significant digits, seven, and six places after the point.
    assert [float(schedule.sigma[1]), float(schedule.sigma[T])] == pytest.approx(golden[:2], rel=2.5e-6)
    assert [float(v) for v in (ratio[1], ratio[T], weight[2], weight[T])] == pytest.approx(golden[2:6], rel=1e-6)
    assert [float(w_x0), float(w_xt)] == pytest.approx(golden[6:], rel=0, abs=0.51e-6)


def rows(schedule: NoiseSchedule) -> dict[str, list[float]]:
    levels = torch.arange(1, schedule.T + 1)
    w_xt, w_x0, variance = posterior_weights(schedule, levels, levels - 1)
    abar = schedule.alpha**2
    return {
        "beta": (1 - abar[1:] / abar[:-1]).tolist(),
        "variance": (schedule.sigma[1:] ** 2).tolist(),
        "snr": snr(schedule)[1:].tolist(),
        "weight": loss_weights(schedule, "elbo")[1:].tolist(),
        "c1": w_x0.tolist(),
        "c2": w_xt.tolist(),
        "var": variance.tolist(),
    }


def test_every_level_of_ml_1m_noisy() -> None:
    found = rows(linear_variance(5, scale=0.5, low=0.001, high=0.01, first_beta=1e-5))
    golden = {
        "beta": [1e-5, 0.001125562781, 0.001126831101, 0.001128102281, 0.001129376333],
        "variance": [1e-5, 0.001135551526, 0.002261103052, 0.003386654577, 0.004512206103],
        "snr": [99999, 879.6293482, 441.2620187, 294.2766446, 220.6210823],
        "weight": [1, 99119.37065, 438.3673295, 146.9853741, 73.65556233],
        "c1": [1, 0.9911986625, 0.4980715632, 0.332725454, 0.2498694168],
        "c2": [0, 0.008801336069, 0.5019282767, 0.6672742266, 0.750130104],
        "var": [0, 9.912036185e-06, 5.659073233e-04, 7.531785284e-04, 8.47657984e-04],
    }
    for name, expected in golden.items():
        assert found[name] == pytest.approx(expected, rel=1e-6), name


def test_every_level_of_yelp_clean() -> None:
    found = rows(linear_variance(5, scale=0.01, low=0.001, high=0.01, first_beta=1e-5))
    assert found["variance"] == pytest.approx([1e-5, 3.25e-5, 5.5e-5, 7.75e-5, 1e-4], rel=1e-6)
    assert found["weight"] == pytest.approx([1, 69230.76923, 12587.41259, 5278.592375, 2903.225806], rel=1e-6)
    assert found["c1"] == pytest.approx([1, 0.6923111539, 0.409097557, 0.2903305648, 0.2250087193], rel=1e-6)


def test_cosine_and_binomial() -> None:
    five = rows(cosine(5))
    assert five["beta"][0] == pytest.approx(0.1012940794, rel=1e-6)
    assert five["beta"][2] == pytest.approx(0.4736353534, rel=1e-6)
    assert five["beta"][4] == pytest.approx(0.999, rel=1e-9)
    assert float(cosine(5).alpha[5]) ** 2 == pytest.approx(9.404561268e-05, rel=1e-6)
    assert rows(cosine(40))["beta"][0] == pytest.approx(0.002487165448, rel=1e-6)
    assert rows(binomial(5))["beta"] == pytest.approx([1 / 6, 1 / 5, 1 / 4, 1 / 3, 1 / 2], rel=1e-12)
    assert float(binomial(5).alpha[5]) ** 2 == pytest.approx(1 / 6, rel=1e-12)


def test_linear_against_the_figures_of_image_models() -> None:
    assert float(linear(1000, low=1e-4, high=0.02).alpha[-1]) ** 2 == pytest.approx(4.035829765e-05, rel=1e-9)
    assert float(linear(500, low=1e-4, high=0.02).alpha[-1]) ** 2 == pytest.approx(0.006352710797, rel=1e-9)
    assert rows(linear(3, scale=0.5, low=0.1, high=0.3))["beta"] == pytest.approx([0.05, 0.1, 0.15], rel=1e-12)


def test_figures_of_dreamrec_and_preferdiff() -> None:
    assert float(linear(2000, low=1e-4, high=0.02).alpha[-1]) ** 2 == pytest.approx(1.628847e-09, rel=1e-6)
    found = exponential(500)
    assert rows(found)["beta"][::499] == pytest.approx([2.197758457e-4, 0.01982073443], rel=1e-9)
    assert float(found.alpha[-1]) ** 2 == pytest.approx(0.006346194101, rel=1e-9)
    found = SCHEDULES["clipped_cosine"](2000)
    assert [round(beta / 1e-4, 9) == 1 for beta in rows(found)["beta"]] == [True] * 66 + [False] * 1934
    assert float(found.alpha[1000]) ** 2 == pytest.approx(0.4925263707, rel=1e-9)
    assert float(found.alpha[2000]) ** 2 == pytest.approx(6.055725e-11, rel=1e-6)
    assert rows(sqrt(500))["beta"][0] == pytest.approx(0.03618763328, rel=1e-9)
    assert rows(sqrt(500))["beta"][-1] == pytest.approx(0.999, rel=1e-9)


def test_the_bounds_of_cosine_are_values() -> None:
    bounded = rows(cosine(5, least=0.2, most=0.5))["beta"]
    assert bounded == pytest.approx([min(max(beta, 0.2), 0.5) for beta in rows(cosine(5))["beta"]], rel=1e-12)
    with pytest.raises(InvalidInput, match="Every beta must lie in"):
        cosine(5, most=1.0)


def test_figures_of_diffurec() -> None:
    found = truncated_linear(32)
    assert rows(found)["beta"][::31] == pytest.approx([0.013125, 0.635], rel=1e-12)
    assert float(found.alpha[-1]) ** 2 == pytest.approx(9.901299e-07, rel=1e-6)


@pytest.mark.parametrize(
    ("T", "first", "last"), [(1, 0.11, 0.11), (2, 0.06, 0.51), (20, 0.015, 0.06), (21, 0.1 / 21 + 0.01, 20 / 21 + 0.01)]
)
def test_with_few_levels_the_line_of_diffurec_ends_lower(T: int, first: float, last: float) -> None:
    beta = rows(truncated_linear(T))["beta"]
    assert [beta[0], beta[-1]] == pytest.approx([first, last], rel=1e-12)


def test_without_override_the_variance_is_the_prescribed_line() -> None:
    schedule = linear_variance(40, scale=0.005, low=0.005, high=0.02)
    line = 0.005 * torch.linspace(0.005, 0.02, 40, dtype=torch.float64)
    torch.testing.assert_close(schedule.sigma[1:] ** 2, line, rtol=1e-10, atol=0)


@given(
    st.sampled_from(sorted(SCHEDULES)),
    st.integers(1, 60),
    st.floats(1e-4, 1),
    st.floats(1e-4, 0.4),
    st.floats(0.41, 0.9),
)
def test_every_table_keeps_its_word(name: str, T: int, scale: float, low: float, high: float) -> None:
    schedule = SCHEDULES[name](T, scale=scale, low=low, high=high)
    assert schedule.alpha.dtype == schedule.sigma.dtype == torch.float64
    assert schedule.T == T
    assert schedule.noisy
    assert float(schedule.alpha[0]) == 1
    assert float(schedule.sigma[0]) == 0
    torch.testing.assert_close(schedule.alpha**2 + schedule.sigma**2, torch.ones(T + 1, dtype=torch.float64))
    assert (snr(schedule)[1:].diff() < 0).all()
    assert torch.isinf(snr(schedule)[0])


@pytest.mark.parametrize("schedule", SCHEDULES.values())
def test_one_level(schedule) -> None:
    found = schedule(1, scale=0.1, low=0.01, high=0.001)
    assert found.T == 1
    assert [float(w) for w in posterior_weights(found, 1, 0)] == [0, 1, 0]
    assert loss_weights(found, "elbo").tolist() == [1, 1]
    assert float(linear_variance(1, scale=0.1, low=0.01, high=0.02, first_beta=1e-5).sigma[1]) == pytest.approx(
        math.sqrt(1e-5)
    )


@pytest.mark.parametrize("schedule", [linear, linear_variance])
def test_no_noise_at_all(schedule) -> None:
    found = schedule(7, scale=0, low=0.01, high=0.001)
    assert not found.noisy
    assert found.T == 7
    assert torch.equal(found.alpha, torch.ones(8, dtype=torch.float64))
    assert torch.equal(found.sigma, torch.zeros(8, dtype=torch.float64))


@pytest.mark.parametrize("schedule", [linear, linear_variance])
def test_exchanged_ends_are_refused_in_a_sentence(schedule) -> None:
    with pytest.raises(InvalidInput, match=r"noise_min must be below noise_max\. Got \(0\.01, 0\.001\)\. Exchange"):
        schedule(5, scale=0.1, low=0.01, high=0.001)


def test_a_table_that_is_none_is_refused() -> None:
    one, two = (torch.tensor(values, dtype=torch.float64) for values in ([1.0, 0.9], [1.0, 0.9, 0.8]))
    zero = torch.tensor([0.0, 0.1], dtype=torch.float64)
    for alpha, sigma in ((one, zero.float()), (one.float(), zero.float()), (two, zero), (one[:1], zero[:1])):
        with pytest.raises(InvalidInput, match="float64 tables of one length"):
            NoiseSchedule(alpha, sigma)
    with pytest.raises(InvalidInput, match=r"Level 0 must be clean\. Got \(0\.9, 0\.0\)"):
        NoiseSchedule(one.flip(0), zero)
    with pytest.raises(InvalidInput, match="Level 0 must be clean"):
        NoiseSchedule(one, zero + 0.1)
    for sigma in ([0.0, 0.2, 0.1], [0.0, 0.1, 0.0], [0.0, 0.1, math.nan]):
        with pytest.raises(InvalidInput, match="must strictly fall"):
            NoiseSchedule(two, torch.tensor(sigma, dtype=torch.float64))
    for beta in ([0.1, 1.0], [0.0, 0.1], [math.nan]):
        with pytest.raises(InvalidInput, match="Every beta must lie in"):
            NoiseSchedule.from_betas(torch.tensor(beta, dtype=torch.float64))


def test_tiny_noise_keeps_its_digits() -> None:
    beta = torch.full((3,), 1e-12, dtype=torch.float64)
    assert (NoiseSchedule.from_betas(beta).sigma[1:] ** 2).tolist() == pytest.approx([1e-12, 2e-12, 3e-12], rel=1e-11)
