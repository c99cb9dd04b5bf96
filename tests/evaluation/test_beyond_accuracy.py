"""Figures beyond accuracy on a shop small enough to count by hand, and against plain loops."""

import math
from itertools import combinations

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from rediffuse.data.catalog import Catalog
from rediffuse.data.dataset import Dataset
from rediffuse.data.vocabulary import Vocabulary
from rediffuse.evaluation import beyond_accuracy
from rediffuse.evaluation.beyond_accuracy import (
    Background,
    beyond,
    category_matrix,
    coverage,
    gini,
    intra_list_distance,
    list_mean,
    popular_lists,
    serendipity,
    shelves,
)
from rediffuse.evaluation.evaluate import Task
from rediffuse.evaluation.protocol import Protocol
from rediffuse.protocols import FitData
from rediffuse.types import Ragged

# Users of the items 0..4: three, two, one, one, none. User 0 took item 0 twice; user 3 took nothing.
DATA = FitData(Ragged.of([[0, 1, 0], [0, 1, 2], [0, 3], []]), 5, "sequence")
LISTS = np.array([[0, 1], [2, -1], [4, 0]], np.int32)
RELEVANT = Ragged.of([[1], [2, 3], []])
POPULAR = np.array([[0, 1], [0, 1], [0, 1]], np.int32)


def catalog(**columns: list[object]) -> Catalog:
    table = pl.DataFrame(columns)
    return Catalog(Vocabulary(tuple("abcde"[: table.height])), table)


def test_every_figure_by_hand() -> None:
    categories = category_matrix(catalog(category=["x", "x", "y", "y", "x"]))
    found = beyond(LISTS, RELEVANT, Background(DATA, POPULAR, categories), (1, 2))
    names = ("coverage", "gini", "novelty", "serendipity", "ild", "ild_category", "popularity", "tail")
    assert list(found) == [f"{name}@{k}" for name in names for k in (1, 2)]
    mean = {name: value.mean for name, value in found.items()}
    assert mean["coverage@1"] == 3 / 5  # 0, 2, 4
    assert mean["coverage@2"] == 4 / 5  # and 1
    # Exposures 0 0 1 1 1 and 0 1 1 1 2 in rising order, weights -4 -2 0 2 4.
    assert mean["gini@1"] == pytest.approx((0 + 2 + 4) / (5 * 3))
    assert mean["gini@2"] == pytest.approx((-2 + 0 + 2 + 8) / (5 * 5))
    # Three users have events, so item i weighs log2(4 / (n_i + 1)): 0, log2(4/3), 1, 1, 2.
    assert mean["novelty@1"] == pytest.approx((0 + 1 + 2) / 3)
    assert mean["novelty@2"] == pytest.approx((math.log2(4 / 3) / 2 + 1 + 1) / 3)
    # User 0 finds item 1, which is popular; user 1 finds item 2, which is not; user 2 has nothing to find.
    assert mean["serendipity@1"] == pytest.approx((0 + 1) / 2)
    assert mean["serendipity@2"] == pytest.approx((0 + 1 / 2) / 2)
    # Pairs (0, 1): 1 - 2 / sqrt(3 * 2); (4, 0): nobody has 4, so 1. User 1 has no pair, and no list of one has.
    assert math.isnan(mean["ild@1"])
    assert mean["ild@2"] == pytest.approx((1 - 2 / math.sqrt(6) + 1) / 2)
    assert mean["ild_category@2"] == 0.0
    assert mean["popularity@1"] == pytest.approx((1 + 1 / 3 + 0) / 3)
    assert mean["popularity@2"] == pytest.approx((5 / 6 + 1 / 3 + 1 / 2) / 3)
    # Events by item: 4, 2, 1, 1, 0 of 8. 0 is head; 1, 2 and 3 have 4, 6 and 7 before them and are mid; 4 is unseen.
    assert shelves(DATA).tolist() == [0, 1, 1, 1, 3]
    assert mean["tail@1"] == pytest.approx(1 / 3)
    assert mean["tail@2"] == pytest.approx((0 + 0 + 1 / 2) / 3)


