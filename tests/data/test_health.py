"""What a look at the data finds, each finding by a case that has it and one that has not."""

import json
from datetime import UTC, datetime
from typing import Any

import polars as pl
import pytest

from rediffuse.data.dataset import Dataset
from rediffuse.data.health import Health, health
from rediffuse.data.rules import EventRules

DAY = 86_400_000_000
NOON = int(datetime(2024, 1, 31, 12, tzinfo=UTC).timestamp()) * 1_000_000


def events(count: int = 200, **columns: Any) -> pl.DataFrame:
    """Forty users and ten items, each known from the start, an hour apart."""
    return pl.DataFrame(
        {
            "user": [f"u{n % 40}" for n in range(count)],
            "item": [f"i{n % 10}" for n in range(count)],
            "time_us": [NOON + n * DAY // 24 for n in range(count)],
            **columns,
        }
    )


def look(frame: pl.DataFrame, now_us: int | None = None, **more: Any) -> Health:
    return health(Dataset.from_events("s", frame, **more), now_us)


def said(found: Health, severity: str | None = None) -> str:
    return "\n".join(f"{one.sentence}. {one.remedy}." for one in found.findings if severity in (None, one.severity))


def test_good_data_has_counts_and_no_findings() -> None:
    found = look(events(), NOON + 400 * DAY)
    assert found.findings == ()
    assert found.counts["rows"] == found.counts["events"] == 200
    assert found.counts["density"] == 0.5
    assert found.counts["days"] == pytest.approx(199 / 24)
    assert found.counts["first time"] == NOON
    assert found.counts["users with fewer than 2 events"] == 0
    assert found.counts["users with fewer than 5 events"] == 0
    assert found.counts["items without events"] == 0
    assert found.counts["cold items"] == found.counts["cold users"] == 0
    json.dumps(found.record(), allow_nan=False)


@pytest.mark.parametrize(
    ("frame", "severity", "sentence"),
    [
        (pl.concat([events(), events(7)]), "note", "7 exact duplicates count once"),
        (pl.concat([events(), events(90)]), "warning", "90 exact duplicates count once. Check that the file was not"),
        (
            events().with_columns(time_us=pl.int_range(200)),
            "warning",
            "200 times lie before 1990, the first 1970-01-01",
        ),
        (events().with_columns(time_us=pl.int_range(200)), "warning", "All events stand in one second, 1970-01-01"),
        (
            events().with_columns(pl.col("time_us") // 1_000_000),
            "warning",
            "Times lie before 1990, but read as seconds they would not. Multiply them by 1,000,000.",
        ),
        (
            events().with_columns(pl.col("time_us") // 1000),
            "warning",
            "read as milliseconds they would not. Multiply them",
        ),
        (
            events().with_columns(time_us=NOON + pl.int_range(200)),
            "warning",
            "All events stand in one second, 2024-01-31",
        ),
        (events().with_columns(pl.col("time_us") // DAY * DAY), "note", "All times are midnight"),
        (
            events().with_columns(user=pl.int_range(200).cast(pl.String)),
            "warning",
            "100% of the users with events have a single one",
        ),
        (
            events().with_columns(item=pl.concat_str(pl.col("item"), pl.int_range(200) // 190)),
            "warning",
            "50% of the last 10% of events are of items that no earlier event shows. Methods by id know nothing",
        ),
        (
            events(2000).with_columns(
                user=pl.when(pl.int_range(2000) < 200).then(pl.lit("bot")).otherwise(pl.int_range(2000) % 300)
            ),
            "warning",
            "One user, 'bot', has 10% of all events: it may be a bot, a test account or guests",
        ),
        (
            events(2000).with_columns(
                item=pl.when(pl.int_range(2000) < 900).then(pl.lit("fee")).otherwise(pl.int_range(2000) % 300)
            ),
            "warning",
            "One item, 'fee', has 45% of all events",
        ),
        (events().drop("time_us"), "note", "The order of events is not known"),
        (
            events(kind=["buy", "view"] * 100),
            "note",
            "Events of 2 kinds count alike. Weigh them: --kinds buy=1,view=1.",
        ),
        (
            events(kind=["buy"] * 190 + ["return"] * 10),
            "note",
            "Returns took back 10 purchases (kinds return and buy); both weigh 0",
        ),
    ],
)
def test_each_finding_is_worded(frame: pl.DataFrame, severity: str, sentence: str) -> None:
    assert sentence in said(look(frame), severity)


def test_the_future_is_looked_for_where_now_is_given() -> None:
    last = NOON + 199 * DAY // 24
    assert "times in the future" not in look(events()).counts
    assert look(events(), last - 5 * 60_000_000).counts["times in the future"] == 0
    found = look(events(), last - 2 * 3_600_000_000)
    assert found.counts["times in the future"] == 2
    assert "2 times lie in the future, the last 2024-02-08T19:00:00+00:00. Check the unit" in said(found, "warning")


def test_returns_without_a_purchase_are_counted() -> None:
    found = look(events(3, kind=["return", "buy", "view"]))
    assert "Returns took back 0 purchases; 1 returns found none (kinds return and buy)" in said(found)


def test_what_the_rules_leave_out_is_counted_and_much_of_it_warned_of() -> None:
    found = look(events(kind=["buy"] + ["view"] * 199), rules=EventRules(kinds={"buy": 1}))
    assert found.counts["rows"] == 200
    assert found.counts["left out: kind view"] == 199
    assert "The rules leave out 199 of 200 rows. Check kinds and min_rating." in said(found, "warning")
    half = look(events(kind=["buy", "view"] * 100), rules=EventRules(kinds={"buy": 1}))
    assert "leave out" not in said(half)
    assert "count alike" not in said(
        look(events(kind=["buy", "view"] * 100), rules=EventRules(kinds={"buy": 1, "view": 1}))
    )


def test_rows_of_attributes_and_events_are_compared() -> None:
    items = pl.DataFrame({"item": ["i0", "new", "blank", "i1"], "title": ["a", "b", None, None]})
    found = look(events(), items=items)
    assert found.counts["items without events"] == 2
    assert found.counts["items without attributes"] == 9
    assert "9 items with events have no attributes. Check the ids of the item table." in said(found, "note")
    assert "2 rows of the item table have no events" in said(found, "note")


def test_warnings_come_first_and_the_record_is_kept(tmp_path) -> None:
    data = Dataset.from_events("s", pl.concat([events(), events(90)]).with_columns(kind=pl.Series(["a", "b"] * 145)))
    severities = [one.severity for one in health(data).findings]
    assert severities == sorted(severities, reverse=True)
    facts = data.write(tmp_path / "d", NOON)
    assert json.loads((tmp_path / "d" / "dataset.json").read_text())["health"] == facts["health"]
    assert facts["health"] == health(data, NOON).record()
    assert facts["health"]["counts"]["times in the future"] == 199


def test_one_event_is_possible() -> None:
    assert look(events(1)).counts["events"] == 1
    assert look(events(1)).findings == ()
