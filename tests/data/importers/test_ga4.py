"""The export of Google Analytics 4: files, folders of days, what overlaps, who logs in."""

import gzip
import json
import re
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from rediffuse.data import importers
from rediffuse.data.importers import detect, ga4
from rediffuse.data.rules import EventRules
from rediffuse.errors import InvalidInput
from tests.data.importers.shops import GA4, GA4_ROWS, T, keeps_to_its_content, lines, put, told

EXPECTED = [
    ("ann", "007", "view"),
    ("ann", "007", "purchase"),
    ("ann", "H1", "purchase"),
    ("ann", "007", "refund"),
    ("ann", "H1", "refund"),
    ("p:v2", "H1", "view"),
    ("p:v2", "7", "cart"),
]


def refused(message: str) -> Any:
    return pytest.raises(InvalidInput, match=re.escape(message))


def test_events_become_a_dataset(tmp_path: Path) -> None:
    path = put(tmp_path, "events.jsonl")
    assert detect(path) == "ga4"
    data = importers.read(path)
    assert told(data) == EXPECTED
    frame = data.events.frame
    assert frame["time_us"].to_list() == [T + 2, T + 9, T + 9, T + 30, T + 30, T + 5, T + 6]
    assert frame["weight"].to_list() == [1, 0, 0, 0, 0, 1, 1]
    assert frame["value"].to_list() == [49.9, 49.9, None, None, None, None, 49.9]
    assert frame["group"].to_list() == ["v1.11", "t1", "t1", "t1", "t1", "v2.11", "v2.11"]
    assert data.events.contexts == {"country": ("Germany",), "device": ("mobile",)}
    assert data.catalog.titles() == ["Thing 007", "Thing 7", "Thing H1"]
    facts = data.facts
    assert facts["dropped"] == {"event page_view": 1, "event login": 1, "no item": 1, "item of an order again": 1}
    assert facts["left_out"] == {"kind impression": 2}
    assert (facts["visitors_merged_with_users"], facts["visitors_of_several_users"]) == (1, 0)


def test_impressions_come_when_they_are_weighed(tmp_path: Path) -> None:
    data = ga4.load(
        put(tmp_path, "events.jsonl"), rules=EventRules(kinds={"impression": 0.1, "purchase": 1}, returns=())
    )
    assert data.events.kind_counts() == {"impression": 2, "purchase": 2}


def test_the_order_and_the_number_of_rows_do_not_matter(tmp_path: Path) -> None:
    keeps_to_its_content(tmp_path, "events.jsonl", ga4.load, 0)


def test_events_of_one_moment_stand_in_the_order_of_their_batch(tmp_path: Path) -> None:
    rows = GA4_ROWS[3:5]
    data = ga4.load(put(tmp_path, "e.jsonl", lines(*rows)))
    assert [kind for _, _, kind in told(data)] == ["view", "cart"]
    changed = [{**row, "batch_event_index": index} for row, index in zip(rows, ("10", "2"), strict=True)]
    data = ga4.load(put(tmp_path, "e.jsonl", lines(*changed)))
    assert [kind for _, _, kind in told(data)] == ["cart", "view"]


def test_a_folder_of_days_that_overlap_is_one_export(tmp_path: Path) -> None:
    folder = tmp_path / "export"
    folder.mkdir()
    put(folder, "events_20240131-000.jsonl", lines(*GA4_ROWS[:6]))
    put(folder, "events_20240201.jsonl.gz", gzip.compress(lines(*GA4_ROWS[4:]).encode(), mtime=0))
    put(folder, "events_intraday_20240201.jsonl", lines(*GA4_ROWS[:1]).replace("page_view", "view_item"))
    put(folder, "README.txt", "x")
    assert detect(folder) == "ga4"
    assert ga4.load(folder).digest() == ga4.load(put(tmp_path, "events.jsonl")).digest()
    (tmp_path / "none").mkdir()
    with refused("holds no table of the export. Allowed: events_YYYYMMDD"):
        ga4.load(tmp_path / "none")


