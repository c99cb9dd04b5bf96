"""Exact top-k, whole and in blocks, with what may not be returned."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rediffuse.errors import InvalidInput
from rediffuse.grounding import TopK, top_k
from rediffuse.grounding.topk import NEVER
from rediffuse.types import Ragged

SCORES = torch.tensor([[0.1, 0.9, -0.5, 0.4], [3.0, 2.0, 1.0, 4.0]])


def test_best_first() -> None:
    ranking = top_k(SCORES.clone(), 3)
    assert ranking.items.tolist() == [[1, 3, 0], [3, 0, 1]]
    assert ranking.scores[0].tolist() == pytest.approx([0.9, 0.4, 0.1])
    assert ranking.scores.dtype == torch.float32
    assert ranking.items.dtype == torch.int64


def test_seen_items_never_return_and_missing_places_are_padded() -> None:
    seen = Ragged.of([[1, 1, 2], []])
    ranking = top_k(SCORES.clone(), 3, seen=seen)
    assert ranking.items.tolist() == [[3, 0, -1], [3, 0, 1]]
    assert ranking.scores[0, 2] == NEVER
    wide = top_k(SCORES.clone(), 7, seen=seen)
    assert wide.items.tolist() == [[3, 0, -1, -1, -1, -1, -1], [3, 0, 1, 2, -1, -1, -1]]
    assert wide.scores[1, 4:].tolist() == [NEVER] * 3


def test_only_candidates_return() -> None:
    candidates = Ragged.of([[2, 0, 2], []])
    assert top_k(SCORES.clone(), 3, candidates=candidates).items.tolist() == [[0, 2, -1], [-1, -1, -1]]
    both = top_k(SCORES.clone(), 3, candidates=candidates, seen=Ragged.of([[0], [0]]))
    assert both.items.tolist() == [[2, -1, -1], [-1, -1, -1]]


def test_numbers_outside_the_catalog_are_passed_over() -> None:
    lists = Ragged.of([[-1, 4, 1], [99]])
    assert top_k(SCORES.clone(), 4, seen=lists).items.tolist() == [[3, 0, 2, -1], [3, 0, 1, 2]]
    assert top_k(SCORES.clone(), 4, candidates=lists).items.tolist() == [[1, -1, -1, -1], [-1] * 4]


@given(
    st.integers(1, 4), st.integers(1, 30), st.integers(1, 12), st.integers(1, 35), st.integers(0, 2**31), st.booleans()
)
def test_blocks_change_nothing(batch: int, width: int, block: int, k: int, seed: int, limited: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores = torch.rand(batch, width, generator=generator, dtype=torch.float64)

    def some() -> Ragged:
        return Ragged.of([torch.randperm(width, generator=generator)[: width // 3].tolist() for _ in range(batch)])

    seen, candidates = some(), some() if limited else None

    def score(points: torch.Tensor, items: torch.Tensor | None) -> torch.Tensor:
        return (points if items is None else points[:, items]).clone()

    blocked = TopK(score, width, block)(scores, k, seen=seen, candidates=candidates)
    whole = top_k(scores.clone(), k, seen=seen, candidates=candidates)
    assert torch.equal(blocked.items, whole.items)
    assert torch.equal(blocked.scores, whole.scores)


def test_given_scores_of_a_large_catalog_are_read_once() -> None:
    """A catalog wider than a block: the table is there already, so it is not read block by block."""
    width = TopK.block + 5
    scores = torch.zeros(1, width)
    scores[0, [3, width - 1]] = torch.tensor([1.0, 2.0])
    assert top_k(scores, 2).items.tolist() == [[width - 1, 3]]


@pytest.mark.parametrize("k", [0, -1])
def test_an_empty_list_is_refused(k: int) -> None:
    with pytest.raises(InvalidInput, match=rf"k must be at least 1\. Got {k}"):
        top_k(SCORES.clone(), k)


def test_a_score_that_is_no_number_is_refused() -> None:
    scores = SCORES.clone()
    scores[1, 2] = float("nan")
    with pytest.raises(InvalidInput, match="A score is not a number"):
        top_k(scores, 1)
