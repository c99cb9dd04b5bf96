"""Where a reverse process begins: the linear starts, and a history of which some is left out."""

import pytest
import torch

from rediffuse.noise.schedules import SCHEDULES
from rediffuse.random import PhiloxNoise
from rediffuse.samplers import STARTS
from rediffuse.samplers.starts import thinned_history
from rediffuse.types import Ragged, SparseRows


def rows(lists: list[list[int]], width: int = 50) -> SparseRows:
    plain = Ragged.of(lists)
    values = 1 + torch.arange(plain.items.numel(), dtype=torch.float32) / 100
    return SparseRows(plain.indptr, plain.items, values, width)


def test_the_linear_starts() -> None:
    schedule, x = SCHEDULES["cosine"](10), torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    noise = PhiloxNoise(1, torch.arange(3))
    alpha, sigma = float(schedule.alpha[7]), float(schedule.sigma[7])
    found = {name: start(x, 7, schedule, noise) for name, start in STARTS.items()}
    assert torch.equal(found["history"], x)
    torch.testing.assert_close(found["noised_history"], alpha * x + sigma * noise(7, x))
    torch.testing.assert_close(found["pure_noise"], sigma * noise(7, x))
    assert torch.equal(found["origin"], torch.zeros(3, 4))


def test_the_set_share_is_left_out() -> None:
    many = rows([list(range(40))] * 500)
    found = thinned_history(many, 0.3, PhiloxNoise(1, torch.arange(500))).dense()
    kept = (found > 0)[:, :40]
    assert float(kept.double().mean()) == pytest.approx(0.7, abs=0.01)
    assert float(torch.corrcoef(kept.double().T).fill_diagonal_(0).abs().max()) < 0.25
    torch.testing.assert_close(found[kept.nonzero()[0, 0]].amax(), many.values[:40][kept[0]].amax() / 0.7)


@pytest.mark.parametrize("length", [1, 2, 5])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.6])
def test_the_mean_is_the_history_and_something_always_stays(length: int, share: float) -> None:
    n = 20_000
    one = rows([list(range(length))])
    many = one.select(torch.zeros(n, dtype=torch.int64))
    found = thinned_history(many, share, PhiloxNoise(3, torch.arange(n))).dense()[:, :length]
    assert bool((found > 0).any(1).all())
    torch.testing.assert_close(found.double().mean(0), one.values.double(), rtol=0.04, atol=0)
    if length == 1 or share == 0:
        torch.testing.assert_close(found[0], one.values)


def test_what_is_left_out_depends_on_the_key_and_the_draw_alone() -> None:
    """Not on batch mates, and not on the order in which a row happens to stand."""
    lists = [[9, 3, 30, 7, 12], [4, 44, 2], [8]]
    key = torch.tensor([5, 6, 7])
    whole = thinned_history(rows(lists), 0.5, PhiloxNoise(1, key)).dense() > 0
    for row, items in enumerate(lists):
        noise = PhiloxNoise(1, key[row : row + 1])
        for own in (items, sorted(items), items[::-1]):
            assert torch.equal(thinned_history(rows([own]), 0.5, noise).dense()[0] > 0, whole[row])
    others = [thinned_history(rows(lists), 0.5, PhiloxNoise(1, key, draw=d)).dense() > 0 for d in range(1, 6)]
    assert any(not torch.equal(other, whole) for other in others)


def test_nothing_to_leave_out() -> None:
    noise = PhiloxNoise(1, torch.tensor([1, 2]))
    assert torch.equal(thinned_history(rows([[], []]), 0.5, noise).dense(), torch.zeros(2, 50))
    none = thinned_history(rows([]), 0.5, PhiloxNoise(1, torch.zeros(0, dtype=torch.int64)))
    assert len(none) == 0
