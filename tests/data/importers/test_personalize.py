"""AWS Personalize: interactions, items, users."""

import re
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from rediffuse.data import importers
from rediffuse.data.importers import detect, personalize
from rediffuse.errors import InvalidInput
from tests.data.importers.shops import PERSONALIZE, PERSONALIZE_ITEMS, keeps_to_its_content, put, told

EXPECTED = [("ann", "007", "view"), ("ann", "007", "purchase"), ("ben", "7", "cart"), ("ben", "H1", "click")]


def refused(message: str) -> Any:
    return pytest.raises(InvalidInput, match=re.escape(message))


def test_interactions_become_a_dataset(tmp_path: Path) -> None:
    path = put(tmp_path, "interactions.csv")
    assert detect(path) == "personalize"
    users = put(tmp_path, "users.csv", "USER_ID,MEMBER\nann,gold\neve,none\n")
    data = personalize.load(path, users=users)
    assert told(data) == EXPECTED
    assert data.events.frame["value"].to_list() == [None, 49.9, None, None]
    assert data.events.frame["time_us"][0] == 1_706_700_000_000_000
    assert data.users.attributes["MEMBER"].to_list() == ["gold", None, "none"]
    assert data.users.items.ids == ("ann", "ben", "eve")


def test_the_order_and_the_number_of_rows_do_not_matter(tmp_path: Path) -> None:
    keeps_to_its_content(tmp_path, "interactions.csv", personalize.load, 1)


def test_items_become_a_table(tmp_path: Path) -> None:
    path = put(tmp_path, "items.csv")
    assert detect(path) == "personalize"
    assert importers.holds_products(path)
    assert importers.products(path).row(0, named=True) == {
        "item": "007",
        "group_id": "007",
        "description": "Cool",
        "category_path": ["Tops", "Shirts"],
        "price": Decimal("49.9000"),
        "COLOUR": ["blue", "white"],
        "created_at": datetime(2024, 1, 30, 7, 33, 20, tzinfo=UTC),
    }
    data = importers.read(put(tmp_path, "interactions.csv"), feed=path)
    assert told(data) == EXPECTED
    assert data.catalog.attributes["category_path"].to_list() == [["Tops", "Shirts"], ["Tops", "Shirts"], ["Hats"]]


def test_event_types_are_told_and_never_guessed(tmp_path: Path) -> None:
    path = put(tmp_path, "i.csv", PERSONALIZE.replace("View", "Streamed"))
    with refused("Unknown EVENT_TYPE. Got 'Streamed'. Allowed: impression, view,"):
        personalize.load(path)
    with refused("Got 'Streamed=seen'."):
        personalize.load(path, event_types={"Streamed": "seen"})
    assert told(personalize.load(path, event_types={"Streamed": "view"})) == EXPECTED
    without = "".join(",".join(line.split(",")[:3]) + "\n" for line in PERSONALIZE.splitlines())
    assert not personalize.load(put(tmp_path, "i.csv", without)).events.kinds


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            PERSONALIZE.replace("1706700", "1706700000"),
            "which reads as milliseconds; seconds were expected. Pass --time-unit ms.",
        ),
        (PERSONALIZE.replace("1706700060", "1706700060000"), "Bring the column to one unit and pass --time-unit s."),
        (PERSONALIZE.replace("49.9", "much"), "Record 2 of 'i.csv' holds no number in 'EVENT_VALUE'. Got 'much'."),
        (PERSONALIZE.replace("TIMESTAMP", "WHEN"), "'i.csv' has no column 'TIMESTAMP'."),
        (PERSONALIZE.splitlines()[0], "'i.csv' has no rows."),
        (PERSONALIZE_ITEMS, "'i.csv' has no column 'USER_ID'."),
        (PERSONALIZE.encode()[:-9] + b"\xff", "is not UTF-8 text"),
    ],
)
def test_what_cannot_stand_is_refused(tmp_path: Path, content: str | bytes, message: str) -> None:
    with refused(message):
        personalize.load(put(tmp_path, "i.csv", content))
