"""Pictures of a report as inline SVG text: the same input gives the same bytes.

Matplotlib places the marks; two things are put in afterwards. Colours stand as sentinels and become CSS variables of
the page, so a picture follows light and dark mode. Words that come from data stand as short tokens and become escaped
text: titles in any script, with `$` or `<`, neither upset the layout nor the page.
"""

import html
import importlib.util
import io
import math
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rediffuse.errors import MissingExtra

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MISSING = 'The report needs matplotlib and jinja2, which are not installed. Run: pip install "rediffuse[plot]".'


def require_plotting() -> None:
    """Complain before long work when its pictures could not be drawn. Raises: MissingExtra."""
    if not all(importlib.util.find_spec(name) for name in ("matplotlib", "jinja2")):
        raise MissingExtra(MISSING)


WIDE, NARROW = 992, 340
"""Widths of the two renditions of a picture, px: for a desk or paper, and for a phone."""

_COLOURS = {
    "#0a0b01": "var(--ink)",
    "#0a0b02": "var(--muted)",
    "#0a0b03": "var(--line)",
    "#0a0b04": "var(--paper)",
    "#0a0b05": "var(--taken)",
    "#0a0b11": "var(--diffusion)",
    "#0a0b12": "var(--classic)",
    "#0a0b13": "var(--control)",
    "#0a0b14": "var(--method)",
    "#0a0b21": "var(--s1)",
    "#0a0b22": "var(--s2)",
    "#0a0b23": "var(--s3)",
    "#0a0b24": "var(--s4)",
}
_INK, _MUTED, _LINE, _PAPER, _TAKEN = tuple(_COLOURS)[:5]
ROLES = {
    "diffusion": ("#0a0b11", "o"),
    "classic": ("#0a0b12", "s"),
    "control": ("#0a0b13", "D"),
    "method": ("#0a0b14", "^"),
}
"""Role -> colour and marker: neither carries the meaning alone."""
SERIES = tuple(zip(("#0a0b21", "#0a0b22", "#0a0b23", "#0a0b24"), ("o", "s", "D", "^"), strict=True))
"""Colour and marker of the first, second, ... line; they repeat after the last."""


@dataclass(frozen=True)
class Dot:
    """One row of the accuracy picture; NaN where the metric is undefined."""

    label: str
    role: str
    mean: float
    low: float
    high: float


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


def accuracy(dots: Sequence[Dot], reference: float, *, metric: str, width: int, name: str) -> str:
    """A dot and an interval per method, in the given order; `reference` is a thin upright line (NaN: none).

    The name stands left of its mark where there is room, above it where there is not.
    """
    roomy = width >= WIDE
    size, right, row, up = (13.0, 76, 27, 0.0) if roomy else (12.5, 56, 42, 0.42)
    left = 24 + min(max(_width(dot.label, size) for dot in dots), 300) if roomy else 4
    height, span = row * len(dots) + 48, width - left - right

    def draw(figure: "Figure", words: _Words) -> None:
        axes = figure.add_axes((left / width, 42 / height, span / width, row * len(dots) / height))
        _bare(axes, "x", size)
        axes.set_ylim(len(dots) - 0.5, -0.5)
        axes.set_yticks([])
        axes.set_xlabel(words.put(metric), fontsize=size, color=_MUTED, labelpad=6)
        axes.locator_params(axis="x", nbins=7 if roomy else 4)
        if math.isfinite(reference):
            axes.axvline(reference, color=_MUTED, linewidth=1, linestyle=(0, (3, 3)), zorder=1)
        for place, dot in enumerate(dots):
            colour, marker = ROLES[dot.role]
            mark = place + up / 2
            axes.hlines(mark, dot.low, dot.high, color=colour, linewidth=2.5, zorder=2)
            axes.plot([dot.mean], [mark], marker, color=colour, markersize=8, markeredgecolor=_PAPER, zorder=3)
            look: dict[str, Any] = {"va": "center_baseline", "fontsize": size, "color": _INK, "zorder": 4}
            look |= {"weight": "bold" if place == 0 else "normal", "transform": axes.get_yaxis_transform()}
            label = words.put(dot.label, size, left - 12 if roomy else span, heavy=place == 0)
            axes.text(-10 / span if roomy else 0, place - up / 2, label, ha="right" if roomy else "left", **look)
            value = f"{dot.mean:.4f}" if math.isfinite(dot.mean) else "–"
            axes.text(1 + (right - 4) / span, mark, value, ha="right", **look)

    return _render(draw, width, height, name, f"{metric} of each method with its 95 % interval")


