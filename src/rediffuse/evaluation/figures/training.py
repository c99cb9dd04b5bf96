"""How methods came to be: a training epoch by epoch, a tuning trial by trial."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

from rediffuse.evaluation.figures.canvas import INK, MUTED, PAPER, ROLES, WIDE, Panels, Words, bare, render

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Curve:
    """One training; the sequences run along `epochs`, which rise. NaN where an epoch was not validated."""

    label: str
    role: str
    epochs: Sequence[int]
    loss: Sequence[float]
    validation: Sequence[float]
    best: int | None
    """The epoch whose weights were kept; None where none was validated."""


@dataclass(frozen=True)
class Tried:
    """One tuning: the selection metric of each trial in order, NaN where it failed."""

    label: str
    role: str
    values: Sequence[float]


def curves(lines: Sequence[Curve], *, metric: str, width: int, name: str) -> str:
    """A panel per training: the loss above, the validation below, an upright line at the epoch that was kept."""
    roomy = width >= WIDE
    size = 12.0
    columns = min(len(lines), 3) if roomy else 1
    grid = Panels(len(lines), columns, width, 210, 54, 12, 34, 40)

    def draw(figure: "Figure", words: Words) -> None:
        for place, line in enumerate(lines):
            validated = any(map(math.isfinite, line.validation))
            upper = figure.add_axes(grid.box(place, 0.58 if validated else 0.0, 1.0))
            _curve(upper, line, line.loss, MUTED)
            _caption(upper, "loss", size)
            upper.set_title(words.put(line.label, size, grid.span), fontsize=size, color=INK, loc="left", pad=8)
            lowest = upper
            if validated:
                lowest = figure.add_axes(grid.box(place, 0.0, 0.46), sharex=upper)
                _curve(lowest, line, line.validation, ROLES[line.role][0], dots=True)
                _caption(lowest, words.put(metric, size, grid.span), size)
                upper.tick_params(axis="x", labelbottom=False)
            lowest.locator_params(axis="x", nbins=5, integer=True)
            lowest.set_xlabel("epoch", fontsize=size - 1, color=MUTED, labelpad=4)

    return render(draw, width, grid.height, name, f"Loss and {metric} of each training, epoch by epoch")


def tried(tunings: Sequence[Tried], *, metric: str, width: int, name: str) -> str:
    """A panel per method on one scale: a dot per trial, and the best so far as a line.

    What lies far below the others is drawn as a small v at the lower edge.
    """
    roomy = width >= WIDE
    size = 12.0
    columns = min(len(tunings), 5) if roomy else 2
    grid = Panels(len(tunings), columns, width, 118, 12, 10, 30, 34, 44)
    low, high = _worth_seeing(tunings)
    room = 0.12 * (high - low) or 0.1 * (abs(high) or 1.0)

    def draw(figure: "Figure", words: Words) -> None:
        for place, tuning in enumerate(tunings):
            axes = figure.add_axes(grid.box(place))
            bare(axes, "y", size)
            axes.set_ylim(low - room, high + room)
            axes.set_title(words.put(tuning.label, size, grid.span), fontsize=size, color=INK, loc="left", pad=7)
            _trials(axes, tuning, low - room)
            axes.locator_params(axis="y", nbins=4)
            axes.locator_params(axis="x", nbins=4, integer=True)
            if place % columns:
                axes.tick_params(axis="y", labelleft=False)

    return render(draw, width, grid.height, name, f"{metric} of every trial and the best so far, by method")


def _worth_seeing(tunings: Sequence[Tried]) -> tuple[float, float]:
    """A range with the best trial of every tuning and the better three quarters of all."""
    groups = [known for one in tunings if (known := [value for value in one.values if math.isfinite(value)])]
    together = sorted(value for known in groups for value in known) or [0.0]
    return min([together[len(together) // 4], *map(max, groups)]), together[-1]


def _curve(axes: "Axes", line: Curve, values: Sequence[float], colour: str, *, dots: bool = False) -> None:
    from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

    bare(axes, "y", 12.0)
    known = [(x, y) for x, y in zip(line.epochs, values, strict=True) if math.isfinite(y)]
    heights = [y for _, y in known] or [0.0]
    axes.plot([x for x, _ in known], heights if known else [], linewidth=1.8, color=colour, zorder=3)
    if len(known) == 1:
        axes.plot([known[0][0]], [known[0][1]], "o", color=colour, markersize=5, zorder=3)
    axes.margins(x=0.03, y=0.12)
    if not dots and min(heights) > 0 and max(heights) > 30 * min(heights):
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(numticks=4))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    else:
        axes.locator_params(axis="y", nbins=3)
    if line.best is not None:
        axes.axvline(line.best, color=MUTED, linewidth=1, linestyle=(0, (3, 3)), zorder=2)
        at = dict(known).get(line.best)
        if dots and at is not None:
            marker = ROLES[line.role][1]
            axes.plot([line.best], [at], marker, color=colour, markersize=8, markeredgecolor=PAPER, zorder=4)


def _caption(axes: "Axes", text: str, size: float) -> None:
    axes.text(1, 1.02, text, ha="right", va="bottom", fontsize=size - 1, color=MUTED, transform=axes.transAxes)


def _trials(axes: "Axes", tuning: Tried, floor: float) -> None:
    colour, marker = ROLES[tuning.role]
    numbered = [(n, value) for n, value in enumerate(tuning.values, 1) if math.isfinite(value)]
    inside = [(n, value) for n, value in numbered if value >= floor]
    below = [n for n, value in numbered if value < floor]
    axes.plot([n for n, _ in inside], [v for _, v in inside], "o", color=MUTED, markersize=3.5, alpha=0.75, zorder=2)
    axes.plot(below, [floor] * len(below), "v", color=MUTED, markersize=4.5, clip_on=False, zorder=2)
    best = list(accumulate((value for _, value in numbered), max))
    places = [n for n, _ in numbered]
    if best:
        axes.step([*places, len(tuning.values)], [*best, best[-1]], where="post", linewidth=1.8, color=colour, zorder=3)
        at = numbered[[value for _, value in numbered].index(best[-1])]
        axes.plot([at[0]], [at[1]], marker, color=colour, markersize=8, markeredgecolor=PAPER, zorder=4)
    axes.set_xlim(0.2, len(tuning.values) + 0.8)
