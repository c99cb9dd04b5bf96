"""Networks over next items: what padding, an absent history, dropout and lambda do to an estimate."""

import pytest
import torch
from torch import Tensor

from rediffuse.denoisers.conditioning import HISTORY
from rediffuse.denoisers.next_item import GuidedNetwork, InjectedNetwork, NextItemNetwork
from rediffuse.networks.sequence import SequenceEncoder, padded
from rediffuse.types import Condition, Ragged

ITEMS, WIDTH, LENGTH = 12, 8, 5
ROWS = [[3, 1, 4], [7], [], [2, 9, 8, 5, 0]]


def network(kind: str, **changes: float) -> NextItemNetwork:
    """In float64, its weights drawn."""
    generator = torch.Generator().manual_seed(3)
    encoder = SequenceEncoder(
        WIDTH, 2, 2, LENGTH, causal=kind != "injected", dropout=changes.pop("dropout", 0.0), generator=generator
    )
    if kind == "injected":
        return InjectedNetwork(ITEMS, encoder, WIDTH, generator=generator, **changes).double()  # type: ignore[arg-type]
    return GuidedNetwork(ITEMS, encoder, WIDTH, deep=kind == "deep", generator=generator, **changes).double()  # type: ignore[arg-type]


def noised(rows: int = len(ROWS)) -> tuple[Tensor, Tensor]:
    """x_t and t."""
    x = torch.randn(rows, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return x, torch.arange(rows) % 4 + 1


def told(mine: NextItemNetwork, rows: list[list[int]] = ROWS) -> Condition:
    return mine.condition(padded(Ragged.of(rows), LENGTH))


KINDS = ("linear", "deep", "injected")


@pytest.mark.parametrize("kind", KINDS)
def test_padding_changes_nothing(kind: str) -> None:
    """A history alone and beside a longer one."""
    mine, (x, t) = network(kind, strength=0.5) if kind == "injected" else network(kind), noised()
    whole = mine(x, t, told(mine))
    for row, items in enumerate(ROWS):
        at = slice(row, row + 1)
        alone = mine(x[at], t[at], told(mine, [items]))
        torch.testing.assert_close(alone, whole[at], rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_an_absent_history_is_the_null(kind: str) -> None:
    mine, (x, t) = network(kind), noised()
    cond = told(mine)
    assert cond.present[HISTORY].tolist() == [True, True, False, True]
    nobody = mine(x, t, None)
    torch.testing.assert_close(mine(x, t, cond.without([HISTORY])), nobody, rtol=0, atol=1e-12)
    found = mine(x, t, cond)
    same = (found - nobody).abs().amax(1) < 1e-12
    assert same.tolist() == [False, False, True, False]
    with torch.no_grad():
        mine.null[:3] += 1.0  # type: ignore[index]
    assert not torch.allclose(mine(x, t, None), nobody)


@pytest.mark.parametrize("kind", KINDS)
def test_level_state_and_order_of_a_history_matter(kind: str) -> None:
    mine, (x, t) = network(kind, strength=0.5) if kind == "injected" else network(kind), noised(1)
    one = mine(x, t, told(mine, [[3, 1, 4]]))
    others = (
        mine(x, t, told(mine, [[4, 1, 3]])),
        mine(x, t + 1, told(mine, [[3, 1, 4]])),
        mine(x.flip(1), t, told(mine, [[3, 1, 4]])),
    )
    assert all(not torch.allclose(one, other) for other in others)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_finite_and_reach_the_table(kind: str) -> None:
    mine, (x, t) = network(kind), noised()
    mine(x, t, told(mine)).square().sum().backward()
    assert all(p.grad is None or bool(torch.isfinite(p.grad).all()) for p in mine.parameters())
    assert mine.table.grad is not None
    used = sorted({item for row in ROWS for item in row})
    assert (mine.table.grad.abs().amax(1) > 0).nonzero().flatten().tolist() == used


@pytest.mark.parametrize("kind", KINDS)
def test_dropout_is_drawn_in_training_alone(kind: str) -> None:
    mine, items = network(kind, dropout=0.3, item_dropout=0.4), padded(Ragged.of(ROWS), LENGTH)
    x, t = noised()

    def answer(seed: int | None) -> Tensor:
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        return mine(x, t, mine.condition(items, generator), generator)

    assert torch.equal(answer(None), answer(None))
    assert torch.equal(answer(1), answer(1))
    assert not torch.allclose(answer(1), answer(2))
    assert not torch.allclose(answer(1), answer(None))


def test_lambda_is_drawn_in_training_and_its_mean_answers() -> None:
    x, t = noised()
    mine = network("injected", strength=0.3, spread=0.2)
    cond, plain = told(mine), network("injected", strength=0.3, spread=0.0)
    draw = torch.Generator().manual_seed(5)
    assert not torch.allclose(mine(x, t, cond, draw), mine(x, t, cond))
    assert torch.equal(mine(x, t, cond), plain(x, t, cond))
    assert torch.equal(plain(x, t, cond, draw), plain(x, t, cond))


def test_without_lambda_neither_state_nor_level_enters_a_token() -> None:
    mine, (x, t) = network("injected", strength=0.0), noised()
    cond = told(mine)
    assert torch.equal(mine(x, t, cond), mine(3 * x.flip(1), t + 1, cond))


def test_the_plain_vectors_are_the_network() -> None:
    """In float64, whatever the weights' own format is, and none where the network is bent."""
    mine = network("linear").float()
    vectors = mine.vectors()  # type: ignore[operator]
    assert vectors is not None
    (x, t), cond = noised(), told(mine)
    found = vectors(x, t, mine.steering(cond, len(x)).double())  # type: ignore[operator]
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, mine.double()(x, t, cond), rtol=1e-5, atol=1e-5)
    assert network("deep").vectors() is None  # type: ignore[operator]


def test_the_scale_of_the_first_vectors_is_as_asked() -> None:
    for kind in KINDS:
        generator = torch.Generator().manual_seed(0)
        cls = InjectedNetwork if kind == "injected" else GuidedNetwork
        found = cls(4000, SequenceEncoder(8, 1, 1, 2, generator=generator), 8, item_scale=0.3, generator=generator)
        assert float(found.table.std().detach()) == pytest.approx(0.3, rel=0.02)
