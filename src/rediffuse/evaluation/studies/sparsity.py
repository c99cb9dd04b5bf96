"""What is left of accuracy where little is known: of a user, or by the training."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch

from rediffuse.evaluation import figures, wording
from rediffuse.evaluation.calibration import Values
from rediffuse.evaluation.evaluate import Scores, Task, evaluate
from rediffuse.evaluation.protocol import Protocol
from rediffuse.evaluation.report.blocks import Block, Bullets, Cell, Details, Mark, Picture, Section, Table, Text
from rediffuse.evaluation.report.outcome import measured
from rediffuse.evaluation.slices import LABELS, bands
from rediffuse.evaluation.statistics import Interval, bootstrap
from rediffuse.evaluation.study import Examined, Study
from rediffuse.protocols import Recommender
from rediffuse.types import Options

POSTED = (1, 2, 3, 5, 10)
"""How many of a user's newest events a posted history holds."""
FEW = 10
"""Fewer users than these are in the tables, not in the picture."""
_TITLE = "When little is known of a user"
_NOTE = (
    "Differences are taken user by user; a difference counts as settled where its 95\u00a0% interval excludes zero. The "
    "intervals are not corrected for their number."
)


@dataclass(frozen=True)
class _Known:
    """The same users under every method, where so much is known; an interval for each metric."""

    label: str
    users: int
    reached: Mapping[str, Sequence[Interval]]
    """By method, the examined one first."""
    ahead: Mapping[str, Sequence[Interval]]
    """By rival: the examined method minus it, user by user."""

    @classmethod
    def of(cls, label: str, values: Mapping[str, Values]) -> Self:
        """Args: values: method -> (U, metrics), the examined one first."""
        own, *rivals = values
        reached = {name: bootstrap(column) for name, column in values.items()}
        return cls(label, len(values[own]), reached, {name: bootstrap(values[own] - values[name]) for name in rivals})


def by_history(examined: Examined, rivals: Sequence[tuple[str, Recommender]] = ()) -> Study:
    """Recall and ndcg by the length of histories: as users have them, and cut to the newest 1, 2, 3, 5 and 10 events.

    A cut history comes from nobody the model knows; what is masked stays whole, so the question is the same. Where the
    data knows no order, nothing is cut.

    Args: rivals: name and model, asked in the same way under their own settings.
    Returns: values by part: users, each method's metrics, and how far the examined one is ahead of each rival.
    Limits: (1 + |rivals|) * 7 evaluations; users with fewer events than a cut have all of theirs.
    """
    task, protocol = examined.task, pair_of(examined.protocol)
    if not len(task.query):
        return Study(Section("by-history", _TITLE, [Text("No user has anything to find.")]), {})
    names, whole = protocol.names, _asked(examined, rivals, task, protocol)
    ordered = examined.dataset.events.order != "none"
    parts = _by_band(task, whole)
    posted = _posted(examined, rivals, task, protocol, whole) if ordered else []
    shown = [step for step in parts if step.users >= FEW] or parts
    panels = [
        _panel(f"{metric}, {title}", knob, steps, n)
        for title, knob, steps in (
            ("posted histories", "newest events", posted),
            ("by band", "events in the history", shown),
        )
        for n, metric in enumerate(names)
        if steps
    ]
    said = [
        "Nobody has a history." if ordered else "The order of these events is not known: none of them is the newest."
    ]
    if posted:
        said = _kept(posted, names[-1], "a single posted event", "whole histories")
        said += _standings("Newest events posted", posted, names[-1])
    pages = (("Newest events that were posted", posted), ("By length of history", parts))
    values = {"metrics": list(names), "posted": _plain(posted, names), "bands": _plain(parts, names)}
    return Study(Section("by-history", _TITLE, _blocks(said, panels, pages, names)), values)


def by_share(learned: Sequence[tuple[float, Mapping[str, Scores]]], metrics: Sequence[str]) -> Study:
    """Accuracy of methods that learned from shares of the events (`Protocol.fit_share`), on the same users.

    Args: learned: share -> method -> scores, the examined method first.   metrics: of those scores.
    """
    steps = [
        _Known.of(
            wording.percent(share), {name: np.stack([one.of(m) for m in metrics], 1) for name, one in scores.items()}
        )
        for share, scores in learned
    ]
    panels = [_panel(metric, "share of the events learned from", steps, n) for n, metric in enumerate(metrics)]
    said = _kept(steps, metrics[-1], *(f"training on {step.label}" for step in (steps[0], steps[-1])))
    said += _standings("Share of the events learned from", steps, metrics[-1])
    blocks = _blocks(said, panels, (("After training on a share of the events", steps),), metrics)
    values = {"metrics": list(metrics), "shares": _plain(steps, metrics)}
    return Study(Section("by-share", "When little could be learned", blocks), values)


def pair_of(protocol: Protocol) -> Protocol:
    """The same with recall and ndcg alone, at the K of the selection metric."""
    k = int(protocol.select_by.partition("@")[2])
    return protocol.model_copy(update={"metrics": ("recall", "ndcg"), "ks": (k,), "select_by": f"ndcg@{k}"})


def _asked(
    examined: Examined, rivals: Sequence[tuple[str, Recommender]], task: Task, protocol: Protocol
) -> dict[str, Values]:
    methods = [(examined.name, examined.model, examined.options), *((name, model, Options()) for name, model in rivals)]
    return {
        name: evaluate(model, task, protocol, options=options, seed=examined.seed).values
        for name, model, options in methods
    }


def _by_band(task: Task, whole: Mapping[str, Values]) -> list[_Known]:
    """The users parted by the length of their histories."""
    band = bands(task)
    return [
        _Known.of(label, {name: values[band == place] for name, values in whole.items()})
        for place, label in enumerate(LABELS)
        if (band == place).any()
    ]


