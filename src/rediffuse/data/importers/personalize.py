"""AWS Personalize: the CSV files of interactions, items and users."""

from collections.abc import Mapping
from pathlib import Path
from typing import Unpack

import polars as pl

from rediffuse.data.dataset import Dataset
from rediffuse.data.importers.names import plain
from rediffuse.data.importers.products import amounts, catalog, extras, found_columns, read_any
from rediffuse.data.importers.reading import Table, open_table
from rediffuse.data.importers.records import LINE, numbers, peek
from rediffuse.data.importers.shop import Wanted, dataset, moments
from rediffuse.data.importers.table import attributes
from rediffuse.data.importers.times import Clock, TimeUnit
from rediffuse.data.importers.tolerance import sound
from rediffuse.errors import InvalidInput, say

KINDS = ("impression", "view", "click", "wishlist", "cart", "cart_remove", "checkout", "purchase", "refund", "rating")
"""What an event may be."""

_KNOWN: Mapping[str, tuple[str, ...]] = {
    "impression": ("impression",),
    "view": ("view", "detailpageview", "productview", "viewitem", "watch"),
    "click": ("click", "select"),
    "wishlist": ("wishlist", "addtowishlist", "favorite", "favourite", "like"),
    "cart": ("cart", "addtocart"),
    "cart_remove": ("cartremove", "removefromcart"),
    "checkout": ("checkout", "startcheckout", "begincheckout"),
    "purchase": ("purchase", "buy", "order", "checkoutcomplete"),
    "refund": ("refund", "return", "cancel"),
    "rating": ("rating", "rate", "review"),
}
_WORDS = {word: kind for kind, words in _KNOWN.items() for word in words}
_EVENTS = ("USER_ID", "ITEM_ID", "TIMESTAMP")
_OPTIONAL = ("EVENT_TYPE", "EVENT_VALUE")
_NAMES = {
    "item": ("ITEM_ID",),
    "title": ("TITLE", "PRODUCT_NAME", "NAME"),
    "description": ("PRODUCT_DESCRIPTION",),
    "group_id": ("ITEM_GROUP_ID", "GROUP_ID"),
    "price": ("PRICE",),
    "gender": ("GENDER",),
    "age_group": ("AGE_GROUP",),
    "brand": ("BRAND",),
}
_LEVELS = ("CATEGORY_L1", "CATEGORY_L2", "CATEGORY_L3")
_CREATED = "CREATION_TIMESTAMP"


def load(
    source: Path,
    *,
    event_types: Mapping[str, str] | None = None,
    time_unit: TimeUnit = "s",
    users: Path | None = None,
    **wanted: Unpack[Wanted],
) -> Dataset:
    """Read a file of interactions; the impressions beside them are not read.

    Args: event_types: EVENT_TYPE -> a kind of KINDS, where the word alone does not tell.
        time_unit: what TIMESTAMP counts: Personalize's is seconds.   users: the file of users.
        wanted: what every shop is asked.
    Raises: InvalidInput naming file, record and value for what cannot stand; an EVENT_TYPE that is not known is named.
    Limits: events are held in memory.
    """
    table = open_table(source)
    found = _columns(table, _EVENTS, _OPTIONAL)
    clock, before = Clock(time_unit), 0
    parts: list[pl.DataFrame] = []
    for raw in table.batches([*found.values()]):
        if raw.is_empty():
            continue
        frame = raw.select(pl.col(theirs).alias(ours) for ours, theirs in found.items())
        frame = frame.with_row_index(LINE, offset=before + 1)
        parts.append(_events(frame, source.name, clock, event_types or {}))
        before += raw.height
    if not parts:
        raise InvalidInput(say(f"{source.name!r} has no rows", remedy="Check that it is the file of interactions"))
    return dataset(
        source,
        "personalize",
        pl.concat(parts),
        {},
        users=None if users is None else attributes(open_table(users), "user", "USER_ID"),
        **wanted,
    )


