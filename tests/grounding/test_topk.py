"""Exact top-k, whole and in blocks, with what may not be returned."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rediffuse.errors import InvalidInput
from rediffuse.grounding import TopK, top_k
from rediffuse.grounding.topk import NEVER
from rediffuse.types import Assortment, Query, Ragged

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


def test_what_is_offered_to_all_is_all_that_is_scored() -> None:
    asked: list[list[int] | None] = []

    def score(points: torch.Tensor, items: torch.Tensor | None) -> torch.Tensor:
        asked.append(None if items is None else items.tolist())
        return (points if items is None else points[:, items]).clone()

    offered = Assortment(torch.tensor([True, False, True, True]))
    ranking = TopK(score, 4, block=2)(SCORES, 3, candidates=offered)
    assert ranking.items.tolist() == [[3, 0, 2], [3, 0, 2]]
    assert asked == [[0, 2], [3]]
    limited = Assortment(offered.items, Ragged.of([[1, 2], [0, 3]]))
    assert TopK(score, 4)(SCORES, 2, candidates=limited).items.tolist() == [[2, -1], [3, 0]]
    fresh = TopK(score, 4, block=2)(SCORES, 2, candidates=offered, seen=Ragged.of([[3, 1], [0]]))
    assert fresh.items.tolist() == [[0, 2], [3, 2]]
    nothing = Assortment(torch.zeros(4, dtype=torch.bool))
    assert top_k(SCORES.clone(), 2, candidates=nothing).items.tolist() == [[-1, -1], [-1, -1]]


def test_a_list_holds_one_variant_of_each_product() -> None:
    """Scores fall from item 0 on; shirts are 0, 1 and 3, trousers 2 and 5, socks 4."""
    scores = torch.tensor([[0.9, 0.8, 0.7, 0.6, 0.5, 0.4]])
    products = Assortment(groups=torch.tensor([7, 7, 8, 7, 9, 8]))
    assert top_k(scores.clone(), 2, candidates=products).items.tolist() == [[0, 2]]
    assert top_k(scores.clone(), 4, candidates=products).items.tolist() == [[0, 2, 4, -1]]
    # The best shirt is gone: the next one stands for it.
    assert top_k(scores.clone(), 4, candidates=products, seen=Ragged.of([[0, 2]])).items.tolist() == [[1, 4, 5, -1]]
    limited = Assortment(torch.tensor([False, False, False, True, False, True]), groups=products.groups)
    ranking = top_k(scores.clone(), 3, candidates=limited)
    assert ranking.items.tolist() == [[3, 5, -1]]
    assert ranking.scores.tolist() == [[pytest.approx(0.6), pytest.approx(0.4), NEVER]]


@given(st.integers(1, 40), st.integers(1, 12), st.integers(1, 6), st.integers(1, 45), st.integers(0, 2**31))
def test_groups_are_those_of_a_search_in_python(width: int, block: int, products: int, k: int, seed: int) -> None:
    """One product may fill nearly the whole catalog, so that the search must go deep."""
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randperm(3 * width, generator=generator).view(3, width).to(torch.float64)
    groups = (torch.rand(width, generator=generator) ** 4 * products).long()
    mask = torch.rand(width, generator=generator) < 0.7
    seen = Ragged.of([torch.randperm(width, generator=generator)[: width // 4].tolist() for _ in range(3)])
    top = TopK(lambda points, items: (points if items is None else points[:, items]).clone(), width, block)
    ranking = top(scores, k, seen=seen, candidates=Assortment(mask, groups=groups))
    for row, had, found in zip(scores, seen.to_lists(), ranking.items.tolist(), strict=True):
        wanted: list[int] = []
        for item in row.argsort(descending=True).tolist():
            if mask[item] and item not in had and groups[item] not in groups[wanted]:
                wanted.append(item)
        assert found == (wanted + [-1] * k)[:k]


def test_an_assortment_follows_its_subjects() -> None:
    offered = Assortment(torch.tensor([True, False]), Ragged.of([[0], [1]]))
    assert Assortment.of(offered) is offered
    query = Query.from_history(Ragged.of([[0], [1]]))
    moved = Query.to(Query(query.user, query.history, query.key, candidates=offered), "cpu").select(torch.tensor([1]))
    assert isinstance(moved.candidates, Assortment)
    assert moved.candidates.lists is not None
    assert moved.candidates.lists.to_lists() == [[1]]
    assert moved.candidates.items is not None
    assert moved.candidates.items.tolist() == [True, False]


@pytest.mark.parametrize("field", ["items", "groups"])
def test_an_assortment_of_another_catalog_is_refused(field: str) -> None:
    with pytest.raises(InvalidInput, match="An assortment is of another catalog"):
        top_k(SCORES.clone(), 1, candidates=Assortment(**{field: torch.ones(5, dtype=torch.bool)}))
