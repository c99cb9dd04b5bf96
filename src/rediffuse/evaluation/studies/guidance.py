"""What leaning towards the conditions costs in accuracy, and how far it moves lists to another season.

A season is asked for by name; every item of the catalog is scored with it, and with the season as it is. The area under
the ROC curve of the difference is the chance that an item of that season gains on one of another: 0.5 is no steering.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from scipy import stats

from rediffuse.data.context import SEASON, SEASONS
from rediffuse.evaluation import figures, wording
from rediffuse.evaluation.calibration import Values
from rediffuse.evaluation.evaluate import Task, evaluate
from rediffuse.evaluation.protocol import Protocol
from rediffuse.evaluation.report.blocks import Block, Bullets, Cell, Mark, Picture, Section, Table, Text
from rediffuse.evaluation.report.outcome import measured
from rediffuse.evaluation.statistics import Interval, bootstrap, paired
from rediffuse.evaluation.study import Examined, Study
from rediffuse.grounding.steady import BLOCK, ask
from rediffuse.types import Options, Query, Ranking

SCALES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0)
PLACES, SAMPLE = 10, 256
"""Places of a list that are looked at, and users that are asked for other seasons."""
_TITLE = "Leaning towards the conditions"


@dataclass(frozen=True)
class _Moved:
    """How lists answered to another season at one scale, user by user; means over the seasons that were not on."""

    auroc: Values
    """(U,)."""
    asked: Values
    """(U,) share of the list that is of the season asked."""
    before: Values
    """(U,) the same of the list with the season as it is."""
    opposite: Values
    """(U,) the area for the one season that lies farthest from the one that was on."""


def guidance_sweep(examined: Examined, conditions: Sequence[str]) -> Study:
    """Ndcg@10 against the guidance scale and, where the season is a condition and items have one, how lists move with it.

    Args: conditions: of the model; all are guided by the one scale.
    Returns: values by scale: ndcg, its paired difference to scale 1, and what another season does; and the scale that
        the selection part speaks for.
    Raises: UnsupportedOption when the model cannot be guided.
    Limits: 14 evaluations, and 9 questions at each scale for 256 users, 5 of them for whole rankings.
    """
    if not len(examined.task.query):
        return Study(Section("guidance", _TITLE, [Text("No user has anything to find.")]), {})
    protocol = examined.protocol.only(f"ndcg@{min(PLACES, len(examined.dataset.catalog))}")
    metric = protocol.select_by
    ndcg = {scale: _ndcg(examined, examined.task, protocol, scale) for scale in SCALES}
    chosen = _chosen({scale: _ndcg(examined, examined.selection, protocol, scale) for scale in SCALES})
    moved: dict[float, _Moved] = {}
    of = _seasons(examined)
    if SEASON in conditions and len(of) > 1:
        query = _sample(examined)
        moved = {scale: _moves(examined, query, of, _at(examined, scale)) for scale in SCALES} if len(query) else {}
    found = {
        scale: {
            metric: _mean(values),
            f"{metric} less scale 1": paired(values, ndcg[1.0])[0],
            **(_told(moved[scale]) if moved else {}),
        }
        for scale, values in ndcg.items()
    }
    values: dict[str, Any] = {"conditions": list(conditions), "metric": metric, "chosen": chosen, "scales": found}
    values |= {"users of other seasons": len(moved[1.0].auroc)} if moved else {}
    return Study(Section("guidance", _TITLE, _blocks(found, chosen, protocol, conditions)), values)


def _ndcg(examined: Examined, task: Task, protocol: Protocol, scale: float) -> Values:
    scores = evaluate(examined.model, task, protocol, options=_at(examined, scale), seed=examined.seed)
    return scores.of(protocol.select_by)


def _chosen(ndcg: Mapping[float, Values]) -> float:
    """The scale of the highest mean; no guidance where that is as good, or nobody has anything to find."""
    if not len(ndcg[1.0]):
        return 1.0
    return max(ndcg, key=lambda scale: (np.nanmean(ndcg[scale]), scale == 1.0))


def _at(examined: Examined, scale: float) -> Options:
    return replace(examined.options, guidance_scale=scale)


def _mean(values: Values) -> Interval:
    return bootstrap(values[:, None])[0]


def _told(moved: _Moved) -> dict[str, Interval]:
    return {
        "season auroc": _mean(moved.auroc),
        "opposite season auroc": _mean(moved.opposite),
        "share of the season": _mean(moved.asked),
        "share before": _mean(moved.before),
    }


def _seasons(examined: Examined) -> dict[str, NDArray[np.bool_]]:
    """Season -> (I,) whether an item is of it, as far as the catalog tells seasons."""
    attributes = examined.dataset.catalog.attributes
    if SEASON not in attributes.columns or attributes[SEASON].dtype != pl.String:
        return {}
    column = attributes[SEASON].str.to_lowercase().to_numpy()
    return {name: column == name for name in SEASONS if (column == name).any()}


def _sample(examined: Examined) -> Query:
    """Some users with a history and a moment, the same for the same seed."""
    query = examined.task.query
    there = query.history.lengths > 0
    if SEASON in query.context:
        there &= query.context[SEASON] >= 0
    rows = there.nonzero().squeeze(1)
    drawn = torch.randperm(len(rows), generator=torch.Generator().manual_seed(examined.seed))[:SAMPLE]
    return query.select(rows[drawn.sort().values])


def _moves(examined: Examined, query: Query, of: Mapping[str, NDArray[np.bool_]], options: Options) -> _Moved:
    """Ask for every season that is not on. Args: of: season -> (I,) whether an item is of it."""
    seasonal = np.logical_or.reduce(list(of.values()))
    apart = _apart(query.context[SEASON], list(of))
    on, opposite = apart.argmin(axis=1), apart.argmax(axis=1)
    columns: list[list[Values]] = [[], [], [], []]
    plain, before = _scores(examined, query, options), _lists(examined, query, options)
    for place, (name, belongs) in enumerate(of.items()):
        share = torch.full_like(query.context[SEASON], SEASONS[name])
        other = replace(query, context={**query.context, SEASON: share})
        gain = (_scores(examined, other, options) - plain)[:, seasonal]
        area = auroc(gain, belongs[seasonal])
        found = (
            area,
            _share(_lists(examined, other, options), belongs),
            _share(before, belongs),
            np.where(opposite == place, area, np.nan),
        )
        for column, values in zip(columns, found, strict=True):
            column.append(np.where(on == place, np.nan, values))
    return _Moved(*(np.nanmean(np.stack(column), axis=0) for column in columns))


def auroc(scores: Values, positive: NDArray[np.bool_]) -> Values:
    """Chance that a positive scores above a negative, a tie counting half, by row, (U,); NaN without both kinds.

    Args: scores: (U, n).   positive: (n,).
    Reference: Mann & Whitney 1947: the sum of ranks, less its least, over the number of pairs.
    """
    ones, zeros = int(positive.sum()), int((~positive).sum())
    if not ones * zeros:
        return np.full(len(scores), np.nan)
    ranks = np.asarray(stats.rankdata(scores, axis=1))
    return (ranks[:, positive].sum(axis=1) - ones * (ones + 1) / 2) / (ones * zeros)


def _apart(share: torch.Tensor, names: Sequence[str]) -> Values:
    """How far each moment lies from the middle of each season, in years, (U, seasons)."""
    apart = np.abs(share.numpy()[:, None] - np.array([SEASONS[name] for name in names]))
    return np.minimum(apart, 1 - apart)


def _scores(examined: Examined, query: Query, options: Options) -> Values:
    """The model's own scores of all items, nothing left out, (U, I): a re-ranker would bend them to its order."""
    n_items = len(examined.dataset.catalog)
    ranking = _asked(examined, replace(query, exclude=None), n_items, replace(options, diversity=0.0))
    out = np.full((len(query), n_items), -np.inf)
    np.put_along_axis(out, ranking.items.numpy(), ranking.scores.numpy().astype(np.float64), axis=1)
    return out


