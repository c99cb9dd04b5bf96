"""Segment's `track` calls as JSON lines, by its e-commerce names, the second generation and the first.

item is the sku, product the product_id; either stands for the other where it is missing.
"""

from pathlib import Path
from typing import Unpack

import polars as pl

from rediffuse.data.dataset import Dataset
from rediffuse.data.importers.records import LINE, TEXT, numbers, peek, records, struct
from rediffuse.data.importers.shop import Wanted, dataset, kinds, listed, moments
from rediffuse.data.importers.tolerance import sound

KINDS = {
    "Product List Viewed": "impression",
    "Product List Filtered": "impression",
    "Viewed Product Category": "impression",
    "Product Clicked": "click",
    "Product Viewed": "view",
    "Viewed Product": "view",
    "Product Added to Wishlist": "wishlist",
    "Product Added": "cart",
    "Added Product": "cart",
    "Product Removed": "cart_remove",
    "Removed Product": "cart_remove",
    "Checkout Started": "checkout",
    "Order Completed": "purchase",
    "Completed Order": "purchase",
    "Order Refunded": "refund",
    "Order Cancelled": "refund",
    "Product Reviewed": "rating",
}
"""Their event -> ours; others are counted and left out."""

_PRODUCT = ("product_id", "sku", "category", "name", "brand", "price", "quantity")
_CALLS = ("track", "identify", "alias", "page", "screen", "group")
_SHAPE = {
    **dict.fromkeys(("type", "event", "userId", "anonymousId", "timestamp", "messageId"), TEXT),
    "properties": struct(*_PRODUCT, "order_id", "rating", products=pl.List(struct(*_PRODUCT))),
}


def load(source: Path, **wanted: Unpack[Wanted]) -> Dataset:
    """Read tracked events; a call of any type that names both ids joins a visitor with a user.

    Args: wanted: what every shop is asked.
    Raises: InvalidInput naming file, record and value for what cannot stand, or when no event is left.
    Limits: events are held in memory.
    """
    dropped: dict[str, int] = {}
    parts: list[pl.DataFrame] = []
    logins: list[pl.DataFrame] = []
    for raw in records(source, _SHAPE):
        logins.append(raw.select(user_id="userId", anonymous_id="anonymousId").drop_nulls().unique())
        parts.append(_events(raw, source.name, dropped))
    return dataset(source, "segment", pl.concat(parts), dropped, logins=logins, **wanted)


def recognises(source: Path) -> bool:
    """Whether the first record is a call of Segment's."""
    first = peek(source)
    return first.get("type") in _CALLS and bool({"userId", "anonymousId"} & set(first)) and "timestamp" in first


def _events(raw: pl.DataFrame, name: str, dropped: dict[str, int]) -> pl.DataFrame:
    raw = raw.with_columns(time_us=moments(raw, "timestamp", name))
    raw = raw.with_columns(event=pl.coalesce("event", pl.col("type") + " call"))
    raw = kinds(raw, "event", KINDS, dropped)
    inside = pl.col("properties").struct.field
    alone = pl.concat_list(pl.struct(inside(field) for field in _PRODUCT))
    raw = raw.with_columns(
        products=pl.when(inside("products").list.len() > 0).then(inside("products")).otherwise(alone)
    )
    field = pl.col("products").struct.field
    frame = listed(raw, "products").select(
        LINE,
        "time_us",
        "kind",
        "place",
        user_id="userId",
        anonymous_id="anonymousId",
        event_id="messageId",
        item=field("sku"),
        product=field("product_id"),
        transaction=inside("order_id"),
        title=field("name"),
        brand=field("brand"),
        category_path=pl.concat_list(field("category")).list.drop_nulls(),
        price=field("price"),
        quantity=field("quantity"),
        rating=inside("rating"),
    )
    price, quantity, rating = (numbers(frame, column, name) for column in ("price", "quantity", "rating"))
    value = rating.zip_with(frame["kind"] == "rating", price * quantity.fill_null(1.0))
    return sound(frame.drop("price", "quantity", "rating").with_columns(value=value), LINE)
