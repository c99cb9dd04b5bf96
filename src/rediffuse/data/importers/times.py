"""Times as files hold them -> UTC microseconds: epoch numbers, ISO 8601 text, dates.

Seconds, milliseconds and microseconds of the years 1971 to 2100 share no number, so the magnitude tells the unit.
"""

from datetime import UTC, datetime
from typing import Literal, get_args

import polars as pl

from rediffuse.errors import InvalidInput, say

TimeUnit = Literal["s", "ms", "us", "auto"]

EARLIEST_US = int(datetime(1971, 1, 1, tzinfo=UTC).timestamp()) * 1_000_000
LATEST_US = int(datetime(2101, 1, 1, tzinfo=UTC).timestamp()) * 1_000_000
SPAN = "from 1971 to 2100"

_US_PER = {"s": 1_000_000, "ms": 1_000, "us": 1}
_WORDS = {
    "s": "seconds",
    "ms": "milliseconds",
    "us": "microseconds",
    "ns": "nanoseconds",
    "day": "days written YYYYMMDD",
}
_NUMBER = r"^[+-]?[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]+)?$"
_ISO = (
    r"^([0-9]{4}-[0-9]{2}-[0-9]{2})(?:[Tt ]([0-9]{2}:[0-9]{2})(?::([0-9]{2})(?:[.,]([0-9]{1,9}))?)?)?"
    r"\s*(?:Z|z|UTC|GMT|([+-](?:0[0-9]|1[0-4]))(?::?([0-5][0-9]))?)?$"
)
_PLAIN = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}:[0-9]{2}Z?$"


class Clock:
    """Reads times batch by batch: what the first row of a file holds, every row must hold."""

    def __init__(self, unit: TimeUnit = "auto") -> None:
        """Args: unit: what epoch numbers count; "auto" reads it from the magnitude of the first.

        Raises: InvalidInput for an unknown unit.
        """
        if unit not in get_args(TimeUnit):
            raise InvalidInput(say("Unknown time unit", got=unit, allowed=get_args(TimeUnit)))
        self._unit: TimeUnit = unit
        self._expected: str | None = None
        self._numeric: bool | None = None

    def read(self, column: pl.Series, before: int = 0) -> pl.Series:
        """One more batch; what names no offset is UTC.

        Args: column: (n,) epoch numbers (integers, floats or their text), ISO 8601 text, dates or date-times.
            before: rows that stood before it.
        Returns: (n,) Int64, UTC microseconds.
        Raises: InvalidInput naming the column, the first value that is no time, its row (from 1) and the remedy.
        """
        if column.is_empty():
            return column.cast(pl.Int64)
        if isinstance(column.dtype, pl.String | pl.Categorical | pl.Enum):
            column = column.cast(pl.String)
            whole = column.cast(pl.Int64, strict=False)
            if not whole.has_nulls() and self._numeric is not False:
                self._numeric = True
                return self._epochs(whole, before)
            column = column.str.strip_chars().replace("", None)
        remedy = "Give every event a time, or leave the column out: --map time="
        _refuse(column, column.is_null(), "is empty", before, remedy=remedy)
        if column.dtype.is_numeric():
            return self._epochs(column, before)
        if column.dtype == pl.String:
            numeric = column.str.contains(_NUMBER)
            if self._numeric is None:
                self._numeric = bool(numeric.first())
            if self._numeric:
                expected = "numbers were expected, as in row 1"
                _refuse(column, ~numeric, "holds {value!r}", before, expected=expected)
                return self._epochs(_parsed(column), before)
        if self._unit != "auto":
            remedy = "Leave --time-unit out to read dates"
            expected = f"numbers were expected with --time-unit {self._unit}"
            _refuse(column, column.is_not_null(), "holds '{value}'", before, expected=expected, remedy=remedy)
        return _in_span(column, _moments(column), before)

    def _epochs(self, column: pl.Series, before: int) -> pl.Series:
        """Epoch numbers in one unit -> microseconds. Args: column: (n,) numeric, without nulls."""
        labels = _labels(column)
        if self._expected is None:
            self._expected = str(labels.first()) if self._unit == "auto" else self._unit
        expected = self._expected
        wrong = labels.is_null() | (labels != expected) | (labels == "ns")
        if wrong.any():
            raise InvalidInput(_contradiction(column, labels, wrong, self._unit, expected, before))
        if expected == "day":
            days = column.cast(pl.Int64).cast(pl.String).str.replace(r"^(....)(..)", "$1-$2-")
            return _in_span(column, _moments(days), before)
        factor = _US_PER[expected]
        if column.dtype.is_integer():
            return column.cast(pl.Int64) * factor
        return (column.cast(pl.Float64) * factor).round().cast(pl.Int64)


