"""Whether probabilities hold, and what is gained by answering only where a method is sure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rediffuse.evaluation.figures.canvas import LINE, MUTED, PAPER, SERIES, WIDE, Words, bare, render

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

POINTS, FIRST = 240, 0.02
"""Points of a curve, at most, and the share of users it begins at: means of fewer say little."""


@dataclass(frozen=True)
class Promise:
    """Pairs in bins, by rising probability; the sequences run along the bins."""

    label: str
    expected: Sequence[float]
    observed: Sequence[float]
    count: Sequence[int]


@dataclass(frozen=True)
class Order:
    """One order of the users: the mean risk of the surest 1, 2, .. n."""

    label: str
    risk: Sequence[float]


def reliability(promises: Sequence[Promise], *, width: int, name: str) -> str:
    """Observed share against probability, a mark per bin, over a dashed diagonal; below it where the pairs lie."""
    roomy = width >= WIDE
    size, height, left, right = (13.0, 500, 64, 20) if roomy else (12.0, 430, 48, 10)
    wide = (width - left - right) / width
    top = 1.06 * max((max(*p.expected, *p.observed) for p in promises), default=1.0) or 1.0

    def draw(figure: "Figure", words: Words) -> None:
        upper = figure.add_axes((left / width, 0.33, wide, 0.6))
        lower = figure.add_axes((left / width, 0.115, wide, 0.11), sharex=upper)
        for axes, title in ((upper, "share that was really taken"), (lower, "where the pairs lie")):
            bare(axes, "y" if axes is upper else "", size)
            axes.set_title(words.put(title, size), fontsize=size, color=MUTED, loc="left", pad=8)
        upper.set_xlim(0, top)
        upper.set_ylim(0, top)
        upper.plot([0, top], [0, top], color=MUTED, linewidth=1, linestyle=(0, (3, 3)), zorder=1)
        for place, promise in enumerate(promises):
            colour, marker = SERIES[place % len(SERIES)]
            look: dict[str, Any] = {"color": colour, "marker": marker, "markersize": 8, "markeredgecolor": PAPER}
            upper.plot(promise.expected, promise.observed, linewidth=1.5, zorder=3 + place, **look)
            _mass(lower, promise, colour)
        upper.tick_params(axis="x", labelbottom=False)
        upper.locator_params(axis="both", nbins=6 if roomy else 4)
        lower.set_ylim(bottom=0)
        lower.set_yticks([])
        lower.axhline(0, color=LINE, linewidth=1)
        lower.set_xlabel("probability that was told", fontsize=size, color=MUTED, labelpad=6)

    return render(draw, width, height, name, "Share really taken against the probability told, by bins of equal mass")


def risk_coverage(orders: Sequence[Order], random: float, best: Sequence[float], *, width: int, name: str) -> str:
    """Mean risk of the surest users against their share; `random` is a dashed line, `best` (by the risk itself) dotted."""
    roomy = width >= WIDE
    size, height, left, right = (13.0, 420, 64, 20) if roomy else (12.0, 380, 48, 10)
    box = (left / width, 54 / height, (width - left - right) / width, (height - 92) / height)

    def draw(figure: "Figure", words: Words) -> None:
        axes = figure.add_axes(box)
        bare(axes, "y", size)
        axes.set_title(words.put("mean risk: 1 − ndcg@10", size), fontsize=size, color=MUTED, loc="left", pad=8)
        axes.axhline(random, color=MUTED, linewidth=1, linestyle=(0, (3, 3)), zorder=1)
        x, y = _thinned(best)
        axes.plot(x, y, color=MUTED, linewidth=1.2, linestyle=(0, (1, 3)), zorder=1)
        for place, order in enumerate(orders):
            colour, marker = SERIES[place % len(SERIES)]
            x, y = _thinned(order.risk)
            look: dict[str, Any] = {"marker": marker, "markersize": 7, "markeredgecolor": PAPER}
            every = (place * len(x) // 40, max(1, len(x) // 9))
            axes.plot(x, y, color=colour, linewidth=2, markevery=every, zorder=3 + place, **look)
        low = min([random, *(min(_thinned(order.risk)[1]) for order in orders)])
        high = max([random, *(max(_thinned(order.risk)[1]) for order in orders)])
        # The dotted line begins near 0: it would press the others together.
        room = 0.12 * (high - low) or 0.05
        axes.set_ylim(low - 2 * room, high + room)
        axes.set_xlim(0, 101)
        axes.locator_params(axis="y", nbins=6)
        axes.set_xlabel("surest users, % of all", fontsize=size, color=MUTED, labelpad=6)

    return render(draw, width, height, name, "Mean risk of the surest users against their share")


def _mass(axes: "Axes", promise: Promise, colour: str) -> None:
    """Pairs per unit of probability as steps, whose edges lie half-way between the means of the bins."""
    places, group = np.unique(np.round(promise.expected, 6), return_inverse=True)
    if len(places) < 2:
        return
    inner = (places[1:] + places[:-1]) / 2
    edges = np.r_[max(2 * places[0] - inner[0], 0.0), inner, 2 * places[-1] - inner[-1]]
    axes.stairs(np.bincount(group, promise.count) / np.diff(edges), edges, color=colour, linewidth=1.6)


def _thinned(risk: Sequence[float]) -> tuple[list[float], list[float]]:
    """Share of users in percent and risk, at most `POINTS` of them, from `FIRST` on."""
    n = len(risk)
    kept = np.unique(np.linspace(max(int(n * FIRST), 1), n, POINTS).astype(int))
    return (100 * kept / n).tolist(), [risk[k - 1] for k in kept]
