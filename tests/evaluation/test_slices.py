"""The selection metric on parts, by hand."""

import numpy as np
import pytest
import torch

from rediffuse.data.dataset import Dataset
from rediffuse.evaluation.evaluate import Scores, Task
from rediffuse.evaluation.report import Slice
from rediffuse.evaluation.slices import slices
from rediffuse.protocols import FitData
from rediffuse.types import Fallback, Query, Ragged

# Events 6, 3 and 1 of 10, and an item without one: head, mid, tail, unseen.
DATA = FitData(Ragged.of([[0] * 6 + [1] * 3 + [2]]), 4, "sequence")


def task(lengths: list[int], relevant: list[list[int]]) -> Task:
    history = Ragged.of([[0] * length for length in lengths])
    users = torch.arange(len(lengths))
    return Task(Query(users, history, users), Ragged.of(relevant), 0)


def scores(values: list[float], lists: list[list[int]], fallback: list[int] | None = None) -> Scores:
    codes = np.array(fallback or [0] * len(values), np.int8)
    return Scores(("recall@2",), np.array(values)[:, None], np.array(lists, np.int32).reshape(-1, 2), codes)


def of(found: list[Slice], by: str) -> dict[str, tuple[int, float]]:
    return {part.label: (part.users, part.value.mean) for part in found if part.by == by}


def test_by_length_of_history() -> None:
    lengths = [0, 1, 4, 5, 9, 10, 20, 99, 100, 5000]
    values = [0.0, 0.1, 0.3, 0.5, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
    found = slices(scores(values, [[0, 1]] * 10), task(lengths, [[0]] * 10), DATA, "recall@2")
    assert of(found, "history length") == {
        "0 events": (1, 0.0),
        "1-4 events": (2, pytest.approx(0.2)),
        "5-9 events": (2, 0.5),
        "10-19 events": (1, 0.6),
        "20-49 events": (1, 0.7),
        "50-99 events": (1, 0.8),
        "100+ events": (2, 0.95),
    }
    # Everybody answered by the method itself: there is nothing to tell apart.
    assert of(found, "answer") == {}


def test_bands_and_shelves_without_users_are_left_out() -> None:
    found = slices(scores([1.0], [[0, 1]]), task([7], [[0]]), DATA, "recall@2")
    assert [(part.by, part.label) for part in found] == [("history length", "5-9 events"), ("popularity", "head")]
    assert slices(scores([], []), task([], []), DATA, "recall@2") == []


def test_by_popularity_only_relevant_items_of_the_shelf_count() -> None:
    asked = task([3, 3, 3], [[0, 1], [1, 2, 3], [3]])
    found = slices(scores([0.5, 1 / 3, 0.0], [[0, 2], [1, 0], [1, 2]]), asked, DATA, "recall@2")
    assert of(found, "popularity") == {"head": (1, 1.0), "mid": (2, 0.5), "tail": (1, 0.0), "unseen": (2, 0.0)}


def test_fallback_answers_stand_apart() -> None:
    codes = [Fallback.NONE, Fallback.EMPTY_HISTORY, Fallback.NONE]
    found = slices(
        scores([0.2, 0.9, 0.4], [[0, 1]] * 3, list(map(int, codes))), task([3, 0, 4], [[0]] * 3), DATA, "recall@2"
    )
    assert of(found, "answer") == {
        "the method's own": (2, pytest.approx(0.3)),
        "fallback: empty history": (1, 0.9),
    }


def test_intervals_hold_the_mean_and_do_not_change(tiny: Dataset) -> None:
    rng = np.random.default_rng(0)
    lengths, values = rng.integers(0, 200, 300).tolist(), rng.random(300).tolist()
    first, again = (
        slices(scores(values, [[0, 1]] * 300), task(lengths, [[0, 1, 2]] * 300), DATA, "recall@2") for _ in range(2)
    )
    assert first == again
    assert sum(part.users for part in first if part.by == "history length") == 300
    assert all(part.value.low <= part.value.mean <= part.value.high for part in first)
