"""What more diverse lists cost: accuracy against another quality of the lists, a line per re-ranker along its knob."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rediffuse.evaluation.figures.canvas import (
    INK,
    MUTED,
    PAPER,
    ROLES,
    SERIES,
    TAKEN,
    WIDE,
    Panels,
    Words,
    bare,
    render,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LOOKS = (*SERIES, ROLES["reference"])
"""Colour and marker of each re-ranker, in the order of their table."""


@dataclass(frozen=True)
class Path:
    """Where the lists of one re-ranker go as the knob turns, from 0 to 1; NaN where undefined."""

    look: int
    """Which of LOOKS."""
    x: Sequence[float]
    y: Sequence[float]
    chosen: int | None = None
    """The setting that is named in the text."""


@dataclass(frozen=True)
class Front:
    """One panel: a model, and one quality of its lists."""

    title: str
    quality: str
    """What x is; panels of one quality share their axis."""
    paths: Sequence[Path]
    least: float = -math.inf
    """Of y: a dashed line."""
    goal: float = -math.inf
    """Of x: with `least` the corner that is aimed at."""


def fronts(panels: Sequence[Front], *, metric: str, columns: int, width: int, name: str) -> str:
    """The panels in rows, on a phone below each other; all have one upright axis. Dots are settings, the ring is none."""
    roomy = width >= WIDE
    size = 12.5 if roomy else 12.0
    grid = Panels(len(panels), min(columns, len(panels)) if roomy else 1, width, 230, 58, 14, 36, 52)
    tall = _limits([y for panel in panels for path in panel.paths for y in (*path.y, panel.least)])

    def draw(figure: "Figure", words: Words) -> None:
        for place, panel in enumerate(panels):
            alike = [other for other in panels if other.quality == panel.quality]
            wide = _limits([x for other in alike for path in other.paths for x in (*path.x, other.goal)])
            axes = figure.add_axes(grid.box(place))
            bare(axes, "y", size)
            axes.set_xlim(*wide)
            axes.set_ylim(*tall)
            axes.locator_params(axis="x", nbins=5)
            axes.locator_params(axis="y", nbins=5)
            title = words.put(panel.title, size, grid.span)
            axes.set_title(title, fontsize=size, color=INK, loc="left", pad=9)
            axes.set_xlabel(words.put(panel.quality, size, grid.span), fontsize=size, color=MUTED, labelpad=6)
            _aim(axes, panel, wide[1], tall[1])
            for path in panel.paths:
                _path(axes, path)

    return render(draw, width, grid.height, name, f"{metric} against other qualities of the lists, by re-ranker")


def _aim(axes: "Axes", panel: Front, right: float, top: float) -> None:
    """The least of y, and the corner beyond it and the goal of x."""
    dashed: dict[str, Any] = {"color": MUTED, "linewidth": 1, "linestyle": (0, (3, 3)), "zorder": 1}
    if math.isfinite(panel.least):
        axes.axhline(panel.least, **dashed)
    if math.isfinite(panel.goal):
        axes.axvline(panel.goal, **dashed)
        corner = [panel.goal, right, right, panel.goal], [panel.least, panel.least, top, top]
        axes.fill(*corner, color=TAKEN, alpha=0.12, linewidth=0, zorder=0)


def _path(axes: "Axes", path: Path) -> None:
    colour, marker = LOOKS[path.look % len(LOOKS)]
    edge: dict[str, Any] = {"marker": marker, "markeredgecolor": PAPER, "zorder": 3}
    axes.plot(path.x, path.y, color=colour, linewidth=1.6, markersize=8 if marker == "*" else 5.5, **edge)
    axes.plot(path.x[:1], path.y[:1], "o", color=PAPER, markeredgecolor=INK, markersize=8, zorder=4)
    if path.chosen:
        at = [path.x[path.chosen]], [path.y[path.chosen]]
        axes.plot(*at, marker, color=colour, markeredgecolor=INK, markersize=11 if marker == "*" else 9, zorder=5)


def _limits(values: Sequence[float]) -> tuple[float, float]:
    """A range with all finite values and some room."""
    known = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
    room = 0.07 * (max(known) - min(known)) or 0.1
    return min(known) - room, max(known) + room
