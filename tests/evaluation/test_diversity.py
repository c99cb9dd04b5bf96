"""The front of accuracy against diversity: every point is an evaluation, and the setting that is named was not chosen on it."""

import math
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from rediffuse import registry
from rediffuse.config import RunConfig
from rediffuse.data.dataset import Dataset
from rediffuse.evaluation.beyond_accuracy import beyond
from rediffuse.evaluation.evaluate import Task, evaluate
from rediffuse.evaluation.figures.diversity import Front, Path, fronts
from rediffuse.evaluation.protocol import Protocol
from rediffuse.evaluation.report.as_json import to_plain
from rediffuse.evaluation.report.blocks import Bullets, Picture, Table
from rediffuse.evaluation.statistics import Interval
from rediffuse.evaluation.studies import diversity_points
from rediffuse.evaluation.studies.diversity import choose, diversity_front
from rediffuse.evaluation.studies.diversity_points import WIDTH, Point, Series
from rediffuse.evaluation.study import Examined, Study
from rediffuse.grounding.diverse import Diverse
from rediffuse.spaces.item_vectors import item_vectors
from rediffuse.types import Options

SETTINGS = (0.0, 0.4, 1.0)
ONLY = Protocol().only("ndcg@10")


def fitted(name: str, tiny: Dataset, **settings: object) -> registry.Fitted:
    return registry.fit(registry.recipe(name, None, settings), tiny, Protocol(), RunConfig(device="cpu", threads=1))


def few(task: Task) -> Task:
    rows = torch.arange(40)
    return replace(task, query=task.query.select(rows), relevant=task.relevant.select(rows))


@pytest.fixture(scope="module")
def examined(tiny: Dataset) -> Examined:
    model = fitted("diffrec", tiny, hidden=[16], epochs=2, levels=4, noise_scale=1.0, noise_max=0.3).model
    one = Examined("diffrec", model, tiny, Protocol())
    one.__dict__.update(task=few(one.task), selection=few(one.selection))
    return one


@pytest.fixture(scope="module")
def study(examined: Examined, tiny: Dataset) -> Study:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(diversity_points, "SETTINGS", SETTINGS)
        return diversity_front(examined, [("ease", fitted("ease", tiny).model)])


def test_every_series_there_can_be_is_measured(study: Study) -> None:
    series = study.values["series"]
    alike = [("mmr", "ease"), ("dpp", "ease"), ("max_sum", "ease"), ("calibrated", "ease")]
    own = [(name, "diffrec") for name in ("mmr", "dpp", "max_sum", "calibrated", "merged")]
    assert [(one["reranker"], one["model"]) for one in series] == [*own, *alike]
    for one in series:
        for part in ("selection", "report"):
            assert [point["diversity"] for point in one[part]] == list(SETTINGS)
            assert one[part][0]["kept"] == {"mean": 1, "low": 1, "high": 1}
            assert one[part][0]["gain"] == {"mean": 0, "low": 0, "high": 0}
    to_plain(study.values)


@pytest.mark.parametrize(("reranker", "step"), [("mmr", 1), ("max_sum", 2), ("dpp", 0)])
def test_a_point_is_an_evaluation_of_the_model_so_asked(
    examined: Examined, study: Study, reranker: str, step: int
) -> None:
    data = examined.background.data
    diverse = Diverse(examined.model, item_vectors(data.history, data.n_items, WIDTH), reranker=reranker)
    scores = evaluate(diverse, examined.task, ONLY, options=Options(diversity=SETTINGS[step]))
    found = beyond(scores.lists, examined.task.relevant, examined.background, (10,))
    (one,) = (s for s in study.values["series"] if (s["reranker"], s["model"]) == (reranker, "diffrec"))
    point, plain = one["report"][step], one["report"][0]
    assert point["ndcg"]["mean"] == pytest.approx(scores.mean("ndcg@10"))
    for name in ("ild", "coverage", "gini"):
        mean = point[name]["mean"] if name == "ild" else point[name]
        assert mean == pytest.approx(found[f"{name}@10"].mean)
    assert point["kept"]["mean"] == pytest.approx(point["ndcg"]["mean"] / plain["ndcg"]["mean"])
    assert point["gain"]["mean"] == pytest.approx(point["ild"]["mean"] / plain["ild"]["mean"] - 1)
    assert point["kept"]["low"] <= point["kept"]["mean"] <= point["kept"]["high"]


def test_re_rankers_by_distance_make_lists_more_unlike(study: Study) -> None:
    for one in study.values["series"]:
        if one["reranker"] in ("mmr", "dpp", "max_sum"):
            gains = [point["gain"]["mean"] for point in one["report"]]
            assert gains[-1] > max(gains[1], 0.01)


