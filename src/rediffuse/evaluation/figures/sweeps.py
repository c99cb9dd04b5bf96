"""Something measured along a knob: a panel for each measure, a line with its band for each method."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rediffuse.evaluation.figures.canvas import (
    INK,
    MUTED,
    PAPER,
    SERIES,
    WIDE,
    Panels,
    Words,
    bare,
    extent,
    render,
    spaced,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class Trace:
    """One line; the sequences run along the places of its panel, NaN where nothing was measured."""

    label: str
    mean: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]


@dataclass(frozen=True)
class Swept:
    """One measure along a knob."""

    title: str
    knob: str
    places: Sequence[float]
    """Where each setting stands on the axis, rising."""
    labels: Sequence[str]
    """What it is called there."""
    traces: Sequence[Trace]
    mark: float | None = None
    """Where an upright dashed line stands: the ordinary setting."""


def sweeps(panels: Sequence[Swept], *, width: int, name: str) -> str:
    """The panels side by side, below each other on a phone; the n-th line of each has the n-th colour and marker."""
    roomy = width >= WIDE
    size = 12.5 if roomy else 12.0
    columns = 1 if not roomy else 2 if len(panels) in (2, 4) else min(len(panels), 3)
    grid = Panels(len(panels), columns, width, 230, 56, 16, 36, 50)

    def draw(figure: Any, words: Words) -> None:
        for place, panel in enumerate(panels):
            axes = figure.add_axes(grid.box(place))
            bare(axes, "y", size)
            title = words.put(panel.title, size, grid.span + 40)
            axes.set_title(title, fontsize=size, color=INK, loc="left", pad=9, x=-0.02)
            axes.set_xlabel(words.put(panel.knob, size, grid.span), fontsize=size, color=MUTED, labelpad=6)
            if panel.mark is not None:
                axes.axvline(panel.mark, color=MUTED, linewidth=1, linestyle=(0, (3, 3)), zorder=1)
            _lines(axes, panel)
            axes.margins(x=0.04, y=0.08)
            axes.locator_params(axis="y", nbins=5)
            _ticks(axes, panel, words, size, grid.span)

    return render(draw, width, grid.height, name, _said(panels))


def _lines(axes: "Axes", panel: Swept) -> None:
    for place, trace in enumerate(panel.traces):
        colour, marker = SERIES[place % len(SERIES)]
        there = [n for n, value in enumerate(trace.mean) if math.isfinite(value)]
        x, mean, low, high = ([row[n] for n in there] for row in (panel.places, trace.mean, trace.low, trace.high))
        axes.fill_between(x, low, high, color=colour, alpha=0.14, linewidth=0, zorder=2)
        look: dict[str, Any] = {"marker": marker, "markersize": 6.5, "markeredgecolor": PAPER, "linewidth": 2}
        axes.plot(x, mean, color=colour, zorder=3, **look)


def _ticks(axes: "Axes", panel: Swept, words: Words, size: float, span: float) -> None:
    """As many names of settings as stand clear of each other."""
    gap = max(extent(label, size - 1) for label in panel.labels) * 0.88 + 4
    px = 0.92 * span / max(panel.places[-1] - panel.places[0], 1e-9)
    named = dict(zip(panel.places, panel.labels, strict=True))
    kept = spaced(panel.places, px, gap)
    axes.set_xticks(kept, [words.put(named[place], size - 1) for place in kept])


def _said(panels: Sequence[Swept]) -> str:
    return "; ".join(f"{panel.title} against {panel.knob}" for panel in panels)
