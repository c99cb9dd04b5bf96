"""The parts of a page as values: built once, shown as HTML and as Markdown."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class Cell:
    """One place of a table."""

    text: str
    small: str = ""
    """Stands below, smaller: an interval, a cost."""
    strong: bool = False
    role: str = ""
    """The role whose mark stands in front."""
    kind: str = ""
    """How it looks: `taken`, `settled`, `words`."""


@dataclass(frozen=True)
class Table:
    """Rows under a head; the first cell of a row names it."""

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    kind: str = "results"
    """How it looks: `results`, `walk`, or `plain` for two columns of words."""
    tag: ClassVar[str] = "table"


@dataclass(frozen=True)
class Text:
    """A paragraph; `kind` is "", "note" or "warning"."""

    words: str
    kind: str = ""
    tag: ClassVar[str] = "text"


@dataclass(frozen=True)
class Bullets:
    """Sentences, one below the other."""

    items: Sequence[str]
    tag: ClassVar[str] = "bullets"


@dataclass(frozen=True)
class Terms:
    """Words and what they mean."""

    items: Sequence[tuple[str, str]]
    tag: ClassVar[str] = "terms"


@dataclass(frozen=True)
class Heading:
    """A heading within a section."""

    words: str
    tag: ClassVar[str] = "heading"


@dataclass(frozen=True)
class Mark:
    """A line of a picture's key: shape ("o", "s", "D", "^", "*", "dash"), colour of the page, meaning."""

    shape: str
    colour: str
    words: str


@dataclass(frozen=True)
class Picture:
    """An SVG, drawn when it is shown: (width in px, prefix of its ids) -> text. A table beside it says the same."""

    draw: Callable[[int, str], str]
    caption: str
    key: Sequence[Mark] = ()
    tag: ClassVar[str] = "picture"


@dataclass(frozen=True)
class Code:
    """A command as it was typed."""

    text: str
    tag: ClassVar[str] = "code"


@dataclass(frozen=True)
class Details:
    """What is folded away at first."""

    summary: str
    blocks: Sequence["Block"]
    tag: ClassVar[str] = "details"


Block = Table | Text | Bullets | Terms | Heading | Picture | Code | Details


@dataclass(frozen=True)
class Section:
    """A titled part of the page."""

    id: str
    title: str
    blocks: Sequence[Block]
