"""Answers of a loaded model: as alone, with what is asked, and with less where the method fails."""

import itertools
import math
from dataclasses import dataclass, replace

import pytest
import torch

from rediffuse import registry
from rediffuse.baselines.popularity import Popularity
from rediffuse.config import RunConfig
from rediffuse.data.dataset import Dataset
from rediffuse.data.vocabulary import Vocabulary
from rediffuse.errors import InvalidConfig, InvalidInput, UnsupportedOption
from rediffuse.evaluation.protocol import Protocol
from rediffuse.facade import Model
from rediffuse.random import stable_key
from rediffuse.serving.engine import Answered, Ask, Engine, Exploration, Unanswerable
from rediffuse.serving.exploration import LEAST_TEMPERATURE, plackett_luce, uniform
from rediffuse.serving.ladder import Ladder, Rung
from rediffuse.types import Options, Query, Ranking

SMALL = {"hidden": [16], "epochs": 2}


def made(name: str, tiny: Dataset, settings: dict[str, object]) -> Model:
    fitted = registry.fit(registry.recipe(name, None, settings), tiny, Protocol(), RunConfig(device="cpu", threads=1))
    folder = fitted.folder
    return Model(folder.method, fitted.model, Vocabulary(folder.items), folder.titles, folder)


@pytest.fixture(scope="module")
def model(tiny: Dataset) -> Model:
    return made("ease", tiny, {})


@pytest.fixture(scope="module")
def diffusion(tiny: Dataset) -> Model:
    return made("diffrec", tiny, SMALL)


@pytest.fixture(scope="module")
def histories(tiny: Dataset) -> list[tuple[str, ...]]:
    return [tuple(tiny.catalog.items.decode(row)) for row in tiny.history("train").to_lists()[:6]]


def engine(model: Model, classic: Model | None = None) -> Engine:
    return Engine(model, "shop", "v1", "0" * 64, classic)


def answered(engine: Engine, ask: Ask, rung: Rung = Rung.WHOLE) -> Answered:
    found = engine.answer([ask], rung)[0]
    assert isinstance(found, Answered)
    return found


def ids(answer: Answered) -> list[str]:
    return [place.item_id for place in answer.items]


def test_answers_among_others_are_those_alone(diffusion: Model, histories: list[tuple[str, ...]]) -> None:
    draws = Options(draws=4, start="noised_history")
    asks = [
        *(Ask(history=history, k=k) for history in histories for k in (5, 10)),
        Ask(history=()),
        Ask(history=histories[0], where=("slot=shoes",)),
        Ask(history=histories[1], exclude=histories[0]),
        Ask(history=histories[1], candidates=histories[0], exclude=()),
        Ask(history=histories[2], options=draws, user="u1"),
        Ask(history=histories[3], options=draws),
        Ask(history=histories[3], options=draws, seed=4),
        Ask(item=histories[0][0]),
    ]
    among = engine(diffusion).answer(asks)
    for ask, found in zip(asks, among, strict=True):
        alone = answered(engine(diffusion), ask)
        assert isinstance(found, Answered)
        assert ids(found) == ids(alone)
        assert [p.score for p in found.items] == pytest.approx([p.score for p in alone.items], rel=1e-5)
        assert replace(found, items=()) == replace(alone, items=())
    for ask, found in zip(asks[:12], among, strict=False):
        offline = diffusion.recommend(ask.history or (), ask.k)
        assert isinstance(found, Answered)
        assert ids(found) == [place.item for place in offline.items]
        assert [p.rank for p in found.items] == list(range(1, ask.k + 1))
        assert found.propensities == (1.0,) * ask.k
        assert (found.policy, found.degraded, found.version) == ("deterministic", None, "v1")
    uncertain = among[-4]
    assert isinstance(uncertain, Answered)
    assert uncertain.p_of == "top_k"
    assert all(place.spread is not None and place.spread > 0 for place in uncertain.items)
    assert [p.score for p in among[-3].items] != [p.score for p in among[-2].items]


def test_draws_of_a_user_hang_on_the_user(diffusion: Model, histories: list[tuple[str, ...]]) -> None:
    ask = Ask(history=histories[0], options=Options(draws=2, start="noised_history"), user="u1")
    first, other = answered(engine(diffusion), ask), answered(engine(diffusion), replace(ask, user="u2"))
    assert first == answered(engine(diffusion), ask)
    assert [p.score for p in first.items] != [p.score for p in other.items]


