"""Items of a shop's catalog in one shape, whichever feed they came from: a row for each variant.

| column | holds |
|---|---|
| item, group_id | the variant and its product, as text |
| title description brand, availability, currency | text |
| category_path | list of text, broad to narrow |
| price, sale_price | decimals |
| image_urls | list of text |
| color size gender age_group material | text |
| created_at, expires_at | UTC |
| anything else | text, under the feed's own name |
"""

import html
from collections.abc import Mapping, Sequence
from typing import Literal

import polars as pl

from rediffuse.data.importers.names import attribute_names, plain
from rediffuse.data.importers.times import to_utc_us
from rediffuse.data.importers.tolerance import readable, settle, sound
from rediffuse.data.importers.values import read_ids, read_text, refuse_row
from rediffuse.errors import InvalidInput, say

Level = Literal["group_id", "item_id"]
"""What is recommended: products, or their variants."""
AVAILABILITY = ("in_stock", "out_of_stock", "preorder", "backorder")

_MONEY = pl.Decimal(18, 4)
_AMOUNT = r"^[0-9]{1,13}(\.[0-9]+)?$"
_PRICED = r"^([0-9]{1,13}(?:\.[0-9]+)?)\s*([A-Za-z]{3})$"
_LOOKS = ("color", "size", "gender", "age_group", "material")
_TIMES = ("created_at", "expires_at")
_PRICES = ("price", "sale_price")
_COLUMNS = (
    *("item", "group_id", "title", "description", "brand", "category_path", *_PRICES, "currency", "availability"),
    *("image_urls", *_LOOKS, *_TIMES),
)
_LISTS = ("category_path", "image_urls")
_TAG = r"(?is)<script\b.*?</script\s*>|<style\b.*?</style\s*>|<!--.*?-->|<[/!?a-z][^>]*>"
_ROW = "\x00row"
_EPOCH = r"^\s*[0-9.+-]+\s*$"


