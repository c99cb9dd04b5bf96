"""Metrics on lists worked by hand."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.rivals.ranking import rank_metrics
from rediffuse.evaluation.accuracy import METRICS, hits, of_lists, ties_against_us
from rediffuse.types import Ragged, Ranking


def ranking_of(*rows: list[int]) -> Ranking:
    items = torch.tensor(rows)
    return Ranking(items, torch.arange(items.shape[1], 0, -1).float().expand(len(rows), -1))


def value(metric: str, row: list[int], relevant: list[int], k: int) -> float:
    found = METRICS[metric](ranking_of(row), Ragged.of([relevant]), k)
    assert found.dtype == torch.float64
    assert found.shape == (1,)
    return float(found)


@pytest.mark.parametrize(
    ("metric", "row", "relevant", "k", "expected"),
    [
        ("recall", [4, 7], [7, 1, 2, 3], 2, 1 / 4),
        ("precision", [4, 7], [7], 2, 1 / 2),
        ("precision", [4, 7], [4, 7], 10, 2 / 10),  # also for shorter lists
        ("hit", [4, 7], [7], 1, 0.0),
        ("hit", [4, 7], [7], 2, 1.0),
        ("mrr", [4, 5, 7], [7], 2, 0.0),
        ("mrr", [4, 5, 7], [7], 3, 1 / 3),
        ("mrr", [4, 5, 7], [5, 7], 9, 1 / 2),
        ("ndcg", [4, 7], [7], 5, math.log2(2) / math.log2(3)),
        ("ndcg", [7], [7, 8, 9], 5, 1 / (1 + 1 / math.log2(3) + 1 / 2)),
        ("ndcg", [7, 8], [7, 8, 9], 2, 1.0),
        ("map", [7, 1, 8], [7, 8], 3, (1 + 2 / 3) / 2),
        ("map", [7, 1, 8], [7, 8, 9], 2, 1 / 2),
        ("map", [1, 2], [7], 2, 0.0),
        ("recall", [-1, -1], [0], 2, 0.0),
        ("recall", [0, -1], [0], 2, 1.0),
    ],
)
def test_by_hand(metric: str, row: list[int], relevant: list[int], k: int, expected: float) -> None:
    assert value(metric, row, relevant, k) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("metric", METRICS)
def test_a_user_without_relevant_items_is_undefined(metric: str) -> None:
    found = METRICS[metric](ranking_of([1, 2], [1, 2]), Ragged.of([[], [1]]), 2)
    assert torch.isnan(found[0])
    assert found[1] > 0
    assert torch.isnan(METRICS[metric](ranking_of([1, 2]), Ragged.empty(1), 2)).all()


@given(st.integers(0, 2**31), st.integers(1, 12), st.integers(1, 15))
def test_against_a_plain_implementation(seed: int, length: int, k: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    rows = [torch.randperm(20, generator=generator)[:length].tolist() for _ in range(3)]
    relevant = [torch.randperm(20, generator=generator)[: int(n)].tolist() for n in (1, 4, 15)]
    for name in ("recall", "precision", "ndcg", "mrr"):
        found = METRICS[name](ranking_of(*rows), Ragged.of(relevant), k)
        plain = [rank_metrics(row, set(items), [k])[f"{name}@{k}"] for row, items in zip(rows, relevant, strict=True)]
        assert found.tolist() == pytest.approx(plain, abs=1e-12)


def test_hits_do_not_leak_between_rows() -> None:
    """-1 and numbers beyond one table's largest must not meet those of a neighbour."""
    found = hits(ranking_of([9, -1], [-1, 0], [0, 9]), Ragged.of([[1], [9], [0]]), 2)
    assert found.tolist() == [[False, False], [False, False], [True, False]]
    assert hits(Ranking(torch.zeros(1, 0, dtype=torch.int64), torch.zeros(1, 0)), Ragged.of([[1]]), 3).shape == (1, 0)


def test_relevant_items_stand_behind_their_ties() -> None:
    items = torch.tensor([[5, 1, 2, 7, 8]])
    scores = torch.tensor([[3.0, 2.0, 2.0, 2.0, 1.0]])
    found = ties_against_us(Ranking(items, scores), Ragged.of([[5, 1, 8]]))
    assert found.items.tolist() == [[5, 2, 7, 1, 8]]
    assert found.scores.tolist() == scores.tolist()
    assert float(METRICS["recall"](found, Ragged.of([[5, 1, 8]]), 3)) == pytest.approx(1 / 3)


def test_among_equals_the_lower_number_goes_first() -> None:
    ranking = Ranking(torch.tensor([[9, 4, 7, 2, 3]]), torch.tensor([[1.0, 1.0, 1.0, 1.0, 0.5]]))
    assert ties_against_us(ranking, Ragged.of([[2, 4]])).items.tolist() == [[7, 9, 2, 4, 3]]


def test_lists_without_scores_are_read_as_rankings() -> None:
    found = METRICS["recall"](of_lists(np.array([[4, 7, -1]], np.int32)), Ragged.of([[7, 9]]), 3)
    assert found.tolist() == [0.5]


def test_ties_keep_the_padding_last_and_the_reason() -> None:
    ranking = Ranking(torch.tensor([[3, -1, -1]]), torch.tensor([[1.0, -math.inf, -math.inf]]), fallback=torch.ones(1))
    found = ties_against_us(ranking, Ragged.of([[3]]))
    assert found.items.tolist() == [[3, -1, -1]]
    assert found.fallback is ranking.fallback


@given(st.lists(st.tuples(st.integers(0, 2), st.booleans()), min_size=1, max_size=9))
def test_no_order_within_ties_is_worse(entries: list[tuple[int, bool]]) -> None:
    entries = sorted(entries, key=lambda entry: -entry[0])
    scores = torch.tensor([[float(score) for score, _ in entries]])
    relevant = Ragged.of([[n for n, (_, good) in enumerate(entries) if good]])
    found = ties_against_us(Ranking(torch.arange(len(entries)).unsqueeze(0), scores), relevant)
    assert sorted(found.items[0].tolist()) == list(range(len(entries)))
    expected = sorted(range(len(entries)), key=lambda n: (-entries[n][0], entries[n][1], n))
    assert found.items[0].tolist() == expected
