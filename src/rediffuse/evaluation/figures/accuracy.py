"""Dots with intervals: every method, in all and by part, and what it costs."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rediffuse.evaluation.figures.canvas import (
    INK,
    LINE,
    MUTED,
    PAPER,
    ROLES,
    WIDE,
    Panels,
    Words,
    bare,
    extent,
    render,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Dot:
    """One row of the accuracy picture; NaN where the metric is undefined."""

    label: str
    role: str
    mean: float
    low: float
    high: float


def accuracy(dots: Sequence[Dot], reference: float, *, metric: str, width: int, name: str) -> str:
    """A dot and an interval per method, in the given order; `reference` is a thin upright line (NaN: none).

    Dots of the role "reference" draw a line of their own. The name stands left of its mark where there is room, above it where there is not.
    """
    roomy = width >= WIDE
    size, right, row, up = (13.0, 76, 27, 0.0) if roomy else (12.5, 56, 42, 0.42)
    left = 24 + min(max(extent(dot.label, size) for dot in dots), 300) if roomy else 4
    height, span = row * len(dots) + 48, width - left - right

    def draw(figure: "Figure", words: Words) -> None:
        axes = figure.add_axes((left / width, 42 / height, span / width, row * len(dots) / height))
        bare(axes, "x", size)
        axes.set_ylim(len(dots) - 0.5, -0.5)
        axes.set_yticks([])
        axes.set_xlabel(words.put(metric), fontsize=size, color=MUTED, labelpad=6)
        axes.locator_params(axis="x", nbins=7 if roomy else 4)
        if math.isfinite(reference):
            axes.axvline(reference, color=MUTED, linewidth=1, linestyle=(0, (3, 3)), zorder=1)
        best = next((place for place, dot in enumerate(dots) if dot.role != "reference"), -1)
        for place, dot in enumerate(dots):
            colour, marker = ROLES[dot.role]
            mark = place + up / 2
            if dot.role == "reference" and math.isfinite(dot.mean):
                axes.axvline(dot.mean, color=colour, linewidth=1, linestyle=(0, (1, 3)), zorder=1)
            axes.hlines(mark, dot.low, dot.high, color=colour, linewidth=2.5, zorder=2)
            axes.plot(
                [dot.mean],
                [mark],
                marker,
                color=colour,
                markersize=11 if marker == "*" else 8,
                markeredgecolor=PAPER,
                zorder=3,
            )
            look: dict[str, Any] = {"va": "center_baseline", "fontsize": size, "color": INK, "zorder": 4}
            look |= {"weight": "bold" if place == best else "normal", "transform": axes.get_yaxis_transform()}
            label = words.put(dot.label, size, left - 12 if roomy else span, heavy=place == best)
            axes.text(-10 / span if roomy else 0, place - up / 2, label, ha="right" if roomy else "left", **look)
            value = f"{dot.mean:.4f}" if math.isfinite(dot.mean) else "–"
            axes.text(1 + (right - 4) / span, mark, value, ha="right", **look)

    return render(draw, width, height, name, f"{metric} of each method with its 95 % interval")


def parts(panels: Sequence[tuple[str, Sequence[Dot]]], *, metric: str, width: int, name: str) -> str:
    """A panel per part of the users or items, the same methods in the same rows of each; every panel has its own axis."""
    roomy = width >= WIDE
    size, row = (12.5, 22) if roomy else (12.0, 22)
    names = [dot.label for dot in panels[0][1]]
    columns = min(len(panels), 4) if roomy else 1
    side = min(20 + max(extent(label, size) for label in names), 250 if roomy else 128)
    grid = Panels(len(panels), columns, width, row * len(names), 6, 14, 28, 34, round(side))

    def draw(figure: "Figure", words: Words) -> None:
        for place, (title, dots) in enumerate(panels):
            axes = figure.add_axes(grid.box(place))
            bare(axes, "x", size)
            axes.set_ylim(len(names) - 0.5, -0.5)
            axes.set_yticks([])
            axes.locator_params(axis="x", nbins=4)
            axes.set_title(words.put(title, size, grid.span), fontsize=size, color=MUTED, loc="left", pad=7)
            _rows(axes, dots)
            if place % columns:
                continue
            for at, label in enumerate(names):
                look: dict[str, Any] = {"va": "center_baseline", "fontsize": size, "color": INK}
                shown = words.put(label, size, side - 12)
                axes.text(-12 / grid.span, at, shown, ha="right", transform=axes.get_yaxis_transform(), **look)

    return render(draw, width, grid.height, name, f"{metric} of each method by part, with 95 % intervals")


def _rows(axes: "Axes", dots: Sequence[Dot]) -> None:
    """A thin line, an interval and a mark per row."""
    for at, dot in enumerate(dots):
        colour, marker = ROLES[dot.role]
        axes.axhline(at, color=LINE, linewidth=0.6, zorder=1)
        axes.hlines(at, dot.low, dot.high, color=colour, linewidth=2, zorder=2)
        axes.plot([dot.mean], [at], marker, color=colour, markersize=6.5, markeredgecolor=PAPER, zorder=3)
