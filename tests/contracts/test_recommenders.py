"""Every registered method keeps the contracts; a new one is examined because it is registered, and found out."""

import runpy
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import ClassVar, Self

import pytest
import torch
from torch import Tensor

import rediffuse.testing
from rediffuse import recipes
from rediffuse.config import FrozenConfig
from rediffuse.errors import MissingExtra, refuse_options
from rediffuse.grounding.topk import top_k
from rediffuse.protocols import FitContext, FitData, Tunable
from rediffuse.testing.contracts import OPTIONS, RecommenderContract
from rediffuse.types import Options, Query, Ranking

SUITE = """
from rediffuse.testing.contracts import RecommenderContract

class TestAll(RecommenderContract):
    pass
"""


class TestEveryRegisteredMethod(RecommenderContract):
    """All contracts for all methods."""


SMALL = RecommenderContract.settings
ON_SQUARES = RecommenderContract.checkerboard_settings
TOKENS = {"denoiser": "transformer", "tokens": 2, "token_width": 16, "layers": 1}
NOISY = {"noise_scale": 1.0, "noise_max": 0.5, "loss_weight": "none", "level_choice": "uniform"}
NEXT = {"target": "next", "start": "origin", "schedule": "cosine", "loss_weight": "none", "horizon": 8}
OF_HISTORY = {"condition": ["history"], "condition_width": 4, "weight_decay": 1.0}


class Variant(RecommenderContract):
    """One method under settings that make another network, another x_0 or another prediction of it."""

    only: ClassVar[Sequence[str]] = ("diffrec",)


class TestTransformer(Variant):
    """The second lifted denoiser."""

    settings: ClassVar[Mapping[str, object]] = {**SMALL, **TOKENS}
    checkerboard_settings: ClassVar[Mapping[str, object]] = {**ON_SQUARES, **TOKENS}


class TestConditions(Variant):
    """All kinds of conditions at once: a history, a cycle, words of users, words of events."""

    settings: ClassVar[Mapping[str, object]] = {**SMALL, "condition": ["history", "season", "region", "price_tier"]}
    checkerboard_settings: ClassVar[Mapping[str, object]] = {**ON_SQUARES, **OF_HISTORY}


class TestUserAttributes(Variant):
    """Conditions that tell of no moment: rows are whole."""

    settings: ClassVar[Mapping[str, object]] = {**SMALL, **TOKENS, "condition": ["age_band", "tier"]}


class TestEps(Variant):
    """The chain runs over rows. On few users what the noise was is hard to tell."""

    settings: ClassVar[Mapping[str, object]] = {**SMALL, **NOISY, "prediction": "eps"}
    checkerboard_settings: ClassVar[Mapping[str, object]] = {
        **ON_SQUARES,
        **NOISY,
        "prediction": "eps",
        "levels": 2,
        "hidden": [64],
        "epochs": 400,
        "dropout": 0.0,
        "weight_decay": 1.0,
    }
    learned: ClassVar[float] = 0.7


class TestV(Variant):
    """The same with velocities and a condition."""

    settings: ClassVar[Mapping[str, object]] = {**SMALL, **NOISY, "prediction": "v", "condition": ["history"]}
    checkerboard_settings: ClassVar[Mapping[str, object]] = {**ON_SQUARES, **NOISY, "prediction": "v", "epochs": 300}
    learned: ClassVar[float] = 0.9


class TestNext(Variant):
    """x_0 is what follows a moment."""

    settings: ClassVar[Mapping[str, object]] = {**SMALL, **NEXT, "condition": ["history", "season"]}
    checkerboard_settings: ClassVar[Mapping[str, object]] = {**ON_SQUARES, **NEXT, **OF_HISTORY}


class Neighbours:
    """A third party's method: an item counts as often as it stands beside those of the history."""

    Config: ClassVar[type[FrozenConfig]] = FrozenConfig
    Training: ClassVar[type[FrozenConfig]] = FrozenConfig
    presets: ClassVar[Mapping[str, Mapping[str, object]]] = {}
    controls: ClassVar[Mapping[str, Sequence[str]]] = {}
    tunable: ClassVar[Mapping[str, Tunable]] = {}

    def __init__(self, beside: Tensor) -> None:
        self.beside = beside

    @classmethod
    def fit(cls, config: FrozenConfig, training: FrozenConfig, data: FitData, context: FitContext) -> Self:
        rows = torch.zeros(len(data.history), data.n_items)
        rows[data.history.rows, data.history.items] = 1
        return cls(rows.T @ rows)

    @property
    def n_items(self) -> int:
        return self.beside.shape[0]

    def recommend(self, query: Query, k: int, *, options: Options = Options(), seed: int = 0) -> Ranking:
        refuse_options("neighbours", options.asked())
        scores = torch.zeros(len(query), self.n_items)
        scores.index_add_(0, query.history.rows, self.beside[query.history.items])
        return top_k(scores, k, seen=query.exclude, candidates=query.candidates)

    def state(self) -> dict[str, Tensor]:
        return {"beside": self.beside}

    @classmethod
    def restore(cls, config: FrozenConfig, state: Mapping[str, Tensor], device: str) -> Self:
        beside = state["beside"]
        return cls(beside.view(len(beside), len(beside)).to(device))


