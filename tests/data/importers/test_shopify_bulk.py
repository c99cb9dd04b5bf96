"""Shopify's bulk operations: products and orders as JSON lines."""

from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from rediffuse.data import importers
from rediffuse.data.importers import detect, shopify
from rediffuse.errors import InvalidInput
from tests.data.importers.shops import (
    BULK_ORDERS,
    BULK_PRODUCTS,
    doubled,
    keeps_to_its_content,
    lines,
    put,
    told,
    turned,
)

SHIRT, HAT = "gid://shopify/Product/1", "gid://shopify/Product/2"
BLUE, RED = "gid://shopify/ProductVariant/11", "gid://shopify/ProductVariant/12"


def test_products_become_a_table_of_items(tmp_path: Path) -> None:
    items = shopify.products(put(tmp_path, "bulk_products.jsonl"))
    hat, blue, red = items.sort("item").rows(named=True)
    assert (blue["item"], blue["group_id"], blue["title"], blue["description"]) == (
        BLUE,
        SHIRT,
        "Linen shirt",
        "Cool & light",
    )
    assert (blue["price"], blue["sale_price"], blue["availability"]) == (
        Decimal("49.9000"),
        Decimal("39.9000"),
        "in_stock",
    )
    assert (blue["color"], blue["size"], blue["sku"], blue["type"]) == ("blue", "M", "007", "Shirts")
    assert (blue["category_path"], blue["tags"]) == (["Apparel", "Tops"], ["summer"])
    assert blue["image_urls"] == red["image_urls"] == ["https://s/7.jpg"]
    assert (red["item"], red["price"], red["availability"], red["color"]) == (
        RED,
        Decimal("49.9000"),
        "out_of_stock",
        None,
    )
    assert (hat["item"], hat["group_id"], hat["title"], hat["price"]) == (HAT, HAT, "Hat", None)


@pytest.mark.parametrize("change", [turned, doubled])
def test_children_may_stand_anywhere(tmp_path: Path, change: Callable[[str, int], str]) -> None:
    expected = shopify.products(put(tmp_path, "first.jsonl", BULK_PRODUCTS))
    path = put(tmp_path, "other.jsonl", change(BULK_PRODUCTS, 0))
    assert detect(path) == "shopify"
    assert_frame_equal(shopify.products(path), expected)


def test_orders_become_a_dataset_that_joins_the_products(tmp_path: Path) -> None:
    path = put(tmp_path, "bulk_orders.jsonl")
    data = importers.read(path, level="item_id")
    ben = shopify.user_of("ben@example.com")
    ann = "gid://shopify/Customer/1"
    expected = [(ann, BLUE, "purchase"), (ann, "Gift wrap", "purchase"), (ben, HAT, "purchase"), (ben, HAT, "refund")]
    assert sorted(told(data)) == sorted(expected)
    assert data.events.frame.filter(pl.col("weight") == 0).height == 2
    assert data.events.frame["value"].drop_nulls().to_list() == [39.9]
    joined = importers.read(path, feed=put(tmp_path, "bulk_products.jsonl"))
    assert {item for _, item, _ in told(joined)} == {SHIRT, HAT, "Gift wrap"}
    assert joined.facts["events_not_in_the_feed"] == 1


def test_the_order_and_the_number_of_rows_do_not_matter(tmp_path: Path) -> None:
    keeps_to_its_content(tmp_path, "bulk_orders.jsonl", shopify.load, 0)


def test_a_line_item_without_its_order_is_counted(tmp_path: Path) -> None:
    alone = lines({"id": "gid://shopify/LineItem/9", "title": "Hat", "__parentId": "gid://shopify/Order/9"})
    data = importers.read(put(tmp_path, "o.jsonl", BULK_ORDERS + alone))
    assert data.facts["dropped"] == {"line item without its order": 1}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (BULK_ORDERS.replace("2024-01-31T10:00:00Z", "1706700000"), "holds a number where a time was"),
        (
            BULK_ORDERS.replace("39.9", "dear"),
            "Record 2 of 'o.jsonl' holds no number in 'discountedTotal'. Got 'dear'.",
        ),
        (BULK_ORDERS.replace('"quantity": 1,', '"quantity": 1'), "Line 2 of 'o.jsonl' is not a JSON object."),
    ],
)
def test_orders_that_cannot_stand_are_refused(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        shopify.load(put(tmp_path, "o.jsonl", content))


def test_products_that_cannot_stand_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"holds no price in row 1\. Got 'dear'"):
        shopify.products(put(tmp_path, "p.jsonl", BULK_PRODUCTS.replace("39.90", "dear")))
    with pytest.raises(InvalidInput, match="has no products"):
        shopify.products(put(tmp_path, "p.jsonl", lines({"id": BLUE, "sku": "7", "__parentId": SHIRT})))
