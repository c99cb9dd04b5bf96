"""Feeds of Google Merchant Center: one table whatever carries it."""

import gzip
import json
import re
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from rediffuse.data import importers
from rediffuse.data.importers import detect, merchant
from rediffuse.data.importers.products import at_level
from rediffuse.errors import InvalidInput
from tests.data.importers.shops import CSV, TSV, XML, doubled, put, told, turned

JSONL = "".join(
    json.dumps(dict(zip(TSV.splitlines()[0].split("\t"), line.split("\t"), strict=True))) + "\n"
    for line in TSV.splitlines()[1:]
)


def refused(message: str) -> Any:
    return pytest.raises(InvalidInput, match=re.escape(message))


def test_a_feed_becomes_a_table_of_items(tmp_path: Path) -> None:
    items = merchant.products(put(tmp_path, "feed.tsv"))
    assert items.rows(named=True)[0] == {
        "item": "007",
        "group_id": "SHIRT",
        "title": "Linen shirt",
        "description": "Cool & light linen",
        "brand": "Ahoy",
        "category_path": ["Tops", "Shirts"],
        "price": Decimal("49.9000"),
        "sale_price": Decimal("39.9000"),
        "currency": "EUR",
        "availability": "in_stock",
        "image_urls": ["https://s/7.jpg", "https://s/7b.jpg", "https://s/7c.jpg"],
        "color": "blue",
        "size": "M",
        "created_at": datetime(2024, 1, 31, 8, tzinfo=UTC),
        "link": "https://s/7",
        "google_product_category": "Apparel > Tops",
        "custom_label_0": "summer",
        "gtin": "4006381333931",
    }
    hat = items.row(by_predicate=pl.col("item") == "H1", named=True)
    assert (hat["group_id"], hat["price"], hat["currency"]) == ("H1", Decimal(1299), "EUR")
    assert (hat["category_path"], hat["availability"]) == (["Apparel", "Hats"], "preorder")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("feed.csv", CSV),
        ("feed.csv", "\ufeff" + CSV.replace("\n", "\r\n")),
        ("feed.csv", CSV.replace("image link", "Image_Link").replace("id,", "ID,", 1)),
        ("feed.xml", XML),
        ("feed.xml.gz", gzip.compress(XML.encode(), mtime=0)),
        ("feed.xml", "\ufeff" + XML),
        ("feed.jsonl", JSONL),
        ("feed.tsv", turned(TSV, 1)),
        ("feed.tsv", doubled(TSV, 1)),
    ],
)
def test_every_carrier_and_order_gives_the_same_table(tmp_path: Path, name: str, content: str | bytes) -> None:
    expected = merchant.products(put(tmp_path, "f.tsv", TSV))
    path = put(tmp_path, name, content)
    assert detect(path) == "merchant"
    assert_frame_equal(merchant.products(path), expected, check_column_order=False)


def test_atom_and_the_api_are_read(tmp_path: Path) -> None:
    atom = (
        '<feed xmlns="http://www.w3.org/2005/Atom" xmlns:g="http://base.google.com/ns/1.0"><entry><id>tag:1</id>'
        '<g:id>1</g:id><title>Hat</title><link href="https://s/1"/><g:price>20 USD</g:price>'
        "<g:additional_image_link>a</g:additional_image_link><g:additional_image_link>b</g:additional_image_link>"
        "<g:image_link>c</g:image_link></entry></feed>"
    )
    found = merchant.products(put(tmp_path, "a.xml", atom)).row(0, named=True)
    assert (found["item"], found["title"], found["link"], found["image_urls"]) == (
        "1",
        "Hat",
        "https://s/1",
        ["c", "a", "b"],
    )
    price = {"amountMicros": "29990000", "currencyCode": "USD"}
    api = {
        "offerId": "1",
        "productAttributes": {"title": "Hat", "price": price, "itemGroupId": "G", "productTypes": ["A > B"]},
    }
    found = merchant.products(put(tmp_path, "a.jsonl", json.dumps(api))).row(0, named=True)
    assert (found["item"], found["group_id"], found["price"], found["currency"]) == ("1", "G", Decimal("29.99"), "USD")
    assert found["category_path"] == ["A", "B"]


