"""The canonical order against the plain one: sort by every column, keep the first of equal events."""

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rediffuse.data.canonical import canonical

KINDS = pl.Enum(["buy", "view"])
DEVICES = pl.Enum(["till", "desk"])
"""Their order is that of a file; that of the events is the alphabet's."""
SCHEMA = {
    "user": pl.Int32,
    "item": pl.Int32,
    "time_us": pl.Int64,
    "kind": KINDS,
    "value": pl.Float64,
    "group": pl.String,
    "context_device": DEVICES,
    "context_campaign": pl.String,
    "part": pl.Int8,
}
TIMES = [0, 1_000_000, 3_000_000, 1_700_000_000_000_000, 1_700_000_000_000_001, 2**61, -(2**61)]
ROWS = st.lists(
    st.tuples(
        st.sampled_from([0, 1, 2**31 - 1]),
        st.sampled_from([0, 5, 2**31 - 1]),
        st.sampled_from(TIMES),
        st.sampled_from(["buy", "view", None]),
        st.sampled_from([1.0, 2.0, None]),
        st.sampled_from(["g", "h", None]),
        st.sampled_from(["desk", "till", None]),
        st.sampled_from(["a", "b", None]),
        st.sampled_from([0, 1]),
    ),
    min_size=1,
    max_size=30,
)


def plain(frame: pl.DataFrame, order: str) -> pl.DataFrame:
    first = ["time_us", "item"] if order == "time" else ["item", "time_us"]
    details = ["value", "group", "context_campaign", pl.col("context_device").cast(pl.String)]
    ordered = frame.sort(["user", "part", *first, "kind", *details], nulls_last=True)
    return ordered.unique(["user", "part", "item", "time_us", "kind"], keep="first", maintain_order=True)


@given(rows=ROWS, whole_seconds=st.booleans(), order=st.sampled_from(["time", "none"]))
def test_one_packed_key_sorts_like_all_columns(rows: list[tuple], whole_seconds: bool, order) -> None:
    frame = pl.DataFrame(rows, SCHEMA, orient="row")
    if whole_seconds:
        frame = frame.with_columns(time_us=pl.col("time_us") // 2**30 * 1_000_000)
    found, duplicates = canonical(frame, order)
    expected = plain(frame, order)
    assert found.equals(expected)
    assert duplicates == len(rows) - expected.height


@pytest.mark.parametrize("order", ["time", "none"])
def test_details_settle_ties_and_categories_sort_as_text(order) -> None:
    words = pl.Categorical(pl.Categories.random())
    frame = pl.DataFrame(
        {"user": [0] * 3, "item": [1] * 3, "kind": ["view"] * 3, "time_us": [1, 1, 1], "group": ["z", "b", "c"]},
        {"user": pl.Int32, "item": pl.Int32, "kind": KINDS, "time_us": pl.Int64, "group": words},
    )
    found, duplicates = canonical(frame, order)
    assert found["group"].cast(pl.String).to_list() == ["b"]
    assert duplicates == 2


@pytest.mark.parametrize("order", ["time", "none"])
@pytest.mark.parametrize("dtype", [pl.String, pl.Enum(["z", "b", "c"]), pl.Categorical])
def test_duplicates_that_differ_in_a_context_alone_do_not_depend_on_the_file(order, dtype) -> None:
    frame = pl.DataFrame(
        {"user": [0] * 3, "item": [1] * 3, "kind": ["view"] * 3, "time_us": [1, 1, 1], "context_device": list("zbc")},
        {"user": pl.Int32, "item": pl.Int32, "kind": KINDS, "time_us": pl.Int64, "context_device": dtype},
    )
    for turn in range(3):
        found, duplicates = canonical(pl.concat([frame[turn:], frame[:turn]]), order)
        assert found["context_device"].cast(pl.String).to_list() == ["b"]
        assert duplicates == 2


def test_a_sequence_keeps_its_rows() -> None:
    frame = pl.DataFrame({"user": [1, 0, 1, 0, 1], "item": [5, 4, 5, 3, 1], "part": [1, 0, 0, 0, 0]})
    found, duplicates = canonical(frame, "sequence")
    assert found.rows() == [(0, 4, 0), (0, 3, 0), (1, 5, 0), (1, 1, 0), (1, 5, 1)]
    assert duplicates == 0