def found_columns(columns: Sequence[str], names: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Our name -> the first of theirs that is there, whatever its case, spaces and underscores."""
    there = {plain(column): column for column in reversed(columns)}
    out = {
        ours: next((there[plain(name)] for name in known if plain(name) in there), None)
        for ours, known in names.items()
    }
    return {ours: theirs for ours, theirs in out.items() if theirs is not None}


def extras(frame: pl.DataFrame, used: Sequence[str]) -> list[pl.Series]:
    """The columns that no canonical one was made of, as text under their own names; those that are empty are left out."""
    rest = [name for name in frame.columns if name not in used and not frame[name].dtype.is_nested()]
    names = attribute_names(rest, "item", title=False)
    out = [read_any(frame[name]).alias(names[name]) for name in rest]
    return [column.alias(f"{column.name}_") if column.name in _COLUMNS else column for column in out if column.count()]


def catalog(columns: Mapping[str, pl.Series], more: Sequence[pl.Series], source: str) -> pl.DataFrame:
    """The table of items of canonical columns, as far as they are known.

    A row that stands there twice counts once; a variant without a product is a product of its own.

    Args: columns: `item` and others of the table above: prices as decimals, times as ISO 8601 text, categories and
            images as lists.   more: other columns.   source: the file's name.
    Raises: InvalidInput when there is no row, a row has no id, an id stands there twice, prices are in several
        currencies, or an availability or time is none.
    """
    if not len(columns["item"]):
        raise InvalidInput(say(f"{source!r} has no products", remedy="Check that it is whole"))
    item = read_ids(columns["item"]).alias("item")
    group = read_text(columns["group_id"]) if "group_id" in columns else item
    out = {"item": item, "group_id": group.zip_with(group.is_not_null(), item)}
    for name in _COLUMNS:
        if name in columns and name not in out:
            out[name] = _READ.get(name, read_any if name not in (*_LISTS, *_PRICES) else _as_is)(columns[name])
    if "currency" in out and len(several := out["currency"].drop_nulls().unique().sort()) > 1:
        remedy = "Give the feed of one market: prices are compared with each other"
        raise InvalidInput(say(f"{source!r} has prices in several currencies", got=several.to_list(), remedy=remedy))
    frame = pl.DataFrame([column.alias(name) for name, column in out.items()] + list(more))
    frame = sound(frame.with_row_index(_ROW, offset=1), _ROW).drop(_ROW).unique().sort("item")
    settle(source, frame.height)
    twice = frame.filter(frame["item"].is_duplicated())
    if twice.height:
        remedy = "Keep one row for each variant"
        raise InvalidInput(
            say(f"An id stands twice in {source!r}, with other values", got=twice["item"][0], remedy=remedy)
        )
    return frame.select(pl.exclude(pl.Null))


def at_level(products: pl.DataFrame, level: Level) -> pl.DataFrame:
    """The items that are recommended: variants as they are, or a row for each product.

    A product takes the values of its own row, else of its first variant that has one; the lowest price, the looks of all
    variants as lists, in stock where one of them is. A product's own row is no variant where it has others.
    """
    own = pl.col("item") == pl.col("group_id")
    if level == "item_id":
        return products.filter(~own | (pl.len().over("group_id") == 1))
    looks = [name for name in _LOOKS if name in products.columns]
    prices = [name for name in _PRICES if name in products.columns]
    rest = [name for name in products.columns if name not in {"item", "group_id", "availability", *looks, *prices}]
    how = [
        *(pl.col(name).drop_nulls().first() for name in rest),
        *(pl.col(name).min() for name in prices),
        *(pl.col(name).drop_nulls().unique().sort() for name in looks),
        *(
            pl.col(name).cast(pl.Enum(AVAILABILITY)).min().cast(pl.String)
            for name in ("availability",)
            if name in products.columns
        ),
    ]
    grouped = products.sort(~own, "item").group_by("group_id", maintain_order=True)
    return grouped.agg(*how, variants=(~own).sum().clip(1)).rename({"group_id": "item"}).sort("item")


def read_any(column: pl.Series) -> pl.Series:
    """Any column as text; empty text is null. Raises: InvalidInput for one of lists or records."""
    if column.dtype.is_nested():
        got, remedy = str(column.dtype), "Write one value a cell"
        raise InvalidInput(say(f"Column {column.name!r} holds lists or records", got=got, remedy=remedy))
    return read_text(column.cast(pl.String)).alias(column.name)


def amounts(column: pl.Series) -> pl.Series:
    """Plain numbers -> decimals. Raises: InvalidInput naming the column, the first that is none and its row."""
    text = read_any(column)
    wrong = ~text.str.contains(_AMOUNT).fill_null(value=True)
    refuse_row(column, wrong, "holds no price", 0, remedy="Write it as 1299.50")
    return text.set(wrong, None).cast(pl.Float64).cast(_MONEY)


def money(column: pl.Series) -> tuple[pl.Series, pl.Series]:
    """`29.99 USD` -> (decimals, currency codes). Raises: InvalidInput naming the column, the first that is none, its row."""
    text = read_any(column)
    parts = text.str.extract_groups(_PRICED).struct.unnest()
    amount, code = (parts.to_series(place) for place in (0, 1))
    wrong = text.is_not_null() & amount.is_null()
    refuse_row(column, wrong, "holds no price with its currency", 0, remedy="Write it as 1299.50 USD")
    return amount.cast(pl.Float64).cast(_MONEY), code.str.to_uppercase()


def paths(column: pl.Series) -> pl.Series:
    """`A > B > C` -> lists from broad to narrow."""
    parts = read_any(column).str.split(">").list.eval(pl.element().str.strip_chars())
    return parts.list.eval(pl.element().filter(pl.element() != ""))


def prose(column: pl.Series) -> pl.Series:
    """HTML -> its text, white space squeezed."""
    bare = read_any(column).str.replace_all(_TAG, " ")
    return (
        pl.Series(column.name, [None if text is None else html.unescape(text) for text in bare], dtype=pl.String)
        .str.replace_all(r"\s+", " ")
        .str.strip_chars()
    )


def _times(column: pl.Series) -> pl.Series:
    """ISO 8601 text -> date-times, null where there is none. Raises: InvalidInput for numbers and what is no time."""
    text = read_any(column)
    wrong = text.str.contains(_EPOCH).fill_null(value=False)
    refuse_row(column, wrong, "holds a number where a time was expected", 0, remedy="Write 2024-01-31T10:00:00Z")
    there = (text.is_not_null() & ~wrong).arg_true()
    good = readable(to_utc_us, text.gather(there))
    none = pl.repeat(value=False, n=len(text), dtype=pl.Boolean, eager=True).scatter(there.filter(~good), values=True)
    refuse_row(column, none, "holds no time", 0, remedy="Write 2024-01-31T10:00:00Z")
    out = pl.Series(column.name, [None] * len(text), dtype=pl.Int64)
    if good.any():
        out = out.scatter(there.filter(good), to_utc_us(text.gather(there.filter(good))))
    return out.cast(pl.Datetime("us", "UTC"))


def _availability(column: pl.Series) -> pl.Series:
    text = read_any(column).str.to_lowercase().str.replace_all(r"[\s-]+", "_")
    text = text.replace({"pre_order": "preorder", "back_order": "backorder", "available_for_order": "in_stock"})
    wrong = ~text.is_in(AVAILABILITY).fill_null(value=True)
    refuse_row(column, wrong, "holds no availability", 0, remedy=f"Write one of {', '.join(AVAILABILITY)}")
    return text


def _as_is(column: pl.Series) -> pl.Series:
    return column


_READ = {"description": prose, "availability": _availability, **dict.fromkeys(_TIMES, _times)}
