"""Accuracy and cost against steps, for the same weights under each sampler."""

from dataclasses import replace

import pytest
import torch

from rediffuse import registry
from rediffuse.config import RunConfig
from rediffuse.data.dataset import Dataset
from rediffuse.errors import UnsupportedOption
from rediffuse.evaluation.evaluate import evaluate
from rediffuse.evaluation.protocol import Protocol
from rediffuse.evaluation.report.as_json import to_plain
from rediffuse.evaluation.report.blocks import Bullets, Picture, Table
from rediffuse.evaluation.studies.samplers import sampler_sweep
from rediffuse.evaluation.study import Examined
from rediffuse.protocols import Recommender
from rediffuse.types import Options

SETTINGS = {"hidden": [16], "epochs": 2, "levels": 6, "noise_scale": 1.0, "noise_max": 0.3}


@pytest.fixture(scope="module")
def fitted(tiny: Dataset) -> registry.Fitted:
    return registry.fit(
        registry.recipe("diffrec", None, SETTINGS), tiny, Protocol(), RunConfig(device="cpu", threads=1)
    )


def under(fitted: registry.Fitted, sampler: str) -> Recommender:
    folder = fitted.folder
    return registry.restore(replace(folder, config={**folder.config, "sampler": sampler}), "cpu")[1]


def test_every_point_is_an_evaluation_of_the_model_under_that_sampler(fitted: registry.Fitted, tiny: Dataset) -> None:
    examined = Examined("diffrec", fitted.model, tiny, Protocol())
    remade = {name: under(fitted, name) for name in ("ancestral", "heun")}
    found = sampler_sweep(examined, remade, 6).values
    assert [(p.method, p.steps) for p in found["points"]] == [(n, s) for n in remade for s in (1, 2, 5, 6)]
    only = Protocol().only("ndcg@10")
    for point, gap in zip(found["points"], found["gaps"], strict=True):
        scores = evaluate(remade[point.method], examined.task, only, options=Options(steps=point.steps))
        assert point.value.mean == scores.mean("ndcg@10")
        assert point.ms_per_user > 0
        assert gap["less the model as it is"].mean == pytest.approx(point.value.mean - found["as it is"].mean)
    # The model is set to walk all levels ancestrally.
    assert found["points"][3].value == found["as it is"]
    assert len({round(p.value.mean, 9) for p in found["points"]}) > 3
    for name, model in remade.items():
        tried = {
            n: evaluate(model, examined.selection, only, options=Options(steps=n)).mean("ndcg@10") for n in (1, 2, 5, 6)
        }
        assert tried[found["chosen"][name]] == max(tried.values())
    to_plain(found)


def test_the_section_says_pictures_and_tabulates_it(fitted: registry.Fitted, tiny: Dataset) -> None:
    examined = Examined("diffrec", fitted.model, tiny, Protocol())
    said, picture, values, costs, _ = sampler_sweep(examined, {"ddim": under(fitted, "ddim")}, 6).section.blocks
    assert isinstance(said, Bullets)
    assert said.items[0].startswith("ddim is best with ")
    assert isinstance(picture, Picture)
    assert [mark.words for mark in picture.key] == ["ddim", "as the model is set"]
    assert "reverse steps" in picture.draw(992, "n")
    for table in (values, costs):
        assert isinstance(table, Table)
        assert list(table.head) == ["sampler", "1 step", "2 steps", "5 steps", "6 steps"]
        assert [row[0].text for row in table.rows] == ["ddim"]


def test_nobody_to_ask_is_said(fitted: registry.Fitted, tiny: Dataset) -> None:
    examined = Examined("diffrec", fitted.model, tiny, Protocol())
    nobody = replace(examined.task, query=examined.task.query.select(torch.arange(0)))
    examined.__dict__["task"] = nobody
    study = sampler_sweep(examined, {"ddim": under(fitted, "ddim")}, 6)
    assert study.section.blocks[0].words == "No user has anything to find."
    assert study.values == {}


def test_a_model_without_steps_refuses(tiny: Dataset) -> None:
    model = registry.fit(registry.recipe("popularity"), tiny, Protocol(), RunConfig(device="cpu")).model
    with pytest.raises(UnsupportedOption, match="cannot use 'steps'"):
        sampler_sweep(Examined("popularity", model, tiny, Protocol()), {"ddim": model}, 5)
