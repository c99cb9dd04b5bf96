"""Columns of a foreign table -> ids, text and numbers; the first value that cannot stand is named with its row."""

import polars as pl

from rediffuse.data.importers.tolerance import complain
from rediffuse.errors import InvalidInput, say

MISSING = ("", "null", "none", "nan", "(null)", "(none)", "(not set)", "\\n")
"""What programs write for a missing value, in lower case; the last is \\N of a database."""

_EXACT = 2.0**53
_BREAK = r"[\x00-\x1f]"
_NO_ID, _BROKEN_ID = "has no id", "has an id with a line break or tab in it"


class Words:
    """Text that repeats, read batch by batch into one dictionary: each distinct text is kept once.

    Ids are refused where `read_ids` refuses them; other text is null where it is missing.
    """

    def __init__(self, *, ids: bool = False) -> None:
        """Args: ids: whether every row must hold an id."""
        self._ids = ids
        self._dtype = pl.Categorical(pl.Categories.random(physical=pl.UInt32))
        self._known = pl.Series([], dtype=self._dtype)  # the dictionary lives as long as a column of it
        self._last = -1

    def read(self, column: pl.Series, before: int = 0) -> pl.Series:
        """One more batch. Args: before: rows that stood before it. Returns: (n,) Categorical of the one dictionary.

        Raises: InvalidInput naming the column, the first value that is no id and its row.
        """
        if column.is_empty():
            return self._known
        text = column.str.strip_chars() if column.dtype == pl.String else read_text(column, before)
        if not self._ids:
            return (read_text(text) if _missing(text.unique()).any() else text).cast(self._dtype)
        if text.has_nulls():
            return read_ids(column, before).cast(self._dtype)  # which refuses
        words = text.cast(self._dtype)
        numbers = words.to_physical().to_numpy()  # a new text gets the next number
        fresh = text.filter(numbers > self._last)
        if _missing(fresh).any() or fresh.str.contains(_BREAK).any():
            read_ids(column, before)
        self._last = max(self._last, int(numbers.max()))
        return words


def read_ids(column: pl.Series, before: int = 0) -> pl.Series:
    """Ids as text, without surrounding white space.

    Args: column: (n,) text, whole numbers, or floats that are whole.   before: rows that stood before these.
    Returns: (n,) String, without nulls.
    Raises: InvalidInput naming the column, the first value that is no id and its row.
    """
    text = read_text(column, before)
    refuse_row(column, text.is_null(), _NO_ID, before, remedy="Give every row an id, or remove the row")
    refuse_row(column, text.str.contains(_BREAK), _BROKEN_ID, before, remedy="Check the quotes of the file")
    return text


def read_text(column: pl.Series, before: int = 0) -> pl.Series:
    """Text, without surrounding white space; empty text is null, 12.0 from a binary file is "12".

    Args: column: (n,) text, categories, numbers.   before: rows that stood before these.
    Returns: (n,) String.
    Raises: InvalidInput for another type, or floats that are not whole.
    """
    dtype = column.dtype
    if dtype.is_float() or dtype.is_decimal():
        numbers = column.cast(pl.Float64).fill_nan(None)
        broken = (numbers != numbers.floor()) | (numbers.abs() > _EXACT)
        refuse_row(column, broken.fill_null(value=False), "holds no whole number", before, remedy="Write ids as text")
        return numbers.cast(pl.Int64).cast(pl.String)
    if not (dtype.is_integer() or isinstance(dtype, pl.String | pl.Categorical | pl.Enum | pl.Null)):
        raise InvalidInput(say(f"Column {column.name!r} is neither text nor whole numbers", got=str(dtype)))
    text = column.cast(pl.String).str.strip_chars()
    return text.to_frame("text").select(pl.when(~_missing(text)).then("text"))["text"]


def read_numbers(column: pl.Series, before: int = 0) -> pl.Series:
    """Numbers; missing ones are null.

    Args: column: (n,) numbers or their text.   before: rows that stood before these.
    Returns: (n,) Float64.
    Raises: InvalidInput naming the column, the first value that is no number and its row.
    """
    if column.dtype == pl.String:
        plain = column.cast(pl.Float64, strict=False)
        if plain.null_count() == column.null_count() and plain.is_finite().all():
            return plain  # the same as below, without a look at each text
    known = column.fill_nan(None) if column.dtype.is_numeric() else read_text(column, before)
    numbers = known.cast(pl.Float64, strict=False)
    bad = (numbers.is_null() & known.is_not_null()) | numbers.is_infinite()
    remedy = "Write plain numbers such as 12.50, or leave the column out: --map value="
    refuse_row(column, bad.fill_null(value=False), "holds no number", before, remedy=remedy)
    return numbers


def refuse_row(column: pl.Series, wrong: pl.Series, what: str, before: int, *, remedy: str) -> None:
    """Complain about the rows that are wrong, if any, in the words of the first. Args: before: rows before these."""
    if wrong.any():
        at = wrong.arg_max() or 0
        row = before + at + 1
        sentence = say(f"Column {column.name!r} {what} in row {row}", got=column[at], remedy=remedy)
        complain(sentence, (wrong.fill_null(value=False).arg_true() + before + 1))


def _missing(text: pl.Series) -> pl.Series:
    return text.str.to_lowercase().is_in(MISSING)
