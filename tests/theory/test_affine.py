"""One affine map gives what the whole reverse chain gives: its mean to rounding, its draws in distribution."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from rediffuse.denoisers.affine import Affine, affine_map, is_affine
from rediffuse.denoisers.ideal import GaussianDenoiser
from rediffuse.errors import InvalidInput
from rediffuse.networks.time_embedding import sinusoids
from rediffuse.noise import SCHEDULES, NoiseSchedule, exponential, linear
from rediffuse.protocols import Sampler
from rediffuse.random import PhiloxNoise
from rediffuse.samplers import SAMPLERS, ancestral, ddim, dpmpp, evenly
from rediffuse.samplers.guidance import guided
from rediffuse.types import Condition

D, C = 4, 3
WALKS: Mapping[str, Sampler] = {
    **SAMPLERS,
    "ddim eta .5": partial(ddim, eta=0.5),
    "dpmpp eta .7": partial(dpmpp, eta=0.7),
}
STOCHASTIC = ("ancestral", "ddim eta .5", "dpmpp eta .7")


@dataclass(frozen=True)
class OneLayer:
    """x0_hat = Wx x + Wh h + Wt tau_t + b."""

    Wx: Tensor
    Wh: Tensor
    Wt: Tensor
    b: Tensor

    def __call__(self, x: Tensor, t: Tensor, h: Tensor) -> Tensor:
        return x @ self.Wx.t() + h @ self.Wh.t() + self.offset(t)

    def offset(self, t: Tensor) -> Tensor:
        """Wt tau_t + b, (B, D)."""
        return sinusoids(t.to(torch.float64), self.Wt.shape[1]) @ self.Wt.t() + self.b


def some_layer(width: int = D, cond_width: int = C) -> OneLayer:
    """Contracting, as a trained one is: else a chain of 500 steps would leave every range."""
    generator = torch.Generator().manual_seed(0)
    Wx, Wh, Wt = (torch.randn(width, n, generator=generator, dtype=torch.float64) for n in (width, cond_width, 6))
    return OneLayer(0.7 * Wx / torch.linalg.matrix_norm(Wx, 2), Wh, 0.3 * Wt, torch.linspace(-1, 1, width).double())


def schedule_of(T: int) -> NoiseSchedule:
    """Noise that ends near 1 whatever T."""
    return exponential(T)


def states(rows: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    """First states, conditions, and the absent condition."""
    generator = torch.Generator().manual_seed(1)
    x, h = (torch.randn(rows, n, generator=generator, dtype=torch.float64) for n in (D, C))
    return x, h, torch.randn(C, generator=generator, dtype=torch.float64)


def conditional(layer: OneLayer, none: Tensor) -> Callable[[Tensor, Tensor, Condition | None], Tensor]:
    """The layer with h as a condition that may be absent: what a chain is guided with."""

    def denoise(x: Tensor, t: Tensor, cond: Condition | None = None) -> Tensor:
        assert cond is not None
        h = torch.where(cond.present["h"].unsqueeze(1), cond.values["h"], none)
        return layer(x, t, h)

    return denoise


@pytest.mark.parametrize("scale", [0.0, 1.0, 3.0])
@pytest.mark.parametrize("T", [1, 5, 500])
@pytest.mark.parametrize("walk", WALKS)
def test_the_map_is_the_chain_of_means(walk: str, T: int, scale: float) -> None:
    """The chain is guided in two branches; the map extrapolates the condition."""
    layer, (x, h, none), schedule = some_layer(), states(), schedule_of(T)
    denoise = guided(conditional(layer, none), ["h"], scale)
    cond = Condition({"h": h}, {"h": torch.ones(len(h), dtype=torch.bool)})
    chain = WALKS[walk](denoise, x, evenly(T), schedule, cond=cond, noise=None)
    found = affine_map(layer, D, evenly(T), schedule, WALKS[walk], cond_width=C, fresh=False)
    assert found.covariance is None
    assert found.F is None
    torch.testing.assert_close(found.mean(x, torch.lerp(none, h, scale)), chain, rtol=0, atol=1e-10)


@pytest.mark.parametrize("levels", [[500, 3, 0], [40, 39, 20, 7], [500, 250, 125, 60, 30, 1, 0]])
@pytest.mark.parametrize("walk", WALKS)
def test_any_walk_with_the_very_draws_of_the_chain(walk: str, levels: list[int]) -> None:
    """Few steps, uneven ones, and walks that end above level 0: with draws given, the mean takes the same draws."""
    layer, (x, h, _), schedule = some_layer(), states(), schedule_of(500)
    found = affine_map(layer, D, torch.tensor(levels), schedule, WALKS[walk], cond_width=C)

    def run(noise: Callable[[int, Tensor], Tensor] | None) -> Tensor:
        return WALKS[walk](lambda x, t, cond=None: layer(x, t, h), x, torch.tensor(levels), schedule, noise=noise)

    silent = run(lambda t, like: torch.zeros_like(like))
    torch.testing.assert_close(found.mean(x, h), silent, rtol=0, atol=1e-10)
    if walk not in STOCHASTIC:
        assert found.covariance is None
        return
    assert found.covariance is not None
    # A unit draw at one level in one direction moves the answer by one column of J.
    total = torch.zeros(D, D, dtype=torch.float64)
    for level in levels[1:]:
        for axis in range(D):
            impulse = torch.eye(D, dtype=torch.float64)[axis]
            moved = run(lambda t, like, at=level, e=impulse: e.expand_as(like) * (t == at)) - silent
            torch.testing.assert_close(moved, moved[:1].expand_as(moved), rtol=0, atol=1e-12)
            total += torch.outer(moved[0], moved[0])
    torch.testing.assert_close(found.covariance, total, rtol=0, atol=1e-10)


@pytest.mark.parametrize("T", [1, 5, 500])
def test_the_ancestral_map_is_the_product_of_the_steps(T: int) -> None:
    """A_t = c1 Wx + c2, B_t = c1 Wh, d_t = c1 (Wt tau_t + b), written out from the betas."""
    layer, schedule = some_layer(), schedule_of(T)
    abar = schedule.alpha**2
    A, H = torch.eye(D, dtype=torch.float64), torch.zeros(D, C, dtype=torch.float64)
    c, covariance = torch.zeros(D, dtype=torch.float64), torch.zeros(D, D, dtype=torch.float64)
    for t in range(1, T + 1):
        alpha = float(abar[t] / abar[t - 1])
        before, after = float(abar[t - 1]), float(abar[t])
        c1 = (1 - alpha) * before**0.5 / (1 - after)
        c2 = (1 - before) * alpha**0.5 / (1 - after)
        c = c + c1 * A @ layer.offset(torch.tensor([t]))[0]
        H = H + c1 * A @ layer.Wh
        # The step from t draws for level t - 1, which the steps below carry on.
        covariance = covariance + (1 - alpha) * (1 - before) / (1 - after) * A @ A.t()
        A = A @ (c1 * layer.Wx + c2 * torch.eye(D, dtype=torch.float64))
    found = affine_map(layer, D, evenly(T), schedule, ancestral, cond_width=C)
    for ours, theirs in ((found.A, A), (found.H, H), (found.c, c)):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)
    if T == 1:
        assert found.covariance is None
    else:
        torch.testing.assert_close(found.covariance, covariance, rtol=0, atol=1e-10)


@pytest.mark.parametrize("T", [5, 500])
@pytest.mark.parametrize("walk", STOCHASTIC)
def test_mean_and_covariance_of_the_chain_that_draws(walk: str, T: int) -> None:
    n = 20_000 if T == 5 else 3_000
    layer, schedule = some_layer(), schedule_of(T)
    x, h, _ = (part.expand(n, -1) for part in states(1))
    noise = PhiloxNoise(3, torch.arange(n))
    found = affine_map(layer, D, evenly(T), schedule, WALKS[walk], cond_width=C)
    chain = WALKS[walk](lambda x, t, cond=None: layer(x, t, h), x, evenly(T), schedule, noise=noise)
    assert found.covariance is not None
    spread = found.covariance.diagonal()
    error = ((torch.outer(spread, spread) + found.covariance**2) / n).sqrt()
    for draws in (chain, found.draw(x, h, noise)):
        assert ((draws.mean(0) - found.mean(x, h)[0]).abs() < 5 * (spread / n).sqrt()).all()
        assert ((torch.cov(draws.t()) - found.covariance).abs() < 5 * error).all()


def test_the_ideal_denoiser_gives_the_data_back() -> None:
    """With x_T ~ N(0, 1) the answers of either walk have the mean and covariance of the data, but for the steps."""
    mean = torch.tensor([0.5, -1.0], dtype=torch.float64)
    covariance = torch.tensor([[1.0, 0.6], [0.6, 0.5]], dtype=torch.float64)
    schedule = linear(1000, low=1e-4, high=0.02)
    ideal = GaussianDenoiser(mean, covariance, schedule)
    for sampler in (ancestral, ddim):
        found = affine_map(lambda x, t, h: ideal(x, t), 2, evenly(1000), schedule, sampler, cond_width=0)
        drawn = 0 if found.covariance is None else found.covariance
        assert found.H.shape == (2, 0)
        torch.testing.assert_close(found.c, mean, rtol=0, atol=0.01)
        torch.testing.assert_close(found.A @ found.A.t() + drawn, covariance, rtol=0, atol=0.02)


def test_draws_are_those_of_the_query_and_keep_its_number_format() -> None:
    layer, (x, h, _), schedule = some_layer(), states(), schedule_of(5)
    found = affine_map(layer, D, evenly(5), schedule, ancestral, cond_width=C)
    key = torch.tensor([3, -8, 1 << 60, 0, 7])
    together = found.draw(x.float(), h.float(), PhiloxNoise(1, key))
    assert together.dtype == torch.float32
    alone = found.draw(x[2:3].float(), h[2:3].float(), PhiloxNoise(1, key[2:3]))
    torch.testing.assert_close(together[2:3], alone)
    assert not torch.allclose(together, found.mean(x.float(), h.float()), atol=1e-3)
    assert found.F is found.F


def test_weights_that_learn_and_inference_mode_change_nothing() -> None:
    """Heun changes a state in place after the denoiser has read it."""
    layer, schedule = some_layer(), schedule_of(5)
    of_state, of_condition = nn.Linear(D, D, dtype=torch.float64), nn.Linear(C, D, bias=False, dtype=torch.float64)
    with torch.no_grad():
        of_state.weight.copy_(layer.Wx)
        of_state.bias.copy_(layer.b)
        of_condition.weight.copy_(layer.Wh)

    def denoise(x: Tensor, t: Tensor, h: Tensor) -> Tensor:
        return of_state(x) + of_condition(h)

    still = OneLayer(layer.Wx, layer.Wh, 0 * layer.Wt, layer.b)
    for sampler in WALKS.values():
        expected = affine_map(still, D, evenly(5), schedule, sampler, cond_width=C)
        with torch.inference_mode():
            found = affine_map(denoise, D, evenly(5), schedule, sampler, cond_width=C)
        assert isinstance(found, Affine)
        assert of_state.weight.grad is None
        for ours, theirs in ((found.A, expected.A), (found.H, expected.H), (found.c, expected.c)):
            assert not ours.requires_grad
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


BENT: Mapping[str, Callable[[OneLayer], Callable[[Tensor, Tensor, Tensor], Tensor]]] = {
    "gelu": lambda layer: lambda x, t, h: nn.functional.gelu(layer(x, t, h)),
    "a bound": lambda layer: lambda x, t, h: layer(x, t, h).clamp(-50, 50),
    "a product of state and condition": lambda layer: lambda x, t, h: layer(x, t, h) * (1 + 1e-3 * h[:, :1]),
    "bent at one level": lambda layer: lambda x, t, h: layer(x, t, h) + (t == 3).unsqueeze(1) * x.abs(),
    "not a number": lambda layer: lambda x, t, h: layer(x, t, h) * torch.nan,
}


@pytest.mark.parametrize("name", BENT)
def test_what_is_not_affine_is_refused(name: str) -> None:
    layer, levels, schedule = some_layer(), evenly(5), schedule_of(5)
    assert is_affine(layer, D, levels, cond_width=C)
    assert not is_affine(BENT[name](layer), D, levels, cond_width=C)
    with pytest.raises(InvalidInput, match=r"not affine in x_t and the condition\. Run its chain step by step"):
        affine_map(BENT[name](layer), D, levels, schedule, ancestral, cond_width=C)


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_collapses(name: str) -> None:
    layer, (x, h, _), schedule = some_layer(), states(), SCHEDULES[name](40, scale=0.9, low=1e-4, high=0.02)
    for walk in ("ancestral", "ddim"):
        chain = WALKS[walk](lambda x, t, cond=None: layer(x, t, h), x, evenly(40), schedule, noise=None)
        found = affine_map(layer, D, evenly(40), schedule, WALKS[walk], cond_width=C, fresh=False)
        torch.testing.assert_close(found.mean(x, h), chain, rtol=0, atol=1e-10)
