"""The sections on how methods came to be and what they cost: learning curves, what was tried, time and memory."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from rediffuse.evaluation import figures, wording
from rediffuse.evaluation.report.blocks import Block, Cell, Details, Mark, Picture, Section, Table, Text
from rediffuse.evaluation.report.comparison import Report
from rediffuse.evaluation.report.outcome import in_order, key_of
from rediffuse.evaluation.report.values import CoursePoint, Result, Trial

T = TypeVar("T")
SHOWN_EPOCHS = 12


def learning(report: Report, results: Sequence[Result]) -> list[Section]:
    """Loss and validation of each training, epoch by epoch, with the epoch that was kept."""
    trained = [result for result in results if result.course]
    if not trained:
        return []
    lines = [_curve(result) for result in trained]
    metric = f"{report.select_by} on the selection part"
    picture = Picture(
        lambda w, n: figures.curves(lines, metric=metric, width=w, name=n),
        f"Loss, and below it {metric}, by epoch; the dashed line marks the epoch whose weights were kept. Losses of "
        "different methods are not comparable.",
        [*key_of(trained), Mark("dash", "muted", "epoch that was kept")],
    )
    rows = [_training(result, line.best) for result, line in zip(trained, lines, strict=True)]
    head = ("method", "epochs", "kept", "loss, first", "loss, last", "best validation", "seconds")
    courses = [
        Table(
            f"{result.method}, epoch by epoch (at most {SHOWN_EPOCHS} shown)",
            ("epoch", "loss", report.select_by, "seconds"),
            [_epoch(point) for point in spread(result.course, SHOWN_EPOCHS)],
        )
        for result in trained
    ]
    blocks: list[Block] = [picture, Table("Trainings of the last seed", head, rows), Details("As numbers", courses)]
    return [Section("learning", "Learning curves", blocks)]


def tried(report: Report, results: Sequence[Result]) -> list[Section]:
    """The search for settings: the best so far by trial, what was chosen, and whether budgets were equal."""
    tuned = [result for result in results if result.trials]
    if not tuned:
        return []
    drawn = [figures.Tried(r.method, r.role, [_or_nan(trial.value) for trial in r.trials]) for r in tuned]
    picture = Picture(
        lambda w, n: figures.tried(drawn, metric=report.select_by, width=w, name=n),
        f"{report.select_by} on the selection part, a dot per trial, the best so far as a line; one scale for all. A "
        "small v at the edge lies far below.",
        key_of(tuned),
    )
    rows = [_search(result) for result in tuned]
    head = ("method", "trials", "failed", "best", "at trial", "seconds", "chosen settings")
    folded = [
        Table(f"Trials of {r.method}", ("trial", report.select_by, "seconds", "settings"), _trials(r.trials))
        for r in tuned
    ]
    return [
        Section(
            "tried",
            "What was tried",
            [Text(_budget(tuned)), picture, Table("Settings chosen", head, rows), Details("Trials", folded)],
        )
    ]


def cost(report: Report, results: Sequence[Result]) -> Section:
    """Seconds, time per user, memory; accuracy against time per user."""
    timings = in_order(*(result.seconds for result in results))
    rows = [
        [
            Cell(result.method, role=result.role),
            *(Cell(wording.short(result.seconds.get(name, math.nan))) for name in timings),
            Cell(wording.score(_ms(result))),
            Cell(wording.short(result.peak_rss_mb)),
        ]
        for result in results
    ]
    head = ("method", *(f"{name}, s" for name in timings), "ms per user", "peak, MB")
    note = (
        "Milliseconds per user are the time of evaluating over the users, metrics included. Peak is the most memory "
        "the process held while a method ran, with what earlier ones had left. One measurement on this machine."
    )
    blocks: list[Block] = [Table("Time and memory", head, rows), Text(note, "note")]
    spots = [figures.Spot(r.method, r.role, _ms(r), report.value(r)) for r in results]
    if sum(spot.cost > 0 and math.isfinite(spot.value) for spot in spots) > 1:
        unit = "milliseconds per user"
        picture = Picture(
            lambda w, n: figures.cost(spots, metric=report.select_by, unit=unit, width=w, name=n),
            f"{report.select_by} against {unit}, on a logarithmic axis: up is better, left is cheaper.",
            key_of(results),
        )
        blocks.insert(0, picture)
    return Section("cost", "What it costs", blocks)


def spread(values: Sequence[T], count: int) -> list[T]:
    """At most `count` of the values, evenly spread, the first and the last among them."""
    if len(values) <= count:
        return list(values)
    return [values[round(place * (len(values) - 1) / (count - 1))] for place in range(count)]


@dataclass(frozen=True)
class _Best:
    number: int
    trial: Trial


def _best(trials: Sequence[Trial]) -> _Best | None:
    """The first of the best trials, counted from 1; None when all failed."""
    known = [_Best(number, trial) for number, trial in enumerate(trials, 1) if math.isfinite(_or_nan(trial.value))]
    return max(known, key=lambda one: _or_nan(one.trial.value), default=None)


def _ms(result: Result) -> float:
    """Milliseconds per user of an evaluation."""
    return 1e3 * result.seconds.get("evaluate", math.nan) / max(result.users, 1)


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value


def _curve(result: Result) -> figures.Curve:
    course = sorted(result.course, key=lambda point: point.epoch)
    validated = [point for point in course if math.isfinite(_or_nan(point.validation))]
    best = max(validated, key=lambda point: _or_nan(point.validation), default=None)
    return figures.Curve(
        result.method,
        result.role,
        [point.epoch for point in course],
        [point.loss for point in course],
        [_or_nan(point.validation) for point in course],
        best.epoch if best else None,
    )


def _training(result: Result, best: int | None) -> list[Cell]:
    course = sorted(result.course, key=lambda point: point.epoch)
    value = next((_or_nan(point.validation) for point in course if point.epoch == best), math.nan)
    return [
        Cell(result.method, role=result.role),
        Cell(f"{course[-1].epoch:,}"),
        Cell("last" if best is None else f"{best:,}"),
        Cell(wording.score(course[0].loss)),
        Cell(wording.score(course[-1].loss)),
        Cell(wording.mean(value)),
        Cell(wording.short(course[-1].seconds)),
    ]


def _epoch(point: CoursePoint) -> list[Cell]:
    return [
        Cell(f"{point.epoch:,}"),
        Cell(wording.score(point.loss)),
        Cell(wording.mean(_or_nan(point.validation))),
        Cell(wording.short(point.seconds)),
    ]


def _search(result: Result) -> list[Cell]:
    best = _best(result.trials)
    failed = sum(trial.value is None for trial in result.trials)
    return [
        Cell(result.method, role=result.role),
        Cell(f"{len(result.trials):,}"),
        Cell(f"{failed:,}"),
        Cell(wording.mean(_or_nan(best.trial.value)) if best else "–"),
        Cell(f"{best.number:,}" if best else "–"),
        Cell(wording.short(sum(trial.seconds for trial in result.trials))),
        Cell(wording.words(best.trial.settings) if best else "none worked", kind="words"),
    ]


def _trials(trials: Sequence[Trial]) -> list[list[Cell]]:
    return [
        [
            Cell(f"{number:,}"),
            Cell("failed" if trial.value is None else wording.mean(trial.value)),
            Cell(wording.short(trial.seconds)),
            Cell(wording.words(trial.settings), kind="words"),
        ]
        for number, trial in enumerate(trials, 1)
    ]


def varied(result: Result) -> bool:
    """Whether there was anything to tune: a method without settings has the one trial."""
    return any(trial.settings for trial in result.trials) or len(result.trials) > 1


def _budget(tuned: Sequence[Result]) -> str:
    tuned = [result for result in tuned if varied(result)]
    counts = {len(result.trials) for result in tuned}
    if not counts:
        return "No method had a setting to vary."
    if len(counts) == 1:
        return f"Every method that was tuned had the same budget: {wording.counted(counts.pop(), 'trial')}."
    each = wording.listed(f"{result.method} {len(result.trials):,}" for result in tuned)
    return f"Budgets differ, which favours who had more trials: {each}."
