"""Vectors of items are the leading directions of the events; groups of them are never empty."""

import warnings

import numpy as np
import pytest
import torch
from torch import Tensor

from rediffuse.errors import InvalidInput
from rediffuse.spaces.item_vectors import clusters, item_vectors
from rediffuse.types import Ragged

ITEMS = 23


def histories() -> Ragged:
    """40 users, items 0 .. 20; items 21 and 22 are never taken."""
    generator = torch.Generator().manual_seed(0)
    return Ragged.of([torch.randperm(21, generator=generator)[: 3 + user % 6].tolist() for user in range(40)])


def table(history: Ragged) -> Tensor:
    x = torch.zeros(len(history), ITEMS, dtype=torch.float64)
    x[history.rows, history.items] = 1
    return x


@pytest.mark.parametrize("width", [1, 5, 20])
def test_cosines_are_those_of_the_best_approximation(width: int) -> None:
    vectors = item_vectors(histories(), ITEMS, width)
    assert vectors.shape == (ITEMS, width)
    assert vectors.dtype == torch.float32
    _, s, vt = np.linalg.svd(table(histories()).numpy())
    points = torch.from_numpy(vt[:width].T * s[:width])[:21]
    expected = torch.nn.functional.normalize(points)
    torch.testing.assert_close((vectors @ vectors.t())[:21, :21], (expected @ expected.t()).float(), rtol=0, atol=1e-5)


def test_with_all_directions_the_cosine_is_that_of_the_items_users() -> None:
    x = torch.nn.functional.normalize(table(histories())[:, :21], dim=0)
    vectors = item_vectors(histories(), ITEMS, 1000)[:21]  # the data has 21 directions, fewer than the 22 asked for
    assert vectors.shape[1] == 21
    torch.testing.assert_close(vectors @ vectors.t(), (x.t() @ x).float(), rtol=0, atol=1e-5)


def test_items_without_events_have_no_vector_and_others_have_length_one() -> None:
    sizes = item_vectors(histories(), ITEMS, 8).norm(dim=1)
    assert torch.equal(sizes[21:], torch.zeros(2))
    torch.testing.assert_close(sizes[:21], torch.ones(21))
    assert not item_vectors(Ragged.empty(5), ITEMS, 8).any()


def test_an_item_that_the_directions_miss_has_no_vector() -> None:
    """Three users of items 0 and 1, one of item 2 alone: the first direction does not know item 2."""
    vectors = item_vectors(Ragged.of([[0, 1], [0, 1], [0, 1], [2]]), 3, 1)
    torch.testing.assert_close(vectors, torch.tensor([[1.0], [1.0], [0.0]]))


def test_only_who_took_what_counts() -> None:
    history = histories()
    again = Ragged.of([row[::-1] + row[:1] for row in history.to_lists()])
    weighed = Ragged(history.indptr, history.items, weight=torch.rand(history.items.numel()))
    for same in (again, weighed):
        torch.testing.assert_close(item_vectors(same, ITEMS, 6), item_vectors(history, ITEMS, 6))


@pytest.mark.parametrize("wide", [False, True])
def test_runs_and_seeds_agree_to_the_sign(wide: bool) -> None:
    history = histories().select(torch.arange(12)) if wide else histories()
    first = item_vectors(history, ITEMS, 4)
    assert torch.equal(first, item_vectors(history, ITEMS, 4))
    torch.testing.assert_close(first, item_vectors(history, ITEMS, 4, seed=1), rtol=0, atol=1e-4)


@pytest.mark.parametrize(("rows", "n_items"), [([[0]], 1), ([[0, 1, 2]], 3), ([[0], [0]], 1)])
def test_one_user_or_item_is_too_few(rows: list[list[int]], n_items: int) -> None:
    with pytest.raises(InvalidInput, match="at least two users and two items"):
        item_vectors(Ragged.of(rows), n_items)


def blobs(sizes: list[int]) -> tuple[Tensor, Tensor]:
    """Well parted clouds in mixed order, and the cloud of each point."""
    generator = torch.Generator().manual_seed(3)
    of = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    of = of[torch.randperm(len(of), generator=generator)]
    centres = 10 * torch.eye(len(sizes))
    return centres[of] + 0.1 * torch.randn(len(of), len(sizes), generator=generator), of


@pytest.mark.parametrize("seed", range(5))
def test_parted_clouds_are_found_and_numbered_by_size(seed: int) -> None:
    points, of = blobs([5, 30, 12])
    assert torch.equal(clusters(points, 3, seed), torch.tensor([2, 0, 1])[of])


def test_equal_groups_are_numbered_by_their_first_item() -> None:
    points = torch.tensor([[0.0], [9.0], [0.0], [9.0], [4.0], [4.0]])
    assert clusters(points, 3).tolist() == [0, 1, 0, 1, 2, 2]


def test_one_group_holds_all() -> None:
    assert clusters(blobs([4, 3])[0], 1).tolist() == [0] * 7


def test_there_are_no_more_groups_than_distinct_vectors() -> None:
    points = torch.tensor([[1.0, 0], [0, 1], [1, 0], [0, 0], [1, 0]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert clusters(points, 5).tolist() == [0, 1, 0, 2, 0]
        assert clusters(torch.zeros(4, 3), 2).tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("k", [2, 7, 16])
def test_no_group_is_empty_and_runs_agree(k: int) -> None:
    vectors = item_vectors(histories(), ITEMS, 8)
    for seed in range(20):
        found = clusters(vectors, k, seed)
        sizes = torch.bincount(found)
        assert found.dtype == torch.int64
        assert found.shape == (ITEMS,)
        assert len(sizes) <= k
        assert (sizes > 0).all()
        assert (sizes.diff() <= 0).all()
        assert torch.equal(found, clusters(vectors, k, seed))


def test_a_group_that_loses_its_items_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Group 1 of three has ended empty."""
    found = (None, np.array([2, 0, 2, 2], dtype=np.int32))
    monkeypatch.setattr("rediffuse.spaces.item_vectors.kmeans2", lambda *_, **__: found)
    assert clusters(torch.arange(4.0).unsqueeze(1), 3).tolist() == [0, 1, 0, 0]


def test_less_than_one_group_is_refused() -> None:
    with pytest.raises(InvalidInput, match="at least 1"):
        clusters(torch.zeros(3, 2), 0)
