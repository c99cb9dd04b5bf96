"""Conditions: what is known becomes a token, what is not the learned null."""

import pytest
import torch
from torch import Tensor

from rediffuse.denoisers.conditioning import Conditioner, newest, sizes_of, thinned
from rediffuse.training.moments import known
from rediffuse.types import Condition, Ragged

SIZES = {"history": 9, "season": 0, "region": 3}


def conditioner(width: int = 6) -> Conditioner:
    return Conditioner(SIZES, width, history_length=4, generator=torch.Generator().manual_seed(1))


def told(**values: Tensor) -> Condition:
    return Condition(values, {name: known(value) for name, value in values.items()})


HISTORY = torch.tensor([[3, 1, -1], [1, 3, -1], [-1, -1, -1]])
SEASON = torch.tensor([0.2, 0.7, float("nan")])
REGION = torch.tensor([0, 2, -1])


def test_a_token_for_each_condition_and_the_null_where_one_is_absent() -> None:
    made = conditioner()
    tokens = made(told(history=HISTORY, season=SEASON, region=REGION), 3)
    assert tokens.shape == (3, 3, 6)
    assert torch.equal(tokens[2], made.nulls)
    assert torch.equal(tokens[1, 2], made.encoders[2].table[2])  # type: ignore[index,union-attr]
    assert not torch.isclose(tokens[:2], made.nulls).any()
    for nothing in (None, Condition({}, {}), told(region=torch.full((3,), -1))):
        assert torch.equal(made(nothing, 3), made.nulls.expand(3, -1, -1))


def test_leaving_a_condition_out_touches_no_other() -> None:
    made, cond = conditioner(), told(history=HISTORY, season=SEASON, region=REGION)
    whole, less = made(cond, 3), made(cond.without(["season"]), 3)
    assert torch.equal(less[:, 1], made.nulls[1].expand(3, -1))
    assert torch.equal(less[:, [0, 2]], whole[:, [0, 2]])


def test_a_year_closes() -> None:
    share = torch.tensor([0.0, 1.0, 0.999, 0.5])
    tokens = conditioner()(told(season=share), 4)[:, 1].detach()
    torch.testing.assert_close(tokens[0], tokens[1], rtol=0, atol=1e-6)
    assert float((tokens[2] - tokens[0]).norm()) < 0.05
    assert float((tokens[3] - tokens[0]).norm()) > 0.5


def test_the_order_of_a_history_matters_and_its_padding_does_not() -> None:
    made = conditioner()
    tokens = made(told(history=HISTORY), 3)[:, 0]
    assert not torch.allclose(tokens[0], tokens[1])
    wider = torch.nn.functional.pad(HISTORY, (0, 1), value=-1)
    torch.testing.assert_close(made(told(history=wider), 3)[:, 0], tokens)


def test_the_null_is_learned_only_where_it_stands_in() -> None:
    made = conditioner()
    made(told(history=HISTORY, season=SEASON, region=REGION), 3).sum().backward()
    assert made.nulls.grad is not None
    assert torch.equal(made.nulls.grad, torch.ones(3, 6))  # the third subject, once each
    assert all(torch.isfinite(p.grad).all() for p in made.parameters() if p.grad is not None)


def test_it_is_rebuilt_from_its_state() -> None:
    made = conditioner()
    state = made.state_dict()
    assert sizes_of(state, tuple(SIZES)) == SIZES
    twin = Conditioner(sizes_of(state, tuple(SIZES), n_items=9), 6, history_length=4)
    twin.load_state_dict(state)
    cond = told(history=HISTORY, season=SEASON, region=REGION)
    assert torch.equal(twin(cond, 3), made(cond, 3))


@pytest.mark.parametrize(
    "name", ["encoders.0.table", "encoders.2.table", "nulls", "encoders.1.map", "encoders.0.place"]
)
def test_a_state_with_something_cut_off_does_not_fit(name: str) -> None:
    state = conditioner().state_dict()
    state[name] = state[name][:-1]
    twin = Conditioner(sizes_of(state, tuple(SIZES), n_items=9), 6, history_length=4)
    with pytest.raises(RuntimeError, match="size mismatch"):
        twin.load_state_dict(state)


def test_the_newest_items_come_first() -> None:
    history = Ragged.of([[1, 2, 3], [], [4]])
    assert newest(history, 2).tolist() == [[3, 2], [-1, -1], [4, -1]]
    assert newest(history, 50).tolist() == [[3, 2, 1], [-1, -1, -1], [4, -1, -1]]
    assert newest(Ragged.of([[], []]), 5).tolist() == [[-1], [-1]]
    assert newest(Ragged.empty(0), 5).shape == (0, 1)


def test_conditions_are_dropped_each_for_itself_at_the_rate_that_was_set() -> None:
    n = 20_000
    cond = told(season=torch.rand(n), region=torch.where(torch.arange(n) < 100, -1, 1))
    found = thinned(cond, 0.3, torch.Generator().manual_seed(0)).present
    season, region = found["season"].double(), found["region"][100:].double()
    assert float(season.mean()) == pytest.approx(0.7, abs=0.015)
    assert float(region.mean()) == pytest.approx(0.7, abs=0.015)
    assert not found["region"][:100].any()  # what is unknown stays so
    both = torch.corrcoef(torch.stack((season[100:], region)))[0, 1]
    assert abs(float(both)) < 0.03
    assert all(torch.equal(thinned(cond, 0, torch.Generator()).present[name], cond.present[name]) for name in found)