def test_numbers_of_all_lists_together_have_no_width_and_means_over_users_do() -> None:
    found = beyond(LISTS, RELEVANT, Background(DATA, POPULAR, None), (2,))
    assert "ild_category@2" not in found
    for name in ("coverage@2", "gini@2"):
        assert found[name].low == found[name].mean == found[name].high
    for name in ("novelty@2", "serendipity@2", "popularity@2"):
        assert found[name].low < found[name].mean < found[name].high


def test_undefined_users_are_in_no_mean() -> None:
    lists = np.array([[-1, -1], [1, -1]], np.int32)
    assert np.isnan(list_mean(lists, np.arange(3.0))).tolist() == [True, False]
    assert np.isnan(serendipity(lists, Ragged.of([[1], []]), [], 2)).tolist() == [False, True]
    columns = sparse.csr_matrix(np.eye(3, dtype=np.float32))
    assert np.isnan(intra_list_distance(lists, columns, (2,))[0]).all()


def test_nobody_was_asked() -> None:
    nothing = np.empty((0, 2), np.int32)
    found = beyond(nothing, Ragged.empty(0), Background(DATA, nothing, None), (2,))
    assert all(math.isnan(value.mean) for value in found.values())


def test_an_item_that_nobody_has_is_the_most_novel_and_one_that_all_have_is_not() -> None:
    lists = np.array([[4], [0]], np.int32)
    background = Background(DATA, POPULAR[:2, :1], None)
    best, least = (beyond(lists[n : n + 1], Ragged.of([[1]]), background, (1,))["novelty@1"].mean for n in (0, 1))
    assert best == pytest.approx(math.log2(3 + 1))
    assert least == 0.0


def test_gini_at_its_ends() -> None:
    assert gini(np.array([[0, 1], [2, 3]], np.int32), 4) == 0.0
    assert gini(np.array([[1], [1], [1]], np.int32), 4) == pytest.approx(3 / 4)  # 1 - 1 / I
    assert math.isnan(gini(np.array([[-1]], np.int32), 4))
    assert coverage(np.array([[-1]], np.int32), 4) == 0.0


def test_other_lists_may_be_expected_too() -> None:
    relevant, lists = Ragged.of([[1, 2, 3]]), np.array([[3, 2, 1]], np.int32)
    popular, neighbours = np.array([[1, 0, 4]], np.int32), np.array([[0, 3, -1]], np.int32)
    assert serendipity(lists, relevant, [], 3).tolist() == [1.0]
    assert serendipity(lists, relevant, [popular], 3).tolist() == [2 / 3]
    assert serendipity(lists, relevant, [popular, neighbours], 3).tolist() == [1 / 3]
    # Only the first k of what was expected count.
    assert serendipity(lists, relevant, [neighbours], 1).tolist() == [1.0]


@given(st.integers(0, 2**31), st.sampled_from([1, 7, 1 << 22]))
def test_distances_against_plain_loops(seed: int, cells: int) -> None:
    rng = np.random.default_rng(seed)
    features = (rng.random((9, 12)) < 0.3).astype(np.float32)
    features[:, 5] = 0  # in common with nothing
    lists = np.array([rng.permutation(12)[:6] for _ in range(5)], np.int32)
    for user in range(5):
        lists[user, 6 - user :] = -1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(beyond_accuracy, "_CELLS", cells)
        found = intra_list_distance(lists, sparse.csr_matrix(features), (2, 4, 6))
    for k, values in zip((2, 4, 6), found, strict=True):
        for row, value in zip(lists, values, strict=True):
            pairs = [
                _distance(features[:, i], features[:, j]) for i, j in combinations([i for i in row[:k] if i >= 0], 2)
            ]
            assert value == pytest.approx(np.mean(pairs) if pairs else np.nan, abs=1e-12, nan_ok=True)


