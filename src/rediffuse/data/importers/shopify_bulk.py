"""Shopify's bulk operations of the Admin API: products or orders as JSON lines, children known by `__parentId`.

Children may stand anywhere. Ids are kept whole, `gid://shopify/Product/1`; events may name the bare number, too.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from rediffuse.data.importers.products import amounts, catalog, paths, prose
from rediffuse.data.importers.records import LINE, TEXT, numbers, peek, records, struct
from rediffuse.data.importers.shop import moments
from rediffuse.data.importers.tolerance import sound
from rediffuse.errors import InvalidInput, say

PRODUCTS = ("Product", "ProductVariant", "ProductImage", "MediaImage")
ORDERS = ("Order", "LineItem")

_GID = re.compile(r"gid://shopify/(\w+)/\S+")
_KIND = pl.col("id").str.extract(r"^gid://shopify/(\w+)/")
_NAMES = ("handle", "title", "descriptionHtml", "vendor", "productType", "status", "createdAt")
_PRODUCT = {
    **dict.fromkeys(("id", "__parentId", *_NAMES), TEXT),
    **dict.fromkeys(("sku", "barcode", "price", "compareAtPrice", "inventoryQuantity", "url"), TEXT),
    "tags": pl.List(TEXT),
    "category": struct("fullName"),
    "selectedOptions": pl.List(struct("name", "value")),
    "image": struct("url"),
}
_ORDER = {
    **dict.fromkeys(("id", "__parentId", "createdAt", "cancelledAt", "email", "title", "quantity"), TEXT),
    **dict.fromkeys(("customer", "product", "variant"), struct("id")),
    "discountedTotalSet": struct(shopMoney=struct("amount")),
}


def kind_of(source: Path) -> str | None:
    """Product, Order, or another kind of thing that the first line is; None where it is no bulk operation's."""
    found = peek(source).get("id")
    match = _GID.fullmatch(found) if isinstance(found, str) else None
    return match[1] if match else None


def orders(source: Path, dropped: dict[str, int], user_of: Any) -> pl.DataFrame:
    """Line items of orders as a log of a shop; a cancelled order is refunded.

    Args: dropped: counts what is left out.   user_of: an address -> the id that it becomes.
    Raises: InvalidInput naming record and value for what cannot stand.
    """
    raw = pl.concat(list(records(source, _ORDER))).with_columns(kind=_KIND)
    heads = raw.filter(pl.col("kind") == "Order")
    heads = heads.with_columns(time_us=moments(heads, "createdAt", source.name))
    gone = heads.filter(pl.col("cancelledAt").is_not_null())
    ends = gone.select("id", gone_us=moments(gone, "cancelledAt", source.name))
    heads = sound(heads.join(ends, on="id", how="left", maintain_order="left"), LINE)
    hashed = pl.Series([None if text is None else user_of(text) for text in heads["email"]], dtype=pl.String)
    heads = heads.select(
        "time_us", "gone_us", __parentId="id", user_id=pl.coalesce(pl.col("customer").struct[0], hashed)
    )
    items = raw.filter(pl.col("kind") == "LineItem")
    value = items["discountedTotalSet"].struct.field("shopMoney").struct.field("amount").alias("discountedTotal")
    value = numbers(items.with_columns(value), "discountedTotal", source.name)
    items = sound(items.with_columns(value=value), LINE)
    lines = items.drop("kind").join(heads, on="__parentId", maintain_order="left")
    if lost := items.height - lines.height:
        dropped["line item without its order"] = lost
    bought = lines.select(
        LINE,
        "title",
        "value",
        "user_id",
        "time_us",
        kind=pl.lit("purchase"),
        event_id="id",
        transaction="__parentId",
        product=pl.col("product").struct.field("id"),
        item=pl.coalesce(
            pl.col("variant").struct.field("id"),
            pl.when(pl.col("product").struct.field("id").is_null()).then("title"),
        ),
    )
    returned = lines.select("id", "gone_us").rename({"id": "event_id", "gone_us": "time_us"}).drop_nulls()
    refunds = bought.drop("time_us").join(returned, on="event_id", maintain_order="left").select(bought.columns)
    refunds = refunds.with_columns(pl.col("event_id") + "#refund", kind=pl.lit("refund"))
    return pl.concat([bought, refunds])


def products(source: Path, looks: Mapping[str, tuple[str, ...]]) -> pl.DataFrame:
    """Variants with what is known of their products, as `products.catalog` gives it; prices have no currency here.

    Args: looks: color and the like -> what an option may be called.
    Raises: InvalidInput when there is no product, or as `catalog` says.
    """
    raw = pl.concat(list(records(source, _PRODUCT))).with_columns(kind=_KIND)
    heads = raw.filter(pl.col("kind") == "Product")
    if heads.is_empty():
        raise InvalidInput(say(f"{source.name!r} has no products", remedy="Ask for id and title of products"))
    told = heads.select(*_NAMES, "tags", "category", __parentId="id")
    variants = raw.filter(pl.col("kind") == "ProductVariant").drop(*_NAMES, "tags", "category")
    alone = heads.filter(~pl.col("id").is_in(variants["__parentId"].implode()))
    alone = alone.select(variants.columns).with_columns(__parentId="id")
    rows = pl.concat([variants, alone]).join(told, on="__parentId", maintain_order="left")
    price, compared = amounts(rows["price"]), amounts(rows["compareAtPrice"])
    reduced = (compared > price).fill_null(value=False)
    stock = numbers(rows, "inventoryQuantity", source.name) > 0
    category = pl.coalesce(pl.col("category").struct.field("fullName"), "productType")
    pictures = rows.select(pl.col("__parentId").alias("id")).join(
        _images(raw), on="id", how="left", maintain_order="left"
    )
    columns = {
        "item": rows["id"],
        "group_id": rows["__parentId"],
        "title": rows["title"],
        "description": prose(rows["descriptionHtml"]),
        "brand": rows["vendor"],
        "category_path": paths(rows.select(category).to_series()),
        "price": compared.zip_with(reduced, price),
        "sale_price": price.zip_with(reduced, pl.Series([None] * len(price), dtype=price.dtype)),
        "availability": stock.replace_strict({True: "in_stock", False: "out_of_stock"}, return_dtype=TEXT),
        "image_urls": pictures["urls"],
        **{look: _option(rows, words) for look, words in looks.items()},
        "created_at": rows["createdAt"],
    }
    columns = {name: column for name, column in columns.items() if column.count() or name == "item"}
    more = [rows[name].alias(plain) for name, plain in (("productType", "type"), ("handle", "handle"))]
    more += [rows[name] for name in ("status", "sku", "barcode", "tags")]
    return catalog(columns, [column for column in more if column.count()], source.name)


def _images(raw: pl.DataFrame) -> pl.DataFrame:
    """Product -> its images in the order of the file."""
    url = pl.coalesce(pl.col("image").struct.field("url"), "url")
    found = raw.filter(pl.col("kind").is_in(("ProductImage", "MediaImage"))).select(id="__parentId", url=url)
    return found.drop_nulls().unique(maintain_order=True).group_by("id", maintain_order=True).agg(urls="url")


def _option(rows: pl.DataFrame, words: tuple[str, ...]) -> pl.Series:
    """The value of an option that is called so."""
    called = pl.element().struct.field("name").str.to_lowercase().is_in(words)
    picked = pl.col("selectedOptions").list.eval(pl.element().filter(called).struct.field("value"))
    return rows.select(picked.list.first()).to_series()
