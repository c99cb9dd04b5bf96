"""The work of a comparison: tune, train and score every method alike, and keep what is done in case of an interruption."""

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from rediffuse import registry
from rediffuse.artifacts import read_model
from rediffuse.cli.console import tell, training_progress, waiting
from rediffuse.cli.memory import forget_peak, peak_rss_mb
from rediffuse.config import RunConfig
from rediffuse.data.dataset import Dataset
from rediffuse.data.worlds.atelier_references import MOST_ITEMS, window_of
from rediffuse.data.worlds.atelier_references import references as of_world
from rediffuse.errors import InvalidInput, say
from rediffuse.evaluation.beyond_accuracy import Background, beyond
from rediffuse.evaluation.evaluate import Scores, Task, evaluate
from rediffuse.evaluation.protocol import Protocol
from rediffuse.evaluation.report import CoursePoint, Reference, Result, Trial
from rediffuse.evaluation.slices import slices
from rediffuse.evaluation.statistics import paired
from rediffuse.evaluation.tuning import best, tune
from rediffuse.files import read_json, write_json


@dataclass(frozen=True)
class Run:
    """One method of a comparison: fitted, and scored on the same users as the others."""

    fitted: registry.Fitted
    scores: Scores
    """Per-user values, the mean over seeds."""
    result: Result


