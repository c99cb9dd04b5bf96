"""The study of uncertainty on a shop whose truth is known, and its parts by hand."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from rediffuse.baselines.popularity import Popularity
from rediffuse.data.dataset import Dataset
from rediffuse.errors import InvalidInput
from rediffuse.evaluation.evaluate import Task
from rediffuse.evaluation.figures import NARROW, WIDE
from rediffuse.evaluation.figures import uncertainty as figures
from rediffuse.evaluation.protocol import Protocol
from rediffuse.evaluation.studies import uncertainty_findings
from rediffuse.evaluation.studies.answers import Answers
from rediffuse.evaluation.studies.sets import LEVELS, next_items, sets
from rediffuse.evaluation.studies.uncertainty import uncertainty
from rediffuse.evaluation.study import Examined, Study
from rediffuse.grounding.topk import top_k
from rediffuse.types import Fallback, Options, Query, Ragged, Ranking


class Knowing:
    """Scores what users take, in any part, above the rest by `gain`, under noise of its own; with draws it tells of them."""

    def __init__(self, dataset: Dataset, gain: float) -> None:
        taken = dataset.history("train", "valid", "test")
        noise = torch.randn(len(taken), len(dataset.catalog), generator=torch.Generator().manual_seed(0))
        noise[taken.rows, taken.items] += gain
        self.scores = noise

    def recommend(self, query: Query, k: int, *, options: Options = Options(), seed: int = 0) -> Ranking:
        del seed
        ranking = top_k(self.scores[query.user].clone(), k, seen=query.exclude)
        if options.draws == 1:
            return ranking
        chance = torch.sigmoid(ranking.scores.clamp(min=-9))
        return replace(ranking, spread=1 - chance, probability=chance, probability_of="top_k")


@pytest.fixture(scope="module")
def examined(tiny: Dataset) -> Examined:
    return Examined("knowing", Knowing(tiny, 1.5), tiny, Protocol())


@pytest.fixture(scope="module")
def popularity(examined: Examined) -> Popularity:
    return Popularity(examined.background.data.users_per_item())


@pytest.fixture(scope="module")
def study(examined: Examined, popularity: Popularity) -> Study:
    return uncertainty(replace(examined, options=Options(draws=8)), popularity)


def halves(examined: Examined) -> np.ndarray:
    return examined.task.query.key.numpy() % 2 == 0


def counts(examined: Examined) -> np.ndarray:
    return examined.background.data.users_per_item().numpy().astype(np.float64)


def test_next_items_are_the_first_relevant_ones_in_the_order_of_events(examined: Examined) -> None:
    phase, task = examined.protocol.report, examined.task
    found = next_items(examined, task, phase).tolist()
    events = examined.dataset.history(phase.relevant).select(task.query.user).to_lists()
    for item, row, relevant in zip(found, events, task.relevant.to_lists(), strict=True):
        assert item == next(one for one in row if one in relevant)


def test_sets_are_what_counting_gives(examined: Examined) -> None:
    """Where the rank is taken, a set is as many items as the rank that the other half needs."""
    blind = replace(examined, protocol=examined.protocol.model_copy(update={"refit": ("train", "valid")}))
    half, task = halves(examined), examined.task
    found = sets(blind, counts(examined), half)
    assert (found.kind, found.tried, found.shifted) == ("rank", {}, None)
    lists = examined.model.recommend(task.query, len(examined.dataset.catalog)).items.numpy()
    wanted = next_items(examined, task, examined.protocol.report).numpy()
    rank = (lists == wanted[:, None]).argmax(axis=1) + 1
    unseen = (lists >= 0).sum(axis=1)
    for column, level in enumerate(LEVELS):
        for side in (True, False):
            own, other = half == side, np.sort(rank[half != side])
            place = int(np.floor((len(other) + 1) * (1 - level) + 1e-9))
            most = other[-place] if place else lists.shape[1]
            assert np.array_equal(found.size[own, column], np.minimum(most, unseen[own]))
            assert np.array_equal(found.covered[own, column], rank[own] <= most)


def test_sets_hold_what_they_promise_and_are_small_where_much_is_known(examined: Examined) -> None:
    half = halves(examined)
    known, guessed = (
        sets(replace(examined, model=Knowing(examined.dataset, gain)), counts(examined), half) for gain in (3.0, 0.0)
    )
    for one in (known, guessed):
        for column, level in enumerate(LEVELS):
            assert one.covered[:, column].mean() == pytest.approx(level, abs=0.06)
        assert set(one.tried) == {"rank", "standardised score", "fitted"}
        assert one.tried[one.kind] == min(one.tried.values())
    assert np.median(known.size[:, 0]) < 0.4 * np.median(guessed.size[:, 0])
    assert known.shifted is not None
    assert known.shifted.mean() == pytest.approx(0.9, abs=0.08)


def test_bands_with_too_few_users_get_the_whole_catalog(examined: Examined) -> None:
    covered, size = sets(examined, counts(examined), halves(examined)).banded
    task, n_items = examined.task, len(examined.dataset.catalog)
    unseen = n_items - np.array([len(set(row)) for row in task.query.exclude.to_lists()])
    short = task.query.history.lengths.numpy() == 0
    assert 0 < short.sum() < 9
    assert covered[short].all()
    assert np.array_equal(size[short], unseen[short])


def judged(**changes: object) -> Answers:
    """Two users, five items, lists of two; the second list is a fallback."""
    ranking = Ranking(torch.tensor([[4, 2], [3, -1]]), torch.tensor([[0.9, 0.4], [70.0, -torch.inf]]))
    ranking = replace(ranking, fallback=torch.tensor([Fallback.NONE, Fallback.EMPTY_HISTORY]), **changes)
    query = Query(
        torch.tensor([7, 8]), Ragged.of([[0, 1, 1], []]), torch.tensor([-3, 4]), exclude=Ragged.of([[0, 1, 1], []])
    )
    return Answers.judged(ranking, query, Ragged.of([[2], [1, 3]]), np.array([9.0, 5.0, 5.0, 0.0, 2.0]))


def test_what_is_known_of_a_place_by_hand() -> None:
    found = judged()
    assert found.half.tolist() == [False, True]
    assert found.taken.tolist() == [[0, 1], [1, 0]]
    assert found.there.tolist() == [[True, True], [True, False]]
    assert found.risk == pytest.approx([1 - 1 / np.log2(3), 1 - 1 / (1 + 1 / np.log2(3))])
    # Popularity of a fallback is no score of the method.
    assert found.features["score"] == pytest.approx(np.array([[0.9, 0.4], [0.65, 0.65]]))
    assert found.features["history length"][:, 0] == pytest.approx(np.log([4, 1]))
    assert found.features["popularity"][0] == pytest.approx(np.log([3 / 21, 6 / 21]))
    # Without items 0 and 1 the first user's popularity list is 2, 4, 3; the second's is 0, 1, 2, 4, 3.
    assert np.exp(found.popularity["rank"])[found.there] == pytest.approx([2, 1, 5])
    assert found.signals["history length"].tolist() == [-3, 0]
    assert found.signals["score margin"] == pytest.approx([-0.5, 0.0])
    assert found.signals["popularity of the list"] == pytest.approx([-np.log(18) / 2, 0.0])
    assert set(found.signals) == {"history length", "score margin", "popularity of the list"}


def test_draws_are_features_and_signals_where_there_are_any() -> None:
    gone = float("nan")
    found = judged(
        spread=torch.tensor([[0.2, 0.4], [gone, gone]]),
        probability=torch.tensor([[1.0, 0.5], [gone, gone]]),
        probability_of="top_k",
    )
    assert found.signals["draws: spread"] == pytest.approx([0.3, 0.3])
    assert found.features["top-K probability"][1] == pytest.approx([0.75, 0.75])
    assert found.signals["draws: entropy"][0] == pytest.approx(np.log(2) / 2)


def test_a_probability_of_being_taken_is_no_draw() -> None:
    """A calibrator must not be fed with what another one has made."""
    found = judged(probability=torch.full((2, 2), 0.5), probability_of="consumption")
    assert found.features.keys() == judged().features.keys()


def test_no_user_is_told_by_what_was_fitted_to_it(examined: Examined) -> None:
    found = Answers.of(examined, examined.task, counts(examined))
    before = uncertainty_findings._crossed(found, found.features)
    upset = np.where(found.half[:, None], 1 - found.taken, found.taken)
    after = uncertainty_findings._crossed(replace(found, taken=upset), found.features)
    assert np.array_equal(before[found.half], after[found.half])
    assert not np.allclose(before[~found.half], after[~found.half])


def test_a_model_that_knows_is_found_to(study: Study) -> None:
    values = study.values
    assert values["targets"]["brier skill over popularity"]["reached"]
    assert values["probabilities"]["brier skill"]["low"] > 0
    assert values["probabilities"]["own"]["ece"] < 0.06
    assert sum(values["probabilities"]["own"]["bins"]["pairs"]) == values["pairs"]
    held = values["sets"]["levels"]["0.9"]
    assert held["ratio"] == pytest.approx(held["size"] / held["popularity"])
    assert 0.8 < np.mean(held["halves"]) < 1
    assert sum(part["users"] for part in values["sets"]["by history length"].values()) == held["users"]
    signals = values["risk"]["signals"]
    assert signals["expected precision"]["below_random"]["low"] > 0
    assert values["risk"]["best possible below random"] > signals[values["risk"]["surest"]]["below_random"]["mean"]
    assert signals["history length"]["over"].keys() == {"score margin"}
    best, random = values["risk"]["best possible"], values["risk"]["random"]
    for signal in signals.values():
        excess = signal["excess_below_random"]
        assert excess["mean"] == pytest.approx(1 - signal["e_aurc"] / (random - best))
        assert excess["low"] <= excess["mean"] <= excess["high"] <= 1
    assert signals["expected precision"]["excess_below_random"]["low"] > 0
    assert values["shift over time"]["probabilities"]["ece"] < 0.1
    json.dumps(values, allow_nan=False)


def test_the_page_says_it_in_words_first_and_shows_it(study: Study) -> None:
    blocks = study.section.blocks
    words = [block.words for block in blocks if block.tag == "text"]
    assert words[0].startswith("The probability of each of the first 20 places is wrong by 0.")
    assert "better than what popularity alone says" in words[0]
    assert re.search(
        r"the excess over that best possible order is [\d.]+\u00a0% smaller than that of a random", words[2]
    )
    assert any(word.startswith(("Draws are worth", "Draws do not beat")) for word in words)
    assert any("Over time: fitted on the selection part" in word for word in words)
    pictures = [block for block in blocks if block.tag == "picture"]
    assert [[mark.words for mark in picture.key] for picture in pictures] == [
        ["knowing", "popularity"],
        ["expected precision", "draws: entropy", "history length", "score margin", "random order"],
    ]
    for picture in pictures:
        assert picture.draw(WIDE, "n").startswith("<svg")


def test_nothing_is_said_of_draws_nor_of_an_earlier_part_where_there_is_none(
    examined: Examined, popularity: Popularity
) -> None:
    refitted = replace(examined, protocol=examined.protocol.model_copy(update={"refit": ("train", "valid")}))
    study = uncertainty(refitted, popularity)
    words = [block.words for block in study.section.blocks if block.tag == "text"]
    assert "No draws were made (draws = 1), so nothing is said of their spread." in words
    assert not any("Over time" in word for word in words)
    assert any("The model has learned from the selection part" in word for word in words)
    assert study.values["shift over time"] == {"probabilities": None, "coverage": None}
    assert not any(signal["turned"] for signal in study.values["risk"]["signals"].values())


def test_too_few_users_are_refused_in_a_sentence(examined: Examined, popularity: Popularity) -> None:
    few = replace(examined)
    task = examined.task
    rows = torch.arange(10)
    few.__dict__["task"] = Task(task.query.select(rows), task.relevant.select(rows), 0)
    few.__dict__["background"] = examined.background
    with pytest.raises(InvalidInput, match="There are too few users to calibrate on one half"):
        uncertainty(few, popularity)


PROMISES = [figures.Promise(name, [0.1, 0.1, 0.3], [0.05, 0.2, 0.3], [5, 5, 4]) for name in ("a <b>", "popularity")]
ORDERS = [figures.Order(name, np.linspace(low, 0.9, 500).tolist()) for name, low in (("margin", 0.5), ("history", 0.8))]
DRAWN = {
    "reliability": lambda w: figures.reliability(PROMISES, width=w, name="n"),
    "one bin": lambda w: figures.reliability([figures.Promise("a", [0.0], [0.0], [3])], width=w, name="n"),
    "risk": lambda w: figures.risk_coverage(ORDERS, 0.9, np.linspace(0.1, 0.9, 500).tolist(), width=w, name="n"),
    "one user": lambda w: figures.risk_coverage([figures.Order("a", [0.5])], 0.5, [0.5], width=w, name="n"),
}


@pytest.mark.parametrize("width", [WIDE, NARROW])
@pytest.mark.parametrize("which", sorted(DRAWN))
def test_pictures_are_the_same_each_time_in_the_colours_of_the_page(which: str, width: int) -> None:
    svg = DRAWN[which](width)
    assert svg == DRAWN[which](width)
    assert svg.startswith(f'<svg viewBox="0 0 {width} ')
    assert "var(--s1)" in svg
    assert not re.search(r"#0a0b|W\d{5}W|NaN|nan", svg)
    assert all(name.startswith("n-") for name in re.findall(r'\bid="([^"]*)"', svg))