def test_parquet_is_the_same(tmp_path: Path) -> None:
    rows = [json.loads(line) for line in GA4.splitlines()]
    for row in rows:
        row["event_timestamp"] = int(row["event_timestamp"])
    pl.DataFrame(rows, infer_schema_length=None).write_parquet(tmp_path / "events.parquet")
    path = tmp_path / "events.parquet"
    assert detect(path) == "ga4"
    assert ga4.load(path).digest() == ga4.load(put(tmp_path, "events.jsonl")).digest()
    pl.DataFrame({"event_timestamp": [T], "event_name": ["view_item"], "items": [5]}).write_parquet(path)
    with refused("Column 'items' of 'events.parquet' is nested otherwise than its format says. Got 'Int64'."):
        ga4.load(path)


def test_a_feed_brings_products(tmp_path: Path) -> None:
    data = importers.read(put(tmp_path, "events.jsonl"), feed=put(tmp_path, "feed.tsv"))
    assert {item for _, item, _ in told(data)} == {"SHIRT", "H1"}
    assert data.catalog.attributes["brand"].to_list() == ["Ahoy", "Ahoy"]
    assert data.facts["level"] == "group_id"
    variants = importers.read(put(tmp_path, "events.jsonl"), feed=put(tmp_path, "feed.xml"), level="item_id")
    assert told(variants) == EXPECTED
    with refused("Unknown level. Got 'shop'. Allowed: group_id, item_id."):
        importers.read(put(tmp_path, "events.jsonl"), level="shop")
    with refused("Events of recbole are joined with no feed."):
        importers.read(put(tmp_path, "events.jsonl"), "recbole", feed=put(tmp_path, "feed.tsv"))
    with refused("'events.jsonl' holds events, not products. Got 'ga4'."):
        importers.read(put(tmp_path, "events.jsonl"), feed=put(tmp_path, "events.jsonl"))
    with refused("'feed.tsv' is a feed of products, too. Give the feed, then the events."):
        importers.read(put(tmp_path, "feed.tsv"), feed=put(tmp_path, "feed.tsv"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (GA4.replace(str(T + 2), str((T + 2) // 1000)), "which reads as milliseconds; microseconds were expected"),
        (
            re.sub(r"(\d{10})\d{6}", r"\1", GA4),
            "which reads as seconds; microseconds were expected. Pass --time-unit s.",
        ),
        (GA4.replace(f'"{T}"', "null"), "Column 'event_timestamp' is empty in row 1."),
        (GA4.replace("49.9", '"much"', 1), "Record 2 of 'e.jsonl' holds no number in 'price'. Got 'much'."),
        (GA4[:-40], "Line 10 of 'e.jsonl' is not a JSON object."),
        (
            GA4.replace('"items": []', '"items": {"a": 1}', 1),
            "A field of 'e.jsonl' is nested otherwise than its format says.",
        ),
        (GA4.encode("utf-16"), "is not UTF-8 text"),
        ("", "'e.jsonl' is empty."),
        (lines(GA4_ROWS[0]), "'e.jsonl' holds no event of an item. Got {'event page_view': 1}."),
        (gzip.compress(GA4.encode())[:-9], "is cut off or no gzip file"),
    ],
)
def test_what_cannot_stand_is_refused(tmp_path: Path, content: str | bytes, message: str) -> None:
    with refused(message):
        ga4.load(put(tmp_path, "e.jsonl", content))


def test_seconds_are_read_when_they_are_named(tmp_path: Path) -> None:
    data = ga4.load(put(tmp_path, "e.jsonl", re.sub(r"(\d{10})\d{6}", r"\1", GA4)), time_unit="s")
    assert data.events.frame["time_us"].min() == T


def test_a_visitor_of_two_users_stays_a_visitor(tmp_path: Path) -> None:
    rows = [*GA4_ROWS, {**GA4_ROWS[5], "user_id": "eve", "event_timestamp": str(T + 50)}]
    data = ga4.load(put(tmp_path, "e.jsonl", lines(*rows)))
    assert ("p:v1", "007", "view") in told(data)
    assert data.facts["visitors_of_several_users"] == 1