def _lists(examined: Examined, query: Query, options: Options) -> NDArray[np.int64]:
    return _asked(examined, query, min(PLACES, len(examined.dataset.catalog)), options).items.numpy()


def _asked(examined: Examined, query: Query, k: int, options: Options) -> Ranking:
    parts = [
        ask(examined.model, query.select(rows), rows % BLOCK, k, options=options, seed=examined.seed)
        for rows in torch.arange(len(query)).split(BLOCK)
    ]
    return Ranking.joined(parts)


def _share(lists: NDArray[np.int64], belongs: NDArray[np.bool_]) -> Values:
    return (belongs[lists] & (lists >= 0)).mean(axis=1)


def _blocks(
    found: Mapping[float, Mapping[str, Interval]], chosen: float, protocol: Protocol, conditions: Sequence[str]
) -> list[Block]:
    metric = protocol.select_by
    names = [name for name in next(iter(found.values())) if "less" not in name]
    panels = [_panel(found, [name], title) for name, title in ((metric, metric), ("season auroc", "AUROC of a season"))
              if name in names]  # fmt: skip
    key: list[Mark] = []
    if "season auroc" in names:
        panels.append(_panel(found, ["share of the season", "share before"], "Share of the list"))
        key = [Mark("o", "s1", "share of the season asked for"), Mark("s", "s2", "its share without asking")]
    caption = "By guidance scale, with 95\u00a0% bands; the dashed line is scale 1, no guidance."
    less = f"{metric} less scale 1"
    head = ("scale", metric, less, *names[1:])
    rows = [
        [Cell(f"{scale:g}"), *(measured(row[name]) if name != less else _signed(row[name]) for name in head[1:])]
        for scale, row in found.items()
    ]
    areas = (
        " AUROC: the chance that asking for a season raises the score of an item "
        "of it by more than that of an item of another season, over the seasons that were not on and for the opposite one "
        "alone; 0.5 is no steering."
    )
    return [
        Bullets(_said(found, chosen, protocol)),
        Picture(lambda width, name: figures.sweeps(panels, width=width, name=name), caption, key),
        Table("By guidance scale", head, rows),
        Text(f"Guided by {wording.listed(conditions)}.{areas if 'season auroc' in names else ''}", "note"),
    ]


