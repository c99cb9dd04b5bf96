"""Shopify's products and orders: CSV files, with the headers of both generations, and bulk operations (`shopify_bulk.py`).

Rows of one handle are the variants of a product: later ones leave its fields empty, some only add an image. Orders name
their items by SKU, and customers by an address, which becomes a hash.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Unpack

import polars as pl

from rediffuse.data.dataset import Dataset
from rediffuse.data.importers import shopify_bulk as bulk
from rediffuse.data.importers.names import plain
from rediffuse.data.importers.products import amounts, catalog, extras, found_columns, paths, prose, read_any
from rediffuse.data.importers.reading import open_table
from rediffuse.data.importers.records import LINE, numbers, peek
from rediffuse.data.importers.shop import Wanted, dataset, moments
from rediffuse.data.importers.tolerance import sound
from rediffuse.errors import InvalidInput, say

CUSTOMER = "e:"
"""How the id of a customer begins who is known by a hashed address."""

_PRODUCT = {
    "group_id": ("Handle", "URL handle"),
    "title": ("Title",),
    "description": ("Body (HTML)", "Description"),
    "brand": ("Vendor",),
    "category": ("Product Category",),
    "type": ("Type",),
    "tags": ("Tags",),
    "status": ("Status",),
    "published": ("Published", "Published on online store"),
    "gift_card": ("Gift Card",),
}
"""What a product's first row holds for all of its rows."""
_VARIANT = {
    "item": ("Variant SKU", "SKU"),
    "price": ("Variant Price", "Price"),
    "compared": ("Variant Compare At Price", "Compare-at price"),
    "stock": ("Variant Inventory Qty", "Inventory quantity"),
    **{f"option{n}": (f"Option{n} Value",) for n in (1, 2, 3)},
}
_NAMED = {f"name{n}": (f"Option{n} Name",) for n in (1, 2, 3)}
_IMAGES = {
    "image": ("Image Src", "Product image URL"),
    "at": ("Image Position",),
    "own_image": ("Variant Image", "Variant image URL"),
}
_LOOKS = {"color": ("color", "colour"), "size": ("size",), "material": ("material",)}
_ORDER = {
    "transaction": ("Name",),
    "email": ("Email",),
    "created": ("Created at",),
    "cancelled": ("Cancelled at",),
    "item": ("Lineitem sku",),
    "title": ("Lineitem name",),
    "quantity": ("Lineitem quantity",),
    "price": ("Lineitem price",),
}
_HANDLES = frozenset(map(plain, _PRODUCT["group_id"]))


def user_of(email: str) -> str:
    """The id that a customer's address becomes: letters in lower case, hashed."""
    return CUSTOMER + hashlib.sha256(email.strip().lower().encode()).hexdigest()[:32]


def load(source: Path, **wanted: Unpack[Wanted]) -> Dataset:
    """Read orders: each line is a purchase, a cancelled order is refunded, addresses are hashed.

    Args: wanted: what every shop is asked; a table of items is joined by SKU.
    Raises: InvalidInput naming file, record and value for what cannot stand, or when no event is left.
    Limits: orders are held in memory.
    """
    dropped: dict[str, int] = {}
    log = _orders(source) if bulk.kind_of(source) is None else bulk.orders(source, dropped, user_of)
    return dataset(source, "shopify", log, dropped, **wanted)


def _orders(source: Path) -> pl.DataFrame:
    """The lines of a CSV file of orders, as a log of a shop."""
    table = open_table(source)
    found = found_columns(table.columns, _ORDER)
    for ours in ("transaction", "email", "created", "title"):
        if ours not in found:
            shown = ", ".join(map(repr, table.columns[:12]))
            raise InvalidInput(
                say(f"{source.name!r} has no column {_ORDER[ours][0]!r}", got=shown, remedy="Export orders")
            )
    raw = table.read([*found.values()]).select(pl.col(theirs).alias(ours) for ours, theirs in found.items())
    raw = pl.DataFrame([read_any(raw[ours]) if ours in found else _none(ours, raw.height) for ours in _ORDER])
    raw = raw.with_row_index(LINE, offset=1)
    filled = [pl.col(column).min().over("transaction") for column in ("email", "created", "cancelled")]
    raw = raw.with_columns(filled).filter(pl.col("created").is_not_null())
    if raw.is_empty():
        raise InvalidInput(say(f"{source.name!r} holds no order with its time", remedy="Check that it is whole"))
    price, quantity = (numbers(raw, column, source.name) for column in ("price", "quantity"))
    raw = raw.with_columns(value=price * quantity.fill_null(1.0), time_us=moments(raw, "created", source.name))
    gone = raw.filter(pl.col("cancelled").is_not_null())
    ends = gone.select(LINE, gone_us=moments(gone, "cancelled", source.name))
    raw = sound(raw.join(ends, on=LINE, how="left", maintain_order="left"), LINE)
    bought = raw.select(
        LINE,
        "title",
        "value",
        "transaction",
        "time_us",
        kind=pl.lit("purchase"),
        user_id=pl.Series(None if text is None else user_of(text) for text in raw["email"]),
        item=pl.coalesce("item", "title"),
    )
    refunds = bought.with_columns(time_us=raw["gone_us"], kind=pl.lit("refund")).drop_nulls("time_us")
    return pl.concat([bought, refunds])


