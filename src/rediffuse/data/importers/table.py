"""Any table of events, with or without tables of items and users: CSV, TSV, JSONL, parquet.

Columns are found by well-known names unless they are named; ids are text, whatever the file calls them.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import polars as pl

from rediffuse.data.dataset import Dataset
from rediffuse.data.importers.names import attribute_names, match, match_id
from rediffuse.data.importers.reading import Table, open_table, stem
from rediffuse.data.importers.times import TimeUnit, to_utc_us
from rediffuse.data.interactions import Order
from rediffuse.errors import InvalidInput, say

MISSING = ("", "null", "none", "nan", "(null)", "(none)", "(not set)", "\\n")
"""What programs write for a missing value, in lower case; the last is \\N of a database."""

_INTEGER = r"^-?(0|[1-9][0-9]{0,17})$"
_NUMBER = r"^-?(0|[1-9][0-9]*)(\.[0-9]+)?$"
_EXACT = 2.0**53


def load(
    source: Path,
    *,
    columns: Mapping[str, str] | None = None,
    order: Order | None = None,
    time_unit: TimeUnit = "auto",
    items: Path | None = None,
    users: Path | None = None,
    name: str | None = None,
    time_zone: str = "UTC",
) -> Dataset:
    """Read a table with a row for each event.

    Args: columns: our name (user, item, time, kind, value, group, event_id) -> the file's; an empty one leaves ours
            out. What is not given is found by well-known names.
        order: None: "time" when there is a time column, else "none"; "sequence": rows stand in the order of events.
        time_unit: what numbers in the time column count; times without offset are UTC.
        items, users: tables of attributes with an id column.
        time_zone: the shop's, for seasons.
    Raises: InvalidInput when a file cannot be read, a column is missing or ambiguous, or a value is not what its
        column should hold; the first such value and its row (from 1, after the header) are named.
    Limits: the table is held in memory whole.
    """
    _check_zone(time_zone)
    table = open_table(source)
    found = match(table.columns, columns or {})
    if order is not None and order not in get_args(Order):
        raise InvalidInput(say("Unknown order", got=order, allowed=get_args(Order)))
    if order == "time" and "time" not in found:
        shown = ", ".join(map(repr, table.columns))
        raise InvalidInput(say(f"No column is called like 'time'. Columns: {shown}", remedy="Pass --map time=COLUMN"))
    frame = _events(table, found, time_unit)
    facts: dict[str, Any] = {"format": table.format, "source": source.name, "columns": found, "rows": frame.height}
    tables: dict[str, pl.DataFrame] = {}
    for what, path in (("item", items), ("user", users)):
        if path is not None:
            tables[what] = _attributes(open_table(path), what, found[what])
            facts[f"{what}s"] = path.name
    return Dataset.from_events(
        name or stem(source),
        frame,
        order=order,
        items=tables.get("item"),
        users=tables.get("user"),
        facts=facts,
        time_zone=time_zone,
    )


def read_ids(column: pl.Series) -> pl.Series:
    """Ids as text, without surrounding white space.

    Args: column: (n,) text, whole numbers, or floats that are whole.
    Returns: (n,) String, without nulls.
    Raises: InvalidInput naming the column, the first value that is no id and its row.
    """
    text = read_text(column)
    _refuse(column, text.is_null(), "has no id", remedy="Give every row an id, or remove the row")
    broken = text.str.contains(r"[\x00-\x1f]")
    _refuse(column, broken, "has an id with a line break or tab in it", remedy="Check the quotes of the file")
    return text


def read_text(column: pl.Series) -> pl.Series:
    """Text, without surrounding white space; empty text is null, 12.0 from a binary file is "12".

    Args: column: (n,) text, categories, numbers.   Returns: (n,) String.
    Raises: InvalidInput for another type, or floats that are not whole.
    """
    dtype = column.dtype
    if dtype.is_float() or dtype.is_decimal():
        numbers = column.cast(pl.Float64).fill_nan(None)
        broken = (numbers != numbers.floor()) | (numbers.abs() > _EXACT)
        _refuse(column, broken.fill_null(value=False), "holds no whole number", remedy="Write ids as text")
        return numbers.cast(pl.Int64).cast(pl.String)
    if not (dtype.is_integer() or isinstance(dtype, pl.String | pl.Categorical | pl.Enum | pl.Null)):
        raise InvalidInput(say(f"Column {column.name!r} is neither text nor whole numbers", got=str(dtype)))
    text = column.cast(pl.String).str.strip_chars()
    missing = pl.col("text").str.to_lowercase().is_in(MISSING)
    return text.to_frame("text").select(pl.when(~missing).then("text"))["text"]


def read_numbers(column: pl.Series) -> pl.Series:
    """Numbers; missing ones are null.

    Args: column: (n,) numbers or their text.   Returns: (n,) Float64.
    Raises: InvalidInput naming the column, the first value that is no number and its row.
    """
    known = column.fill_nan(None) if column.dtype.is_numeric() else read_text(column)
    numbers = known.cast(pl.Float64, strict=False)
    bad = (numbers.is_null() & known.is_not_null()) | numbers.is_infinite()
    remedy = "Write plain numbers such as 12.50, or leave the column out: --map value="
    _refuse(column, bad.fill_null(value=False), "holds no number", remedy=remedy)
    return numbers


def _events(table: Table, found: Mapping[str, str], unit: TimeUnit) -> pl.DataFrame:
    raw = table.read(sorted(set(found.values())))
    if not raw.height:
        raise InvalidInput(say(f"{table.name!r} has no rows", remedy="Check that it is the file of events"))
    out: dict[str, pl.Series] = {}
    for ours, theirs in found.items():
        column = raw[theirs]
        if ours in ("user", "item"):
            out[ours] = read_ids(column)
        elif ours == "time":
            out["time_us"] = to_utc_us(column, unit)
        elif ours == "value":
            out[ours] = read_numbers(column)
        else:
            out[ours] = read_text(column)
    return pl.DataFrame(out)


def _attributes(table: Table, what: str, like: str) -> pl.DataFrame:
    """An attribute table with its ids in the column `item` or `user`."""
    identity = match_id(table.columns, what, like)
    raw = table.read(table.columns)
    rest = [c for c in table.columns if c != identity]
    names = attribute_names(rest, what, title=what == "item")
    ids = read_ids(raw[identity])
    twice = ids.is_duplicated()
    _refuse(raw[identity], twice, "holds an id that stands there twice", remedy=f"Keep one row for each {what}")
    guess = {c for c in rest if table.format in ("csv", "tsv") and names[c] != "title"}
    attributes = [(_numeric(raw[c]) if c in guess else raw[c]).alias(names[c]) for c in rest]
    return pl.DataFrame([ids.alias(what), *attributes])


def _numeric(column: pl.Series) -> pl.Series:
    """Text of plain numbers -> numbers; anything else, such as 007 or 1e3, stays text."""
    if column.dtype != pl.String or column.null_count() == len(column):
        return column
    for pattern, dtype in ((_INTEGER, pl.Int64), (_NUMBER, pl.Float64)):
        if column.str.contains(pattern).all():
            return column.cast(dtype)
    return column


def _check_zone(name: str) -> None:
    if name == "UTC":
        return
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise InvalidInput(say("Unknown time zone", got=name, allowed="names such as UTC or Europe/Berlin")) from None


def _refuse(column: pl.Series, wrong: pl.Series, what: str, *, remedy: str) -> None:
    """Complain about the first row that is wrong, if any."""
    if wrong.any():
        at = wrong.arg_max() or 0
        raise InvalidInput(say(f"Column {column.name!r} {what} in row {at + 1}", got=column[at], remedy=remedy))
