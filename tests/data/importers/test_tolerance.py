"""Rows that cannot stand: left out up to a share, told of, and never more."""

import logging
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from rediffuse.data import importers
from rediffuse.data.importers import child
from rediffuse.data.importers.times import to_utc_us
from rediffuse.data.importers.tolerance import readable, tolerating
from rediffuse.errors import InvalidInput
from tests.data.importers.shops import BULK_ORDERS, GA4, ORDERS, PERSONALIZE, RETAIL, SEGMENT, TSV, put

BAD: dict[str, tuple[str, str, Callable[[str], str]]] = {
    "events.jsonl": ("ga4", GA4, lambda text: text.replace('"1706700000000002"', '"soon"')),
    "calls.jsonl": ("segment", SEGMENT, lambda text: text.replace("2024-01-31T10:00:01", "1706700000")),
    "user_events.jsonl": ("retail_v2", RETAIL, lambda text: text.replace("2024-01-31T10:00:02Z", "today")),
    "interactions.csv": ("personalize", PERSONALIZE, lambda text: text.replace("1706700060", "1706700060000")),
    "orders.csv": ("shopify", ORDERS, lambda text: text.replace("20.00", "dear")),
    "bulk_orders.jsonl": ("shopify", BULK_ORDERS, lambda text: text.replace("39.9", "dear")),
}


@pytest.mark.parametrize("name", BAD)
def test_one_bad_row_costs_that_row_alone_where_it_is_tolerated(tmp_path: Path, name: str) -> None:
    form, content, change = BAD[name]
    assert change(content) != content
    whole = importers.read(put(tmp_path, name, content), form)
    path = put(tmp_path, name, change(content))
    with pytest.raises(InvalidInput) as alone:
        importers.read(path, form)
    with tolerating(0.5) as left:
        data = importers.read(path, form)
    assert left.left_out == data.facts["dropped"]["row that cannot stand"] == 1
    assert len(whole.events) - len(data.events) in (0, 1)
    assert len(left.first) == 1
    with (
        tolerating(0.01),
        pytest.raises(InvalidInput, match=r"1 of \d+ rows .* cannot stand. Allowed: a share of 0.01."),
    ):
        importers.read(path, form)
    with tolerating(0), pytest.raises(InvalidInput) as strict:
        importers.read(path, form)
    assert str(strict.value) == str(alone.value)


def test_rows_of_a_feed_are_left_out_too(tmp_path: Path) -> None:
    path = put(tmp_path, "feed.tsv", TSV.replace("1299.00 eur", "dear"))
    with tolerating(0.5) as left:
        items = importers.products(path)
    assert items["item"].to_list() == ["007", "7"]
    assert left.left_out == 1
    assert "Got 'dear'" in left.first[0]
    for wrong, right in (("Preorder", "maybe"), ("2024-01-31T10:00:00+02:00", "soon"), ("H1\t", "\t")):
        with tolerating(0.5) as left:
            assert importers.products(put(tmp_path, "feed.tsv", TSV.replace(wrong, right))).height == 2
        assert left.left_out == 1


def test_a_child_warns_of_what_was_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = put(tmp_path, "feed.tsv", TSV.replace("1299.00 eur", "dear"))
    with caplog.at_level(logging.WARNING):
        assert child.products(path, bad_rows=0.5).height == 2
    assert "1 rows of 'feed.tsv' were left out; the first: Column 'price' holds no price" in caplog.text
    with pytest.raises(InvalidInput, match=r"1 of 3 rows of 'feed.tsv' cannot stand"):
        child.products(path)
    with pytest.raises(InvalidInput, match="from 0 to 1"):
        child.products(path, bad_rows=2)


def test_what_cannot_be_read_is_found_in_halves() -> None:
    column = pl.Series(["2024-01-31", "soon", "2024-02-01", "2024-02-02", "never", "later"])
    assert readable(to_utc_us, column).all()
    with tolerating(0.1):
        assert readable(to_utc_us, column).to_list() == [True, False, True, True, False, False]