def steps(lines: Sequence[Line], reference: float, *, metric: str, width: int, name: str) -> str:
    """Accuracy against the number of reverse steps, and below it what a user costs; `reference` as in `accuracy`."""
    roomy = width >= WIDE
    size, height = (13.0, 460) if roomy else (12.0, 420)
    left, right = (64, 20) if roomy else (50, 8)
    places = sorted({_octave(n) for line in lines for n in line.steps})
    named = {_octave(n): str(n) for line in lines for n in line.steps}
    wide = (width - left - right) / width

    def draw(figure: "Figure", words: _Words) -> None:
        upper = figure.add_axes((left / width, 0.40, wide, 0.535))
        lower = figure.add_axes((left / width, 0.105, wide, 0.18), sharex=upper)
        for axes, title in ((upper, words.put(metric)), (lower, "milliseconds per user")):
            _bare(axes, "y", size)
            axes.set_title(title, fontsize=size, color=_MUTED, loc="left", pad=8)
            axes.margins(x=0.03)
        if math.isfinite(reference):
            upper.axhline(reference, color=_MUTED, linewidth=1, linestyle=(0, (3, 3)), zorder=1)
        for (colour, marker), line in zip(_cycle(len(lines)), lines, strict=True):
            x = [_octave(n) for n in line.steps]
            look: dict[str, Any] = {"color": colour, "marker": marker, "markersize": 7, "markeredgecolor": _PAPER}
            upper.fill_between(x, line.low, line.high, color=colour, alpha=0.16, linewidth=0, zorder=2)
            upper.plot(x, line.mean, linewidth=2, zorder=3, **look)
            lower.plot(x, line.ms_per_user, linewidth=2, zorder=3, **look)
        upper.locator_params(axis="y", nbins=6)
        upper.tick_params(axis="x", labelbottom=False)
        _cost_axis(lower, [ms for line in lines for ms in line.ms_per_user])
        ticks = _spaced(places, (width - left - right) / max(places[-1] - places[0], 1e-9), 26)
        lower.set_xticks(ticks, [named[tick] for tick in ticks])
        lower.set_xlabel("reverse steps", fontsize=size, color=_MUTED, labelpad=6)

    return _render(draw, width, height, name, f"{metric} and milliseconds per user against the number of reverse steps")


def ranks(columns: Sequence[Column], *, width: int, name: str) -> str:
    """How items move through the list from the noisiest level to the answer; what the user took stands out."""
    roomy = width >= WIDE
    size = 13.0 if roomy else 12.0
    left, right, row = (40, 330, 28) if roomy else (22, 150, 27)
    depth = max(len(column.items) for column in columns)
    height = row * depth + 46
    answer = {item for item, _, _ in columns[-1].items}

    def draw(figure: "Figure", words: _Words) -> None:
        box = (left / width, 6 / height, (width - left - right) / width, row * depth / height)
        axes = figure.add_axes(box)
        _bare(axes, "", size)
        axes.set_xlim(-0.2, len(columns) - 0.8)
        axes.set_ylim(depth - 0.5, -0.5)
        axes.set_yticks(range(depth), [str(rank + 1) for rank in range(depth)])
        axes.xaxis.tick_top()
        last = len(columns) - 1
        ticks = _spaced(list(range(last)), (width - left - right) / max(last, 1), 34, end=float(last) if last else None)
        named = [columns[int(tick)].label for tick in ticks] + [columns[-1].label]
        named[0] = f"level {named[0]}" if roomy and ticks else named[0]
        axes.set_xticks([*ticks, last], named)
        for x, y, item, title, taken, x2, y2 in _moves(columns):
            colour = _TAKEN if taken else _MUTED if item in answer else _LINE
            top = 4 if taken else 2
            if y2 is not None:
                axes.plot([x, x2], [y, y2], color=colour, linewidth=2.5 if taken else 1.2, zorder=top)
            look: dict[str, Any] = {"markersize": 8 if taken else 6, "markeredgecolor": _PAPER, "zorder": top + 1}
            axes.plot([x], [y], "o", color=colour, **look)
            if x == last:
                side: dict[str, Any] = {"color": _TAKEN if taken else _INK, "weight": "bold" if taken else "normal"}
                label = words.put(("✓ " if taken else "") + title, size, right - 14, heavy=taken)
                at = (1 + 8 / (width - left - right), y)
                axes.text(*at, label, va="center_baseline", fontsize=size, transform=axes.get_yaxis_transform(), **side)

    first = columns[0].label
    return _render(draw, width, height, name, f"Ranks of the items from level {first} to the answer")


@dataclass
class _Words:
    """Texts from data, and the tokens that stand for them while matplotlib draws."""

    texts: list[str] = field(default_factory=list[str])

    def put(self, text: str, size: float = 13.0, room: float = math.inf, *, heavy: bool = False) -> str:
        """A token for `text`, cut to about `room` px at a font of `size` px."""
        self.texts.append(_cut(text, room / (size * (0.58 if heavy else 0.54))))
        return f"W{len(self.texts) - 1:05d}W"


