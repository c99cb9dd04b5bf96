"""What accuracy costs: every method at its time per user."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rediffuse.evaluation.figures.canvas import INK, MUTED, PAPER, ROLES, WIDE, Words, bare, extent, render

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Spot:
    """A method; what is not finite, or costs nothing, is not drawn."""

    label: str
    role: str
    cost: float
    value: float


def cost(spots: Sequence[Spot], *, metric: str, unit: str, width: int, name: str) -> str:
    """Accuracy against cost on a logarithmic axis, each mark with its name; names give way to each other."""
    roomy = width >= WIDE
    size, height, left, right, top, bottom = (12.5, 400, 62, 16, 34, 50) if roomy else (11.5, 380, 46, 8, 32, 48)
    shown = [spot for spot in spots if spot.cost > 0 and math.isfinite(spot.cost) and math.isfinite(spot.value)]
    span, tall = width - left - right, height - top - bottom
    x, y = _Axis.over([math.log10(s.cost) for s in shown], 0.12), _Axis.over([s.value for s in shown], 0.08)

    def draw(figure: "Figure", words: Words) -> None:
        axes = figure.add_axes((left / width, bottom / height, span / width, tall / height))
        bare(axes, "y", size)
        axes.set_xscale("log")
        axes.set_xlim(10**x.low, 10**x.high)
        axes.set_ylim(y.low, y.high)
        _ticks(axes, x)
        axes.locator_params(axis="y", nbins=6)
        axes.set_title(words.put(metric), fontsize=size, color=MUTED, loc="left", pad=8)
        axes.set_xlabel(unit, fontsize=size, color=MUTED, labelpad=6)
        marks = [(span * x.share(math.log10(s.cost)), tall * (1 - y.share(s.value))) for s in shown]
        taken = [(right - 7, right + 7, height) for right, height in marks]
        for spot, at in sorted(zip(shown, marks, strict=True), key=lambda pair: pair[1][1]):
            colour, marker = ROLES[spot.role]
            axes.plot([spot.cost], [spot.value], marker, color=colour, markersize=9, markeredgecolor=PAPER, zorder=3)
            words_wide = min(extent(spot.label, size) * 0.92, span * 0.55)
            begin, line = _free(at, words_wide, span, size * 1.25, taken)
            label = words.put(spot.label, size, words_wide)
            place = (begin / span, 1 - line / tall)
            axes.text(*place, label, va="center_baseline", fontsize=size, color=INK, transform=axes.transAxes, zorder=4)

    return render(draw, width, height, name, f"{metric} against {unit}, a mark per method")


@dataclass(frozen=True)
class _Axis:
    low: float
    high: float

    @classmethod
    def over(cls, values: Sequence[float], margin: float) -> "_Axis":
        """An axis that holds the values with a margin on both sides."""
        low, high = min(values, default=0.0), max(values, default=1.0)
        room = margin * (high - low) or 0.1 * (abs(high) or 1.0)
        return cls(low - room, high + room)

    def share(self, value: float) -> float:
        return (value - self.low) / (self.high - self.low)


def _free(
    at: tuple[float, float], wide: float, span: float, line: float, taken: list[tuple[float, float, float]]
) -> tuple[float, float]:
    """Where a name begins and on which height, px: beside its mark, else as near as nothing stands already."""
    sides = [begin for begin in (at[0] + 10, at[0] - 10 - wide) if begin >= 0 and begin + wide <= span] or [0.0]
    for step in range(80):
        height = at[1] + (step + 1) // 2 * (-1) ** step * line / 4
        for begin in sides:
            if not any(abs(height - y) < line and begin < end and start < begin + wide for start, end, y in taken):
                taken.append((begin, begin + wide, height))
                return begin, height
    return sides[0], at[1]


def _ticks(axes: "Axes", x: _Axis) -> None:
    """Ticks at 1, 10, 100, or at 1, 2, 5 and closer where the costs span little."""
    from matplotlib.ticker import NullLocator

    span = x.high - x.low
    steps = (1.0,) if span > 2.2 else (1.0, 2.0, 5.0) if span > 0.5 else (1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 7.0)
    values = [s * 10.0**e for e in range(math.floor(x.low), math.ceil(x.high) + 1) for s in steps]
    kept = [value for value in values if x.low <= math.log10(value) <= x.high]
    axes.set_xticks(kept, [f"{value:,.10g}" for value in kept])
    axes.xaxis.set_minor_locator(NullLocator())
