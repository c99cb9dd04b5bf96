"""Google Analytics 4 as BigQuery exports it: JSONL (also .gz) or parquet, a file or a folder of daily tables.

A table events_intraday_YYYYMMDD gives way to events_YYYYMMDD. Rows that several files hold count once, so the last days,
which Google still changes, may be fetched again and laid beside the others.
"""

import re
from pathlib import Path
from typing import Unpack

import polars as pl

from rediffuse.data.dataset import Dataset
from rediffuse.data.importers.records import LINE, TEXT, numbers, peek, records, struct
from rediffuse.data.importers.shop import Wanted, dataset, kinds, listed, moments
from rediffuse.data.importers.times import Clock, TimeUnit
from rediffuse.data.importers.tolerance import sound
from rediffuse.errors import InvalidInput, say

KINDS = {
    "view_item_list": "impression",
    "select_item": "click",
    "view_item": "view",
    "add_to_wishlist": "wishlist",
    "add_to_cart": "cart",
    "remove_from_cart": "cart_remove",
    "begin_checkout": "checkout",
    "purchase": "purchase",
    "refund": "refund",
}
"""Their event -> ours; others are counted and left out."""

_CATEGORIES = ("item_category", *(f"item_category{n}" for n in range(2, 6)))
_TURNS = ("batch_page_id", "batch_ordering_id", "batch_event_index")
_SHAPE = {
    **dict.fromkeys(("event_timestamp", "event_name", "user_id", "user_pseudo_id", *_TURNS), TEXT),
    "event_params": pl.List(struct("key", value=struct("string_value", "int_value"))),
    "device": struct("category"),
    "geo": struct("country"),
    "ecommerce": struct("transaction_id"),
    "items": pl.List(
        struct(
            "item_id", "item_name", "item_brand", *_CATEGORIES, "price", "quantity", "item_revenue", "item_list_index"
        )
    ),
}
_TABLE = re.compile(r"events_(intraday_)?(\d{8})\b.*\.(jsonl?|ndjson|parquet|pq)(\.gz)?")


def load(
    source: Path,
    *,
    time_unit: TimeUnit = "us",
    **wanted: Unpack[Wanted],
) -> Dataset:
    """Read events with their items; device and country are contexts.

    Args: time_unit: what event_timestamp counts: Google's is microseconds.   wanted: what every shop is asked.
    Events of one moment are a microsecond apart, in the order of their batches.
    Raises: InvalidInput naming file, record and value for what cannot stand, or when no event is left.
    Limits: events are held in memory.
    """
    dropped: dict[str, int] = {}
    parts: list[pl.DataFrame] = []
    logins: list[pl.DataFrame] = []
    for path in _files(source):
        clock = Clock(time_unit)
        for raw in records(path, _SHAPE):
            logins.append(raw.select("user_id", anonymous_id="user_pseudo_id").drop_nulls().unique())
            parts.append(_events(raw, path.name, clock, dropped))
    return dataset(source, "ga4", pl.concat(parts), dropped, logins=logins, **wanted)


def recognises(source: Path) -> bool:
    """Whether it is a file with the columns of the export, or a folder of such."""
    if source.is_dir():
        return any(_TABLE.fullmatch(path.name) and recognises(path) for path in sorted(source.iterdir()))
    return {"event_timestamp", "event_name", "user_pseudo_id"} <= set(peek(source))


def _files(source: Path) -> list[Path]:
    """The tables of a folder, without the intraday ones of days that are there."""
    if not source.is_dir():
        return [source]
    found = [(path, match) for path in sorted(source.iterdir()) if (match := _TABLE.fullmatch(path.name))]
    if not found:
        raise InvalidInput(
            say(f"{str(source)!r} holds no table of the export", allowed="events_YYYYMMDD.jsonl or .parquet")
        )
    days = {match[2] for _, match in found if not match[1]}
    return [path for path, match in found if not (match[1] and match[2] in days)]


def _events(raw: pl.DataFrame, name: str, clock: Clock, dropped: dict[str, int]) -> pl.DataFrame:
    time = moments(raw, "event_timestamp", name, clock)
    named = pl.element().struct.field("key") == "ga_session_id"
    session = pl.col("event_params").list.eval(pl.element().filter(named)).list.first().struct.field("value")
    raw = kinds(raw.with_columns(time_us=time), "event_name", KINDS, dropped)
    field = pl.col("items").struct.field
    frame = listed(raw, "items").select(
        LINE,
        "time_us",
        "kind",
        "user_id",
        "place",
        anonymous_id="user_pseudo_id",
        item=field("item_id"),
        transaction=pl.col("ecommerce").struct.field("transaction_id"),
        session=pl.col("user_pseudo_id")
        + "."
        + pl.coalesce(session.struct.field("int_value"), session.struct.field("string_value")),
        turn=pl.concat_str([pl.col(turn).fill_null("").str.zfill(20) for turn in _TURNS]),
        context_device=pl.col("device").struct.field("category"),
        context_country=pl.col("geo").struct.field("country"),
        title=field("item_name"),
        brand=field("item_brand"),
        category_path=pl.concat_list(field(column) for column in _CATEGORIES).list.drop_nulls(),
        price=field("price"),
        quantity=field("quantity"),
        revenue=field("item_revenue"),
    )
    price, quantity, revenue = (numbers(frame, column, name) for column in ("price", "quantity", "revenue"))
    value = revenue.zip_with(revenue.is_not_null(), price * quantity.fill_null(1.0))
    return sound(frame.drop("price", "quantity", "revenue").with_columns(value=value), LINE)