@dataclass(frozen=True)
class Comparison:
    """What all methods of a comparison share."""

    dataset: Dataset
    protocol: Protocol
    run: RunConfig
    trials: int = 0
    """Settings to try for each method on the selection part; 0 takes them as they are given."""
    keep: Path | None = None
    """Folder in which finished trials and models are kept; the same command goes on from them."""
    frozen: frozenset[str] = frozenset()
    """Labels of methods whose settings are not to be tuned any more."""
    task: Task = field(init=False)
    background: Background = field(init=False)

    def __post_init__(self) -> None:
        """Make the report part ready once for all."""
        task = Task.of(self.dataset, self.protocol.report)
        object.__setattr__(self, "task", task)
        object.__setattr__(self, "background", Background.of(self.dataset, self.protocol, task))

    def run_all(self, chosen: Sequence[registry.Recipe]) -> list[Run]:
        """Tune, fit and score every method, one after the other."""
        return [self._run(recipe) for recipe in chosen]

    def check_references(self) -> None:
        """Refuse, before any work, what the ceiling cannot be told for.

        Raises: InvalidInput when the parts do not follow each other in time, histories lack an event before the part
            that is reported, or the catalog is too large.
        """
        split, report = self.dataset.split, self.protocol.report
        assert split is not None
        window_of(self.dataset, report.relevant)
        if len(self.dataset.catalog) > MOST_ITEMS:
            raise InvalidInput(
                say(
                    "The catalog is too large for the ceiling",
                    got=len(self.dataset.catalog),
                    allowed=f"up to {MOST_ITEMS}",
                )
            )
        if set(report.history) != set(split.parts[: split.place(report.relevant)]):
            raise InvalidInput(
                say(
                    "The ceiling takes every event before the part that is reported for history",
                    got=", ".join(report.history),
                    allowed=", ".join(split.parts[: split.place(report.relevant)]),
                )
            )

    def references(self, runs: Sequence[Run]) -> list[Reference]:
        """What could be reached at all, where the truth behind the data is known. Raises: as `check_references`."""
        self.check_references()
        report = self.protocol.report
        metric, out = self.protocol.select_by, list[Reference]()
        for name, meaning, make, replicates in of_world(self.dataset, *window_of(self.dataset, report.relevant)):
            scores = list[Scores]()
            for n in range(replicates):
                with waiting(f"{name}, {n + 1} of {replicates}"):
                    scores.append(evaluate(make(n), self.task, self.protocol))
            means = [one.mean(metric) for one in scores]
            error = float(np.std(means, ddof=1) / np.sqrt(replicates)) if replicates > 1 else 0.0
            mean = Scores.over_seeds(scores)
            gaps = {one.result.method: paired(mean.of(metric), one.scores.of(metric))[0] for one in runs}
            out.append(Reference(name, meaning, mean.intervals, error, gaps))
        return out

    def _run(self, recipe: registry.Recipe) -> Run:
        recipe, trials = self._tuned(recipe)
        seeds = self.protocol.seeds if recipe.seeded else self.protocol.seeds[:1]
        fitted, scores, memory = None, list[Scores](), 0.0
        seconds = {"fit": 0.0, "evaluate": 0.0}
        for seed in seeds:
            fitted = self._fitted(recipe, seed)
            memory = max(memory, fitted.folder.made["peak_rss_mb"])
            began = time.perf_counter()
            scores.append(evaluate(fitted.model, self.task, self.protocol, seed=seed))
            seconds["fit"] += fitted.seconds
            seconds["evaluate"] += time.perf_counter() - began
        assert fitted is not None
        return Run(fitted, Scores.over_seeds(scores), self._result(recipe, fitted, scores, trials, seconds, memory))

    def _result(
        self,
        recipe: registry.Recipe,
        fitted: registry.Fitted,
        by_seed: Sequence[Scores],
        trials: Sequence[Trial],
        seconds: Mapping[str, float],
        memory: float,
    ) -> Result:
        protocol, scores, metric = self.protocol, Scores.over_seeds(by_seed), self.protocol.select_by
        means = [one.mean(metric) for one in by_seed]
        return Result(
            method=recipe.label,
            dataset=self.dataset.name,
            protocol=protocol.describe(self.dataset),
            users=len(scores.values),
            metrics=scores.intervals,
            seconds={name: round(value / len(by_seed), 3) for name, value in seconds.items()},
            peak_rss_mb=memory,
            undefined=self.task.undefined,
            settings={
                **fitted.folder.config,
                **fitted.folder.training,
                f"{metric} by seed": [None if np.isnan(v) else round(v, 6) for v in means],
            },
            role=recipe.role,
            beyond=beyond(scores.lists, self.task.relevant, self.background, protocol.ks),
            slices=slices(scores, self.task, self.background.data, metric),
            course=[CoursePoint(p.epoch, p.loss, p.validation, p.seconds) for p in fitted.course],
            trials=trials,
        )

    def _tuned(self, recipe: registry.Recipe) -> tuple[registry.Recipe, list[Trial]]:
        """The recipe with the settings that did best on the selection part."""
        if not self.trials or recipe.label in self.frozen:
            return recipe, []
        only, seed = self.protocol.only(self.protocol.select_by), self.protocol.seeds[0]
        run, done = RunConfig.make(self.run.model_dump(), seed=seed), list[Trial]()

        def value(settings: Mapping[str, Any]) -> tuple[float, float]:
            tried = recipe.changed(settings)
            kept = self._place("trials", tried, only, seed)
            if kept is not None and kept.with_suffix(".json").is_file():
                found = read_json(kept.with_suffix(".json"))
                return float("nan") if found["value"] is None else found["value"], found["seconds"]
            sofar = max((t.value for t in done if t.value is not None), default=None)
            note = "" if sofar is None else f", best {sofar:.4f}"
            with training_progress(f"{recipe.label}: trial {len(done) + 1} of {self.trials}{note}") as report:
                began = time.perf_counter()
                fitted = registry.fit(tried, self.dataset, only, run, report=report, refit=False)
                seconds = time.perf_counter() - began
            reached = fitted.folder.metrics[only.select_by]["mean"]
            if kept is not None:
                write_json(kept.with_suffix(".json"), {"value": reached, "seconds": round(seconds, 3)})
            return float("nan") if reached is None else reached, seconds

        trials = tune(recipe.tunable(), value, self.trials, seed=seed, report=done.append)
        found = best(trials)
        spent = sum(trial.seconds for trial in trials)
        tell(
            f"{recipe.label}: best of {len(trials)} settings {found.value:.4f} on {self.protocol.selection.relevant!r}, {spent:.0f} s"
        )
        return recipe.changed(found.settings), trials

    def _fitted(self, recipe: registry.Recipe, seed: int) -> registry.Fitted:
        """Fit with one seed, or take what an interrupted comparison had finished."""
        run = RunConfig.make(self.run.model_dump(), seed=seed)
        place = self._place("models", recipe, self.protocol, seed)
        if place is not None and place.is_dir():
            return registry.fitted(recipe, read_model(place), run.device)
        forget_peak()
        with training_progress(f"Training {recipe.label}") as report:
            found = registry.fit(recipe, self.dataset, self.protocol, run, report=report).noting(
                peak_rss_mb=peak_rss_mb()
            )
        if place is not None:
            found.write(place)
        return found

    def _place(self, kind: str, recipe: registry.Recipe, protocol: Protocol, seed: int) -> Path | None:
        """Where a piece of work is kept: under a hash of all that decides its outcome; other seeds beside it do not."""
        if self.keep is None:
            return None
        protocol = protocol.model_copy(update={"seeds": (seed,)})
        facts = {**registry.versions(), **self.run.model_dump(mode="json"), "seed": seed}
        parts = [recipe.describe(), self.dataset.digest(), protocol.model_dump(mode="json"), facts]
        mark = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
        return self.keep / kind / f"{recipe.label.replace(':', '-')}-{mark}"