def _distance(a: np.ndarray, b: np.ndarray) -> float:
    size = math.sqrt(a.sum() * b.sum())
    return 1 - float(a @ b) / size if size else 1.0


def test_equal_items_are_exactly_no_distance_apart() -> None:
    features = sparse.csr_matrix(np.ones((7, 3), np.float32))
    assert intra_list_distance(np.array([[0, 1, 2]], np.int32), features, (3,))[0].tolist() == [0.0]


@given(st.integers(0, 2**31), st.integers(1, 9))
def test_popular_lists_against_plain_loops(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    data = FitData(Ragged.of([rng.integers(0, 8, rng.integers(0, 6)).tolist() for _ in range(6)]), 8, "none")
    masks = [rng.permutation(8)[: rng.integers(0, 9)].tolist() for _ in range(7)]
    users = data.users_per_item().tolist()
    for row, mask in zip(popular_lists(data, Ragged.of(masks), k).tolist(), masks, strict=True):
        best = sorted((i for i in range(8) if i not in mask), key=lambda i: (-users[i], i))[:k]
        assert row == best + [-1] * (k - len(best))


def test_popularity_itself_holds_no_surprise(tiny: Dataset) -> None:
    protocol = Protocol()
    task = Task.of(tiny, protocol.report)
    background = Background.of(tiny, protocol, task)
    found = beyond(background.popular, task.relevant, background, protocol.ks)
    assert found["serendipity@20"].high == 0
    assert found["coverage@20"].mean < 0.5
    assert background.categories is not None
    assert not any(set(row) & set(mask) for row, mask in zip(background.popular.tolist(), _masks(task), strict=True))


def _masks(task: Task) -> list[list[int]]:
    assert task.query.exclude is not None
    return task.query.exclude.to_lists()


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"title": ["a", "b"]}, None),
        ({"category": [None, " "]}, None),
        ({"category": ["x", None]}, [[1, 0]]),
        ({"genres": ["x|y", "y"]}, [[1, 0], [1, 1]]),
        ({"categories": [["x", "y"], []]}, [[1, 0], [1, 0]]),
        ({"category": [7, 3]}, [[0, 1], [1, 0]]),
        ({"genre": ["x", "x"], "category": ["p", "q"]}, [[1, 0], [0, 1]]),  # the first name that is there
    ],
)
def test_categories_of_a_catalog(columns: dict[str, list[object]], expected: list[list[int]] | None) -> None:
    found = category_matrix(catalog(**columns))
    assert expected == (None if found is None else found.toarray().tolist())


def test_shelves_follow_events_and_ties_the_number() -> None:
    history = Ragged.of([[0] * 1 + [1] * 5 + [2] * 4 + [3] * 5])
    # In falling order 1 3 2 0; before them lie 0, 5, 10 and 14 of 15 events.
    assert shelves(FitData(history, 5, "none")).tolist() == [2, 0, 1, 0, 3]
    assert shelves(FitData(Ragged.empty(2), 3, "none")).tolist() == [3, 3, 3]


def test_figures_depend_on_no_order_of_users(tiny: Dataset) -> None:
    protocol = Protocol()
    task = Task.of(tiny, protocol.report)
    background = Background.of(tiny, protocol, task)
    lists = np.random.default_rng(0).permuted(np.tile(np.arange(240, dtype=np.int32), (len(task.query), 1)), axis=1)[
        :, :20
    ]
    turned = torch.arange(len(lists)).flip(0)
    other = Background(background.data, background.popular[::-1].copy(), background.categories)
    one = beyond(lists, task.relevant, background, (20,))
    two = beyond(lists[::-1].copy(), task.relevant.select(turned), other, (20,))
    assert {n: v.mean for n, v in one.items()} == pytest.approx({n: v.mean for n, v in two.items()}, abs=1e-12)