def products(source: Path) -> pl.DataFrame:
    """The table of items of a file of items, as `products.catalog` gives it; several values stand as lists.

    Raises: InvalidInput when it has no ITEM_ID, or as `catalog` says.
    Limits: the table is held in memory.
    """
    table = open_table(source)
    _columns(table, ("ITEM_ID",), ())
    raw = table.read(table.columns)
    found = found_columns(raw.columns, _NAMES)
    columns = {ours: raw[theirs] for ours, theirs in found.items()}
    if "price" in columns:
        columns["price"] = amounts(columns["price"])
    levels = [name for name in raw.columns if plain(name) in map(plain, _LEVELS)]
    if levels:
        texts = [read_any(raw[name]).str.split("|").list.first() for name in sorted(levels)]
        columns["category_path"] = pl.DataFrame(texts).select(pl.concat_list(pl.all()).list.drop_nulls()).to_series()
    created = [name for name in raw.columns if plain(name) == plain(_CREATED)]
    out = catalog(columns, _several(extras(raw, [*found.values(), *levels, *created])), source.name)
    if not created:
        return out
    born = raw.filter(raw[created[0]].is_not_null())
    times = Clock("s").read(born[created[0]]).cast(pl.Datetime("us", "UTC"))
    ids = read_any(born[found["item"]]).alias("item")
    return out.join(pl.DataFrame([ids, times.alias("created_at")]).unique("item"), on="item", how="left")


def kind_of(event_type: str) -> str | None:
    """What an EVENT_TYPE is, None where the word alone does not tell."""
    return _WORDS.get(plain(event_type))


def holds_products(source: Path) -> bool:
    """Whether it is a file of items, not of interactions."""
    return "TIMESTAMP" not in peek(source)


def recognises(source: Path) -> bool:
    """Whether the columns are called as Personalize wants them, in capitals."""
    names = [*peek(source)]
    items = "ITEM_ID" in names and "USER_ID" not in names and len(names) > 1
    return set(_EVENTS) <= set(names) or (items and all(name == name.upper() for name in names))


def _columns(table: Table, required: tuple[str, ...], optional: tuple[str, ...]) -> dict[str, str]:
    found = found_columns(table.columns, {name: (name,) for name in (*required, *optional)})
    for name in required:
        if name not in found:
            shown = ", ".join(map(repr, table.columns[:20]))
            raise InvalidInput(say(f"{table.name!r} has no column {name!r}", got=shown, allowed=", ".join(required)))
    return found


def _events(frame: pl.DataFrame, name: str, clock: Clock, event_types: Mapping[str, str]) -> pl.DataFrame:
    time = moments(frame, "TIMESTAMP", name, clock)
    out = frame.select(LINE, user_id=pl.col("USER_ID").cast(pl.String), item=pl.col("ITEM_ID").cast(pl.String))
    out = out.with_columns(time_us=time)
    if "EVENT_TYPE" in frame.columns:
        out = out.with_columns(kind=_kinds(frame["EVENT_TYPE"], event_types))
    if "EVENT_VALUE" in frame.columns:
        text = frame.with_columns(EVENT_VALUE=read_any(frame["EVENT_VALUE"]))
        out = out.with_columns(value=numbers(text, "EVENT_VALUE", name))
    return sound(out, LINE)


def _kinds(column: pl.Series, event_types: Mapping[str, str]) -> pl.Series:
    words = read_any(column)
    table: dict[str, str] = {}
    for word in words.drop_nulls().unique().sort():
        kind = event_types.get(word) or kind_of(word)
        if kind not in KINDS:
            remedy = f"Say what it is: --event-type {word}=view"
            raise InvalidInput(
                say("Unknown EVENT_TYPE", got=f"{word}={kind}" if kind else word, allowed=KINDS, remedy=remedy)
            )
        table[word] = kind
    return words.replace_strict(table, default=None, return_dtype=pl.String)


def _several(columns: list[pl.Series]) -> list[pl.Series]:
    """Columns in which values are joined by | become lists."""
    return [column.str.split("|") if column.str.contains("|", literal=True).any() else column for column in columns]
