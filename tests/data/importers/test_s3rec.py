"""Sequences of S3-Rec and SASRec: order is kept, ids count from 1, sampled negatives are left alone."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from rediffuse.data.dataset import Dataset
from rediffuse.data.importers.s3rec import load, recognises
from rediffuse.errors import InvalidInput

ROWS = "1 3 1 2\n2 5 4 3 10\n10 1 4 1 2 5\n3 6 7\n4 8 9 10 6 1 2\n"  # 20 events
ATTRIBUTES = {"1": [4, 2, 4], "3": [], "11": [7], "10": ["a"]}


def refused(message: str) -> Any:
    return pytest.raises(InvalidInput, match=re.escape(message))


def folder(place: Path, rows: str = ROWS, attributes: str | None = json.dumps(ATTRIBUTES)) -> Path:
    place.mkdir(exist_ok=True)
    (place / "Beauty.txt").write_text(rows)
    (place / "Beauty_sample.txt").write_text("1 9 8 7\n")
    if attributes is not None:
        (place / "Beauty_item2attributes.json").write_text(attributes)
    return place


def sequences(data: Dataset) -> dict[str, list[str]]:
    names = data.catalog.items
    return {u: names.decode(row) for u, row in zip(data.users.items.ids, data.history().to_lists(), strict=True)}


def test_rows_keep_their_order_and_repeats(tmp_path: Path) -> None:
    data = load(folder(tmp_path))
    assert data.name == "Beauty"
    assert data.events.order == "sequence"
    assert len(data.events) == 20
    assert sequences(data) == {
        "1": ["3", "1", "2"],
        "10": ["1", "4", "1", "2", "5"],
        "2": ["5", "4", "3", "10"],
        "3": ["6", "7"],
        "4": ["8", "9", "10", "6", "1", "2"],
    }
    known = dict(zip(data.catalog.items.ids, data.catalog.attributes["attributes"].to_list(), strict=True))
    assert (known["1"], known["3"], known["11"], known["10"], known["2"]) == (["4", "2"], [], ["7"], ["a"], None)
    assert dict(data.facts) == {
        "format": "s3rec",
        "layout": "s3rec",
        "source": "Beauty.txt",
        "attributes": "Beauty_item2attributes.json",
        "ignored": ["Beauty_sample.txt"],
        "duplicates": 0,
    }
    assert data.split is None


def test_the_file_may_be_named_and_lines_may_move(tmp_path: Path) -> None:
    data = load(folder(tmp_path / "a") / "Beauty.txt", name="b")
    assert data.name == "b"
    turned = "\n".join(ROWS.splitlines()[::-1])
    assert load(folder(tmp_path / "b", turned)).digest() == data.digest()


def test_the_sasrec_layout_gives_the_same(tmp_path: Path) -> None:
    single = [f"{u} {item}" for u, *items in map(str.split, ROWS.splitlines()) for item in items]
    data = load(folder(tmp_path / "a", "\r\n".join(single) + "\r\n"))
    assert data.facts["layout"] == "sasrec"
    assert data.digest() == load(folder(tmp_path / "b")).digest()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("1 2 3\n2 0 4\n", "Line 2 of 'Beauty.txt' holds the id 0, which is padding; ids count from 1. Got '2 0 4'."),
        ("1 2 3\n\n2\n", "Line 3 of 'Beauty.txt' holds a user without items. Got '2'."),
        ("1 2 3\n2 4 5\n1 6 7\n", "Line 3 of 'Beauty.txt' holds a user who stands on an earlier line. Got '1 6 7'."),
        ("1 2 3\n2 4 B00\n", "Line 2 of 'Beauty.txt' holds no id. Got 'B00'."),
        ("", "'Beauty.txt' has no rows"),
    ],
)
def test_wrong_lines_are_named(tmp_path: Path, rows: str, message: str) -> None:
    with refused(message):
        load(folder(tmp_path, rows))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"1": [2', "'Beauty_item2attributes.json' is not JSON."),
        ("[" * 100_000, "'Beauty_item2attributes.json' is not JSON."),
        ("[1]", "'Beauty_item2attributes.json' must hold an object: item -> attributes. Got 'list'."),
        ('{"1": 2}', "gives item '1' no list of attributes. Got '2'."),
        ('{"1": [null]}', "gives item '1' no list of attributes. Got '[None]'."),
        ('{"0": [2]}', "gives item '0' no list of attributes. Got '[2]'. Allowed: lists of numbers, ids from 1."),
    ],
)
def test_wrong_attributes_are_named(tmp_path: Path, content: str, message: str) -> None:
    with refused(message):
        load(folder(tmp_path, attributes=content))


def test_none_or_several_files_are_refused(tmp_path: Path) -> None:
    folder(tmp_path)
    (tmp_path / "Toys.txt").write_text("1 2 3\n")
    with refused("holds several files NAME.txt. Got 'Beauty.txt, Toys.txt'. Name the file itself."):
        load(tmp_path)
    (tmp_path / "empty").mkdir()
    with refused("holds no file NAME.txt"):
        load(tmp_path / "empty")
    with refused("There is no file or folder"):
        load(tmp_path / "none.txt")


def test_only_rows_of_ids_are_recognised(tmp_path: Path) -> None:
    assert recognises(folder(tmp_path / "a"))
    assert recognises(tmp_path / "a" / "Beauty.txt")
    assert not recognises(folder(tmp_path / "b", "user item\n1 2\n"))
    assert not recognises(folder(tmp_path / "c", "1\n2\n"))
    assert not recognises(tmp_path / "none.txt")


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("name", "users", "items", "events", "attributes"),
    [("amazon-beauty", 22_363, 12_101, 198_502, 637), ("amazon-toys", 19_412, 11_924, 167_597, 1_027)],
)
def test_amazon(real: Path, name: str, users: int, items: int, events: int, attributes: int) -> None:
    data = load(real / name)
    assert (len(data.users), len(data.catalog), len(data.events)) == (users, items, events)
    assert data.catalog.attributes["attributes"].explode().n_unique() == attributes
    lengths = data.history().lengths
    assert (lengths.min(), lengths.max()) == (5, 204 if name == "amazon-beauty" else 550)
