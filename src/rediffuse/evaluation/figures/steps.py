"""Stepwise methods: what more reverse steps buy, and how one list takes shape."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rediffuse.evaluation.figures.canvas import (
    INK,
    LINE,
    MUTED,
    PAPER,
    SERIES,
    TAKEN,
    WIDE,
    Words,
    bare,
    cost_axis,
    render,
    spaced,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Line:
    """One stepwise method of the steps picture; the sequences run along `steps`, which rise."""

    label: str
    steps: Sequence[int]
    mean: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]
    ms_per_user: Sequence[float]


@dataclass(frozen=True)
class Column:
    """One level of the ranks picture: (id, title, taken) of its list, best first."""

    label: str
    items: Sequence[tuple[str, str, bool]]


def steps(lines: Sequence[Line], reference: float, *, metric: str, width: int, name: str) -> str:
    """Accuracy against the number of reverse steps, and below it what a user costs; `reference` as in `accuracy`."""
    roomy = width >= WIDE
    size, height = (13.0, 460) if roomy else (12.0, 420)
    left, right = (64, 20) if roomy else (50, 8)
    places = sorted({_octave(n) for line in lines for n in line.steps})
    named = {_octave(n): str(n) for line in lines for n in line.steps}
    wide = (width - left - right) / width

    def draw(figure: "Figure", words: Words) -> None:
        upper = figure.add_axes((left / width, 0.40, wide, 0.535))
        lower = figure.add_axes((left / width, 0.105, wide, 0.18), sharex=upper)
        for axes, title in ((upper, words.put(metric)), (lower, "milliseconds per user")):
            bare(axes, "y", size)
            axes.set_title(title, fontsize=size, color=MUTED, loc="left", pad=8)
            axes.margins(x=0.03)
        if math.isfinite(reference):
            upper.axhline(reference, color=MUTED, linewidth=1, linestyle=(0, (3, 3)), zorder=1)
        for (colour, marker), line in zip(_cycle(len(lines)), lines, strict=True):
            x = [_octave(n) for n in line.steps]
            look: dict[str, Any] = {"color": colour, "marker": marker, "markersize": 7, "markeredgecolor": PAPER}
            upper.fill_between(x, line.low, line.high, color=colour, alpha=0.16, linewidth=0, zorder=2)
            upper.plot(x, line.mean, linewidth=2, zorder=3, **look)
            lower.plot(x, line.ms_per_user, linewidth=2, zorder=3, **look)
        upper.locator_params(axis="y", nbins=6)
        upper.tick_params(axis="x", labelbottom=False)
        cost_axis(lower, [ms for line in lines for ms in line.ms_per_user])
        ticks = spaced(places, (width - left - right) / max(places[-1] - places[0], 1e-9), 26)
        lower.set_xticks(ticks, [named[tick] for tick in ticks])
        lower.set_xlabel("reverse steps", fontsize=size, color=MUTED, labelpad=6)

    return render(draw, width, height, name, f"{metric} and milliseconds per user against the number of reverse steps")


def ranks(columns: Sequence[Column], *, width: int, name: str) -> str:
    """How items move through the list from the noisiest level to the answer; what the user took stands out."""
    roomy = width >= WIDE
    size = 13.0 if roomy else 12.0
    left, right, row = (40, 330, 28) if roomy else (22, 150, 27)
    depth = max(len(column.items) for column in columns)
    height = row * depth + 46
    answer = {item for item, _, _ in columns[-1].items}

    def draw(figure: "Figure", words: Words) -> None:
        box = (left / width, 6 / height, (width - left - right) / width, row * depth / height)
        axes = figure.add_axes(box)
        bare(axes, "", size)
        axes.set_xlim(-0.2, len(columns) - 0.8)
        axes.set_ylim(depth - 0.5, -0.5)
        axes.set_yticks(range(depth), [str(rank + 1) for rank in range(depth)])
        axes.xaxis.tick_top()
        last = len(columns) - 1
        ticks = spaced(list(range(last)), (width - left - right) / max(last, 1), 34, end=float(last) if last else None)
        named = [columns[int(tick)].label for tick in ticks] + [columns[-1].label]
        named[0] = f"level {named[0]}" if roomy and ticks else named[0]
        axes.set_xticks([*ticks, last], named)
        for x, y, item, title, taken, x2, y2 in _moves(columns):
            colour = TAKEN if taken else MUTED if item in answer else LINE
            top = 4 if taken else 2
            if y2 is not None:
                axes.plot([x, x2], [y, y2], color=colour, linewidth=2.5 if taken else 1.2, zorder=top)
            look: dict[str, Any] = {"markersize": 8 if taken else 6, "markeredgecolor": PAPER, "zorder": top + 1}
            axes.plot([x], [y], "o", color=colour, **look)
            if x == last:
                side: dict[str, Any] = {"color": TAKEN if taken else INK, "weight": "bold" if taken else "normal"}
                label = words.put(("✓ " if taken else "") + title, size, right - 14, heavy=taken)
                at = (1 + 8 / (width - left - right), y)
                axes.text(*at, label, va="center_baseline", fontsize=size, transform=axes.get_yaxis_transform(), **side)

    first = columns[0].label
    return render(draw, width, height, name, f"Ranks of the items from level {first} to the answer")


def _octave(n: int) -> float:
    """Place of a number of steps on the axis: one unit per doubling, 0 steps one unit left of 1."""
    return math.log2(n) if n > 0 else -1.0


def _cycle(count: int) -> list[tuple[str, str]]:
    return [SERIES[place % len(SERIES)] for place in range(count)]


def _moves(columns: Sequence[Column]) -> list[tuple[int, int, str, str, bool, int, int | None]]:
    """Every place of every list with the item's place in the next one, None where it drops out."""
    found: list[tuple[int, int, str, str, bool, int, int | None]] = []
    for x, column in enumerate(columns):
        after = {item: y for y, (item, _, _) in enumerate(columns[x + 1].items)} if x + 1 < len(columns) else {}
        found += [
            (x, y, item, title, taken, x + 1, after.get(item)) for y, (item, title, taken) in enumerate(column.items)
        ]
    return found
