"""A model that speaks the shop's ids."""

import json
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

import rediffuse
from rediffuse import registry
from rediffuse.config import RunConfig
from rediffuse.data.dataset import Dataset
from rediffuse.errors import ArtifactError, InvalidInput, UnsupportedOption
from rediffuse.evaluation.protocol import Protocol
from rediffuse.facade import Answer, Model, Recommended
from rediffuse.grounding.filters import Where
from rediffuse.registry import Fitted
from rediffuse.types import Options


@pytest.fixture(scope="module")
def model(tiny: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = tmp_path_factory.mktemp("facade") / "ease"
    run = RunConfig(device="cpu", threads=1)
    registry.fit(registry.recipe("ease", "atelier"), tiny, Protocol(), run).write(folder)
    return rediffuse.load(str(folder), device="cpu")


@pytest.fixture(scope="module")
def history(tiny: Dataset) -> list[str]:
    return tiny.catalog.items.decode(tiny.history("train").to_lists()[0])


def test_an_answer_has_ids_titles_and_scores(model: Model, history: list[str], tiny: Dataset) -> None:
    answer = model.recommend(history)
    assert len(answer.items) == 10
    titles = dict(zip(tiny.catalog.items.ids, tiny.catalog.titles(), strict=True))
    assert all(place.title == titles[place.item] for place in answer.items)
    scores = [place.score for place in answer.items]
    assert scores == sorted(scores, reverse=True)
    assert not {place.item for place in answer.items} & set(history)
    assert (answer.unknown, answer.fallback) == ((), None)
    assert model.method == "ease"
    assert model.folder.made["preset"] == "atelier"


def test_many_are_answered_as_one(model: Model, history: list[str]) -> None:
    asked = [history, history[:3], [], ["?", history[0]]]
    answers = model.recommend_many(asked, 5)
    assert [answer.unknown for answer in answers] == [(), (), (), ("?",)]
    assert [answer.fallback for answer in answers] == [None, None, "empty_history", None]
    for one, wanted in zip(asked, answers, strict=True):
        alone = model.recommend(one, 5)
        assert [place.item for place in alone.items] == [place.item for place in wanted.items]
    assert model.recommend_many([]) == []


def test_exclusions_and_candidates_are_ids_too(model: Model, history: list[str]) -> None:
    free = model.recommend(history, 240, exclude=[])
    assert len(free.items) == 240
    assert set(history) <= {place.item for place in free.items}
    first = free.items[0].item
    assert first not in {place.item for place in model.recommend(history, 240, exclude=[first, "?"]).items}
    wanted = [place.item for place in model.recommend(history, 9).items[::2]]
    found = model.recommend(history, 9, candidates=[*reversed(wanted), "?"])
    assert [place.item for place in found.items] == wanted
    assert model.recommend(history, candidates=["?"]).items == ()
    assert model.recommend(history, candidates=history).items == ()


def test_conditions_limit_every_answer(model: Model, history: list[str], tiny: Dataset) -> None:
    """The list is that of the whole catalog without what does not meet them; the fallback keeps to them too."""
    known = tiny.catalog.attributes.with_columns(item=pl.Series(tiny.catalog.items.ids))
    wanted = known.filter((pl.col("slot") == "shoes") & (pl.col("price") <= 150))["item"].to_list()
    conditions = ["slot=shoes", "price<=150"]
    for asked in (history, []):
        whole = [place.item for place in model.recommend(asked, 240).items]
        found = [place.item for place in model.recommend(asked, 240, where=conditions).items]
        assert found == [item for item in whole if item in wanted]
        assert found
    answer = model.recommend([], 5, where=conditions)
    assert answer.fallback == "empty_history"
    few = model.recommend(history, 5, where=[*conditions, Where("item", "!=", (found[0],))], candidates=found[:3])
    assert [place.item for place in few.items] == [item for item in found[1:3] if item not in history]
    diverse = model.recommend(history, 5, where=conditions, options=Options(diversity=0.7))
    assert {place.item for place in diverse.items} <= set(wanted)


def test_a_list_holds_one_item_of_each_value(model: Model, history: list[str], tiny: Dataset) -> None:
    brand = dict(zip(tiny.catalog.items.ids, tiny.catalog.attributes["brand"], strict=True))
    whole = [place.item for place in model.recommend(history, 240).items]
    best = list({brand[item]: item for item in reversed(whole)}.values())
    for asked in (history, []):
        found = [place.item for place in model.recommend(asked, 240, one_per="brand").items]
        assert len({brand[item] for item in found}) == len(found) == len(set(brand.values()))
    found = [place.item for place in model.recommend(history, 240, one_per="brand").items]
    assert sorted(found) == sorted(best)
    unlike = model.recommend(history, 8, one_per="brand", options=Options(diversity=0.7)).items
    assert len({brand[place.item] for place in unlike}) == 8


def test_attributes_of_today_take_the_place_of_those_it_was_saved_with(model: Model, history: list[str]) -> None:
    first, second = (place.item for place in model.recommend(history, 2).items)
    stock = pl.DataFrame({"item": [second, first, "new"], "in_stock": [True, False, True]})
    today = model.knowing(stock)
    assert [place.item for place in today.recommend(history, 5, where=["in_stock=true"]).items] == [second]
    with pytest.raises(InvalidInput, match="Unknown attribute of items 'slot'"):
        today.recommend(history, where=["slot=shoes"])
    with pytest.raises(InvalidInput, match=r"Unknown value of 'slot' 'shoos'\. Nearest known value of 'slot': 'shoes'"):
        model.recommend(history, where=["slot=shoos"])
    with pytest.raises(InvalidInput, match="Attributes need a column of ids"):
        model.knowing(pl.DataFrame({"sku": ["a"]}))


def test_a_long_list_is_as_long_as_may_be(model: Model, history: list[str]) -> None:
    assert len(model.recommend(history, 1000).items) == 240 - len(set(history))


def test_what_cannot_be_is_refused(model: Model, history: list[str]) -> None:
    with pytest.raises(UnsupportedOption, match="ease cannot use 'steps'"):
        model.recommend(history, options=Options(steps=3))
    with pytest.raises(InvalidInput, match="k must be at least 1"):
        model.recommend(history, 0)


def test_an_answer_as_json() -> None:
    answer = Answer((Recommended("a", "A", 0.5),), ("x",), "empty_history")
    assert answer.to_json() == {
        "items": [{"item": "a", "title": "A", "score": 0.5}],
        "unknown": ["x"],
        "fallback": "empty_history",
        "probability_of": None,
    }


def test_a_path_or_its_text_is_a_folder(tmp_path: Path) -> None:
    for folder in (tmp_path, str(tmp_path)):
        with pytest.raises(ArtifactError, match="is no model folder"):
            rediffuse.load(folder)


def test_ages_in_days_need_times_and_use_them(tiny: Dataset, tmp_path: Path) -> None:
    """A model that forgets by the calendar refuses bare ids in one sentence, and weighs events by their times."""
    settings = {"recency": "exponential", "half_life_days": 10.0}
    fitted = registry.fit(registry.recipe("ease", None, settings), tiny, Protocol(), RunConfig(threads=1))
    fitted.write(tmp_path / "model")
    model = registry.load(tmp_path / "model")
    history = list(model.items.ids[3:7])
    day = 86_400_000_000
    with pytest.raises(InvalidInput, match="needs the time of every event"):
        model.recommend(history)
    with pytest.raises(InvalidInput, match="one value for each event"):
        model.recommend(history, times_us=[1, 2])
    near, far = (model.recommend(history, times_us=[first, 0, 0, 50 * day]) for first in (50 * day, 0))
    assert near != far
    assert model.recommend([*history[:2], "strange", *history[2:]], times_us=[0, 0, 9, 0, 50 * day]).items == far.items


@pytest.fixture(scope="module")
def told(tiny: Dataset) -> Fitted:
    """Learned with conditions, on a dataset in another time zone."""
    settings = {"condition": ["history", "season", "region"], "hidden": [16], "epochs": 2, "levels": 3}
    recipe = registry.recipe("diffrec", None, {**settings, "noise_scale": 5.0})
    return registry.fit(recipe, replace(tiny, time_zone="Asia/Tokyo"), Protocol(), RunConfig(threads=1))


@pytest.fixture(scope="module")
def steered(told: Fitted, tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = tmp_path_factory.mktemp("facade") / "diffrec"
    told.write(folder)
    return registry.load(folder, device="cpu")


def test_words_of_a_context_become_numbers(steered: Model) -> None:
    assert {name: tuple(words) for name, words in steered.conditions.items()} == {
        "season": (),
        "region": ("abroad", "east", "north", "south", "west"),
    }
    found = steered.context({"season": "2024-12-31", "region": "south"}, 3)
    assert found["region"].tolist() == [3, 3, 3]
    assert found["season"].tolist() == pytest.approx([365 / 366] * 3)
    assert steered.context({}, 3) == {}


def test_what_is_told_changes_the_answer_and_guidance_more(steered: Model, history: list[str]) -> None:
    asked = [{}, {"season": "winter"}, {"season": "summer"}, {"season": "summer", "region": "west"}]
    answers = [steered.recommend(history, 240, context=context) for context in asked]
    assert len({answer.items for answer in answers}) == 4
    strong = steered.recommend(history, 240, context=asked[2], options=Options(guidance_scale={"season": 3.0}))
    assert [place.item for place in strong.items] != [place.item for place in answers[2].items]
    none = steered.recommend(history, 240, context=asked[2], options=Options(guidance_scale={"season": 0.0}))
    scores = [{place.item: place.score for place in answer.items} for answer in (none, answers[0])]
    assert scores[0] == pytest.approx(scores[1], rel=1e-4, abs=1e-6)
    both = steered.recommend_many([history, history[:2]], 240, context=asked[3])
    assert [place.item for place in both[0].items[:10]] == [place.item for place in answers[3].items[:10]]


def test_a_context_that_is_none_is_refused(steered: Model, model: Model, history: list[str]) -> None:
    for context, sentence in (
        ({"saeson": "winter"}, "Unknown condition 'saeson'. Nearest known condition: 'season'"),
        ({"season": "monsoon"}, "This is no season. Got 'monsoon'"),
        ({"region": "nroth"}, "Unknown region 'nroth'. Nearest known region: 'north'"),
        ({"history": "winter"}, "Unknown condition 'history'"),
    ):
        with pytest.raises(InvalidInput, match=sentence):
            steered.recommend(history, context=context)
    with pytest.raises(InvalidInput, match=r"Unknown condition 'season'\. There is none"):
        model.recommend(history, context={"season": "winter"})


def test_several_draws_say_how_sure_each_place_is(steered: Model, history: list[str]) -> None:
    answer = steered.recommend(history, 5, context={"season": "winter"}, options=Options(draws=8))
    for place in answer.items:
        assert place.spread is not None
        assert place.probability is not None
        assert place.spread > 0
        assert place.probability * 8 == pytest.approx(round(place.probability * 8), abs=1e-5)
    plain = json.loads(json.dumps(answer.to_json()))
    assert plain["probability_of"] == "top_k"
    assert set(plain["items"][0]) == {"item", "title", "score", "spread", "probability"}


def test_without_draws_each_place_has_a_probability_of_being_taken(
    steered: Model, model: Model, history: list[str]
) -> None:
    """With every method, alone or among others; not where it was never looked at."""
    for one in (steered, model):
        alone = one.recommend(history, 5)
        plain = json.loads(json.dumps(alone.to_json(), allow_nan=False))
        assert plain["probability_of"] == "consumption"
        assert all(0 < place["probability"] < 1 and "spread" not in place for place in plain["items"])
        empty, again = one.recommend_many([[], history], 5)
        assert [place.item for place in again.items] == [place.item for place in alone.items]
        assert [place.probability for place in again.items] == pytest.approx(
            [place.probability for place in alone.items], rel=1e-4
        )
        assert (empty.probability_of, {place.probability for place in empty.items}) == (None, {None})
        few = one.recommend(history, 5, candidates=one.items.ids[-9:])
        assert (few.probability_of, {place.probability for place in few.items}) == (None, {None})
    varied = model.recommend(history, 5, options=Options(diversity=0.5))
    known = {place.item: place.probability for place in model.recommend(history, 100).items}
    assert [place.probability for place in varied.items] == [known[place.item] for place in varied.items]


def test_a_calibrator_is_fitted_only_for_what_is_kept(tiny: Dataset) -> None:
    chosen, run = registry.recipe("ease", "atelier"), RunConfig(device="cpu", threads=1)
    assert registry.fit(chosen, tiny, Protocol(), run, refit=False).folder.calibrator is None
    kept = registry.fit(chosen, tiny, Protocol(refit=("train", "valid")), run)
    assert kept.folder.calibrator == registry.fit(chosen, tiny, Protocol(), run).folder.calibrator is not None


def test_a_fallback_among_draws_is_still_json(steered: Model, history: list[str]) -> None:
    """What is popular was not drawn: it has neither a spread nor a probability, rather than a number that is none."""
    empty, mate = steered.recommend_many([[], history], 5, options=Options(draws=3))
    assert (empty.fallback, mate.fallback) == ("empty_history", None)
    assert {(place.spread, place.probability) for place in empty.items} == {(None, None)}
    json.dumps([empty.to_json(), mate.to_json()], allow_nan=False)
    assert all(place.spread is not None for place in mate.items)


def test_going_on_needs_the_words_of_the_earlier_model(told: Fitted, tiny: Dataset) -> None:
    contexts = {**told.folder.data["contexts"], "region": ["east", "north", "south"]}
    earlier = replace(told.folder, data={**told.folder.data, "contexts": contexts})
    with pytest.raises(InvalidInput, match="The values of the condition 'region' are not those that the earlier model"):
        registry.fit(told.recipe, tiny, Protocol(), RunConfig(threads=1), earlier=earlier)
