"""Times of every shape become UTC microseconds, or are refused with the row and the remedy."""

import re
from datetime import UTC, date, datetime, time, timedelta, timezone
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rediffuse.data.importers.times import EARLIEST_US, LATEST_US, TimeUnit, to_utc_us
from rediffuse.errors import InvalidInput

S = 1_700_000_000
US = S * 1_000_000
NOON = int(datetime(2024, 1, 31, 12, tzinfo=UTC).timestamp()) * 1_000_000


def read(values: list[Any], unit: TimeUnit = "auto", dtype: Any = None) -> list[int]:
    out = to_utc_us(pl.Series("ts", values, dtype=dtype), unit)
    assert out.dtype == pl.Int64
    return out.to_list()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([S, S + 1], [US, US + 1_000_000]),
        ([S * 1000 + 7], [US + 7000]),
        ([US + 7], [US + 7]),
        ([S + 0.25], [US + 250_000]),
        ([S * 1000 + 0.5], [US + 500]),
        ([f"{S}", f"+{S}", f" {S} "], [US, US, US]),
        ([f"{US + 1}"], [US + 1]),
        ([f"{S}.123456", f"{S}."], [US + 123_456, US]),
        (["1.7e9"], [US]),
    ],
)
def test_epoch_numbers_are_read_by_their_magnitude(values: list[Any], expected: list[int]) -> None:
    assert read(values) == expected


@pytest.mark.parametrize("dtype", [pl.UInt64, pl.Float64, pl.Decimal(20, 0), pl.Int64])
def test_any_number_type_will_do(dtype: Any) -> None:
    assert read([S], dtype=dtype) == [US]
    assert read([S], "s", dtype=dtype) == [US]