def _letters(text: str) -> list[int]:
    """The width of each letter in halves of an em or so: wide scripts count double."""
    return [2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text]


def _width(text: str, size: float) -> float:
    """About how many px a bold text takes at a font of `size` px."""
    return sum(_letters(text)) * size * 0.62


def _cut(text: str, room: float) -> str:
    """As much of a text as fits `room` average letters."""
    used = 0
    for end, wide in enumerate(_letters(text)):
        used += wide
        if used > room:
            return text[: max(end - 1, 1)].rstrip() + "…"
    return text


def _render(draw: "Callable[[Figure, _Words], None]", width: int, height: int, name: str, title: str) -> str:
    try:
        from matplotlib import style
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtra(MISSING) from None
    words, text = _Words(), io.StringIO()
    ours = {"svg.fonttype": "none", "svg.hashsalt": name, "font.family": "DejaVu Sans"}
    with style.context(["default", ours]):  # whatever the user's own matplotlibrc says
        figure = Figure(figsize=(width / 72, height / 72), dpi=72)
        draw(figure, words)
        nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
        figure.savefig(text, format="svg", facecolor="none", metadata=nothing)
    return _inline(text.getvalue(), words.texts, f"{width} {height}", name, title)


def _inline(svg: str, texts: Sequence[str], box: str, name: str, title: str) -> str:
    """Matplotlib's document as an element of a page: own ids, the page's colours and fonts, real words."""
    body = svg[svg.index(">", svg.index("<svg")) + 1 : svg.rindex("</svg>")]
    body = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>|<style.*?</style>", "", body, flags=re.DOTALL)
    body = re.sub(r"<defs>\s*</defs>", "", body)
    body = re.sub(r' transform="rotate\(-?0 [^"]*\)"', "", body)
    body = re.sub(r"font-family: [^;\"]*;? ?", "", body)
    body = re.sub(r'<g id="[^"]*">', "<g>", body)
    body = re.sub(r'(\bid="|href="#|url\(#)', rf"\1{name}-", body).replace("xlink:href", "href")
    body = re.sub(r"#0a0b[0-9]{2}", lambda found: _COLOURS[found.group()], body)
    body = re.sub(r"W(\d{5})W", lambda found: html.escape(texts[int(found.group(1))]), body)
    body = re.sub(r"\s*\n\s*", " ", body).replace("> <", "><").strip()
    label = html.escape(title)
    return f'<svg viewBox="0 0 {box}" role="img" aria-label="{label}"><title>{label}</title>{body}</svg>'


def _bare(axes: "Axes", grid: str, size: float) -> None:
    """No frame, no tick marks, grid lines only across the given axis."""
    axes.patch.set_visible(False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.tick_params(which="both", length=0, labelsize=size - 1, labelcolor=_MUTED, pad=6)
    axes.set_axisbelow(True)
    if grid:
        axes.grid(visible=True, axis="x" if grid == "x" else "y", color=_LINE, linewidth=1)


def _cost_axis(axes: "Axes", costs: Sequence[float]) -> None:
    """Logarithmic where the costs span more than a factor of 8, with ticks 1, 10, 100; else from zero."""
    from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

    known = [cost for cost in costs if math.isfinite(cost)] or [0.0]
    if min(known) > 0 and max(known) > 8 * min(known):
        axes.set_yscale("log")
        few = max(known) < 100 * min(known)
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 3.0) if few else (1.0,), numticks=6))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    else:
        axes.set_ylim(0, max(max(known) * 1.15, 1e-9))
        axes.locator_params(axis="y", nbins=3)


def _octave(n: int) -> float:
    """Place of a number of steps on the axis: one unit per doubling, 0 steps one unit left of 1."""
    return math.log2(n) if n > 0 else -1.0


def _cycle(count: int) -> list[tuple[str, str]]:
    return [SERIES[place % len(SERIES)] for place in range(count)]


def _spaced(places: Sequence[float], px: float, gap: float, end: float | None = None) -> list[float]:
    """The places that stand at least `gap` px apart (and from `end`), the first one kept."""
    kept: list[float] = []
    for place in places:
        clear = not kept or (place - kept[-1]) * px >= gap
        if clear and (end is None or not kept or (end - place) * px >= gap * 1.4):
            kept.append(place)
    return kept


def _moves(columns: Sequence[Column]) -> list[tuple[int, int, str, str, bool, int, int | None]]:
    """Every place of every list with the item's place in the next one, None where it drops out."""
    found: list[tuple[int, int, str, str, bool, int, int | None]] = []
    for x, column in enumerate(columns):
        after = {item: y for y, (item, _, _) in enumerate(columns[x + 1].items)} if x + 1 < len(columns) else {}
        found += [
            (x, y, item, title, taken, x + 1, after.get(item)) for y, (item, title, taken) in enumerate(column.items)
        ]
    return found
