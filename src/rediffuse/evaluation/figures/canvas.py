"""What every picture is drawn on: inline SVG text, the same bytes for the same input.

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
from typing import TYPE_CHECKING

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
    "#0a0b15": "var(--reference)",
    "#0a0b21": "var(--s1)",
    "#0a0b22": "var(--s2)",
    "#0a0b23": "var(--s3)",
    "#0a0b24": "var(--s4)",
}
INK, MUTED, LINE, PAPER, TAKEN = tuple(_COLOURS)[:5]
ROLES = {
    "diffusion": ("#0a0b11", "o"),
    "classic": ("#0a0b12", "s"),
    "control": ("#0a0b13", "D"),
    "method": ("#0a0b14", "^"),
    "reference": ("#0a0b15", "*"),
}
"""Role -> colour and marker: neither carries the meaning alone."""
SERIES = tuple(zip(("#0a0b21", "#0a0b22", "#0a0b23", "#0a0b24"), ("o", "s", "D", "^"), strict=True))
"""Colour and marker of the first, second, ... line; they repeat after the last."""


@dataclass
class Words:
    """Texts from data, and the tokens that stand for them while matplotlib draws."""

    texts: list[str] = field(default_factory=list[str])

    def put(self, text: str, size: float = 13.0, room: float = math.inf, *, heavy: bool = False) -> str:
        """A token for `text`, cut to about `room` px at a font of `size` px."""
        self.texts.append(_cut(text, room / (size * (0.58 if heavy else 0.54))))
        return f"W{len(self.texts) - 1:05d}W"


def _letters(text: str) -> list[int]:
    """The width of each letter in halves of an em or so: wide scripts count double."""
    return [2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text]


def extent(text: str, size: float) -> float:
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


def render(draw: "Callable[[Figure, Words], None]", width: int, height: int, name: str, title: str) -> str:
    require_plotting()
    from matplotlib import style
    from matplotlib.figure import Figure

    words, text = Words(), io.StringIO()
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


def bare(axes: "Axes", grid: str, size: float) -> None:
    """No frame, no tick marks, grid lines only across the given axis."""
    axes.patch.set_visible(False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.tick_params(which="both", length=0, labelsize=size - 1, labelcolor=MUTED, pad=6)
    axes.set_axisbelow(True)
    if grid:
        axes.grid(visible=True, axis="x" if grid == "x" else "y", color=LINE, linewidth=1)


def cost_axis(axes: "Axes", costs: Sequence[float]) -> None:
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


def spaced(places: Sequence[float], px: float, gap: float, end: float | None = None) -> list[float]:
    """The places that stand at least `gap` px apart (and from `end`), the first one kept."""
    kept: list[float] = []
    for place in places:
        clear = not kept or (place - kept[-1]) * px >= gap
        if clear and (end is None or not kept or (end - place) * px >= gap * 1.4):
            kept.append(place)
    return kept


@dataclass(frozen=True)
class Panels:
    """Small pictures of one size in rows, in px: `left`, `right`, `top`, `bottom` are the room around each."""

    count: int
    columns: int
    width: int
    tall: int
    """Height of the plot itself."""
    left: int
    right: int
    top: int
    bottom: int
    first: int = 0
    """More room left of each row of panels, for names."""

    @property
    def height(self) -> int:
        """Of the whole picture."""
        return -(-self.count // self.columns) * (self.top + self.tall + self.bottom)

    @property
    def span(self) -> float:
        """Width of a plot."""
        return (self.width - self.first) / self.columns - self.left - self.right

    def box(self, place: int, low: float = 0.0, high: float = 1.0) -> tuple[float, float, float, float]:
        """Where panel `place`, or its part between two shares of its height, stands: as matplotlib wants it."""
        row, column = divmod(place, self.columns)
        x = self.first + column * (self.left + self.span + self.right) + self.left
        y = self.height - row * (self.top + self.tall + self.bottom) - self.top - self.tall
        bottom, height = y + low * self.tall, (high - low) * self.tall
        return x / self.width, bottom / self.height, self.span / self.width, height / self.height
