"""The chain in hidden space gives the scores of the chain over the catalog."""

from collections.abc import Callable, Mapping
from functools import partial
from itertools import product

import pytest
import torch
from torch import Tensor

from rediffuse.denoisers import Collapsed, MLPDenoiser, collapse
from rediffuse.denoisers.collapsed import project_exactly
from rediffuse.noise import NoiseSchedule, linear_variance
from rediffuse.protocols import Denoiser, Noise, Sampler
from rediffuse.random import PhiloxNoise
from rediffuse.samplers import SAMPLERS, STARTS, ddim, dpmpp, evenly
from rediffuse.types import Condition, SparseRows

WALKS: Mapping[str, Sampler] = {
    **SAMPLERS,
    "ddim eta .5": partial(ddim, eta=0.5),
    "dpmpp eta 1": partial(dpmpp, eta=1.0),
}
KEY = torch.tensor([3, -8, 1 << 60, 0])


def network(width: int, hidden: tuple[int, ...], dtype: torch.dtype = torch.float64, seed: int = 0) -> MLPDenoiser:
    """Random weights, with biases large enough to matter."""
    generator = torch.Generator().manual_seed(seed)
    denoiser = MLPDenoiser(width, hidden, generator=generator)
    with torch.no_grad():
        for weight in denoiser.parameters():
            if weight.dim() == 1:
                weight.normal_(0, 0.3, generator=generator)
    return denoiser.to(dtype)