def test_one_wrong_ask_is_told_so_alone(model: Model, histories: list[tuple[str, ...]]) -> None:
    wrong = [
        Ask(history=histories[0], where=("shade=red",)),
        Ask(history=histories[0], context={"weather": "rain"}),
        Ask(history=histories[0], options=Options(steps=3)),
    ]
    right = Ask(history=histories[0])
    *refused, good = engine(model).answer([*wrong, right])
    assert [type(found) for found in refused] == [InvalidInput, InvalidInput, UnsupportedOption]
    assert good == answered(engine(model), right)
    with pytest.raises(InvalidInput, match="k must be at least 1"):
        Ask(k=0)
    with pytest.raises(InvalidInput, match="times_us must hold one value"):
        Ask(history=("a", "b"), times_us=(1,))
    for temperature in (0, 1e-310, math.inf, math.nan):
        with pytest.raises(InvalidInput, match="temperature"):
            Exploration(temperature=temperature)


def test_what_is_looked_at_is_not_in_its_own_list(model: Model, histories: list[tuple[str, ...]]) -> None:
    first = histories[0][0]
    others = [item for item in histories[0] if item != first]
    alike = answered(engine(model), Ask(item=first, k=239))
    assert first not in ids(alike)
    assert set(others) <= set(ids(alike))
    whole = replace(model, folder=replace(model.folder, protocol={**model.folder.protocol, "repeats": True}))
    again = answered(engine(whole), Ask(item=first, history=tuple(others), k=240))
    assert first not in ids(again)
    assert set(others) <= set(ids(again))
    assert first not in ids(answered(engine(model), Ask(item=first, exclude=(others[0],), k=240)))
    assert Ask(item="c", history=("a", "b"), times_us=(1, 5)).times == (1, 5, 5)
    assert Ask(item="c").times is None


def test_what_is_not_known_is_reported(model: Model, histories: list[tuple[str, ...]]) -> None:
    odd = Ask(history=("?", *histories[0], "?"), exclude=("!", "?"), candidates=("*", *histories[1]), item="+")
    assert answered(engine(model), odd).unknown == ("?", "+", "!", "*")
    empty = answered(engine(model), Ask(history=("?",), reasons=True))
    assert (empty.fallback, empty.unknown) == ("empty_history", ("?",))
    assert all(place.reasons[0].kind == "popular" for place in empty.items)


def test_a_place_tells_what_it_is_like(model: Model, histories: list[tuple[str, ...]]) -> None:
    vectors = model.folder.vectors
    assert vectors is not None
    found = answered(engine(model), Ask(history=histories[0], reasons=True, k=20))
    assert any(place.reasons for place in found.items)
    for place in found.items:
        number = model.items.number
        alike = {h: float(vectors[number(place.item_id)] @ vectors[number(h)]) for h in set(histories[0])}
        for reason, best in zip(place.reasons, sorted(alike.values(), reverse=True), strict=False):
            assert reason.item_id in alike
            assert reason.similarity == pytest.approx(best, abs=1e-6)
    assert all(not place.reasons for place in answered(engine(model), Ask(history=histories[0])).items)


def test_orders_are_drawn_with_their_probabilities() -> None:
    """Over many draws each order of four comes as often as the product of its conditionals says."""
    worth, tau, draws = torch.tensor([1.0, 0.6, 0.3, 0.0]), 0.4, 20_000
    noise = uniform(7, 1, torch.arange(4 * draws)).reshape(draws, 4)
    counts = dict[tuple[int, ...], int]()
    said = dict[tuple[int, ...], float]()
    for row in noise:
        order, propensity = plackett_luce(worth, tau, row)
        key = tuple(order.tolist())
        counts[key] = counts.get(key, 0) + 1
        said[key] = float(propensity.prod())
    for order in itertools.permutations(range(4)):
        weights = [math.exp(float(worth[i]) / tau) for i in order]
        wanted = math.prod(w / sum(weights[place:]) for place, w in enumerate(weights))
        assert said[order] == pytest.approx(wanted)
        assert abs(counts[order] / draws - wanted) < 5 * math.sqrt(wanted / draws)


def test_at_the_least_temperature_the_draw_is_still_one() -> None:
    """Those that are worth the same come in either order, and are told so."""
    worth, noise = torch.tensor([1.0, 1.0, 0.5, 0.0]), uniform(7, 1, torch.arange(800)).reshape(200, 4)
    drawn = [plackett_luce(worth, LEAST_TEMPERATURE, row) for row in noise]
    assert 60 < sum(order.tolist() == [0, 1, 2, 3] for order, _ in drawn) < 140
    assert {tuple(order.tolist()) for order, _ in drawn} == {(0, 1, 2, 3), (1, 0, 2, 3)}
    assert all(propensity.tolist() == pytest.approx([0.5, 1, 1, 1]) for _, propensity in drawn)


