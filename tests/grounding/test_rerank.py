"""Re-rankers against plain loops over definitions, and what every one of them keeps."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rediffuse.errors import InvalidInput
from rediffuse.grounding.rerank import RERANKERS, Shortlist, relevance, rerank

SETTINGS = [step / 10 for step in range(11)]


def shortlist(batch: int = 5, width: int = 12, seed: int = 0, short: int = 0) -> Shortlist:
    """Any one; the first row lacks its last `short` items."""
    g = torch.Generator().manual_seed(seed)
    scores = torch.rand(batch, width, generator=g).sort(dim=1, descending=True).values
    scores[0, width - short :] = -torch.inf
    vectors = torch.nn.functional.normalize(torch.rand(batch, width, 4, generator=g) ** 3, dim=2)
    categories = torch.nn.functional.one_hot(torch.randint(0, 3, (batch, width), generator=g), 3).float()
    wanted = torch.softmax(torch.randn(batch, 3, generator=g), dim=1)
    draws = torch.rand(6, batch, width, generator=g)
    return Shortlist(relevance(scores), vectors @ vectors.mT, categories, wanted, draws)


def objective(name: str, of: Shortlist, row: int, chosen: list[int], item: int) -> float:
    """The novelty by its definition, from the whole set."""
    assert of.similarity is not None
    s = of.similarity[row].double()
    if name == "mmr":
        return -max((float(s[item, j]) for j in chosen), default=0.0)
    if name == "dpp":
        kernel = s.clone().fill_diagonal_(1)
        both = [kernel[group][:, group].logdet() for group in ([*chosen, item], chosen) if group]
        # Rounded similarities may leave a determinant just below 0: then nothing is left to add.
        return float((both[0] - (both[1] if chosen else 0)).nan_to_num(nan=-math.inf))
    if name == "max_sum":
        ideal = sum(1 / math.log2(p + 1) for p in range(1, 11))
        gain = 1 / math.log2(len(chosen) + 2)
        return sum(1 - float(s[item, j]) for j in chosen) / 45 * ideal / gain
    if name == "calibrated":
        assert of.categories is not None
        assert of.wanted is not None
        p = of.wanted[row].double()
        q = 0.99 * of.categories[row, [*chosen, item]].double().mean(0) + 0.01 * p
        return -float((p * (p / q).log()).sum())
    assert of.draws is not None
    unserved = torch.stack([1 - of.draws[:, row, j] for j in chosen] or [torch.ones(6)]).prod(0)
    return float((unserved * of.draws[:, row, item]).mean())


@pytest.mark.parametrize("name", sorted(RERANKERS))
@settings(max_examples=30)
@given(st.integers(0, 2**31), st.sampled_from(SETTINGS[1:]))
def test_every_place_goes_to_the_best_by_definition(name: str, seed: int, diversity: float) -> None:
    of = shortlist(seed=seed)
    # More items than dimensions would leave dpp nothing to choose by.
    for row, places in enumerate(rerank(of, 4, diversity, name).tolist()):
        for step, taken in enumerate(places):
            left = [item for item in range(12) if item not in places[:step]]
            worth = {
                i: (1 - diversity) * float(of.relevance[row, i])
                + diversity * objective(name, of, row, places[:step], i)
                for i in left
            }
            assert worth[taken] >= max(worth.values()) - 1e-4


@pytest.mark.parametrize("name", sorted(RERANKERS))
@settings(max_examples=30)
@given(st.integers(0, 2**31), st.integers(0, 12), st.sampled_from(SETTINGS))
def test_lists_have_every_item_once_and_begin_alike(name: str, seed: int, short: int, diversity: float) -> None:
    of = shortlist(seed=seed, short=short)
    whole = rerank(of, 20, diversity, name)
    assert whole.sort(1).values.tolist() == [list(range(12))] * 5
    assert whole[0, 12 - short :].tolist() == list(range(12 - short, 12))
    assert torch.equal(rerank(of, 5, diversity, name), whole[:, :5])
    if diversity == 0:
        assert torch.equal(whole, torch.arange(12).expand(5, -1))


@pytest.mark.parametrize("name", ["mmr", "dpp", "max_sum"])
def test_lists_grow_more_unlike_in_the_mean(name: str) -> None:
    of = shortlist(400, 30)
    assert of.similarity is not None
    distance: list[float] = []
    for diversity in SETTINGS:
        places, user = rerank(of, 6, diversity, name), torch.arange(400)
        pairs = [of.similarity[user, places[:, i], places[:, j]] for i, j in itertools.combinations(range(6), 2)]
        distance.append(float(1 - torch.stack(pairs).mean()))
    assert distance == sorted(distance)
    assert distance[-1] > 1.1 * distance[0]


def test_a_twin_of_what_is_chosen_comes_last() -> None:
    vectors = torch.tensor([[[1.0, 0.0], [1.0, 0.0], [0.6, 0.8], [0.0, 1.0]]])
    of = Shortlist(torch.tensor([[1.0, 0.9, 0.8, 0.0]]), vectors @ vectors.mT)
    assert rerank(of, 4, 0.0, "mmr").tolist() == [[0, 1, 2, 3]]
    assert rerank(of, 4, 0.4, "mmr").tolist() == [[0, 2, 1, 3]]
    for name in ("mmr", "dpp", "max_sum"):
        assert rerank(of, 2, 1.0, name).tolist() == [[0, 3]]


def test_a_list_comes_to_have_the_categories_of_the_history() -> None:
    categories = torch.eye(2)[torch.tensor([0] * 8 + [1] * 8)].unsqueeze(0)
    of = Shortlist(
        relevance(-torch.arange(16.0).unsqueeze(0)), categories=categories, wanted=torch.tensor([[0.7, 0.3]])
    )
    assert rerank(of, 10, 0.0, "calibrated").ge(8).sum() == 2
    assert rerank(of, 10, 1.0, "calibrated").ge(8).sum() == 3
    unknown = Shortlist(of.relevance, categories=categories, wanted=torch.zeros(1, 2))
    assert rerank(unknown, 10, 0.9, "calibrated").tolist() == [list(range(10))]


def test_merged_draws_are_served_in_turn() -> None:
    """Two of three draws want item 2 most, the third wants item 3; the plain list begins with 0."""
    draws = torch.zeros(3, 1, 4)
    draws[:2, 0, 2], draws[2, 0, 3], draws[:, 0, 1] = 0.9, 0.9, 0.1
    of = Shortlist(torch.tensor([[1.0, 0.9, 0.5, 0.0]]), draws=draws)
    assert rerank(of, 3, 0.0, "merged").tolist() == [[0, 1, 2]]
    assert rerank(of, 3, 1.0, "merged").tolist() == [[2, 3, 1]]


def test_relevance_is_free_of_scale_and_shift() -> None:
    scores = torch.tensor([[5.0, 3.0, 1.0], [7.0, 7.0, 7.0], [2.0, 1.0, -torch.inf], [-torch.inf] * 3])
    expected = [[1.0, 0.5, 0.0], [1.0, 1.0, 1.0], [1.0, 0.0, -torch.inf], [-torch.inf] * 3]
    assert relevance(scores).tolist() == expected
    assert relevance(4 * scores - 9).tolist() == expected
    assert relevance(scores).dtype == torch.float32


@pytest.mark.parametrize("diversity", [-0.1, 1.5, math.nan])
def test_the_knob_goes_from_0_to_1(diversity: float) -> None:
    with pytest.raises(InvalidInput, match=r"diversity out of range.*0\.\.1"):
        rerank(shortlist(), 3, diversity)
