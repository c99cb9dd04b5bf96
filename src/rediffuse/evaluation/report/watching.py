"""The sections on stepwise methods: what more reverse steps buy, and one user's list from noise to answer."""

import math
from collections.abc import Sequence

from rediffuse.evaluation import figures, wording
from rediffuse.evaluation.report.blocks import Block, Cell, Heading, Mark, Picture, Section, Table, Text
from rediffuse.evaluation.report.comparison import Report
from rediffuse.evaluation.report.making import spread
from rediffuse.evaluation.report.values import Walk, WalkItem

SHOWN_LEVELS, SHOWN_HISTORY, DRAWN_LEVELS = 5, 12, 12


def sweep(report: Report) -> list[Section]:
    """Accuracy and cost against the number of reverse steps."""
    lines, metric = _lines(report)
    if not lines:
        return []
    rival = report.rival()
    level = report.value(rival) if rival and metric == report.select_by else math.nan
    key = [
        Mark(shape, f"s{place % len(figures.SERIES) + 1}", line.label)
        for place, line in enumerate(lines)
        for _, shape in [figures.SERIES[place % len(figures.SERIES)]]
    ]
    if rival and math.isfinite(level):
        key.append(Mark("dash", "muted", rival.method))
    caption = (
        f"Mean {metric} with its 95\u00a0% band against the number of reverse steps, on a logarithmic axis; below, what "
        "one user costs."
    )
    counts = sorted({steps for line in lines for steps in line.steps})
    rows: list[list[Cell]] = []
    for line in lines:
        at = dict(zip(line.steps, zip(line.mean, line.ms_per_user, strict=True), strict=True))
        rows.append(
            [
                Cell(line.label),
                *(
                    Cell(wording.mean(at[n][0]), f"{wording.score(at[n][1])} ms") if n in at else Cell("–")
                    for n in counts
                ),
            ]
        )
    table = Table(f"{metric} after so many steps", ("method", *(wording.counted(n, "step") for n in counts)), rows)
    picture = Picture(lambda w, n: figures.steps(lines, level, metric=metric, width=w, name=n), caption, key)
    return [Section("steps", "What more reverse steps buy, and cost", [picture, table])]


def walks(report: Report) -> list[Section]:
    """A section per walk that holds an answer."""
    whole = [walk for walk in report.walks if walk.levels and walk.levels[-1][1]]
    return [_walk(walk, f"walk{number}") for number, walk in enumerate(whole, 1)]


def _lines(report: Report) -> tuple[list[figures.Line], str]:
    """A line per stepwise method, on the selection metric where it was swept, else on the first metric that was."""
    swept = [point.metric for point in report.sweep]
    metric = report.select_by if report.select_by in swept or not swept else swept[0]
    lines: list[figures.Line] = []
    for method in dict.fromkeys(point.method for point in report.sweep if point.metric == metric):
        mine = [point for point in report.sweep if (point.method, point.metric) == (method, metric)]
        mine.sort(key=lambda point: point.steps)
        values = [point.value for point in mine]
        steps, cost = [point.steps for point in mine], [point.ms_per_user for point in mine]
        mean, low, high = [v.mean for v in values], [v.low for v in values], [v.high for v in values]
        lines.append(figures.Line(method, steps, mean, low, high, cost))
    return lines, metric


def _walk(walk: Walk, name: str) -> Section:
    """A walk with few enough levels to read: what it says, the picture, and the grid with rank movement."""
    first, last = (sum(item.taken for item in items) for _, items in (walk.levels[0], walk.levels[-1]))
    blocks: list[Block] = [
        Text(
            f"{walk.method} for user {walk.user}. Of the {len(walk.levels[-1][1])} items in the answer, {last} "
            f"{'is' if last == 1 else 'are'} what the user really took next; at the noisiest level it was {first}."
        )
    ]
    if walk.history:
        earlier = max(len(walk.history) - SHOWN_HISTORY, 0)
        titles = " · ".join(walk.history[-SHOWN_HISTORY:])
        blocks += [
            Heading("History, oldest first"),
            Text(f"{earlier} earlier, then {titles}" if earlier else titles, "history"),
        ]
    drawn = spread(walk.levels, DRAWN_LEVELS)
    columns = [figures.Column(str(t), [(item.id, item.title, item.taken) for item in items]) for t, items in drawn]
    columns[-1] = figures.Column("answer", columns[-1].items)
    if len(columns) > 1:
        caption = (
            "Rank of each item at each level, noisiest on the left. Green with a tick: the user really took it next. "
            "Grey: in the answer. Pale: dropped on the way."
        )
        picture = Picture(lambda w, n: figures.ranks(columns, width=w, name=n), caption)
        blocks.append(picture)
    grid = spread(walk.levels, SHOWN_LEVELS)
    heads = [*(f"level {t}" for t, _ in grid[:-1]), "answer"]
    note = (
        "A tick: the user really took it next. Below each title: places moved since the column before (“new”: not in "
        "that list), and the score. One user shows how a method works, not how well."
    )
    table = Table("The lists, level by level", ("rank", *heads), _cells([items for _, items in grid]), "walk")
    return Section(name, "One user’s list, from noise to answer", [*blocks, table, Text(note, "note")])


def _cells(lists: Sequence[Sequence[WalkItem]]) -> list[list[Cell]]:
    """Rank by rank, level by level: the item, how far it rose or fell, its score."""
    rows: list[list[Cell]] = []
    for rank in range(max(map(len, lists))):
        row = [Cell(str(rank + 1))]
        for place, items in enumerate(lists):
            if rank >= len(items):
                row.append(Cell(""))
                continue
            item, moved = items[rank], ""
            if place:
                before = {other.id: old for old, other in enumerate(lists[place - 1])}
                moved = f"{_moved(before.get(item.id), rank)} · "
            title = f"✓ {item.title}" if item.taken else item.title
            row.append(Cell(title, f"{moved}{wording.score(item.score)}", kind="taken" if item.taken else ""))
        rows.append(row)
    return rows


def _moved(before: int | None, rank: int) -> str:
    if before is None:
        return "new"
    return "same" if before == rank else f"up {before - rank}" if before > rank else f"down {rank - before}"
