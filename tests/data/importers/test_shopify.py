"""Shopify's products, with the headers of both generations, and orders."""

import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from polars.testing import assert_frame_equal

from rediffuse.data import importers
from rediffuse.data.importers import detect, shopify
from rediffuse.data.importers.products import at_level
from rediffuse.errors import InvalidInput
from tests.data.importers.shops import OLD_SHOPIFY, ORDERS, doubled, keeps_to_its_content, put, told, turned

ANN, BEN = shopify.user_of("ann@example.com"), shopify.user_of("ben@example.com")


def refused(message: str) -> Any:
    return pytest.raises(InvalidInput, match=re.escape(message))


def test_a_column_of_lists_is_refused(tmp_path: Path) -> None:
    source = put(tmp_path, "p.jsonl", '{"Handle": "hat", "Tags": ["summer"]}\n')
    with pytest.raises(InvalidInput, match="Column 'Tags' holds lists or records"):
        shopify.products(source)


def test_products_become_a_table_of_items(tmp_path: Path) -> None:
    items = shopify.products(put(tmp_path, "old.csv")).rows(named=True)
    assert items[0] == {
        "item": "007",
        "group_id": "shirt",
        "title": "Linen shirt",
        "description": "Cool & light",
        "brand": "Ahoy",
        "category_path": ["Apparel", "Tops"],
        "price": Decimal("49.9000"),
        "sale_price": Decimal("39.9000"),
        "availability": "in_stock",
        "image_urls": ["https://s/7.jpg", "https://s/8.jpg", "https://s/9.jpg"],
        "color": "blue",
        "size": "M",
        "type": "Shirts",
        "status": "active",
        "tags": ["summer", "linen"],
        "Cost": "11.5",
    }
    red, hat = items[1:]
    assert (red["title"], red["color"], red["size"], red["availability"]) == ("Linen shirt", "red", "L", "out_of_stock")
    assert (red["price"], red["sale_price"]) == (Decimal("49.9000"), None)
    assert (hat["item"], hat["size"], hat["category_path"]) == ("hat/one", "one", ["Hats"])
    assert (hat["price"], hat["sale_price"]) == (Decimal(20), None)
    assert at_level(shopify.products(put(tmp_path, "old.csv")), "group_id")["item"].to_list() == ["hat", "shirt"]


@pytest.mark.parametrize(
    ("name", "content"),
    [("new.csv", None), ("old.csv", turned(OLD_SHOPIFY, 1)), ("old.csv", doubled(OLD_SHOPIFY, 1))],
)
def test_both_generations_and_every_order_give_the_same_table(tmp_path: Path, name: str, content: str | None) -> None:
    expected = shopify.products(put(tmp_path, "first.csv", OLD_SHOPIFY))
    path = put(tmp_path, name, content)
    assert detect(path) == "shopify"
    assert_frame_equal(shopify.products(path), expected)


def test_orders_become_a_dataset_without_addresses(tmp_path: Path) -> None:
    path = put(tmp_path, "orders.csv")
    assert detect(path) == "shopify"
    data = importers.read(path)
    expected = [
        (ANN, "007", "purchase"),
        (ANN, "H1", "purchase"),
        (ANN, "7", "purchase"),
        (ANN, "7", "refund"),
        (BEN, "Gift wrap", "purchase"),
    ]
    assert sorted(told(data)) == sorted(expected)
    assert data.events.frame.filter(data.events.frame["weight"] == 0).height == 2
    assert data.events.frame["group"].to_list()[:2] == ["#1", "#1"]
    data.write(tmp_path / "d")
    assert not any(b"xample.com" in file.read_bytes() for file in (tmp_path / "d").iterdir())
    joined = importers.read(path, feed=put(tmp_path, "new.csv"))
    assert joined.facts["events_not_in_the_feed"] == 2
    assert "shirt" in joined.catalog.items


def test_the_order_and_the_number_of_rows_do_not_matter(tmp_path: Path) -> None:
    keeps_to_its_content(tmp_path, "orders.csv", shopify.load, 1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            ORDERS.replace("2024-01-31 10:00:00 +0200", "1706700000"),
            "Record 1 of 'o.csv' holds a number where a time was",
        ),
        (ORDERS.replace("20.00", "dear"), "Record 2 of 'o.csv' holds no number in 'price'. Got 'dear'."),
        (ORDERS.replace("Created at", "When"), "'o.csv' has no column 'Created at'."),
        (ORDERS.replace("#2,", '#2,"', 1), "'o.csv' cannot be read as fields"),
        (ORDERS.replace("Lineitem name", "Thing"), "'o.csv' has no column 'Lineitem name'."),
        (ORDERS.splitlines()[0], "'o.csv' holds no order with its time."),
    ],
)
def test_orders_that_cannot_stand_are_refused(tmp_path: Path, content: str, message: str) -> None:
    with refused(message):
        shopify.load(put(tmp_path, "o.csv", content))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (OLD_SHOPIFY.replace("39.90", "39,90 EUR"), "has more fields"),
        (OLD_SHOPIFY.replace("39.90", "EUR 39"), "Column 'price' holds no price in row 1. Got 'EUR 39'."),
        (OLD_SHOPIFY.replace(",7,", ",007,"), "An id stands twice in 'p.csv', with other values. Got '007'."),
        (OLD_SHOPIFY.replace("hat,Hat", ","), "Row 4 of 'p.csv' has neither handle nor title."),
        (OLD_SHOPIFY.replace("Handle,", "Grip,"), "'p.csv' has no column 'Handle' or 'URL handle'."),
        (OLD_SHOPIFY.replace("é", "e").encode("utf-16"), "is not UTF-8 text"),
        (OLD_SHOPIFY.splitlines()[0], "'p.csv' has no products."),
    ],
)
def test_products_that_cannot_stand_are_refused(tmp_path: Path, content: str | bytes, message: str) -> None:
    with refused(message):
        shopify.products(put(tmp_path, "p.csv", content))