def _posted(
    examined: Examined,
    rivals: Sequence[tuple[str, Recommender]],
    task: Task,
    protocol: Protocol,
    whole: Mapping[str, Values],
) -> list[_Known]:
    """Users with a history, of which ever more is told; none where nobody has one."""
    told = task.query.history.lengths.nonzero().squeeze(1)
    if not len(told):
        return []
    kept = Task(task.query.select(told), task.relevant.select(told), 0)
    cut = [(wording.counted(n, "event"), _asked(examined, rivals, _cut(kept, n), protocol)) for n in POSTED]
    everything = {name: values[told.numpy()] for name, values in whole.items()}
    return [_Known.of(label, values) for label, values in (*cut, ("all events", everything))]


def _cut(task: Task, n: int) -> Task:
    """The same questions from nobody known, after the newest n events."""
    history = task.query.history
    newest = history.ranks >= (history.lengths - n)[history.rows]
    query = replace(task.query, user=torch.full_like(task.query.user, -1), history=history.keep(newest))
    return replace(task, query=query)


def _panel(title: str, knob: str, steps: Sequence[_Known], column: int) -> figures.Swept:
    traces: list[figures.Trace] = []
    for name in steps[0].reached:
        found = [step.reached[name][column] for step in steps]
        traces.append(figures.Trace(name, *([getattr(i, end) for i in found] for end in ("mean", "low", "high"))))
    labels = [re.sub(" events?$", "", step.label) for step in steps]
    return figures.Swept(title, knob, list(range(len(steps))), labels, traces)


def _blocks(
    said: Sequence[str],
    panels: Sequence[figures.Swept],
    pages: Sequence[tuple[str, Sequence[_Known]]],
    metrics: Sequence[str],
) -> list[Block]:
    """Findings, picture, tables of the last metric, the others folded."""
    names = [trace.label for trace in panels[0].traces]
    key = [Mark(figures.SERIES[n % 4][1], f"s{n % 4 + 1}", name) for n, name in enumerate(names)]
    caption = f"Means over users with their 95\u00a0% bands; axes need not start at 0. Parts of fewer than {FEW} users are not drawn."
    there = [(title, steps) for title, steps in pages if steps]
    *others, last = [
        [_table(f"{title}: {metric}", steps, n) for title, steps in there] for n, metric in enumerate(metrics)
    ]
    gaps = [_gaps(f"{title}: {metric}", steps, n) for n, metric in enumerate(metrics) for title, steps in there]
    folded = Details(f"The same for {wording.listed(metrics[:-1])}", [table for some in others for table in some])
    return [
        Bullets(said),
        Picture(lambda width, name: figures.sweeps(panels, width=width, name=name), caption, key),
        *last,
        folded,
        *([Details("How far ahead, user by user", [*gaps, Text(_NOTE, "note")])] if len(names) > 1 else []),
    ]


def _table(caption: str, steps: Sequence[_Known], column: int) -> Table:
    """Each method where so much is known."""
    rows = [[Cell(name), *(measured(step.reached[name][column]) for step in steps)] for name in steps[0].reached]
    counts = [Cell("users"), *(Cell(f"{step.users:,}") for step in steps)]
    return Table(caption, ("method", *(step.label for step in steps)), [*rows, counts])


def _gaps(caption: str, steps: Sequence[_Known], column: int) -> Table:
    """How far the examined method is ahead of each rival."""
    own, *rivals = steps[0].reached
    rows = [[Cell(f"{own} − {name}"), *(_signed(step.ahead[name][column]) for step in steps)] for name in rivals]
    return Table(caption, ("difference", *(step.label for step in steps)), rows)


def _signed(gap: Interval) -> Cell:
    return Cell(wording.signed(gap.mean), f"{wording.signed(gap.low)} to {wording.signed(gap.high)}")


def _kept(steps: Sequence[_Known], metric: str, after: str, most: str) -> list[str]:
    """What is left of each method at the first step against the last, by the last metric. Args: after, most: in words."""
    out: list[str] = []
    for name in steps[0].reached:
        little, much = (step.reached[name][-1].mean for step in (steps[0], steps[-1]))
        if little != much and much > 0:  # else it makes nothing of what is known
            kept = f"{wording.percent(little / much)} of its {wording.mean(much)} after {most}"
            out.append(f"After {after} {name} reaches {metric} {wording.mean(little)}, {kept}.")
    return out


def _standings(what: str, steps: Sequence[_Known], metric: str) -> list[str]:
    """Where the examined method is ahead of each rival and where behind, as far as intervals of the last metric tell."""
    out: list[str] = []
    for rival in steps[0].ahead:
        gaps = [(re.sub(r"^(\d+) events?$", r"\1", step.label), step.ahead[rival][-1]) for step in steps]
        groups = {
            "ahead with": [label for label, gap in gaps if gap.low > 0],
            "behind with": [label for label, gap in gaps if gap.high < 0],
            "not settled with": [label for label, gap in gaps if not (gap.low > 0 or gap.high < 0)],
        }
        said = ", ".join(f"{word} {wording.listed(labels)}" for word, labels in groups.items() if labels)
        out.append(f"{what}: {next(iter(steps[0].reached))} against {rival} on {metric} is {said}.")
    return out


def _plain(steps: Sequence[_Known], metrics: Sequence[str]) -> dict[str, Any]:
    """By label: users, and what each method reached and is ahead by, by metric."""

    def named(found: Mapping[str, Sequence[Interval]]) -> dict[str, dict[str, Interval]]:
        return {name: dict(zip(metrics, intervals, strict=True)) for name, intervals in found.items()}

    return {
        step.label: {"users": step.users, "methods": named(step.reached), "ahead": named(step.ahead)} for step in steps
    }