class ReturnsSeen(Neighbours):
    """Broken: what is excluded comes back."""

    def recommend(self, query: Query, k: int, *, options: Options = Options(), seed: int = 0) -> Ranking:
        free = Query(query.user, query.history, query.key, candidates=query.candidates)
        return super().recommend(free, k, options=options, seed=seed)


class IgnoresOptions(Neighbours):
    """Broken: says yes to everything and does nothing about it."""

    def recommend(self, query: Query, k: int, *, options: Options = Options(), seed: int = 0) -> Ranking:
        return super().recommend(query, k, seed=seed)


class LooksAtItsMates(Neighbours):
    """Broken: an answer depends on who else asks."""

    def recommend(self, query: Query, k: int, *, options: Options = Options(), seed: int = 0) -> Ranking:
        ranking = super().recommend(query, k, options=options, seed=seed)
        return Ranking(ranking.items, ranking.scores * len(query))


class ForgetsOnDisk(Neighbours):
    """Broken: what is saved is not what answered."""

    def state(self) -> dict[str, Tensor]:
        return {"beside": self.beside.flip(0)}


class LikesEverybodysFavourites(Neighbours):
    """Broken for a personal method: the same list for all."""

    def recommend(self, query: Query, k: int, *, options: Options = Options(), seed: int = 0) -> Ranking:
        refuse_options("favourites", options.asked())
        scores = self.beside.diagonal().expand(len(query), -1).clone()
        return top_k(scores, k, seen=query.exclude, candidates=query.candidates)


def install(monkeypatch: pytest.MonkeyPatch, name: str, cls: type[Neighbours]) -> None:
    """As if a package with this entry point were installed."""
    point = EntryPoint(name, f"{cls.__module__}:{cls.__name__}", "rediffuse.methods")
    monkeypatch.setattr(recipes, "entry_points", lambda group: [point] if group == point.group else [])


@dataclass
class Seen:
    """A plugin of pytest that notes what was collected and how each test ended."""

    collected: list[str] = field(default_factory=list[str])
    outcomes: dict[str, str] = field(default_factory=dict[str, str])

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        self.collected += [item.name for item in items]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.outcome != "passed":
            self.outcomes[report.nodeid.rpartition("::")[2]] = report.outcome


def examined(folder: Path, *args: str) -> Seen:
    """Run a third party's test file in this process, in a session of its own."""
    (folder / "test_mine.py").write_text(SUITE)
    (folder / "pytest.ini").write_text("[pytest]\n")
    seen = Seen()
    off = [
        part
        for name in ("randomly", "cacheprovider", "terminal", "faulthandler", "xdist")
        for part in ("-p", f"no:{name}")
    ]
    pytest.main([*off, "-c", str(folder / "pytest.ini"), "--import-mode=importlib", str(folder), *args], plugins=[seen])
    return seen


def test_a_newly_registered_method_is_collected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = examined(tmp_path, "--collect-only").collected
    install(monkeypatch, "neighbours", Neighbours)
    after = examined(tmp_path, "--collect-only").collected
    mine = {name for name in after if "[neighbours" in name}
    assert not [name for name in before if "[neighbours" in name]
    assert {name.replace("neighbours", "ease") for name in mine} == {name for name in before if "[ease" in name}
    assert set(after) - set(before) == mine
    assert len(mine) > 20


def test_a_sound_new_method_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "neighbours", Neighbours)
    outcomes = list(examined(tmp_path, "-k", "neighbours").outcomes.values())
    assert outcomes.count("passed") > 20
    assert "failed" not in outcomes


@pytest.mark.parametrize(
    ("cls", "contracts"),
    [
        (
            ReturnsSeen,
            {
                "test_excluded_items_never_return[broken]",
                "test_a_list_longer_than_the_catalog_is_padded[broken]",
                "test_unknown_items_are_reported_and_left_out[broken]",
                "test_the_checkerboard_is_learned[broken]",
            },
        ),
        (
            IgnoresOptions,
            {
                "test_impossible_options_are_refused[broken]",
                "test_draws_of_a_batch_agree_with_a_single_query[broken]",
                "test_several_draws_say_how_sure_they_are[broken]",
                *(f"test_options_are_honoured_or_refused[broken-{name}]" for name in OPTIONS),
            },
        ),
        (
            LooksAtItsMates,
            {
                "test_a_batch_agrees_with_a_single_query[broken]",
                "test_an_empty_history_gets_a_labelled_fallback[broken]",
            },
        ),
        (ForgetsOnDisk, {"test_a_saved_model_answers_the_same[broken]"}),
        (LikesEverybodysFavourites, {"test_the_checkerboard_is_learned[broken]"}),
    ],
)
def test_a_broken_method_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cls: type[Neighbours], contracts: set[str]
) -> None:
    install(monkeypatch, "broken", cls)
    outcomes = examined(tmp_path, "-k", "broken").outcomes
    assert {name for name, outcome in outcomes.items() if outcome == "failed"} == contracts


def test_without_pytest_the_suite_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pytest", None)
    with pytest.raises(MissingExtra, match="Run: pip install pytest"):
        runpy.run_path(rediffuse.testing.__file__)
