"""A recommender is asked for a shortlist, and its list comes back in another order with all that belongs to it."""

from dataclasses import replace

import pytest
import torch

from rediffuse.errors import InvalidInput, UnsupportedOption
from rediffuse.grounding.diverse import Diverse, _falling
from rediffuse.types import Options, Query, Ragged, Ranking

N = 12
VECTORS = torch.nn.functional.normalize(torch.randn(N, 4, generator=torch.Generator().manual_seed(0)), dim=1)
QUERY = Query.from_history(Ragged.of([[0], [1, 2], [5]]))


class Numbered:
    """Ranks items by falling number, those excluded left out; a draw turns the list by its seed."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, Options, int]] = []

    def recommend(self, query: Query, k: int, *, options: Options = Options(), seed: int = 0) -> Ranking:
        self.asked.append((k, options, seed))
        assert query.exclude is not None
        rows = [[i for i in range(N - 1, -1, -1) if i not in out] for out in query.exclude.to_lists()]
        if options.start:
            rows = [row[seed:] + row[:seed] for row in rows]
        items = torch.tensor([(row + [-1] * k)[:k] for row in rows])
        scores = torch.where(items < 0, -torch.inf, items.float() / 10)
        told = torch.where(items < 0, 0, items.float())
        return Ranking(items, scores, told, told + 100, "consumption", torch.tensor([0, 1, 0]))


def test_without_diversity_the_answer_is_handed_on() -> None:
    model = Numbered()
    ranking = Diverse(model, VECTORS, shortlist=6).recommend(QUERY, 3, options=Options(steps=2), seed=4)
    assert model.asked == [(3, Options(steps=2), 4)]
    assert ranking.items[0].tolist() == [11, 10, 9]


@pytest.mark.parametrize("k", [3, 6, 9, 20])
@pytest.mark.parametrize("reranker", ["mmr", "dpp", "max_sum", "calibrated", "merged"])
def test_everything_follows_its_item(reranker: str, k: int) -> None:
    model = Numbered()
    diverse = Diverse(model, VECTORS, torch.eye(3)[torch.arange(N) % 3], reranker, shortlist=6, draws=2)
    ranking = diverse.recommend(QUERY, k, options=Options(steps=2, diversity=0.9), seed=4)
    assert model.asked[0] == (max(k, 6), Options(steps=2), 4)
    plain = Numbered().recommend(QUERY, max(k, 6))
    there = ranking.items >= 0
    assert ranking.items.shape == (3, k)
    assert ranking.spread is not None
    assert ranking.probability is not None
    assert torch.equal(ranking.spread[there], ranking.items[there].float())
    assert torch.equal(ranking.probability[there], ranking.items[there].float() + 100)
    assert ranking.fallback is not None
    assert ranking.fallback.tolist() == [0, 1, 0]
    assert bool((ranking.scores[:, :-1] >= ranking.scores[:, 1:]).all())
    assert bool((ranking.scores[there] <= ranking.items[there].float() / 10).all())
    assert torch.equal(ranking.scores == -torch.inf, ~there)
    # The shortlist comes first, in another order; then what was behind it.
    assert torch.equal(ranking.items[:, 6:], plain.items[:, 6:k])
    if k >= 6:
        assert torch.equal(ranking.items[:, :6].sort(1).values, plain.items[:, :6].sort(1).values)
        assert not torch.equal(ranking.items[:, :6], plain.items[:, :6])
    longer = diverse.recommend(QUERY, k + 3, options=Options(diversity=0.9), seed=4)
    assert torch.equal(longer.items[:, :k], ranking.items)


def test_the_share_of_longer_lists_is_not_told_as_that_of_the_list() -> None:
    class Drawn(Numbered):
        def recommend(self, query: Query, k: int, *, options: Options = Options(), seed: int = 0) -> Ranking:
            return replace(super().recommend(query, k, options=options, seed=seed), probability_of="top_k")

    diverse = Diverse(Drawn(), VECTORS, shortlist=6)
    assert diverse.recommend(QUERY, 3).probability_of == "top_k"
    ranking = diverse.recommend(QUERY, 3, options=Options(diversity=0.5))
    assert (ranking.probability, ranking.probability_of) == (None, None)
    assert ranking.spread is not None


def test_a_shortlist_longer_than_the_catalog() -> None:
    ranking = Diverse(Numbered(), VECTORS, shortlist=50).recommend(QUERY, 15, options=Options(diversity=1))
    for row, seen in zip(ranking.items.tolist(), QUERY.history.to_lists(), strict=True):
        there = [item for item in row if item >= 0]
        assert sorted(there + seen) == list(range(N))
        assert row[len(there) :] == [-1] * len(row[len(there) :])


def test_draws_are_asked_one_by_one_with_seeds_of_their_own() -> None:
    model = Numbered()
    diverse = Diverse(model, reranker="merged", shortlist=6, draws=3)
    diverse.recommend(QUERY, 3, options=Options(diversity=0.5), seed=4)
    assert model.asked[0] == (6, Options(), 4)
    assert model.asked[1:] == [(6, Options(start="thinned_history"), seed) for seed in (5, 6, 7)]
    model.asked.clear()
    diverse.recommend(QUERY, 3, options=Options(diversity=0.5, draws=2, start="pure_noise"), seed=4)
    assert model.asked[1:] == [(6, Options(start="pure_noise"), seed) for seed in (5, 6)]


def test_draws_begin_where_the_model_can_begin() -> None:
    class Able(Numbered):
        def __init__(self, *starts: str | None) -> None:
            super().__init__()
            self.starts = starts

        def recommend(self, query: Query, k: int, *, options: Options = Options(), seed: int = 0) -> Ranking:
            if options.start not in self.starts:
                raise UnsupportedOption(f"cannot begin at {options.start}")
            return super().recommend(query, k, options=options, seed=seed)

    model = Able(None, "pure_noise")
    merged = Diverse(model, reranker="merged", shortlist=6, draws=2)
    merged.recommend(QUERY, 3, options=Options(diversity=0.5))
    assert [options.start for _, options, _ in model.asked] == [None, "pure_noise", "pure_noise"]
    with pytest.raises(UnsupportedOption, match="cannot begin at history"):
        merged.recommend(QUERY, 3, options=Options(diversity=0.5, start="history"))
    with pytest.raises(
        UnsupportedOption, match=r"merged needs a model that can draw.*pure_noise.*Take another re-ranker"
    ):
        Diverse(Able(None), reranker="merged").recommend(QUERY, 3, options=Options(diversity=0.5))


def test_the_re_ranker_unless_told_otherwise_is_max_sum() -> None:
    options = Options(diversity=0.6)
    plain = Diverse(Numbered(), VECTORS).recommend(QUERY, 5, options=options)
    named, other = (
        Diverse(Numbered(), VECTORS, reranker=name).recommend(QUERY, 5, options=options) for name in ("max_sum", "mmr")
    )
    assert torch.equal(plain.items, named.items)
    assert not torch.equal(plain.items, other.items)


def test_categories_are_those_of_the_history() -> None:
    """Who has only items of category 2 is shown no other while there are any."""
    categories = torch.eye(3)[torch.arange(N) % 3]
    query = Query.from_history(Ragged.of([[2], [2, 5], []]))
    diverse = Diverse(Numbered(), categories=categories, reranker="calibrated")
    items = diverse.recommend(query, 2, options=Options(diversity=0.9)).items
    assert items.tolist() == [[11, 8], [11, 8], [11, 10]]


@pytest.mark.parametrize("row", range(3))
def test_a_subject_alone_gets_the_same_list(row: int) -> None:
    class Alone(Numbered):
        def recommend(self, query: Query, k: int, *, options: Options = Options(), seed: int = 0) -> Ranking:
            return replace(super().recommend(query, k, options=options, seed=seed), fallback=None)

    diverse, options = Diverse(Alone(), VECTORS), Options(diversity=0.5)
    alone = diverse.recommend(QUERY.select(torch.tensor([row])), 5, options=options)
    assert torch.equal(alone.items[0], diverse.recommend(QUERY, 5, options=options).items[row])


def test_scores_fall_and_ties_of_the_model_stay_ties() -> None:
    falling = _falling(torch.tensor([[3.0, 1.0, 2.0, 1.0, 1.0, -torch.inf], [2.0, 2.0, 1.0, 0.0, 5.0, 0.0]]))
    assert falling[0, :2].tolist() == [3.0, 1.0]
    assert bool((falling[0, 1:].diff() < 0)[:3].all())
    assert falling[0, 2:5].tolist() == pytest.approx([1.0] * 3)
    assert falling[1, :4].tolist() == [2.0, 2.0, 1.0, 0.0]
    assert bool((falling[1, 3:].diff() < 0).all())


def test_what_is_missing_is_said() -> None:
    with pytest.raises(InvalidInput, match=r"Unknown re-ranker 'mrm'\. Nearest known re-ranker: 'mmr'"):
        Diverse(Numbered(), VECTORS, reranker="mrm")
    for reranker, needs in (("dpp", "vectors"), ("calibrated", "categories")):
        with pytest.raises(InvalidInput, match=f"{reranker} needs {needs} of the items"):
            Diverse(Numbered(), reranker=reranker)
    with pytest.raises(InvalidInput, match="diversity out of range"):
        Diverse(Numbered(), VECTORS).recommend(QUERY, 3, options=Options(diversity=1.1))
