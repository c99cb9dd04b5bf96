"""Probabilities of being taken: right on users they were not fitted on, and told of nothing else."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from rediffuse.data.dataset import Dataset
from rediffuse.evaluation import consumption
from rediffuse.evaluation.calibration import Calibrator, Logistic, Reliability
from rediffuse.evaluation.consumption import KNOWN, PLACES, Calibrated, fit_calibrator, known_of
from rediffuse.evaluation.evaluate import Task, evaluate
from rediffuse.evaluation.protocol import Protocol
from rediffuse.grounding.diverse import Diverse
from rediffuse.grounding.fallback import WithFallback
from rediffuse.grounding.topk import top_k
from rediffuse.types import Options, Query, Ragged, Ranking

USERS, ITEMS = 400, 150
POPULARITY = torch.arange(ITEMS, 0, -1, dtype=torch.float32)
SCORES = torch.randn(USERS, ITEMS, generator=torch.Generator().manual_seed(0))
CHANCE = torch.sigmoid(2 * SCORES - 3)
"""What a score really means."""


class Scored:
    """Ranks by the scores of the user; answers from draws say so themselves."""

    def recommend(self, query: Query, k: int, *, options: Options = Options(), seed: int = 0) -> Ranking:
        del seed
        ranking = top_k(SCORES[query.user].clone(), k, seen=query.exclude, candidates=query.candidates)
        if options.draws == 1:
            return ranking
        share = torch.full_like(ranking.scores, 0.5)
        return replace(ranking, spread=share, probability=share, probability_of="top_k")


def task(users: torch.Tensor) -> Task:
    """Every tenth user has no history; each item is taken with its chance."""
    lists = [[] if user % 10 == 0 else [user % ITEMS] * (1 + user % 3) for user in users.tolist()]
    drawn = torch.rand(len(users), ITEMS, generator=torch.Generator().manual_seed(int(users[0]) + 1)) < CHANCE[users]
    return Task(
        Query(users, Ragged.of(lists), users), Ragged.of([row.nonzero().flatten().tolist() for row in drawn]), 0
    )


LEARNED, OTHER = task(torch.arange(USERS // 2)), task(torch.arange(USERS // 2, USERS))
MODEL = WithFallback(Scored(), POPULARITY)


@pytest.fixture(scope="module")
def calibrated() -> Calibrated:
    calibrator = fit_calibrator(MODEL, LEARNED, POPULARITY)
    assert calibrator is not None
    return Calibrated(MODEL, calibrator, POPULARITY)


def told(ranking: Ranking) -> torch.Tensor:
    assert ranking.probability is not None
    assert ranking.probability_of == "consumption"
    assert ranking.probability.dtype == torch.float32
    return ranking.probability


def test_probabilities_hold_for_users_they_were_not_fitted_on(calibrated: Calibrated) -> None:
    ranking = calibrated.recommend(OTHER.query, PLACES)
    own = OTHER.query.history.lengths > 0
    p = told(ranking)[own]
    chance = CHANCE[OTHER.query.user].gather(1, ranking.items)[own]
    assert float((p - chance).abs().mean()) < 0.02
    taken = consumption.hits(ranking, OTHER.relevant, PLACES)[own].numpy().astype(np.float64)
    assert Reliability.of(p.double().numpy().ravel(), taken.ravel()).ece < 0.02
    assert 0.05 < float(p.mean()) < 0.5


def test_it_is_told_of_the_methods_own_first_places_only(calibrated: Calibrated) -> None:
    query = OTHER.query.select(torch.arange(12))
    ranking, plain = calibrated.recommend(query, ITEMS), MODEL.recommend(query, ITEMS)
    assert torch.equal(ranking.items, plain.items)
    assert torch.equal(ranking.scores, plain.scores)
    known = ~told(ranking).isnan()
    assert not known[query.history.lengths == 0].any()
    assert known[query.history.lengths > 0, :PLACES].all()
    assert not known[:, PLACES:].any()
    hidden = replace(query, exclude=Ragged.of([list(range(5, ITEMS))] * len(query)))
    assert (~told(calibrated.recommend(hidden, 8)).isnan()).sum(1).tolist() == [0, *[5] * 9, 0, 5]


def test_what_it_was_not_fitted_on_is_handed_on(calibrated: Calibrated) -> None:
    query = OTHER.query.select(torch.arange(5))
    for options in (Options(temperature=2.0), Options(guidance_scale={"season": 2.0})):
        assert calibrated.recommend(query, 4, options=options).probability is None
    few = replace(query, candidates=Ragged.of([[1, 2, 3]] * 5))
    assert calibrated.recommend(few, 4).probability is None
    drawn = calibrated.recommend(query, 4, options=Options(draws=3))
    assert drawn.probability_of == "top_k"
    assert drawn.probability is not None
    assert drawn.probability[1].tolist() == [0.5] * 4


def test_neither_batch_mates_nor_the_length_of_the_list_change_it(calibrated: Calibrated) -> None:
    query = OTHER.query.select(torch.arange(1, 9))
    whole = told(calibrated.recommend(query, 30))
    assert torch.equal(told(calibrated.recommend(query, 7)), whole[:, :7])
    alone = told(calibrated.recommend(query.select(torch.tensor([3])), 30))
    assert torch.equal(alone[0], whole[3])


def test_an_item_takes_its_probability_along_when_a_list_is_made_diverse(calibrated: Calibrated) -> None:
    vectors = torch.nn.functional.normalize(torch.randn(ITEMS, 4, generator=torch.Generator().manual_seed(1)), dim=1)
    query = OTHER.query.select(torch.arange(1, 9))
    plain, other = (
        Diverse(calibrated, vectors).recommend(query, PLACES, options=Options(diversity=d)) for d in (0.0, 0.7)
    )
    assert not torch.equal(plain.items, other.items)
    by_item = [ranking.items.sort(1).indices for ranking in (plain, other)]
    assert torch.equal(told(plain).gather(1, by_item[0]), told(other).gather(1, by_item[1]))


def test_what_is_known_of_a_place_by_hand() -> None:
    ranking = Ranking(torch.tensor([[2, 0], [1, -1]]), torch.tensor([[0.5, 0.25], [3.0, -torch.inf]]))
    found = known_of(ranking, Ragged.of([[0, 1, 1], []]), torch.tensor([6.0, 3.0, 1.0]))
    assert tuple(found) == KNOWN
    assert found["score"].tolist() == [[0.5, 0.25], [3.0, 0.0]]
    assert np.exp(found["rank"]) == pytest.approx(np.array([[1, 2]]))
    assert np.exp(found["popularity"][0]) == pytest.approx([0.2, 0.7])
    assert np.exp(found["history length"]) == pytest.approx(np.array([[4], [1]]))


def test_the_measure_of_popularity_does_not_depend_on_how_much_was_learned_from() -> None:
    ranking, history = Ranking(torch.tensor([[0, 1]]), torch.zeros(1, 2)), Ragged.of([[0]])
    once, thrice = (known_of(ranking, history, n * torch.tensor([6000.0, 3000.0])) for n in (1, 3))
    assert once["popularity"] == pytest.approx(thrice["popularity"], abs=1e-3)


@pytest.mark.parametrize("taken", [49, 50])
def test_where_too_little_was_taken_nothing_is_told(taken: int) -> None:
    query = LEARNED.query
    lists = MODEL.recommend(query, 1).items[:, 0].tolist()
    own, left = (query.history.lengths > 0).tolist(), taken
    relevant: list[list[int]] = []
    for item, real in zip(lists, own, strict=True):
        relevant.append([item] if not real or left > 0 else [])
        left -= real
    found = fit_calibrator(MODEL, Task(query, Ragged.of(relevant), 0), POPULARITY)
    assert (found is None) == (taken < consumption.FEWEST)
    nobody = Task(query.select(torch.arange(0)), Ragged.empty(0), 0)
    assert fit_calibrator(MODEL, nobody, POPULARITY) is None


def test_of_many_users_some_are_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consumption, "USERS", 66)
    asked: list[int] = []

    class Counted(Scored):
        def recommend(self, query: Query, k: int, *, options: Options = Options(), seed: int = 0) -> Ranking:
            asked.extend(query.user.unique().tolist())
            return super().recommend(query, k, options=options, seed=seed)

    assert fit_calibrator(Counted(), LEARNED, POPULARITY) is not None
    assert asked == list(range(0, 200, 4))


def test_an_evaluation_is_the_same_to_the_last_bit(tiny: Dataset) -> None:
    protocol = Protocol()
    asked, n_items = Task.of(tiny, protocol.selection), len(tiny.catalog)
    table = torch.randn(len(tiny.users), n_items, generator=torch.Generator().manual_seed(2))

    class Tabled:
        def recommend(self, query: Query, k: int, *, options: Options = Options(), seed: int = 0) -> Ranking:
            del options, seed
            return top_k(table[query.user].clone(), k, seen=query.exclude)

    model = WithFallback(Tabled(), torch.ones(n_items))
    level = Logistic(KNOWN, (0.0,) * 4, (1.0,) * 4, (1.0, -1.0, 0.5, 0.1), -3.0)
    plain, calibrated = (
        evaluate(one, asked, protocol) for one in (model, Calibrated(model, Calibrator(level), torch.ones(n_items)))
    )
    assert np.array_equal(plain.values, calibrated.values, equal_nan=True)
    assert np.array_equal(plain.lists, calibrated.lists)
    assert np.array_equal(plain.fallback, calibrated.fallback)
    assert math.isfinite(plain.mean("recall@20"))
