"""Any table of events, with or without tables of items and users: CSV, TSV, JSONL, parquet.

Columns are found by well-known names unless they are named; ids are text, whatever the file calls them.
"""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, get_args
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import polars as pl

from rediffuse.data.context import MOST_WORDS, NOT_WORDS
from rediffuse.data.dataset import Dataset
from rediffuse.data.importers.names import attribute_names, match, match_column, match_id
from rediffuse.data.importers.products import Level
from rediffuse.data.importers.reading import Table, open_table, stem
from rediffuse.data.importers.shop import joined
from rediffuse.data.importers.times import Clock, TimeUnit
from rediffuse.data.importers.values import Words, read_ids, read_numbers, read_text, refuse_row
from rediffuse.data.interactions import CONTEXT, Order
from rediffuse.data.rules import EventRules
from rediffuse.errors import InvalidInput, say

_NAMES = {"time": "time_us"}
_INTEGER = r"^-?(0|[1-9][0-9]{0,17})$"
_NUMBER = r"^-?(0|[1-9][0-9]*)(\.[0-9]+)?$"


def load(
    source: Path,
    *,
    columns: Mapping[str, str] | None = None,
    order: Order | None = None,
    time_unit: TimeUnit = "auto",
    items: Path | None = None,
    users: Path | None = None,
    products: pl.DataFrame | None = None,
    level: Level = "group_id",
    contexts: Mapping[str, str] | None = None,
    name: str | None = None,
    time_zone: str = "UTC",
    rules: EventRules | None = None,
) -> Dataset:
    """Read a table with a row for each event.

    Args: columns: our name (user, item, time, kind, value, group, event_id) -> the file's; an empty one leaves ours
            out. What is not given is found by well-known names.
        order: None: "time" when there is a time column, else "none"; "sequence": rows stand in the order of events.
        time_unit: what numbers in the time column count; times without offset are UTC.
        items, users: tables of attributes with an id column.
        products, level: a table of items of a feed, and what of it is recommended; instead of `items`.
        contexts: name -> column of words that tell of the moment of an event: its device, its channel.
        time_zone: the shop's, for seasons.
        rules: which events count, and how much; None: all alike.
    Raises: InvalidInput when a file cannot be read, a column is missing or ambiguous, or a value is not what its
        column should hold; the first such value and its row (from 1, after the header) are named.
    Limits: a file of any size is read some rows at a time; the events are held in memory, about 30 bytes each and as
        much again while they are sorted, besides each distinct id once. Tables of attributes are held whole.
    """
    _check_zone(time_zone)
    table = open_table(source)
    found = match(table.columns, columns or {})
    if order is not None and order not in get_args(Order):
        raise InvalidInput(say("Unknown order", got=order, allowed=get_args(Order)))
    if order == "time" and "time" not in found:
        shown = ", ".join(map(repr, table.columns))
        raise InvalidInput(say(f"No column is called like 'time'. Columns: {shown}", remedy="Pass --map time=COLUMN"))
    told = _contexts(table, contexts or {})
    frame = _events(table, {**found, **told}, time_unit)
    facts: dict[str, Any] = {"format": table.format, "source": source.name, "columns": found, "rows": frame.height}
    if told:
        facts["contexts"] = {column.removeprefix(CONTEXT): _count_words(frame[column], told[column]) for column in told}
    tables: dict[str, pl.DataFrame] = {}
    for what, path in (("item", items), ("user", users)):
        if path is not None:
            tables[what] = attributes(open_table(path), what, found[what])
            facts[f"{what}s"] = path.name
    if products is not None:
        frame, of_feed, counts = joined(frame.with_columns(pl.col("item").cast(pl.String)), products, level)
        tables |= {} if of_feed is None else {"item": of_feed}
        facts |= {**counts, "level": level}
    return Dataset.from_events(
        name or stem(source),
        frame,
        order=order,
        items=tables.get("item"),
        users=tables.get("user"),
        facts=facts,
        time_zone=time_zone,
        rules=rules or EventRules(),
    )


def products(source: Path) -> pl.DataFrame:
    """Any table of items as a feed: `item`, `group_id` where it has one, and its attributes.

    Raises: InvalidInput when no column is called like the id of an item, or an id stands twice.
    """
    found = attributes(open_table(source), "item", "item_id")
    group = pl.col("group_id").cast(pl.String) if "group_id" in found.columns else pl.lit(None, dtype=pl.String)
    return found.with_columns(group_id=pl.coalesce(group, "item"))


def _events(table: Table, found: Mapping[str, str], unit: TimeUnit) -> pl.DataFrame:
    """The events, read some rows at a time; ids and other text that repeats are kept once."""
    readers: dict[str, Callable[[pl.Series, int], pl.Series]] = {
        "user": Words(ids=True).read,
        "item": Words(ids=True).read,
        "time": Clock(unit).read,
        "kind": Words().read,
        "value": read_numbers,
        "group": Words().read,
        "event_id": read_text,
        **{name: Words().read for name in found if name.startswith(CONTEXT)},
    }
    parts: list[pl.DataFrame] = []
    before = 0
    with ThreadPoolExecutor(max_workers=2) as pool:  # one thread fills a dictionary: two columns at a time
        for raw in table.batches(sorted(set(found.values()))):
            jobs = {ours: pool.submit(readers[ours], raw[theirs], before) for ours, theirs in found.items()}
            parts.append(pl.DataFrame([job.result().alias(_NAMES.get(ours, ours)) for ours, job in jobs.items()]))
            before += raw.height
    if not before:
        raise InvalidInput(say(f"{table.name!r} has no rows", remedy="Check that it is the file of events"))
    return pl.concat(parts)


def _contexts(table: Table, given: Mapping[str, str]) -> dict[str, str]:
    """Our column -> theirs. Raises: InvalidInput for a column that is not there, or a name that is taken."""
    for name in given:
        if name in NOT_WORDS:
            remedy = f"Give it another: --context my_{name}={given[name]}"
            raise InvalidInput(
                say("A context cannot take the name of a condition that is known anyway", got=name, remedy=remedy)
            )
    return {CONTEXT + name: match_column(name, theirs, table.columns) for name, theirs in given.items()}


def _count_words(column: pl.Series, theirs: str) -> int:
    """How many different words a context has. Raises: InvalidInput when it has none, or too many to tell moments apart."""
    count = column.drop_nulls().n_unique()
    if not 1 <= count <= MOST_WORDS:
        remedy = "Take a column of few words, such as the device or the channel"
        raise InvalidInput(
            say(
                f"Column {theirs!r} is no context: it has {count:,} different words",
                allowed=f"1..{MOST_WORDS}",
                remedy=remedy,
            )
        )
    return count


def attributes(table: Table, what: str, like: str) -> pl.DataFrame:
    """An attribute table with its ids in the column `item` or `user`."""
    identity = match_id(table.columns, what, like)
    raw = table.read(table.columns)
    rest = [c for c in table.columns if c != identity]
    names = attribute_names(rest, what, title=what == "item")
    ids = read_ids(raw[identity])
    twice = ids.is_duplicated()
    remedy = f"Keep one row for each {what}"
    refuse_row(raw[identity], twice, "holds an id that stands there twice", 0, remedy=remedy)
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
