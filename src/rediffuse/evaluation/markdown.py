"""GitHub-flavoured Markdown from plain words: nothing from data can become markup."""

import re
from collections.abc import Sequence

_SPECIAL = re.compile(r"[\\`*\[\]|~$#]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


def escape(text: str) -> str:
    """Words as they are, on one line: no markup, no link, no mention of anybody."""
    line = _SPECIAL.sub(r"\\\g<0>", " ".join(text.split()))
    line = re.sub(r"[&<>]", lambda found: _ENTITIES[found.group()], line)
    line = re.sub(r"@(?=[A-Za-z])", "&#64;", line)
    line = re.sub(r"(?i)(https?|ftp)://", r"\1:&#47;&#47;", line)
    line = re.sub(r"(?i)\b(www)\.", r"\1&#46;", line)
    return re.sub(r"^(\d*)([-+=.)])(?=[\s=-]|$)", r"\1\\\2", line)


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, left: Sequence[int] = (0,)) -> str:
    """A table of escaped texts. Args: left: columns of words; the others are figures and stand right."""
    marks = ["---" if place in left else "---:" for place in range(len(head))]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, marks, *rows))


def fenced(text: str, language: str = "") -> str:
    """A block of code with a fence longer than any inside."""
    longest = max(map(len, re.findall(r"`{3,}", text)), default=2)
    fence = "`" * (longest + 1)
    return f"{fence}{language}\n{text}\n{fence}"


def details(summary: str, body: str) -> str:
    """A part that is folded away at first. Args: body: Markdown."""
    return f"<details>\n<summary>{escape(summary)}</summary>\n\n{body}\n\n</details>"
