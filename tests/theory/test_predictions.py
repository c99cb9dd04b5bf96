"""x_0, eps and v give each other."""

from collections.abc import Mapping
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rediffuse.denoisers.ideal import GaussianDenoiser
from rediffuse.errors import InvalidConfig
from rediffuse.noise import PREDICTIONS, NoiseSchedule, add_noise, as_denoiser, cosine, linear
from rediffuse.noise.process import at_level
from rediffuse.protocols import Denoiser, Sampler
from rediffuse.random import PhiloxNoise
from rediffuse.samplers import SAMPLERS, ddim, dpmpp, evenly, pure_noise
from rediffuse.types import Condition

T = 10
FLOW = NoiseSchedule(
    1 - torch.arange(T + 1, dtype=torch.float64) / (T + 1), torch.arange(T + 1, dtype=torch.float64) / (T + 1)
)
SCHEDULES = {"linear": linear(T, low=0.01, high=0.2), "cosine": cosine(T), "flow": FLOW}
WALKS: Mapping[str, Sampler] = {
    **SAMPLERS,
    "ddim eta .5": partial(ddim, eta=0.5),
    "dpmpp eta 1": partial(dpmpp, eta=1.0),
}


@given(
    st.sampled_from(sorted(PREDICTIONS)),
    st.sampled_from(sorted(SCHEDULES)),
    st.integers(1, T),
    st.integers(0, 2**32 - 1),
)
def test_round_trip(prediction: str, name: str, level: int, seed: int) -> None:
    schedule, generator = SCHEDULES[name], torch.Generator().manual_seed(seed)
    x0, eps = (torch.randn(3, 4, dtype=torch.float64, generator=generator) for _ in range(2))
    t = torch.full((3,), level)
    x_t = add_noise(x0, t, eps, schedule)
    alpha, sigma = at_level(schedule.alpha, t, x0), at_level(schedule.sigma, t, x0)
    kind = PREDICTIONS[prediction]
    value = kind.from_x0(x_t, x0, alpha, sigma)
    # Dividing by a small alpha (cosine ends at .0097) takes its digits with it.
    torch.testing.assert_close(kind.to_x0(x_t, value, alpha, sigma), x0, rtol=0, atol=1e-12 / float(alpha[0]))
    back = kind.from_x0(x_t, kind.to_x0(x_t, value, alpha, sigma), alpha, sigma)
    torch.testing.assert_close(back, value, rtol=0, atol=1e-12 / float(sigma[0]))


def test_what_the_names_mean() -> None:
    schedule = SCHEDULES["linear"]
    x0, eps, t = torch.randn(3, 4, dtype=torch.float64), torch.randn(3, 4, dtype=torch.float64), torch.tensor([1, 5, 9])
    x_t = add_noise(x0, t, eps, schedule)
    alpha, sigma = at_level(schedule.alpha, t, x0), at_level(schedule.sigma, t, x0)
    torch.testing.assert_close(PREDICTIONS["eps"].from_x0(x_t, x0, alpha, sigma), eps)
    torch.testing.assert_close(PREDICTIONS["v"].from_x0(x_t, x0, alpha, sigma), alpha * eps - sigma * x0)
    # On a variance-preserving schedule x_0 = alpha x_t - sigma v (Salimans & Ho 2022, appendix D).
    v = alpha * eps - sigma * x0
    torch.testing.assert_close(PREDICTIONS["v"].to_x0(x_t, v, alpha, sigma), alpha * x_t - sigma * v)


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("name", SCHEDULES)
def test_a_perfect_network_of_any_kind_is_the_same_denoiser(prediction: str, name: str) -> None:
    schedule = SCHEDULES[name]
    x0, eps = torch.randn(3, 4, dtype=torch.float64), torch.randn(3, 4, dtype=torch.float64)
    asked: list[Condition | None] = []

    def network(x_t: torch.Tensor, t: torch.Tensor, cond: Condition | None = None) -> torch.Tensor:
        asked.append(cond)
        alpha, sigma = at_level(schedule.alpha, t, x_t), at_level(schedule.sigma, t, x_t)
        return PREDICTIONS[prediction].from_x0(x_t, x0, alpha, sigma)

    denoise = as_denoiser(network, prediction, schedule)
    cond = Condition({}, {})
    for level in (1, 5, T):
        t = torch.full((3,), level)
        answer = denoise(add_noise(x0, t, eps, schedule), t, cond)
        torch.testing.assert_close(answer, x0, rtol=0, atol=1e-12 / float(schedule.alpha[level]))
    assert all(c is cond for c in asked)
    assert (denoise is network) == (prediction == "x0")


def test_an_unknown_prediction_is_refused() -> None:
    with pytest.raises(InvalidConfig, match=r"Unknown prediction 'epsilon'\. Nearest known prediction: 'eps'"):
        as_denoiser(lambda x, t, cond=None: x, "epsilon", SCHEDULES["linear"])


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("sampler", WALKS.values(), ids=WALKS)
def test_networks_of_any_kind_end_in_one_answer(sampler: Sampler, name: str) -> None:
    """The ideal denoiser told as x_0, eps or v and turned back by the wrapper, along whole walks."""
    schedule = SCHEDULES[name]
    generator = torch.Generator().manual_seed(0)
    root, mean = (torch.randn(*shape, dtype=torch.float64, generator=generator) for shape in ((3, 3), (3,)))
    ideal = GaussianDenoiser(mean, root @ root.t(), schedule)
    noise = PhiloxNoise(1, torch.arange(4))
    x = pure_noise(torch.empty(4, 3, dtype=torch.float64), T, schedule, noise)

    def told(prediction: str) -> Denoiser:
        def network(x_t: torch.Tensor, t: torch.Tensor, cond: Condition | None = None) -> torch.Tensor:
            alpha, sigma = at_level(schedule.alpha, t, x_t), at_level(schedule.sigma, t, x_t)
            return PREDICTIONS[prediction].from_x0(x_t, ideal(x_t, t), alpha, sigma)

        return as_denoiser(network, prediction, schedule)

    for steps in (3, T):
        plain, *others = (
            sampler(told(kind), x, evenly(T, steps), schedule, noise=noise) for kind in ("x0", "eps", "v")
        )
        for other in others:
            torch.testing.assert_close(other, plain, rtol=0, atol=1e-9)