def test_the_section_says_pictures_and_tabulates_it(study: Study) -> None:
    said, picture, named, folded, _ = study.section.blocks
    assert isinstance(said, Bullets)
    own, rival, against, knob = said.items
    assert "makes the lists of diffrec" in own
    assert "makes the lists of ease" in rival
    assert "ease" in against
    assert knob.startswith("Mean distance never falls")
    assert isinstance(picture, Picture)
    assert [mark.words for mark in picture.key][:5] == ["mmr", "dpp", "max_sum", "calibrated", "merged"]
    assert isinstance(named, Table)
    assert [row[0].text.split(" over ")[1] for row in named.rows] == ["diffrec", "ease"]
    assert len(folded.blocks) == 9
    for width in (992, 340):
        svg = picture.draw(width, "n")
        assert {"ndcg@10 of diffrec", "ndcg@10 of ease", "ild@10", "coverage@10"} <= set(
            re.findall(r"<text[^>]*>(.*?)</text>", svg)
        )


def test_nothing_to_find_is_said(tiny: Dataset) -> None:
    one = Examined("x", fitted("popularity", tiny).model, tiny, Protocol())
    nobody = torch.arange(0)
    empty = replace(one.task, query=one.task.query.select(nobody), relevant=one.task.relevant.select(nobody))
    one.__dict__.update(task=empty)
    assert diversity_front(one).values == {}


def series(name: str, kept: list[float], gain: list[float], report: list[float]) -> Series:
    """Kept and gained on the selection part; on the report part distances alone count."""

    def point(kept: float, gain: float) -> Point:
        same = [Interval(value, value, value) for value in (0.1, kept, 1 + gain, gain)]
        return Point(0.0, *same, 0.5, 0.5)

    on = [point(*both) for both in zip(kept, gain, strict=True)]
    return Series("m", name, on, [point(1, value) for value in report])


def test_one_user_tells_nothing_of_distances(examined: Examined) -> None:
    data = examined.background.data
    alone = replace(examined)
    one = replace(data, history=data.history.select(torch.arange(1)))
    alone.__dict__.update(
        background=replace(examined.background, data=one), task=examined.task, selection=examined.selection
    )
    study = diversity_front(alone)
    assert study.values == {}
    assert study.section.blocks[0].words == "One user or one item tells nothing of how alike items are."


def test_the_setting_is_chosen_on_the_selection_part() -> None:
    a = series("a", [1, 0.98, 0.90], [0, 0.05, 0.4], [0, 0.1, 0.2])
    b = series("b", [1, 0.975, 0.972], [0, 0.1, 0.15], [0, 0.1, 0.05])
    c = series("c", [1, 0.98, 0.99], [0, 0.3, 0.2], [0, 0.0, 0.0])
    assert choose([a, b]) == (b, 2)  # the most unlike lists that keep enough
    assert choose([a, b, c]) == (c, 2)  # of those that meet the goal, the most accurate
    assert choose([series("d", [1, 0.5], [0, 0.5], [0, 0])])[1] == 0
    assert choose([series("e", [math.nan, math.nan], [math.nan, math.nan], [0, 0])])[1] == 0
    assert a.never_falls
    assert not b.never_falls
    assert not c.never_falls


def test_a_distance_that_cannot_rise_so_much_is_said(study: Study) -> None:
    """It is 1 at most: lists of .9 cannot be 20 % more unlike, whoever makes them."""
    said = study.section.blocks[0].items[:2]
    for name, words in zip(("diffrec", "ease"), said, strict=True):
        plain = next(one["selection"][0]["ild"]["mean"] for one in study.values["series"] if one["model"] == name)
        met = study.values["chosen"][name]["meets"]["selection"]
        assert ("distance cannot rise so much" in words) == (not met and 1.2 * plain > 1)


@pytest.mark.parametrize("width", [992, 340])
def test_the_picture_draws_what_is_defined(width: int) -> None:
    rise = list(np.linspace(0, 1, 11))
    paths = [Path(look, rise, [1 - x for x in rise], look) for look in range(5)]
    panels = [Front("a <b>", "ild@10", paths, 0.9, 0.5), Front("c", "gini@10", [Path(0, [math.nan], [math.nan])])]
    svg = fronts(panels, metric="ndcg@10", columns=2, width=width, name="n")
    assert svg == fronts(panels, metric="ndcg@10", columns=2, width=width, name="n")
    assert "a &lt;b&gt;" in svg
    assert all(f"var(--{colour})" in svg for colour in ("s1", "s2", "s3", "s4", "reference", "taken"))
    assert not re.search(r"#0a0b|W\d{5}W|NaN|nan", svg)