def some_rows(width: int, dtype: torch.dtype = torch.float64) -> SparseRows:
    """Four histories of different lengths, one of them empty, weighted."""
    generator = torch.Generator().manual_seed(1)
    sizes = [0, 1, width // 2, width]
    items = torch.cat([torch.randperm(width, generator=generator)[:size] for size in sizes])
    indptr = torch.tensor([0, *sizes]).cumsum(0)
    return SparseRows(indptr, items, torch.rand(len(items), generator=generator, dtype=dtype) + 0.5, width)


def schedule_of(T: int, first_beta: float | None, scale: float = 20.0) -> NoiseSchedule:
    return linear_variance(T, scale=scale, low=0.001, high=0.04, first_beta=first_beta)


def dense_chain(
    denoise: Denoiser, x: Tensor, T: int, schedule: NoiseSchedule, sampler: str, start: str, noise: Noise, *, draw: bool
) -> Tensor:
    x = STARTS[start](x, T, schedule, noise)
    return WALKS[sampler](denoise, x, evenly(T), schedule, noise=noise if draw else None)


def hidden_chain(
    inner: Denoiser,
    last: Denoiser,
    u: Tensor,
    T: int,
    schedule: NoiseSchedule,
    sampler: str,
    start: str,
    noise: Noise,
    *,
    draw: bool,
) -> Tensor:
    levels = evenly(T)
    u = STARTS[start](u, T, schedule, noise)
    u = WALKS[sampler](inner, u, levels[:-1], schedule, noise=noise if draw else None)
    return last(u, torch.full((len(u),), int(levels[-2])))


@pytest.mark.parametrize(("width", "hidden"), [(40, (16,)), (5, (9,)), (40, (16, 6, 12)), (5, (9, 4, 9))])
@pytest.mark.parametrize("T", [1, 2, 5, 40])
@pytest.mark.parametrize("first_beta", [1e-5, None])
def test_collapsed_is_dense(width: int, hidden: tuple[int, ...], T: int, first_beta: float | None) -> None:
    denoiser, rows, schedule = network(width, hidden), some_rows(width), schedule_of(T, first_beta)
    collapsed = collapse(denoiser)
    draws = PhiloxNoise(5, KEY)
    projected = project_exactly(denoiser, draws, width)
    with torch.no_grad():
        for sampler, start, draw in product(WALKS, STARTS, (False, True)):
            dense = dense_chain(denoiser, rows.dense(), T, schedule, sampler, start, draws, draw=draw)
            for x in (rows, rows.dense()):
                found = hidden_chain(
                    collapsed.inner,
                    collapsed.last,
                    collapsed.lift(x),
                    T,
                    schedule,
                    sampler,
                    start,
                    projected,
                    draw=draw,
                )
                torch.testing.assert_close(found, dense, rtol=0, atol=1e-10)


def test_draws_do_change_the_answer() -> None:
    """Else the equality above would say little."""
    denoiser, rows, schedule = network(40, (16,)), some_rows(40), schedule_of(5, None)
    draws = PhiloxNoise(5, KEY)
    with torch.no_grad():
        answers = [
            dense_chain(denoiser, rows.dense(), 5, schedule, "ancestral", start, draws, draw=draw)
            for start, draw in product(STARTS, (False, True))
        ]
    for a, b in product(range(6), range(6)):
        assert (a == b) == torch.allclose(answers[a], answers[b], atol=1e-3)


@pytest.mark.parametrize("hidden", [(64,), (60, 20, 60)])
@pytest.mark.parametrize("T", [5, 40])
def test_float32_keeps_the_scores_and_the_lists(hidden: tuple[int, ...], T: int) -> None:
    width = 400
    denoiser = network(width, hidden, torch.float32)
    rows, draws = some_rows(width, torch.float32), PhiloxNoise(5, KEY)
    collapsed = collapse(denoiser)
    projected = project_exactly(denoiser, draws, width)
    for schedule, draw in product((schedule_of(T, 1e-5, 0.25), schedule_of(T, None)), (False, True)):
        with torch.no_grad():
            dense = dense_chain(denoiser, rows.dense(), T, schedule, "ancestral", "history", draws, draw=draw)
            found = hidden_chain(
                collapsed.inner,
                collapsed.last,
                collapsed.lift(rows),
                T,
                schedule,
                "ancestral",
                "history",
                projected,
                draw=draw,
            )
        assert float((found - dense).abs().max()) <= 1e-5
        ours, theirs = found.topk(100).indices, dense.topk(100).indices
        # Where the lists differ, the scores tie within rounding.
        assert float((dense.gather(1, ours) - dense.gather(1, theirs)).abs().max()) <= 1e-5
        assert float((ours == theirs).double().mean()) > 0.99


def guided(cond: Denoiser, uncond: Denoiser, scale: float) -> Denoiser:
    def denoise(x: Tensor, t: Tensor, c: Condition | None = None) -> Tensor:
        u = uncond(x, t, c)
        return u + scale * (cond(x, t, c) - u)

    return denoise


@pytest.mark.parametrize("scale", [0.0, 1.0, 3.0])
@pytest.mark.parametrize("sampler", WALKS)
def test_guidance_commutes(scale: float, sampler: str) -> None:
    """Two denoisers with one lift: guiding in hidden space is guiding over the catalog."""
    width, T = 40, 5
    cond, uncond = network(width, (16, 8)), network(width, (16,), seed=7)
    uncond.lift_weight = cond.lift_weight
    rows, schedule, draws = some_rows(width), schedule_of(T, 1e-5), PhiloxNoise(5, KEY)
    a, b = collapse(cond), collapse(uncond)
    projected = project_exactly(cond, draws, width)
    with torch.no_grad():
        for draw in (False, True):
            dense = dense_chain(
                guided(cond, uncond, scale), rows.dense(), T, schedule, sampler, "noised_history", draws, draw=draw
            )
            found = hidden_chain(
                guided(a.inner, b.inner, scale),
                guided(a.last, b.last, scale),
                a.lift(rows),
                T,
                schedule,
                sampler,
                "noised_history",
                projected,
                draw=draw,
            )
            torch.testing.assert_close(found, dense, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("width", "hidden"), [(40, (16,)), (5, (9,))])
def test_the_factor_of_the_covariance(width: int, hidden: tuple[int, ...]) -> None:
    denoiser = network(width, hidden)
    with torch.no_grad():
        denoiser.lift_weight[:, 3] = 0  # a dead unit
    collapsed = collapse(denoiser)
    w = denoiser.lift_weight.detach().t()
    torch.testing.assert_close(collapsed.F @ collapsed.F.t(), w @ w.t(), rtol=0, atol=1e-10)
    assert not collapsed.F.requires_grad
    assert collapsed.F is collapsed.F


def test_drawn_noise_has_the_covariance_of_the_lifted() -> None:
    n, denoiser = 20_000, network(5, (9,))
    collapsed = collapse(denoiser)
    noise: Callable[[int, Tensor], Tensor] = collapsed.noise(PhiloxNoise(1, torch.arange(n)))
    z = noise(3, torch.empty(n, 9, dtype=torch.float64))
    w = denoiser.lift_weight.detach().t()
    covariance = w @ w.t()
    spread = covariance.diagonal()
    error = ((torch.outer(spread, spread) + covariance**2) / n).sqrt()
    assert ((torch.cov(z.t()) - covariance).abs() < 5 * error).all()
    assert (z.mean(0).abs() < 5 * (spread / n).sqrt()).all()


def test_inner_is_the_lift_of_the_answer() -> None:
    denoiser, rows = network(40, (16, 6, 12)), some_rows(40)
    collapsed = collapse(denoiser)
    assert isinstance(collapsed, Collapsed)
    assert collapsed.M.shape == (16, 12)
    assert not collapsed.M.requires_grad
    t = torch.tensor([1, 2, 3, 4])
    u = denoiser.lift(rows)
    answer = denoiser(rows, t)
    torch.testing.assert_close(collapsed.inner(u, t), denoiser.lift(answer), rtol=0, atol=1e-12)
    torch.testing.assert_close(collapsed.last(u, t), answer, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_head_may_score_some_items_alone(dtype: torch.dtype) -> None:
    denoiser, t = network(40, (16,), dtype), torch.tensor([1, 2, 3, 4])
    collapsed = collapse(denoiser)
    u = denoiser.lift(some_rows(40, dtype))
    whole = collapsed.last(u, t)
    some = torch.tensor([7, 0, 39, 7])
    torch.testing.assert_close(collapsed.last(u, t, items=some), whole[:, some])
    each = torch.tensor([[0, 1], [5, 5], [39, 2], [8, 3]])
    torch.testing.assert_close(collapsed.last(u, t, items=each), whole.gather(1, each))


def test_the_lift_of_sparse_rows_is_that_of_dense_ones() -> None:
    denoiser, rows = network(40, (16,)), some_rows(40)
    torch.testing.assert_close(denoiser.lift(rows), denoiser.lift(rows.dense()), rtol=0, atol=1e-12)
    empty = SparseRows(torch.zeros(4, dtype=torch.int64), torch.zeros(0, dtype=torch.int64), torch.zeros(0), 40)
    assert torch.equal(denoiser.lift(empty), torch.zeros(3, 16, dtype=torch.float64))
