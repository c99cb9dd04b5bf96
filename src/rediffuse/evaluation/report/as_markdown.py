"""A page as GitHub-flavoured Markdown: the same words and tables; the table beside a picture stands for it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rediffuse.evaluation.markdown import details, escape, fenced, table
from rediffuse.evaluation.report.blocks import (
    Block,
    Bullets,
    Cell,
    Code,
    Details,
    Heading,
    Table,
    Terms,
    Text,
)
from rediffuse.evaluation.report.page import Page


def render(page: Page) -> str:
    """The whole text; needs no library."""
    lead, *more = page.verdict.sentences
    parts = [f"# {escape(page.title)}", escape(page.subtitle)]
    parts += [f"## Verdict: {page.standing.lower()}", f"**{escape(lead)}**", *map(escape, more)]
    parts += [escape(page.note)] if page.note else []
    for section in page.sections:
        parts += [f"## {escape(section.title)}", _blocks(section.blocks)]
    return "\n\n".join(parts) + "\n"


def _blocks(blocks: Sequence[Block]) -> str:
    return "\n\n".join(text for block in blocks if (text := _SHOWN.get(block.tag, _nothing)(block)))


def _table(block: Table) -> str:
    words = [n for n in range(len(block.head)) if any(row[n].kind in ("words", "taken") for row in block.rows)]
    rows = [[_cell(cell) for cell in row] for row in block.rows]
    return f"{escape(block.caption)}\n\n{table([*map(escape, block.head)], rows, left=[0, *words])}"


def _cell(cell: Cell) -> str:
    text = escape(cell.text)
    text = f"**{text}**" if cell.strong or cell.kind in ("taken", "settled") else text
    return f"{text} ({escape(cell.small)})" if cell.small else text


def _text(block: Text) -> str:
    return f"**{escape(block.words)}**" if block.kind == "warning" else escape(block.words)


def _bullets(block: Bullets) -> str:
    return "\n".join(f"- {escape(item)}" for item in block.items)


def _terms(block: Terms) -> str:
    return "\n".join(f"- **{escape(term)}**: {escape(words)}" for term, words in block.items)


def _details(block: Details) -> str:
    return details(block.summary, _blocks(block.blocks))


def _heading(block: Heading) -> str:
    return f"### {escape(block.words)}"


def _code(block: Code) -> str:
    return fenced(block.text)


def _nothing(_: Block) -> str:
    """A picture: the table beside it says the same."""
    return ""


_SHOWN: Mapping[str, Callable[[Any], str]] = {
    "table": _table,
    "text": _text,
    "bullets": _bullets,
    "terms": _terms,
    "details": _details,
    "heading": _heading,
    "code": _code,
}
