"""What the contracts examine: a method, trained small on the tiny world, and the checkerboard whose answer is known."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from rediffuse import registry
from rediffuse.config import RunConfig
from rediffuse.data.dataset import Dataset
from rediffuse.data.importers.atelier import load
from rediffuse.data.splits import GlobalTime
from rediffuse.data.vocabulary import Vocabulary
from rediffuse.evaluation.evaluate import Task
from rediffuse.evaluation.protocol import Protocol
from rediffuse.facade import Model
from rediffuse.protocols import FitContext, FitData, Method
from rediffuse.types import Query, Ragged, Ranking

RUN = RunConfig(device="cpu", threads=1)
CLOSE = 1e-5
"""How far scores of a query alone and in a batch may lie apart, relative to the largest of their list."""
SQUARES = 24
"""Items of the checkerboard; users like the even or the odd ones."""


@dataclass(frozen=True)
class Subject:
    """A registered method, trained small."""

    recipe: registry.Recipe
    fitted: registry.Fitted
    dataset: Dataset
    query: Query
    """Users of the selection part, with times."""

    @property
    def method(self) -> Method:
        """Bare, as its class made it."""
        return self.fitted.method

    @property
    def n_items(self) -> int:
        """Size of the catalog, I."""
        return len(self.dataset.catalog)

    @property
    def model(self) -> Model:
        """Speaks external ids."""
        folder = self.fitted.folder
        return Model(folder.method, self.fitted.model, Vocabulary(folder.items), folder.titles, folder)


@cache
def shop() -> Dataset:
    """The tiny world, parted by time."""
    return load("tiny").with_split(GlobalTime())


def small_recipe(name: str, settings: Mapping[str, object]) -> registry.Recipe:
    """A method under those of the settings that it has."""
    method = registry.method_class(name)
    known = {*method.Config.model_fields, *method.Training.model_fields}
    return registry.recipe(name, None, {key: value for key, value in settings.items() if key in known})


def trained(name: str, settings: Mapping[str, object]) -> Subject:
    """The subject of that name; made once a process."""
    return _trained(registry.method_class(name), name, json.dumps(settings, sort_keys=True))


@cache
def _trained(_: type[Method], name: str, settings: str) -> Subject:
    chosen = small_recipe(name, json.loads(settings))
    protocol = Protocol()
    fitted = registry.fit(chosen, shop(), protocol, RUN)
    return Subject(chosen, fitted, shop(), Task.of(shop(), protocol.selection).query)


def checkerboard() -> FitData:
    """40 users with 8 of 12 items each, all of one colour: even items for the first half, odd for the second."""
    generator = torch.Generator().manual_seed(0)
    picks = [torch.randperm(SQUARES // 2, generator=generator)[:8] * 2 + user // 20 for user in range(40)]
    plain = Ragged.of([pick.tolist() for pick in picks])
    return FitData(Ragged(plain.indptr, plain.items, time_us=plain.ranks * 10**9), SQUARES, "time")


def bare_context(data: FitData) -> FitContext:
    """Neither validation nor reports, but the other methods where one is built over them."""
    return registry.with_parts(FitContext(RUN), data)


@cache
def _fitted_on_checkerboard(cls: type[Method], name: str, settings: str) -> tuple[Method, Method]:
    del cls
    chosen = small_recipe(name, json.loads(settings))
    first, second = (
        chosen.method.fit(chosen.config, chosen.training, checkerboard(), bare_context(checkerboard()))
        for _ in range(2)
    )
    return first, second


def on_checkerboard(name: str, settings: Mapping[str, object]) -> tuple[Method, Method]:
    """The method fitted on the checkerboard, twice with one seed."""
    return _fitted_on_checkerboard(registry.method_class(name), name, json.dumps(settings, sort_keys=True))


def assert_close(one: Ranking, other: Ranking) -> None:
    """The same scores up to `CLOSE`; the same items but for ties within that."""
    assert one.items.shape == other.items.shape
    for items_a, scores_a, items_b, scores_b in zip(one.items, one.scores, other.items, other.scores, strict=True):
        assert torch.equal(items_a < 0, items_b < 0), "lists of different length"
        there = items_a >= 0
        a, b = scores_a[there], scores_b[there]
        room = CLOSE * float(a.abs().max()) if a.numel() else 0.0
        assert bool(((a - b).abs() <= room).all()), f"scores differ by {float((a - b).abs().max()):.3g}"
        for place in (items_a != items_b).nonzero().flatten().tolist():
            _assert_tied(int(items_a[place]), float(scores_a[place]), items_b, scores_b, room)


def _assert_tied(item: int, score: float, items: Tensor, scores: Tensor, room: float) -> None:
    """An item stands in another list elsewhere, or is missing at its end, only because of a tie."""
    found = (items == item).nonzero().flatten()
    rival = float(scores[found[0]]) if len(found) else float(scores[items >= 0][-1])
    assert abs(score - rival) <= 2 * room, f"item {item} stands elsewhere, and no tie explains it"


def changed(one: Ranking, other: Ranking) -> bool:
    """Whether anything in two answers differs."""

    def table(ranking: Ranking, name: str) -> Tensor:
        value: Any = getattr(ranking, name)
        return torch.zeros(0) if value is None else value.nan_to_num(nan=-1.0)

    return any(not torch.equal(table(one, n), table(other, n)) for n in ("items", "scores", "spread", "probability"))
