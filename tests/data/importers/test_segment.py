"""Segment's calls: products, orders, visitors who log in."""

import re
from pathlib import Path
from typing import Any

import pytest

from rediffuse.data import importers
from rediffuse.data.importers import detect, segment
from rediffuse.errors import InvalidInput
from tests.data.importers.shops import SEGMENT, SEGMENT_ROWS, keeps_to_its_content, lines, put, told

EXPECTED = [
    ("ann", "SHIRT", "view"),
    ("ann", "SHIRT", "cart"),
    ("ann", "HAT", "purchase"),
    ("ann", "SHIRT", "purchase"),
    ("ann", "HAT", "refund"),
    ("ann", "SHIRT", "refund"),
    ("p:v2", "HAT", "view"),
    ("p:v2", "HAT", "rating"),
]


def refused(message: str) -> Any:
    return pytest.raises(InvalidInput, match=re.escape(message))


def test_calls_become_a_dataset(tmp_path: Path) -> None:
    path = put(tmp_path, "calls.jsonl")
    assert detect(path) == "segment"
    data = importers.read(path)
    assert told(data) == EXPECTED
    frame = data.events.frame
    assert frame["value"].to_list() == [49.9, 99.8, 20.0, 49.9, None, None, None, 4.0]
    assert {"m1", "m5", "m5.1"} < set(frame["event_id"])
    assert data.facts["dropped"] == {"event Products Searched": 1, "event identify call": 1}
    assert data.facts["visitors_merged_with_users"] == 1
    assert data.catalog.titles() == ["HAT", "Linen shirt"]
    assert data.catalog.attributes["category_path"].to_list() == [None, ["Tops"]]


def test_variants_are_skus(tmp_path: Path) -> None:
    data = segment.load(put(tmp_path, "calls.jsonl"), level="item_id")
    assert {item for _, item, _ in told(data)} == {"007", "HAT"}
    feed = importers.read(put(tmp_path, "calls.jsonl"), feed=put(tmp_path, "feed.tsv"))
    assert {item for _, item, _ in told(feed)} == {"SHIRT", "HAT"}
    assert feed.facts["events_not_in_the_feed"] == 4


def test_the_order_and_the_number_of_calls_do_not_matter(tmp_path: Path) -> None:
    keeps_to_its_content(tmp_path, "calls.jsonl", segment.load, 0)


def test_ids_of_an_admin_interface_are_joined_with_and_without_their_prefix(tmp_path: Path) -> None:
    gid = "gid://shopify/Product/123"
    row = {**SEGMENT_ROWS[0], "properties": {"product_id": gid}}
    path = put(tmp_path, "c.jsonl", lines(row))
    assert told(segment.load(path)) == [("p:v1", gid, "view")]
    feed = put(tmp_path, "items.csv", "item_id,title\n123,Hat\n")
    data = importers.read(path, feed=feed)
    assert told(data) == [("p:v1", "123", "view")]
    assert data.catalog.titles() == ["Hat"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            SEGMENT.replace("2024-01-31T10:00:02.000Z", "1706695202000"),
            "Record 2 of 'c.jsonl' holds a number where a time was",
        ),
        (
            SEGMENT.replace("2024-01-31T10:00:02.000Z", "yesterday"),
            "Column 'timestamp' holds 'yesterday' in row 2; this is no time.",
        ),
        (SEGMENT.replace("49.9", '"dear"', 1), "Record 1 of 'c.jsonl' holds no number in 'price'. Got 'dear'."),
        (SEGMENT.replace('"properties": {', '"properties": [', 1), "Line 1 of 'c.jsonl' is not a JSON object."),
        (SEGMENT.replace("Product Viewed", "P\x00"), "'c.jsonl' holds"),
        (SEGMENT[:-30], "Line 8 of 'c.jsonl' is not a JSON object."),
    ],
)
def test_what_cannot_stand_is_refused(tmp_path: Path, content: str, message: str) -> None:
    if "\x00" in content:
        with refused("'c.jsonl' is no text"):
            segment.load(put(tmp_path, "c.jsonl", content))
        return
    with refused(message):
        segment.load(put(tmp_path, "c.jsonl", content))
