"""Ragged lists, sparse rows, queries and rankings."""

from dataclasses import fields

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rediffuse.types import Fallback, Options, Query, Ragged, Ranking, SparseRows, history_key

LISTS = st.lists(st.lists(st.integers(0, 50), max_size=6), min_size=1, max_size=6)


def full(rows: list[list[int]]) -> Ragged:
    """With every column."""
    plain = Ragged.of(rows)
    n = torch.arange(plain.items.numel())
    return Ragged(plain.indptr, plain.items, time_us=n * 10, kind=n % 3, weight=n / 2, context={"device": n % 2})


@given(LISTS)
def test_ragged_is_its_lists(rows: list[list[int]]) -> None:
    lists = Ragged.of(rows)
    assert len(lists) == len(rows)
    assert lists.to_lists() == rows
    assert lists.lengths.tolist() == [len(row) for row in rows]
    assert lists.rows.tolist() == [b for b, row in enumerate(rows) for _ in row]
    assert lists.ranks.tolist() == [rank for row in rows for rank in range(len(row))]


@given(LISTS, st.data())
def test_select_and_keep_move_every_column(rows: list[list[int]], data: st.DataObject) -> None:
    lists = full(rows)
    chosen = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=5))
    some = lists.select(torch.tensor(chosen, dtype=torch.int64))
    assert some.to_lists() == [rows[b] for b in chosen]
    assert some.time_us is not None
    assert some.kind is not None
    assert some.weight is not None
    starts = lists.indptr.tolist()
    order = [starts[b] + rank for b in chosen for rank in range(len(rows[b]))]
    assert some.time_us.tolist() == [10 * n for n in order]
    mask = torch.tensor(data.draw(st.lists(st.booleans(), min_size=len(lists.items), max_size=len(lists.items))))
    kept = lists.keep(mask.bool())
    places = [[n for n in range(starts[b], starts[b + 1]) if mask[n]] for b in range(len(rows))]
    assert kept.to_lists() == [[lists.items.tolist()[n] for n in row] for row in places]
    assert kept.weight is not None
    assert kept.weight.tolist() == [n / 2 for row in places for n in row]


def test_empty_lists() -> None:
    empty = Ragged.empty(3)
    assert empty.to_lists() == [[], [], []]
    assert len(Ragged.empty(0)) == 0
    assert empty.time_us is None
    assert empty.to("cpu").weight is None


def test_moving_keeps_all() -> None:
    moved = full([[1, 2], []]).to("cpu")
    for field in fields(Ragged):
        ours, theirs = (getattr(lists, field.name) for lists in (moved, full([[1, 2], []])))
        if isinstance(ours, torch.Tensor):
            assert torch.equal(ours, theirs)
        else:
            assert ours["device"].tolist() == theirs["device"].tolist()


def rows_of(dense: torch.Tensor) -> SparseRows:
    return SparseRows(
        torch.cat((torch.zeros(1, dtype=torch.int64), (dense != 0).sum(1).cumsum(0))),
        dense.nonzero()[:, 1],
        dense[dense != 0],
        dense.shape[1],
    )


