"""Events: checked once, seen by user."""

import numpy as np
import polars as pl
import pytest

from rediffuse.data.interactions import Interactions, Order
from rediffuse.errors import InvalidInput


def frame(**more: list[object]) -> pl.DataFrame:
    return pl.DataFrame({"user": [0, 0, 2], "item": [1, 0, 1], "position": [0, 1, 0], **more})


def events(order: Order = "none", **more: list[object]) -> Interactions:
    return Interactions(frame(**more), 3, 2, order)


def test_history_has_a_row_for_each_user_even_without_events() -> None:
    history = events().history()
    assert history.to_lists() == [[1, 0], [], [1]]
    assert history.time_us is None
    assert history.kind is None
    assert events().kinds == ()


def test_history_of_chosen_events_carries_times_and_kinds() -> None:
    some = events("time", time_us=[5, 6, 7], kind=["view", "buy", None])
    assert some.kinds == ("buy", "view")
    history = some.history(np.array([True, False, True]))
    assert history.to_lists() == [[1], [], [1]]
    assert history.time_us is not None
    assert history.kind is not None
    assert history.time_us.tolist() == [5, 7]
    assert history.kind.tolist() == [1, -1]


def test_declared_columns_come_along_as_codes() -> None:
    some = events(context_device=["phone", None, "desk"], context_shop=["b", "a", "a"])
    assert some.contexts == {"device": ("desk", "phone"), "shop": ("a", "b")}
    found = some.history(np.array([False, True, True])).context
    assert {name: codes.tolist() for name, codes in found.items()} == {"device": [-1, 0], "shop": [0, 0]}
    assert events().history().context == {}
    assert len({events(context_a=w).digest() for w in (["x", "y", "x"], ["x", "x", "y"])} | {events().digest()}) == 3
    with pytest.raises(InvalidInput, match="Column 'context_x' of events cannot be Int64"):
        events(context_x=[1, 2, 3])


def test_times_stay_out_of_a_history_whose_order_is_no_time() -> None:
    assert events("sequence", time_us=[5, 6, 7]).history().time_us is None


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (frame().drop("position"), "lack the column 'position'"),
        (frame(mood=["x", "y", "z"]), "Column 'mood' of events cannot be String"),
        (frame().cast({"item": pl.Float64}), "Column 'item' of events cannot be Float64"),
        (frame().with_columns(item=2**40), "Column 'item' of events holds a number beyond Int32"),
        (frame().with_columns(user=pl.Series([0, 0, 3])), r"'user' lies outside 0\.\.2"),
        (frame().with_columns(item=pl.Series([0, -1, 0])), r"'item' lies outside 0\.\.1"),
        (frame().with_columns(item=pl.Series([0, None, 0])), r"'item' lies outside 0\.\.1"),
    ],
)
def test_columns_types_and_ranges_are_checked(table: pl.DataFrame, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        Interactions(table, 3, 2, "none")


@pytest.mark.parametrize("table", [frame(), frame(time_us=[1, None, 2])])
def test_order_by_time_needs_every_time(table: pl.DataFrame) -> None:
    with pytest.raises(InvalidInput, match="needs the time of every event"):
        Interactions(table, 3, 2, "time")


def test_no_event_is_possible() -> None:
    none = Interactions(frame().clear(), 3, 2, "none")
    assert len(none) == 0
    assert none.history().to_lists() == [[], [], []]


def test_digest_tells_content_apart() -> None:
    variants = [
        events(),
        events("sequence"),
        events(kind=["a", "b", "c"]),
        events(kind=["a", None, "c"]),
        events(value=[1.0, None, 2.0]),
        Interactions(frame(), 4, 2, "none"),
    ]
    assert len({one.digest() for one in variants}) == len(variants)
    assert events(kind=["a", None, "c"]).digest() == events(kind=["a", None, "c"]).digest()
