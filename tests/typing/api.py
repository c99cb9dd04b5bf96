"""The public API as a user writes it: type-checked in strict mode, never run."""

from pathlib import Path
from typing import assert_type

import torch

import rediffuse
from rediffuse import Answer, Dataset, Model, Options, Protocol, Query, Ranking, RunConfig, Task
from rediffuse.data.importers.table import load as load_table
from rediffuse.data.splits import GlobalTime
from rediffuse.evaluation.evaluate import Scores
from rediffuse.evaluation.statistics import Interval
from rediffuse.protocols import Recommender, Stepwise
from rediffuse.registry import Fitted, Recipe
from rediffuse.testing.contracts import RecommenderContract
from rediffuse.types import Ragged


def serve(folder: Path) -> None:
    """Load a model and ask it."""
    model = rediffuse.load(folder, device="cpu")
    assert_type(model, Model)
    answer = model.recommend(["a", "b"], k=5, exclude=["c"], candidates=["d", "e"], options=Options(steps=1), seed=3)
    assert_type(answer, Answer)
    assert_type([place.item for place in answer.items], list[str])
    assert_type(answer.items[0].score, float)
    assert_type(answer.fallback, str | None)
    assert_type(model.recommend_many([["a"], ["b"]]), list[Answer])


def research(source: Path) -> float:
    """Train and score a method on one's own events."""
    dataset = load_table(source, columns={"user": "customer"}).with_split(GlobalTime(valid=0.1))
    assert_type(dataset, Dataset)
    protocol = Protocol(ks=(10,), select_by="recall@10")
    chosen = rediffuse.recipe("diffrec", "ml-1m-clean", {"levels": 5})
    assert_type(chosen, Recipe)
    fitted = rediffuse.fit(chosen, dataset, protocol, RunConfig(seed=7), report=lambda progress: print(progress.loss))
    assert_type(fitted, Fitted)
    fitted.write(source.with_name("model"))
    scores = rediffuse.evaluate(fitted.model, Task.of(dataset, protocol.report), protocol, options=Options(steps=2))
    assert_type(scores, Scores)
    assert_type(scores.intervals["recall@10"], Interval)
    return scores.mean("recall@10")


def ask(model: Recommender) -> torch.Tensor:
    """Speak dense numbers."""
    query = Query.from_history(Ragged.of([[1, 2], [3]]))
    ranking = model.recommend(query, 10, options=Options(temperature=0.5, guidance_scale={"text": 2.0}))
    assert_type(ranking, Ranking)
    if isinstance(model, Stepwise):
        assert_type(model.walk(query, 10), list[tuple[int, Ranking]])
    return ranking.top(3).items


class TestMine(RecommenderContract):
    """A third party's tests."""

    only = ("mine",)
    settings = {"epochs": 1}  # noqa: RUF012