@given(st.integers(1, 5), st.integers(1, 7), st.integers(0, 2**31))
def test_sparse_rows_are_a_matrix(batch: int, width: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    dense = torch.rand(batch, width, generator=generator) * (torch.rand(batch, width, generator=generator) < 0.4)
    rows = rows_of(dense)
    assert len(rows) == batch
    assert rows.lengths.tolist() == (dense != 0).sum(1).tolist()
    assert torch.equal(rows.dense(), dense)
    order = torch.randint(batch, (3,), generator=generator)
    assert torch.equal(rows.select(order).dense(), dense[order])
    weight = torch.rand(width, 4, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(rows.project(weight), dense.double() @ weight)
    double = rows.to("cpu", torch.float64)
    assert double.dense().dtype == torch.float64
    assert double.device == torch.device("cpu")
    assert rows.to("cpu").values.dtype == torch.float32


def test_a_query_selects_and_moves_every_part() -> None:
    query = Query(
        user=torch.tensor([4, 7, -1]),
        history=Ragged.of([[1], [2, 3], []]),
        key=torch.tensor([10, 20, 30]),
        at_us=torch.tensor([100, 200, 300]),
        context={"season": torch.tensor([0, 1, 2])},
        exclude=Ragged.of([[1], [], [5]]),
        candidates=Ragged.of([[1, 2], [3], [4]]),
    )
    assert len(query) == 3
    for found in (query.select(torch.tensor([2, 1])), query.to("cpu").select(torch.tensor([2, 1]))):
        assert found.user.tolist() == [-1, 7]
        assert found.history.to_lists() == [[], [2, 3]]
        assert found.key.tolist() == [30, 20]
        assert found.at_us is not None
        assert found.at_us.tolist() == [300, 200]
        assert found.context["season"].tolist() == [2, 1]
        assert found.exclude is not None
        assert found.exclude.to_lists() == [[5], []]
        assert found.candidates is not None
        assert found.candidates.to_lists() == [[4], [3]]
    bare = Query(query.user, query.history, query.key)
    for found in (bare.select(torch.tensor([0])), bare.to("cpu")):
        assert found.at_us is found.exclude is found.candidates is None


def test_a_posted_history_is_not_recommended_again_unless_told() -> None:
    history = Ragged.of([[1, 2], []])
    query = Query.from_history(history)
    assert query.exclude is history
    assert query.user.tolist() == [-1, -1]
    assert torch.equal(query.key, history_key(history))
    assert Query.from_history(history, exclude=Ragged.empty(2)).exclude is not history


def test_the_key_of_a_history_depends_on_its_order_and_not_on_its_mates() -> None:
    lists = [[1, 2], [2, 1], [1], [2], [1, 1], [], [0], [0, 0], [1, 2, 3]]
    keys = history_key(Ragged.of(lists))
    assert len(set(keys.tolist())) == len(lists)
    for row, items in enumerate(lists):
        assert int(history_key(Ragged.of([items]))) == int(keys[row])
    # Written down once: it seeds the draws of posted histories, so it must never change.
    assert keys.tolist()[:2] == [3_948_624_844_851_455_272, -5_635_682_425_110_477_280]
    assert len(set(history_key(Ragged.of([[n] for n in range(5000)])).tolist())) == 5000


def test_options_say_what_is_asked() -> None:
    assert Options().asked() == {}
    assert Options(steps=0, temperature=0.5, start="history").asked() == {
        "steps": 0,
        "start": "history",
        "temperature": 0.5,
    }
    assert Options(guidance_scale={"text": 2.0}).asked() == {"guidance_scale": {"text": 2.0}}


def test_a_ranking_is_cut_and_moved_whole() -> None:
    table = torch.arange(6.0).reshape(2, 3)
    ranking = Ranking(table.long(), table, spread=table + 1, fallback=torch.tensor([0, 1]))
    top = ranking.top(2)
    assert len(top) == 2
    assert top.items.tolist() == [[0, 1], [3, 4]]
    assert top.spread is not None
    assert top.spread.tolist() == [[1, 2], [4, 5]]
    assert top.probability is None
    assert top.fallback is not None
    assert top.fallback.tolist() == [Fallback.NONE, Fallback.EMPTY_HISTORY]
    assert torch.equal(ranking.cpu().scores, table)
    assert ranking.cpu().fallback is not None
    assert Ranking(table.long(), table).cpu().fallback is None


@pytest.mark.parametrize("value", [Ragged.empty(1), Options(), Query.from_history(Ragged.empty(1))])
def test_values_do_not_change(value: object) -> None:
    name = fields(value)[0].name  # type: ignore[arg-type]
    with pytest.raises(AttributeError):
        setattr(value, name, None)


def test_batches_may_need_a_fallback_or_not() -> None:
    plain = Ranking(torch.tensor([[1, 0]]), torch.tensor([[0.5, 0.25]]))
    fallen = Ranking(torch.tensor([[2, 1]]), torch.tensor([[9.0, 8.0]]), fallback=torch.tensor([1]))
    for parts, codes in (((plain, fallen), [0, 1]), ((fallen, plain), [1, 0])):
        found = Ranking.joined(parts).fallback
        assert found is not None
        assert found.tolist() == codes
    assert Ranking.joined((plain, plain)).fallback is None