def to_utc_us(column: pl.Series, unit: TimeUnit = "auto") -> pl.Series:
    """Read a whole column of times: `Clock(unit).read(column)`."""
    return Clock(unit).read(column)


def _parsed(column: pl.Series) -> pl.Series:
    """Text of numbers -> integers where all are, else floats."""
    whole = column.str.strip_prefix("+").cast(pl.Int64, strict=False)
    return column.cast(pl.Float64) if whole.has_nulls() else whole


def _labels(column: pl.Series) -> pl.Series:
    """(n,) the unit in which each number lies within the span, null where none does."""
    value = pl.col("value").cast(pl.Float64)
    out = pl.when(value.is_between(19_710_101, 21_001_231)).then(pl.lit("day"))
    for unit, factor in (*_US_PER.items(), ("ns", 1e-3)):
        inside = value.is_between(EARLIEST_US / factor, LATEST_US / factor, closed="left")
        out = out.when(inside).then(pl.lit(unit))
    return column.to_frame("value").select(label=out.otherwise(None))["label"]


def _contradiction(
    column: pl.Series, labels: pl.Series, wrong: pl.Series, unit: TimeUnit, expected: str, before: int
) -> str:
    """Word why the first wrong number cannot stand."""
    at = wrong.arg_max() or 0
    reads = labels[at]
    what = f"Column {column.name!r} holds {column[at]} in row {before + at + 1}"
    if reads is None:
        units = "seconds, milliseconds or microseconds" if unit == "auto" else _WORDS[unit]
        return say(f"{what}, which is no time {SPAN} in {units}", remedy="Mend it, or leave it out: --map time=")
    if reads == "ns":
        return say(f"{what}, which reads as nanoseconds", remedy="Divide by 1000 and pass --time-unit us")
    if unit != "auto" and (labels == reads).all():
        fits = "Leave --time-unit out" if reads == "day" else f"Pass --time-unit {reads}"
    else:
        fits = "Bring the column to one unit" + ("" if expected == "day" else f" and pass --time-unit {expected}")
    return say(f"{what}, which reads as {_WORDS[reads]}; {_WORDS[expected]} were expected", remedy=fits)


def _moments(column: pl.Series) -> pl.Series:
    """Dates, date-times or ISO 8601 text -> microseconds, null where a text is no time."""
    if isinstance(column.dtype, pl.Date | pl.Datetime):
        return column.dt.epoch("us")
    if column.dtype != pl.String:
        raise InvalidInput(
            say(
                f"Column {column.name!r} cannot be read as times", got=str(column.dtype), allowed="numbers, text, dates"
            )
        )
    if column.str.contains(_PLAIN).all():  # what most files hold, without a look at each part
        moments = column.str.head(19).str.replace("T", " ", literal=True)
        return moments.str.to_datetime("%Y-%m-%d %H:%M:%S", time_unit="us", strict=False).to_physical()
    part = pl.col("part").struct.field
    day_time = pl.concat_str(
        part("1"), pl.lit(" "), part("2").fill_null("00:00"), pl.lit(":"), part("3").fill_null("00")
    )
    whole = day_time.str.to_datetime("%Y-%m-%d %H:%M:%S", time_unit="us", strict=False).to_physical()
    fraction = part("4").fill_null("0").str.pad_end(6, "0").str.head(6).cast(pl.Int64)
    hours, minutes = (part(name).fill_null("0").cast(pl.Int64) for name in ("5", "6"))
    behind = part("5").str.starts_with("-").fill_null(value=False)
    offset = hours * 60 + pl.when(behind).then(-minutes).otherwise(minutes)
    parts = column.str.extract_groups(_ISO).to_frame("part")
    return parts.select(moment=whole + fraction - offset * 60_000_000)["moment"]


def _in_span(column: pl.Series, moments: pl.Series, before: int) -> pl.Series:
    remedy = "Write times as 2024-01-31T10:00:00Z or as epoch numbers"
    _refuse(column, moments.is_null(), "holds {value!r}", before, expected="this is no time", remedy=remedy)
    outside = ~moments.is_between(EARLIEST_US, LATEST_US, closed="left")
    _refuse(column, outside, "holds '{value}'", before, expected=f"times {SPAN} were expected")
    return moments


def _refuse(
    column: pl.Series, wrong: pl.Series, what: str, before: int, *, expected: str = "", remedy: str = ""
) -> None:
    """Complain about the first row that is wrong, if any. Args: what: may hold {value}."""
    if not wrong.any():
        return
    at = wrong.arg_max() or 0
    shown = what.format(value=column[at])
    tail = f"; {expected}" if expected else ""
    raise InvalidInput(say(f"Column {column.name!r} {shown} in row {before + at + 1}{tail}", remedy=remedy))
