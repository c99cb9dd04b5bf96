"""Google Retail, Vertex AI Search for commerce, v2: UserEvent or Product objects as JSON lines.

Addresses and browsers of visitors are never read.
"""

from pathlib import Path
from typing import Unpack

import polars as pl

from rediffuse.data.dataset import Dataset
from rediffuse.data.importers.products import amounts, catalog, paths
from rediffuse.data.importers.records import LINE, TEXT, numbers, peek, records, struct
from rediffuse.data.importers.shop import Wanted, dataset, kinds, listed, moments
from rediffuse.data.importers.tolerance import sound
from rediffuse.errors import InvalidInput, say

KINDS = {
    "detail-page-view": "view",
    "add-to-cart": "cart",
    "remove-from-cart": "cart_remove",
    "purchase-complete": "purchase",
}
"""Their event -> ours; others are counted and left out."""

_TEXTS = pl.List(TEXT)
_EVENTS = {
    **dict.fromkeys(("eventType", "visitorId", "sessionId", "eventTime"), TEXT),
    "userInfo": struct("userId"),
    "productDetails": pl.List(struct("quantity", product=struct("id", priceInfo=struct("price")))),
    "purchaseTransaction": struct("id"),
}
_PRODUCTS = {
    **dict.fromkeys(("id", "type", "primaryProductId", "title", "description", "availability"), TEXT),
    **dict.fromkeys(("categories", "brands", "sizes", "materials", "tags"), _TEXTS),
    "priceInfo": struct("currencyCode", "price", "originalPrice"),
    "images": pl.List(struct("uri")),
    "colorInfo": struct(colors=_TEXTS, colorFamilies=_TEXTS),
    "audience": struct(genders=_TEXTS, ageGroups=_TEXTS),
    **dict.fromkeys(("availableTime", "publishTime", "expireTime"), TEXT),
}
_COLLECTION = "COLLECTION"
_TELLING = ("categories", "priceInfo", "primaryProductId", "brands", "images")


def load(source: Path, **wanted: Unpack[Wanted]) -> Dataset:
    """Read user events, one for each product.

    Args: wanted: what every shop is asked.
    Raises: InvalidInput naming file, record and value for what cannot stand, or when no event is left.
    Limits: events are held in memory.
    """
    _expect(source, "visitorId", "user events")
    dropped: dict[str, int] = {}
    parts: list[pl.DataFrame] = []
    logins: list[pl.DataFrame] = []
    for raw in records(source, _EVENTS):
        user = pl.col("userInfo").struct.field("userId")
        logins.append(raw.select(user_id=user, anonymous_id="visitorId").drop_nulls().unique())
        parts.append(_events(raw, source.name, dropped))
    return dataset(source, "retail_v2", pl.concat(parts), dropped, logins=logins, **wanted)


def products(source: Path) -> pl.DataFrame:
    """The table of items of a file of products, as `products.catalog` gives it; collections are no items.

    Raises: InvalidInput when a record is no product, or as `catalog` says.
    Limits: the table is held in memory.
    """
    _expect(source, "title", "products")
    raw = pl.concat(list(records(source, _PRODUCTS)))
    raw = raw.filter(pl.col("type").fill_null("") != _COLLECTION)

    def first(column: str, field: str = "") -> pl.Series:
        found = raw[column].struct.field(field) if field else raw[column]
        return found.list.first().alias(column)

    info = raw["priceInfo"].struct
    price, listed_price = (amounts(info.field(name).alias(name)) for name in ("price", "originalPrice"))
    reduced = (listed_price > price).fill_null(value=False)
    none = pl.Series([None] * raw.height, dtype=price.dtype)
    colors = first("colorInfo", "colors")
    columns = {
        "item": raw["id"],
        "group_id": raw["primaryProductId"],
        "title": raw["title"],
        "description": raw["description"],
        "brand": first("brands"),
        "category_path": paths(first("categories")),
        "price": listed_price.zip_with(reduced, price),
        "sale_price": price.zip_with(reduced, none),
        "currency": info.field("currencyCode"),
        "availability": raw["availability"].replace("AVAILABILITY_UNSPECIFIED", None),
        "image_urls": raw["images"].list.eval(pl.element().struct.field("uri")).list.drop_nulls(),
        "color": colors.zip_with(colors.is_not_null(), first("colorInfo", "colorFamilies")),
        "size": first("sizes"),
        "gender": first("audience", "genders"),
        "age_group": first("audience", "ageGroups"),
        "material": first("materials"),
        "created_at": raw.select(pl.coalesce("availableTime", "publishTime")).to_series(),
        "expires_at": raw["expireTime"],
    }
    columns = {name: column for name, column in columns.items() if column.count() or name == "item"}
    return catalog(columns, [raw["tags"]] if raw["tags"].count() else [], source.name)


def holds_products(source: Path) -> bool:
    """Whether the first record is a product, not an event."""
    return "eventType" not in peek(source)


def recognises(source: Path) -> bool:
    """Whether the first record is a user event or a product."""
    first = peek(source)
    event = {"eventType", "visitorId"} <= set(first)
    product = isinstance(first.get("title"), str) and "id" in first and sum(name in first for name in _TELLING) >= 2
    return event or product


def _expect(source: Path, field: str, what: str) -> None:
    first = peek(source)
    if first and field not in first:
        raise InvalidInput(
            say(f"{source.name!r} holds no {what}", got=[*first][:8], remedy=f"Each record needs {field}")
        )


def _events(raw: pl.DataFrame, name: str, dropped: dict[str, int]) -> pl.DataFrame:
    raw = kinds(raw.with_columns(time_us=moments(raw, "eventTime", name)), "eventType", KINDS, dropped)
    detail = pl.col("productDetails").struct.field
    frame = listed(raw, "productDetails").select(
        LINE,
        "time_us",
        "kind",
        "place",
        anonymous_id="visitorId",
        user_id=pl.col("userInfo").struct.field("userId"),
        session="sessionId",
        item=detail("product").struct.field("id"),
        transaction=pl.col("purchaseTransaction").struct.field("id"),
        price=detail("product").struct.field("priceInfo").struct.field("price"),
        quantity=detail("quantity"),
    )
    price, quantity = (numbers(frame, column, name) for column in ("price", "quantity"))
    return sound(frame.drop("price", "quantity").with_columns(value=price * quantity.fill_null(1.0)), LINE)
