"""What no store could keep is refused where it enters."""

import math
from typing import Any

import pytest

from rediffuse.errors import InvalidInput
from rediffuse.serving.store import Event, Item

GOOD: dict[str, Any] = {"event_id": "e", "item": "i", "kind": "view", "time_us": 0, "user": "u"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"event_id": ""}, "event_id must be 1 to 256 printable"),
        ({"item": "a\0"}, "item must be"),
        ({"item": "a\ud800"}, "item must be"),
        ({"kind": "x" * 257}, "kind must be"),
        ({"session": "a\nb"}, "session must be"),
        ({"user": 7}, "user must be"),
        ({"user": None}, "needs a user or an anonymous id"),
        ({"user": "p:cookie"}, "must not begin with 'p:'"),
        ({"time_us": -1}, "time_us must be whole"),
        ({"time_us": 1.5}, "time_us must be whole"),
        ({"time_us": True}, "time_us must be whole"),
        ({"time_us": 2**62}, "time_us must be whole"),
        ({"value": math.nan}, "value must be a finite number"),
        ({"value": True}, "value must be a finite number"),
        ({"quantity": None}, "quantity must be a finite number"),
        ({"quantity": math.inf}, "quantity must be a finite number"),
        ({"quantity": -1.0}, "quantity must not be negative"),
        ({"context": {"": "x"}}, "name in context"),
        ({"context": {"a": 3}}, "context 'a' must be text"),
        ({"context": {"a": "x\0"}}, "context 'a' must be text"),
        ({"context": {"a": "\udfff"}}, "context 'a' must be text"),
        ({"context": {"a": "x" * 1025}}, "at most 1024"),
        ({"context": {str(n): "" for n in range(65)}}, "at most 64 entries"),
    ],
)
def test_bad_events(change: dict[str, Any], said: str) -> None:
    Event(**GOOD)
    with pytest.raises(InvalidInput, match=said):
        Event(**{**GOOD, **change})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"item_id": ""}, "item_id must be"),
        ({"group": ""}, "group must be"),
        ({"attributes": {"": 1.0}}, "name of an attribute"),
        ({"attributes": {"a": None}}, "'a' cannot be kept"),
        ({"attributes": {"a": math.inf}}, "'a' cannot be kept"),
        ({"attributes": {"a": ("x", 3)}}, "attribute 'a' must be text"),
        ({"attributes": {"a": "x" * 70_000}}, "at most 65536"),
    ],
)
def test_bad_items(change: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        Item(**{"item_id": "i", **change})