def _panel(found: Mapping[float, Mapping[str, Interval]], names: Sequence[str], title: str) -> figures.Swept:
    traces = [
        figures.Trace(name, *([getattr(row[name], end) for row in found.values()] for end in ("mean", "low", "high")))
        for name in names
    ]
    return figures.Swept(title, "guidance scale", list(found), [f"{scale:g}" for scale in found], traces, mark=1.0)


def _signed(gap: Interval) -> Cell:
    if gap.low == gap.high == 0:
        return Cell("–")
    return Cell(wording.signed(gap.mean), f"{wording.signed(gap.low)} to {wording.signed(gap.high)}")


def _said(found: Mapping[float, Mapping[str, Interval]], chosen: float, protocol: Protocol) -> list[str]:
    """What the scale that was chosen on the selection part is worth on the report part, and what a season does to lists."""
    plain, metric = found[1.0], protocol.select_by
    on, read = protocol.selection.relevant, protocol.report.relevant
    gap = found[chosen][f"{metric} less scale 1"]
    settled = f"{wording.signed(gap.low)} to {wording.signed(gap.high)}"
    out = [
        f"Without guidance (scale 1) {metric} on {read} is {wording.mean(plain[metric].mean)}; scale {chosen:g}, the best on "
        f"{on}, reaches {wording.mean(found[chosen][metric].mean)} there (95\u00a0% interval of the difference {settled})."
        if chosen != 1
        else f"No guidance (scale 1) is best on {on}; {metric} on {read} is {wording.mean(plain[metric].mean)}."
    ]
    if "season auroc" not in plain:
        return out
    for scale in (1.0, 3.0):
        row = found[scale]
        area = row["season auroc"]
        out.append(
            f"Asking for another season at scale {scale:g} raises its items above those of others with an AUROC of "
            f"{area.mean:.3f} ({area.low:.3f} to {area.high:.3f}); their share of the first {PLACES} places goes from "
            f"{wording.percent(row['share before'].mean)} to {wording.percent(row['share of the season'].mean)}."
        )
    return out