def products(source: Path) -> pl.DataFrame:
    """The table of items of a file of products, as `products.catalog` gives it; prices have no currency here.

    The item is the SKU, else the handle with the values of the options; a price below the compare-at price is a sale.
    Raises: InvalidInput when it has no handles, or as `catalog` says.
    Limits: the table is held in memory.
    """
    if bulk.kind_of(source) is not None:
        return bulk.products(source, _LOOKS)
    table = open_table(source)
    whole = table.read(table.columns)
    names = {**_PRODUCT, **_VARIANT, **_NAMED, **_IMAGES}
    found = found_columns(whole.columns, names)
    if "group_id" not in found:
        shown = ", ".join(map(repr, whole.columns[:12]))
        raise InvalidInput(
            say(f"{source.name!r} has no column 'Handle' or 'URL handle'", got=shown, remedy="Export products")
        )
    more = extras(whole, [*found.values()])
    raw = pl.DataFrame(
        [read_any(whole[found[ours]]).alias(ours) if ours in found else _none(ours, whole.height) for ours in names]
    )
    raw = raw.with_columns(group_id=pl.coalesce("group_id", "title"))
    wrong = raw["group_id"].is_null()
    if wrong.any():
        row = (wrong.arg_max() or 0) + 1
        raise InvalidInput(
            say(f"Row {row} of {source.name!r} has neither handle nor title", remedy="Give it its handle")
        )
    told = [pl.col(name).min().over("group_id") for name in (*_PRODUCT, *_NAMED) if name != "group_id"]
    images = _images(raw)
    raw = raw.with_columns(told)
    options = [f"option{n}" for n in (1, 2, 3)]
    variant = raw.select(pl.any_horizontal(pl.col("item", "price", *options).is_not_null())).to_series()
    raw, more = raw.filter(variant), [column.filter(variant) for column in more]
    made = pl.concat_str("group_id", *options, separator="/", ignore_nulls=True)
    price, compared = amounts(raw["price"]), amounts(raw["compared"])
    reduced = (compared > price).fill_null(value=False)
    looks = _looks(raw)
    columns = {
        "item": raw.select(pl.coalesce("item", made)).to_series(),
        "group_id": raw["group_id"],
        "title": raw["title"],
        "description": prose(raw["description"]),
        "brand": raw["brand"],
        "category_path": paths(raw.select(pl.coalesce("category", "type")).to_series()),
        "price": compared.zip_with(reduced, price),
        "sale_price": price.zip_with(reduced, pl.Series([None] * len(price), dtype=price.dtype)),
        "availability": _stock(raw["stock"]),
        "image_urls": raw.join(images, on="group_id", how="left", maintain_order="left")["urls"],
        **looks,
    }
    columns = {name: column for name, column in columns.items() if column.count() or name == "item"}
    kept = [raw[name] for name in ("type", "status", "published", "gift_card") if raw[name].count()]
    if raw["tags"].count():
        kept.append(raw["tags"].str.split(",").list.eval(pl.element().str.strip_chars()))
    taken = {column.name for column in kept}
    return catalog(columns, [*kept, *(column for column in more if column.name not in taken)], source.name)


def holds_products(source: Path) -> bool:
    """Whether it is a file of products, not of orders."""
    kind = bulk.kind_of(source)
    return _lineitem(source) is None if kind is None else kind not in bulk.ORDERS


def recognises(source: Path) -> bool:
    """Whether the header is that of products, of either generation, or of orders; or the first line a bulk operation's."""
    if (kind := bulk.kind_of(source)) is not None:
        return kind in (*bulk.PRODUCTS, *bulk.ORDERS)
    names = {plain(name) for name in peek(source)}
    products = bool(names & _HANDLES) and {"title", "vendor"} <= names
    return products or (_lineitem(source) is not None and "createdat" in names)


def _lineitem(source: Path) -> str | None:
    return next((name for name in peek(source) if plain(name).startswith("lineitem")), None)


def _none(name: str, height: int) -> pl.Series:
    return pl.Series(name, [None] * height, dtype=pl.String)


def _images(raw: pl.DataFrame) -> pl.DataFrame:
    """Handle -> its images in their order."""
    rows = raw.select("group_id", url="image", at=pl.col("at").cast(pl.Int64, strict=False))
    own = raw.select("group_id", url="own_image", at=pl.lit(None, dtype=pl.Int64))
    all_of = pl.concat([rows, own]).drop_nulls("url").sort("group_id", "at", "url", nulls_last=True)
    return all_of.unique(["group_id", "url"], keep="first", maintain_order=True).group_by("group_id").agg(urls="url")


def _looks(raw: pl.DataFrame) -> Mapping[str, pl.Series]:
    """Options that are called color, size or material."""
    out: dict[str, pl.Series] = {}
    for look, words in _LOOKS.items():
        picked = [pl.when(pl.col(f"name{n}").str.to_lowercase().is_in(words)).then(f"option{n}") for n in (1, 2, 3)]
        out[look] = raw.select(pl.coalesce(picked)).to_series()
    return out


def _stock(column: pl.Series) -> pl.Series:
    """A count of pieces -> whether there are any."""
    there = column.cast(pl.Float64, strict=False) > 0
    return (
        there.to_frame("there")
        .select(pl.when(pl.col("there")).then(pl.lit("in_stock")).when(~pl.col("there")).then(pl.lit("out_of_stock")))
        .to_series()
    )
