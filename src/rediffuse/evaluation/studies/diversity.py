"""What more diverse lists cost in accuracy: every re-ranker at eleven settings of its knob, over a model and its rivals."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from rediffuse.evaluation import wording
from rediffuse.evaluation.figures.diversity import LOOKS, Front, Path, fronts
from rediffuse.evaluation.protocol import Protocol
from rediffuse.evaluation.report.blocks import Block, Bullets, Cell, Details, Mark, Picture, Section, Table, Text
from rediffuse.evaluation.report.outcome import measured
from rediffuse.evaluation.statistics import Interval
from rediffuse.evaluation.studies.diversity_points import Point, Series, series_of
from rediffuse.evaluation.study import Examined, Study
from rediffuse.grounding.rerank import RERANKERS
from rediffuse.protocols import Recommender
from rediffuse.types import Options

KEPT, MORE = 0.97, 0.20
"""The goal: this share of the accuracy of plain lists is kept, and lists are so much more unlike."""
_K = 10
_TITLE = "What more diverse lists cost"
_COLOURS = ("s1", "s2", "s3", "s4", "reference")


def diversity_front(examined: Examined, rivals: Sequence[tuple[str, Recommender]] = ()) -> Study:
    """Ndcg@10 against intra-list distance, coverage and gini at 10, for each re-ranker that the data and a model allow.

    The setting that is named is chosen on the selection part alone: of those that meet the goal there the one with most
    accuracy, else the most unlike lists among those that keep enough of it. Its figures are those of the report part.

    Args: rivals: name and model, asked under their own settings.
    Returns: values: every point of every series, what was chosen for each model, and which series never fall.
    Limits: 2 + 20 evaluations for each re-ranker of each model; `merged` only where draws are possible.
    """
    k = min(_K, len(examined.dataset.catalog))
    protocol, data = examined.protocol.only(f"ndcg@{k}"), examined.background.data
    if not (len(examined.task.query) and len(examined.selection.query)):
        return Study(Section("diversity", _TITLE, [Text("No user has anything to find.")]), {})
    if min(len(data.history), data.n_items) < 2:
        return Study(
            Section("diversity", _TITLE, [Text("One user or one item tells nothing of how alike items are.")]), {}
        )
    series = [
        one
        for name, model, options in (
            (examined.name, examined.model, examined.options),
            *((name, rival, Options()) for name, rival in rivals),
        )
        for one in series_of(examined, protocol, data, name, model, replace(options, diversity=0.0))
    ]
    names = list(dict.fromkeys(one.model for one in series))
    chosen = {name: choose([one for one in series if one.model == name]) for name in names}
    values = {
        "metrics": [f"ndcg@{k}", f"ild@{k}", f"coverage@{k}", f"gini@{k}"],
        "goal": {"kept": KEPT, "gain": MORE},
        "series": [{**asdict(one), "never falls": one.never_falls} for one in series],
        "chosen": {name: _told(*choice) for name, choice in chosen.items()},
    }
    return Study(Section("diversity", _TITLE, _blocks(series, chosen, protocol, k)), values)


def choose(series: Sequence[Series]) -> tuple[Series, int]:
    """The series and the place of the setting that the selection part speaks for."""
    enough = [
        (one, place, point)
        for one in series
        for place, point in enumerate(one.selection)
        if place == 0 or point.kept.mean >= KEPT
    ]
    meeting = [found for found in enough if found[2].gain.mean >= MORE]
    best = max(meeting, key=lambda f: f[2].kept.mean) if meeting else max(enough, key=lambda f: f[2].gain.mean)
    return best[0], best[1]


def _told(one: Series, place: int) -> dict[str, Any]:
    """A chosen setting with its figures on both parts."""
    on, report = one.selection[place], one.report[place]
    meets = {"selection": _meets(on), "report": _meets(report)}
    return {"reranker": one.reranker, "meets": meets, "selection": asdict(on), "report": asdict(report)}


def _meets(point: Point) -> bool:
    return point.kept.mean >= KEPT and point.gain.mean >= MORE


def _blocks(
    series: Sequence[Series], chosen: Mapping[str, tuple[Series, int]], protocol: Protocol, k: int
) -> list[Block]:
    rerankers = list(dict.fromkeys(one.reranker for one in series))
    looks = {name: place for place, name in enumerate(RERANKERS)}
    key = [Mark(LOOKS[looks[name]][1], _COLOURS[looks[name]], name) for name in rerankers]
    key.append(
        Mark("dash", "muted", f"{wording.percent(KEPT)} of the plain lists’ ndcg; +{wording.percent(MORE)} distance")
    )
    caption = (
        f"Mean ndcg@{k} on {protocol.report.relevant} against intra-list distance, coverage and Gini at {k}, a dot for each "
        "setting of the knob from 0 (the ring: plain lists) to 1. The outlined dot is the setting chosen on "
        f"{protocol.selection.relevant}; the shaded corner is the goal."
    )
    panels = [
        _front(quality, one, chosen[name], k)
        for name, one in _grouped(series)
        for quality in ("ild", "coverage", "gini")
    ]
    tables = [_table(one, k) for one in series]
    named = [_row(one, one.report[place]) for one, place in chosen.values()]
    head = ("lists", "diversity", f"ndcg@{k}", "kept", f"ild@{k}", "gained", f"coverage@{k}", f"gini@{k}")
    return [
        Bullets(_said(chosen, series, protocol, k)),
        Picture(lambda w, n: fronts(panels, metric=f"ndcg@{k}", columns=3, width=w, name=n), caption, key),
        Table(f"The chosen settings, read on {protocol.report.relevant}", head, named),
        Details("Every setting of every re-ranker", tables),
        Text(
            "Kept and gained compare the means with those of the plain lists; their intervals are those of the paired "
            "differences. Distance is 1 − cosine of the items’ columns of users: it is low between bestsellers, so it "
            "rises also where lists turn to less known items.",
            "note",
        ),
    ]


def _grouped(series: Sequence[Series]) -> list[tuple[str, list[Series]]]:
    names = dict.fromkeys(one.model for one in series)
    return [(name, [one for one in series if one.model == name]) for name in names]


def _front(quality: str, series: Sequence[Series], chosen: tuple[Series, int], k: int) -> Front:
    """A panel of the picture."""

    def x(point: Point) -> float:
        return point.ild.mean if quality == "ild" else getattr(point, quality)

    paths = [
        Path(
            list(RERANKERS).index(one.reranker),
            [x(point) for point in one.report],
            [point.ndcg.mean for point in one.report],
            chosen[1] if one is chosen[0] else None,
        )
        for one in series
    ]
    plain = series[0].report[0]
    goal = (1 + MORE) * plain.ild.mean if quality == "ild" else -math.inf
    return Front(f"ndcg@{k} of {series[0].model}", f"{quality}@{k}", paths, KEPT * plain.ndcg.mean, goal)


def _table(one: Series, k: int) -> Table:
    head = ("diversity", f"ndcg@{k}", "kept", f"ild@{k}", "gained", f"coverage@{k}", f"gini@{k}")
    return Table(f"{one.reranker} over {one.model}", head, [_row(one, point)[1:] for point in one.report])


def _row(one: Series, point: Point) -> list[Cell]:
    return [
        Cell(f"{one.reranker} over {one.model}"),
        Cell(f"{point.diversity:g}"),
        measured(point.ndcg),
        _share(point.kept),
        measured(point.ild),
        _share(point.gain),
        Cell(wording.mean(point.coverage)),
        Cell(wording.mean(point.gini)),
    ]


def _share(value: Interval) -> Cell:
    return Cell(_percent(value.mean), f"{_percent(value.low)} to {_percent(value.high)}")


def _percent(share: float) -> str:
    return f"{100 * share:.1f}\u00a0%".replace("-", "−") if math.isfinite(share) else "–"


def _said(chosen: Mapping[str, tuple[Series, int]], series: Sequence[Series], protocol: Protocol, k: int) -> list[str]:
    """What was chosen for each model and what it came to; whom it stands against; whether the knob does what it says."""
    own, place = next(iter(chosen.values()))
    out = [_choice_said(one, at, protocol, k) for one, at in chosen.values()]
    out += [
        _rival_said(own.report[place], one, k) for one in series if one.reranker == "mmr" and one.model != own.model
    ]
    fallen = [f"{one.reranker} over {one.model}" for one in series if not one.never_falls]
    steady = "Mean distance never falls from one setting of the knob to the next, on either part"
    return [*out, f"{steady}, but with {wording.listed(fallen)}." if fallen else f"{steady}."]


def _choice_said(one: Series, place: int, protocol: Protocol, k: int) -> str:
    on, point, goal = (
        one.selection[place],
        one.report[place],
        f"+{wording.percent(MORE)} distance at {wording.percent(KEPT)}",
    )
    found = (
        f"{one.reranker} at diversity {on.diversity:g} makes the lists of {one.model} {_percent(point.gain.mean)} more unlike "
        f"(ild@{k} {wording.mean(one.report[0].ild.mean)} to {wording.mean(point.ild.mean)}) and keeps "
        f"{_percent(point.kept.mean)} of ndcg@{k} on {protocol.report.relevant} (95\u00a0% interval {_percent(point.kept.low)} "
        f"to {_percent(point.kept.high)})"
    )
    if not _meets(on):
        reach = "" if (1 + MORE) * one.selection[0].ild.mean <= 1 else "; distance cannot rise so much, it is 1 at most"
        return f"{found}; no setting meets {goal} of ndcg@{k} on {protocol.selection.relevant}, this is the nearest{reach}."
    return (
        f"{found}: chosen on {protocol.selection.relevant}, it {'meets' if _meets(point) else 'misses'} {goal} there."
    )


def _rival_said(point: Point, rival: Series, k: int) -> str:
    """Whether MMR over a rival is as good in both at some setting."""
    as_unlike = [other for other in rival.report if other.ild.mean >= point.ild.mean]
    if not as_unlike:
        return f"No setting of mmr over {rival.model} gives lists as unlike as these."
    best = max(as_unlike, key=lambda other: other.ndcg.mean)
    verdict = "is better in both" if best.ndcg.mean >= point.ndcg.mean else "does not reach this accuracy"
    return (
        f"mmr over {rival.model} {verdict}: among its lists at least as unlike, the best has ndcg@{k} "
        f"{wording.mean(best.ndcg.mean)} (diversity {best.diversity:g}) against {wording.mean(point.ndcg.mean)}."
    )
