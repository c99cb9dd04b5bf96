"""Google Retail: user events and products as JSON lines."""

import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from rediffuse.data import importers
from rediffuse.data.importers import detect, retail_v2
from rediffuse.data.importers.products import at_level
from rediffuse.errors import InvalidInput
from tests.data.importers.shops import RETAIL, RETAIL_PRODUCTS, keeps_to_its_content, put, told

EXPECTED = [("ann", "007", "view"), ("ann", "7", "cart"), ("ann", "007", "purchase"), ("ann", "H1", "purchase")]


def refused(message: str) -> Any:
    return pytest.raises(InvalidInput, match=re.escape(message))


def test_user_events_become_a_dataset(tmp_path: Path) -> None:
    path = put(tmp_path, "user_events.jsonl")
    assert detect(path) == "retail_v2"
    data = importers.read(path)
    assert told(data) == [*EXPECTED, ("p:v2", "SHIRT", "view")]
    assert data.facts["dropped"] == {"event home-page-view": 1, "event search": 1}
    data.write(tmp_path / "d")
    assert not any(b"1.2.3.4" in file.read_bytes() for file in (tmp_path / "d").iterdir())


def test_the_order_and_the_number_of_rows_do_not_matter(tmp_path: Path) -> None:
    keeps_to_its_content(tmp_path, "user_events.jsonl", retail_v2.load, 0)


def test_products_become_a_table_of_items(tmp_path: Path) -> None:
    path = put(tmp_path, "products.jsonl")
    assert detect(path) == "retail_v2"
    assert importers.holds_products(path)
    assert not importers.holds_products(put(tmp_path, "user_events.jsonl"))
    items = importers.products(path)
    blue = items.row(0, named=True)
    assert {
        name: blue[name] for name in ("item", "group_id", "brand", "category_path", "currency", "availability")
    } == {
        "item": "007",
        "group_id": "SHIRT",
        "brand": "Ahoy",
        "category_path": ["Tops", "Shirts"],
        "currency": "EUR",
        "availability": "in_stock",
    }
    assert (blue["price"], blue["sale_price"]) == (Decimal("49.9000"), Decimal("39.9000"))
    assert items["item"].to_list() == ["007", "7", "H1", "SHIRT"]
    assert at_level(items, "item_id")["item"].to_list() == ["007", "7", "H1"]
    hat, shirt = at_level(items, "group_id").rows(named=True)
    assert (shirt["description"], shirt["color"], shirt["variants"]) == ("Cool", ["red"], 2)
    assert (hat["image_urls"], str(hat["expires_at"])) == (["https://s/h.jpg"], "2025-01-01 00:00:00+00:00")


def test_events_of_a_product_belong_to_it(tmp_path: Path) -> None:
    data = importers.read(put(tmp_path, "user_events.jsonl"), feed=put(tmp_path, "products.jsonl"))
    assert {item for _, item, _ in told(data)} == {"SHIRT", "H1"}
    assert data.facts["events_not_in_the_feed"] == 0
    variants = importers.read(put(tmp_path, "user_events.jsonl"), feed=put(tmp_path, "products.jsonl"), level="item_id")
    assert told(variants) == [*EXPECTED, ("p:v2", "SHIRT", "view")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            RETAIL.replace("2024-01-31T10:00:02Z", "1706695202"),
            "Record 2 of 'e.jsonl' holds a number where a time was expected",
        ),
        (RETAIL.replace('"quantity": 1', '"quantity": "two"', 2), "holds no number in 'quantity'. Got 'two'."),
        (RETAIL[:-20], "Line 6 of 'e.jsonl' is not a JSON object."),
        (RETAIL.replace('[{"product"', '{"product"', 1), "Line 2 of 'e.jsonl' is not a JSON object."),
        (RETAIL_PRODUCTS, "'e.jsonl' holds no user events. Got ['id', 'type', 'title'"),
    ],
)
def test_events_that_cannot_stand_are_refused(tmp_path: Path, content: str, message: str) -> None:
    with refused(message):
        retail_v2.load(put(tmp_path, "e.jsonl", content))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (RETAIL, "'p.jsonl' holds no products. Got ['eventType'"),
        (RETAIL_PRODUCTS.replace("39.9", '"cheap"'), "Column 'price' holds no price in row 2. Got 'cheap'."),
        (
            RETAIL_PRODUCTS.replace('"categories": [', '"categories": {"a": [', 1),
            "Line 1 of 'p.jsonl' is not a JSON object.",
        ),
        (
            RETAIL_PRODUCTS.replace('"id": "7"', '"id": "007"'),
            "An id stands twice in 'p.jsonl', with other values. Got '007'.",
        ),
        (RETAIL_PRODUCTS.replace("IN_STOCK", "PERHAPS"), "Column 'availability' holds no availability in row 2."),
    ],
)
def test_products_that_cannot_stand_are_refused(tmp_path: Path, content: str, message: str) -> None:
    with refused(message):
        retail_v2.products(put(tmp_path, "p.jsonl", content))
