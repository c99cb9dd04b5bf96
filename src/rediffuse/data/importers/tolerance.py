"""Rows of a shop's export that cannot stand: left out and counted up to a share, beyond which the file is refused.

Outside `tolerating` the first such row ends an import, as everywhere.
"""

from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

import polars as pl

from rediffuse.errors import InvalidInput, say

SHARE = 0.01
"""Of rows that may be left out, unless another is asked for."""
FIRST = 5
"""Rows that are told of in words."""
REASON = "row that cannot stand"


@dataclass
class Tolerance:
    """What was left out."""

    share: float
    left_out: int = 0
    """Rows of files that were read to their end."""
    bad: int = 0
    """Rows of the file at hand, so far."""
    first: list[str] = field(default_factory=list[str])
    """What was wrong with the first of them."""
    noted: set[int] = field(default_factory=set[int])
    """Numbers of the rows at hand that are to go."""


_now: ContextVar[Tolerance | None] = ContextVar("tolerance", default=None)


@contextmanager
def tolerating(share: float) -> Generator[Tolerance]:
    """Leave out rows that cannot stand. Args: share: of all rows, 0..1; 0: none. Raises: InvalidInput for another."""
    if not 0 <= share <= 1:
        raise InvalidInput(say("The tolerated share of bad rows is a number from 0 to 1", got=share))
    found = Tolerance(share)
    token = _now.set(found if share else None)
    try:
        yield found
    finally:
        _now.reset(token)


def complain(sentence: str, rows: Iterable[int]) -> None:
    """Note that rows cannot stand, where that is tolerated. Args: sentence: of the first. Raises: InvalidInput."""
    tolerance = _now.get()
    if tolerance is None:
        raise InvalidInput(sentence)
    tolerance.noted.update(rows)
    if len(tolerance.first) < FIRST:
        tolerance.first.append(sentence)


def lose(lines: int, sentence: str) -> None:
    """Note lines that are no rows at all. Args, Raises: as `complain`."""
    complain(sentence, ())
    if tolerance := _now.get():
        tolerance.bad += lines


def sound(frame: pl.DataFrame, number: str) -> pl.DataFrame:
    """The rows of a batch of which nothing was noted. Args: number: the column of their numbers."""
    tolerance = _now.get()
    if tolerance is None or not tolerance.noted:
        return frame
    kept = frame.filter(~pl.col(number).is_in(list(tolerance.noted)))
    tolerance.bad += frame.height - kept.height
    tolerance.noted.clear()
    return kept


def settle(name: str, kept: int) -> int:
    """Check the share when a file is read. Args: name: the file's.   kept: rows that can stand. Returns: those that cannot.

    Raises: InvalidInput when they are too many.
    """
    tolerance = _now.get()
    if tolerance is None or not tolerance.bad:
        return 0
    bad, tolerance.bad = tolerance.bad, 0
    tolerance.left_out += bad
    if bad > tolerance.share * (kept + bad):
        count = f"{bad} of {kept + bad} rows of {name!r} cannot stand"
        raise InvalidInput(f"{tolerance.first[0]} {say(count, allowed=f'a share of {tolerance.share:g}')}")
    return bad


def readable(read: Callable[[pl.Series], pl.Series], column: pl.Series) -> pl.Series:
    """Which values can be read: found in halves where that is tolerated, else taken for granted.

    Args: read: raises InvalidInput for a column with a value that it cannot read.
    Returns: (n,) bool.
    """
    if _now.get() is not None:
        try:
            read(column)
        except InvalidInput:
            half = len(column) // 2
            if not half:
                return pl.Series([False])
            return pl.concat([readable(read, column[:half]), readable(read, column[half:])])
    return pl.repeat(value=True, n=len(column), dtype=pl.Boolean, eager=True)