def test_exploration_keeps_to_what_may_be_shown(model: Model, histories: list[tuple[str, ...]]) -> None:
    plain = Ask(history=histories[0], k=10)
    explored = replace(plain, explore=Exploration(0.2, seed=5))
    first = answered(engine(model), explored)
    assert first.policy == "plackett_luce"
    assert ids(first) != ids(answered(engine(model), plain))
    assert ids(first) == ids(answered(engine(model), explored))
    assert ids(first) != ids(answered(engine(model), replace(explored, explore=Exploration(0.2, seed=6))))
    assert len(set(ids(first))) == 10
    assert not set(ids(first)) & set(histories[0])
    assert all(0 < p <= 1 for p in first.propensities)
    nearly = answered(engine(model), replace(plain, explore=Exploration(1e-6)))
    assert ids(nearly) == ids(answered(engine(model), plain))
    assert min(nearly.propensities) > 0.9
    limited = answered(engine(model), replace(explored, candidates=histories[1], exclude=()))
    assert set(ids(limited)) <= set(histories[1])
    assert (
        uniform(5, stable_key("u"), torch.tensor([3])).item() == uniform(5, stable_key("u"), torch.tensor([3])).item()
    )


def test_the_ladder_answers_with_less(diffusion: Model, model: Model, histories: list[tuple[str, ...]]) -> None:
    both = engine(diffusion, classic=model)
    many = Ask(history=histories[0], options=Options(draws=4, start="noised_history"))
    one = answered(both, many, Rung.ONE_DRAW)
    assert (one.degraded, one.because) == ("one_draw", "overload")
    assert all(place.spread is None for place in one.items)
    same = answered(both, Ask(history=histories[0]), Rung.ONE_DRAW)
    assert same.degraded is None
    classic = answered(both, many, Rung.CLASSIC)
    assert classic.degraded == "classic"
    assert ids(classic) == [place.item for place in model.recommend(histories[0]).items]
    popular = answered(engine(diffusion), many, Rung.CLASSIC)
    assert popular.degraded == "popular"
    users = dict(zip(diffusion.items.ids, diffusion.folder.popularity.tolist(), strict=True))
    assert [place.score for place in popular.items] == [users[item] for item in ids(popular)]
    assert not set(ids(popular)) & set(histories[0])


@dataclass
class Broken:
    """Fails wherever a history holds an item, or answers what is no number."""

    model: Model
    item: str
    score: float | None = None

    def recommend(self, query: Query, k: int, *, options: Options = Options(), seed: int = 0) -> Ranking:
        ranking = self.model.recommender.recommend(query, k, options=options, seed=seed)
        if self.model.items.number(self.item) not in query.history.items.tolist():
            return ranking
        if self.score is None:
            raise RuntimeError("out of order")
        return replace(ranking, scores=torch.full_like(ranking.scores, self.score))


@pytest.mark.parametrize("score", [None, math.inf, math.nan])
def test_a_failure_costs_one_ask_its_list_and_says_so(
    model: Model, histories: list[tuple[str, ...]], score: float | None
) -> None:
    item = next(i for i in histories[0] if i not in histories[1])
    weak = engine(replace(model, recommender=Broken(model, item, score)))
    hurt, whole = weak.answer([Ask(history=histories[0]), Ask(history=histories[1])])
    assert isinstance(hurt, Answered)
    assert (hurt.degraded, hurt.because) == ("popular", "failure")
    assert len(hurt.items) == 10
    assert whole == answered(engine(model), Ask(history=histories[1]))


def test_where_nothing_works_others_still_get_their_lists(
    model: Model, histories: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    weak = engine(replace(model, recommender=Broken(model, histories[0][0])))
    monkeypatch.setattr(Popularity, "recommend", Broken(model, histories[0][0]).recommend)
    right = Ask(history=tuple(item for item in histories[1] if item != histories[0][0]))
    lost, whole, limited = weak.answer([Ask(history=histories[0]), right, replace(right, where=("slot=shoes",))])
    assert isinstance(lost, Unanswerable)
    assert isinstance(whole, Answered)
    assert isinstance(limited, Answered)


def test_the_ladder_steps_down_and_up_without_flapping() -> None:
    ladder = Ladder((0.1, 0.2, 0.4))
    waits = [0.0, 0.15, 0.08, 0.04, 0.5, 0.25, 0.15, 0.05, 0.01]
    assert [ladder.choose(wait) for wait in waits] == [0, 1, 1, 0, 3, 3, 2, 1, 0]
    assert ladder.counts == {Rung.WHOLE: 3, Rung.ONE_DRAW: 3, Rung.CLASSIC: 1, Rung.POPULAR: 2}
    assert Rung.ONE_DRAW.label == "one_draw"
    for waits_s in ((0.2, 0.1, 0.3), (0.1,), (0.0, 0.1, 0.2)):
        with pytest.raises(InvalidConfig, match="must rise"):
            Ladder(waits_s)