def test_twelve_variants_are_one_product(tmp_path: Path) -> None:
    rows = "".join(f"{n}\tShirt\tin_stock\t{20 + n}.00 EUR\tG\tc{n % 3}\n" for n in range(12))
    feed = put(tmp_path, "feed.tsv", "id\ttitle\tavailability\tprice\titem_group_id\tcolor\n" + rows)
    table = importers.products(feed)
    (product,) = at_level(table, "group_id").rows(named=True)
    assert (product["item"], product["price"], product["variants"]) == ("G", Decimal(20), 12)
    assert product["color"] == ["c0", "c1", "c2"]
    assert at_level(table, "item_id").height == 12
    events = put(tmp_path, "e.csv", "user,item\n" + "".join(f"u{n},{n}\n" for n in range(12)) + "u0,G\n")
    data = importers.read(events, feed=feed)
    assert data.catalog.items.ids == ("G",)
    assert data.facts["events_not_in_the_feed"] == 0
    variants = importers.read(events, feed=feed, level="item_id")
    assert len(variants.catalog) == 13


def test_an_event_of_a_product_with_one_variant_is_that_variants(tmp_path: Path) -> None:
    feed = put(tmp_path, "feed.tsv", TSV.replace("\tAhoy\t\t\t\t\tApparel > Hats", "\tAhoy\tHAT\t\t\t\tApparel > Hats"))
    events = put(tmp_path, "e.csv", "user,item\na,HAT\nb,SHIRT\nc,X\n")
    data = importers.read(events, feed=feed, level="item_id")
    assert [item for _, item, _ in told(data)] == ["H1", "SHIRT", "X"]
    assert data.facts["events_not_in_the_feed"] == 1


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "f.tsv",
            TSV.replace("49.90 EUR", "49.90"),
            "Column 'price' holds no price with its currency in row 1. Got '49.90'",
        ),
        ("f.tsv", TSV.replace("49.90 EUR", "49,90 EUR"), "Write it as 1299.50 USD."),
        ("f.tsv", TSV.replace("1299.00 eur", "12 USD"), "prices in several currencies. Got ['EUR', 'USD']"),
        (
            "f.tsv",
            TSV.replace("in stock", "maybe"),
            "Column 'availability' holds no availability in row 1. Got 'maybe'",
        ),
        (
            "f.tsv",
            TSV.replace("2024-01-31T10:00:00+02:00", "1706700000"),
            "a time was expected in row 1. Got '1706700000'",
        ),
        ("f.tsv", TSV.replace("\n7\t", "\n007\t"), "An id stands twice in 'f.tsv', with other values. Got '007'."),
        ("f.tsv", TSV.replace("\n7\t", "\n\t"), "Column 'id' has no id in row 2."),
        ("f.tsv", TSV.replace("id\ttitle", "key\ttitle"), "'f.tsv' has no column 'id'."),
        ("f.tsv", TSV.splitlines()[0] + "\n", "'f.tsv' has no products."),
        ("f.tsv", TSV.encode("utf-16"), "is not UTF-8 text"),
        ("f.csv", CSV.replace('"', "", 1), "A row of 'f.csv' has more fields than its first line. Quote fields"),
        ("f.xml", XML[:-30], "'f.xml' is cut off or no XML. Got '"),
        (
            "f.xml",
            XML.replace("<rss", '<!DOCTYPE r [<!ENTITY a SYSTEM "file:///etc/passwd">]><rss'),
            "declares a document type",
        ),
        ("f.xml", XML.replace("<item>", "<thing>").replace("</item>", "</thing>"), "'f.xml' has no products."),
        ("f.xml", XML.replace("Ahoy", "A" * (2 << 20)), "A text of 'f.xml' in line 3 is longer than 1 MiB."),
        ("f.xml", XML.replace('?xml version="1.0"', '?xml version="1.0" encoding="martian"'), "is cut off or no XML"),
        ("f.xml", XML.replace("Linen", "Lin\xe9n").encode("latin-1"), "is cut off or no XML. Got 'not well-formed"),
    ],
)
def test_what_cannot_stand_is_refused(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    with refused(message):
        merchant.products(put(tmp_path, name, content))


def test_a_feed_alone_holds_no_events(tmp_path: Path) -> None:
    with refused("'feed.tsv' is a feed of products, which holds no events. Give the events too"):
        importers.read(put(tmp_path, "feed.tsv"))