@given(moment=st.integers(EARLIEST_US, LATEST_US - 1))
def test_every_moment_of_the_span_survives_every_unit(moment: int) -> None:
    assert read([moment]) == [moment]
    assert read([moment], "us") == [moment]
    assert read([moment // 1000]) == [moment // 1000 * 1000]
    assert read([moment // 10**6]) == [moment // 10**6 * 10**6]
    assert read([datetime.fromtimestamp(moment / 1e6, tz=UTC).isoformat(timespec="milliseconds")]) == pytest.approx(
        [moment], abs=1000
    )


@pytest.mark.parametrize(
    "text",
    [
        "2024-01-31T12:00:00Z",
        "2024-01-31T12:00:00z",
        "2024-01-31 12:00",
        "2024-01-31t12:00:00.000000000",
        "2024-01-31T12:00:00,0+00",
        "2024-01-31 12:00:00 UTC",
        "2024-01-31T14:00:00+02:00",
        "2024-01-31T09:30:00-0230",
        "2024-02-01T02:00:00+14",
        "  2024-01-31T12:00:00 GMT ",
    ],
)
def test_iso_text_with_and_without_offset(text: str) -> None:
    assert read([text]) == [NOON]


def test_fractions_are_cut_to_microseconds() -> None:
    assert read(["2024-01-31T12:00:00.1", "2024-01-31T12:00:00.1234569Z"]) == [NOON + 100_000, NOON + 123_456]


def test_dates_are_midnight_utc() -> None:
    midnight = NOON - 12 * 3600 * 10**6
    for values in ([date(2024, 1, 31)], ["2024-01-31"], [20240131], ["20240131"], [20240131.0]):
        assert read(values) == [midnight]


def test_date_times_of_a_file_are_converted() -> None:
    east = timezone(timedelta(hours=2))
    assert read([datetime(2024, 1, 31, 12)]) == [NOON]  # noqa: DTZ001  # a naive time is the case
    assert read([datetime(2024, 1, 31, 14, tzinfo=east)]) == [NOON]
    assert read([NOON // 1000], dtype=pl.Datetime("ms")) == [NOON]
    assert read([NOON * 1000 + 999], dtype=pl.Datetime("ns", "Europe/Berlin")) == [NOON]


def test_categories_are_text_and_nothing_is_nothing() -> None:
    assert read(["2024-01-31T12:00"], dtype=pl.Categorical) == [NOON]
    assert read([], dtype=pl.String) == []


@pytest.mark.parametrize(
    ("values", "unit", "message"),
    [
        (
            [S],
            "ms",
            "holds 1700000000 in row 1, which reads as seconds; milliseconds were expected. Pass --time-unit s.",
        ),
        ([S * 1000], "s", "which reads as milliseconds; seconds were expected. Pass --time-unit ms."),
        ([US], "ms", "which reads as microseconds; milliseconds were expected. Pass --time-unit us."),
        ([20240131], "s", "which reads as days written YYYYMMDD; seconds were expected. Leave --time-unit out."),
        ([S * 1000, S], "ms", "holds 1700000000 in row 2, which reads as seconds; milliseconds were expected. Bring"),
        (
            [S, S * 1000],
            "auto",
            "in row 2, which reads as milliseconds; seconds were expected. Bring the column to one",
        ),
        ([S, 20240131], "auto", "in row 2, which reads as days written YYYYMMDD; seconds were expected. Bring"),
        (
            [20240131, S],
            "auto",
            "which reads as seconds; days written YYYYMMDD were expected. Bring the column to one unit.",
        ),
        ([US * 1000], "auto", "reads as nanoseconds. Divide by 1000 and pass --time-unit us."),
        ([US * 1000], "s", "reads as nanoseconds. Divide by 1000"),
        (
            [S, 12],
            "auto",
            "holds 12 in row 2, which is no time from 1971 to 2100 in seconds, milliseconds or microseconds",
        ),
        ([0, S], "s", "holds 0 in row 1, which is no time from 1971 to 2100 in seconds. Mend it"),
        ([-S], "auto", "holds -1700000000 in row 1, which is no time"),
        ([2**64 - 1], "auto", "which is no time"),
        ([float("nan")], "auto", "holds nan in row 1, which is no time"),
        ([float(S), float("inf")], "auto", "holds inf in row 2, which is no time"),
        (["1e999"], "auto", "holds inf in row 1, which is no time"),
        ([S, None], "auto", "is empty in row 2. Give every event a time"),
        (["2024-01-31", " "], "auto", "is empty in row 2."),
        ([None, None], "auto", "is empty in row 1."),
        ([f"{S}", "yesterday"], "auto", "holds 'yesterday' in row 2; numbers were expected, as in row 1."),
        (
            ["2024-01-31", "yesterday"],
            "auto",
            "holds 'yesterday' in row 2; this is no time. Write times as 2024-01-31T",
        ),
        (["2024-01-31", f"{S}"], "auto", f"holds '{S}' in row 2; this is no time."),
        (["2023-02-29"], "auto", "holds '2023-02-29' in row 1; this is no time."),
        (["2024-01-31T25:00:00"], "auto", "this is no time."),
        (["2024-01-31T12:00:00+19:00"], "auto", "this is no time."),
        (["31.01.2024"], "auto", "this is no time."),
        (["٢٠٢٤"], "auto", "this is no time."),
        ([20240230], "auto", "holds 20240230 in row 1; this is no time."),
        (["9999-12-31"], "auto", "holds '9999-12-31' in row 1; times from 1971 to 2100 were expected."),
        ([date(1970, 1, 1)], "auto", "holds '1970-01-01' in row 1; times from 1971 to 2100"),
        (["2024-01-31"], "ms", "holds '2024-01-31' in row 1; numbers were expected with --time-unit ms. Leave"),
        ([date(2024, 1, 31)], "s", "numbers were expected with --time-unit s."),
        ([time(12)], "auto", "cannot be read as times. Got 'Time'. Allowed: numbers, text, dates."),
        ([True], "auto", "cannot be read as times. Got 'Boolean'."),
        ([S], "minutes", "Unknown time unit. Got 'minutes'. Allowed: s, ms, us, auto."),
    ],
)
def test_what_is_no_time_is_refused(values: list[Any], unit: Any, message: str) -> None:
    with pytest.raises(InvalidInput, match=re.escape(message)) as refused:
        read(values, unit, pl.UInt64 if values == [2**64 - 1] else None)
    assert unit == "minutes" or str(refused.value).startswith("Column 'ts' ")
