"""What surrounds an event: the season by the shop's calendar, words of users and moments, thirds of the prices."""

from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest
import torch

from rediffuse.data.context import (
    SEASONS,
    context_names,
    contexts_of,
    moments,
    price_tiers,
    season_of,
    share_of_year,
    user_words,
    value_of,
)
from rediffuse.data.dataset import Dataset
from rediffuse.errors import InvalidInput


def us(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 1_000_000


def share(text: str, zone: str = "UTC") -> float:
    return float(share_of_year(torch.tensor([us(text)]), zone)[0])


def shop(**more: object) -> Dataset:
    """Three users and five items; what the second user is and what an event came from is not always known."""
    frame = pl.DataFrame(
        {
            "user": ["a", "a", "b", "b", "c"],
            "item": ["v", "w", "x", "y", "z"],
            "time_us": [us(f"2024-{month}-01") for month in ("01", "04", "07", "10", "12")],
            "context_device": ["phone", "desk", None, "phone", "desk"],
        }
    )
    users = pl.DataFrame(
        {
            "user": ["a", "b", "c"],
            "region": ["north", None, "east"],
            "member": [True, False, True],
            "age": [1, 2, 3],
            "same": ["x", "x", "x"],
            "device": ["x", "y", "z"],
            "season": ["x", "y", "z"],
        }
    )
    items = pl.DataFrame({"item": list("vwxyz"), "price": [1.0, 9.0, None, 5.0, 5.0]})
    return Dataset.from_events("shop", frame, users=users, items=items, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("moment", "zone", "day", "days"),
    [
        ("2023-01-01T00:00", "UTC", 0, 365),
        ("2023-01-01T23:59:59", "UTC", 0, 365),
        ("2023-12-31T23:59:59", "UTC", 364, 365),
        ("2024-12-31T12:00", "UTC", 365, 366),
        ("2024-03-01T00:00", "UTC", 60, 366),
        ("2023-03-01T00:00", "UTC", 59, 365),
        ("1900-03-01T00:00", "UTC", 59, 365),
        # The year turns earlier in Tokyo and later in New York.
        ("2023-12-31T16:00", "Asia/Tokyo", 0, 366),
        ("2023-12-31T14:00", "Asia/Tokyo", 364, 365),
        ("2024-01-01T03:00", "America/New_York", 364, 365),
    ],
)
def test_a_moment_is_a_whole_day_of_the_shops_year(moment: str, zone: str, day: int, days: int) -> None:
    assert share(moment, zone) == pytest.approx(day / days, abs=1e-6)


def test_no_moment_is_no_share() -> None:
    assert share_of_year(torch.zeros(0, dtype=torch.int64)).shape == (0,)
    assert share_of_year(torch.tensor([0, 1])).dtype == torch.float32


def test_a_season_may_be_told_in_several_ways() -> None:
    assert {word: season_of(f" {word.upper()} ") for word in SEASONS} == SEASONS
    assert season_of("2026-01-14") == pytest.approx(13 / 365, abs=1e-6)
    assert season_of("2024-12-31", "Asia/Tokyo") == pytest.approx(365 / 366, abs=1e-6)
    assert season_of("2024-12-31", "America/New_York") == pytest.approx(365 / 366, abs=1e-6)
    assert (season_of("1"), season_of("366")) == (0, 365 / 366)
    assert 0 <= season_of("now") < 1
    # The words mean the middle of their season.
    for word, date in (("spring", "04-15"), ("summer", "07-15"), ("autumn", "10-15"), ("winter", "01-15")):
        assert SEASONS[word] == pytest.approx(season_of(f"2023-{date}"), abs=0.01)


@pytest.mark.parametrize("text", ["monsoon", "0", "367", "2026-02-30", "", "-3", "0.5"])
def test_what_is_no_season_is_refused(text: str) -> None:
    with pytest.raises(
        InvalidInput, match=r"This is no season\. Got .*Allowed: spring, summer, autumn, winter, now, a date"
    ):
        season_of(text)


def test_words_become_their_codes() -> None:
    assert value_of("region", "north", ("east", "north")) == 1
    assert value_of("season", "winter", ()) == SEASONS["winter"]
    with pytest.raises(InvalidInput, match=r"Unknown region 'noth'\. Nearest known region: 'north'"):
        value_of("region", "noth", ("east", "north"))


def test_what_may_be_a_condition() -> None:
    """Columns of several words; a number, a single word, and a name that means something else, are none."""
    assert context_names(shop()) == ["season", "price_tier", "device", "region", "member"]
    # Without times there is no season; a price in words has no thirds.
    bare = pl.DataFrame({"user": ["a", "b"], "item": ["v", "w"]})
    words = pl.DataFrame({"item": ["v", "w"], "price": ["cheap", "dear"]})
    assert context_names(Dataset.from_events("bare", bare, items=words)) == []


def test_contexts_stand_along_events_and_users() -> None:
    dataset = shop()
    history = dataset.events.history()
    found = contexts_of(dataset, ["device", "member", "region", "price_tier", "season"], history)
    assert found["device"].names == ("desk", "phone")
    assert (found["device"].per, found["device"].values.tolist()) == ("event", [1, 0, -1, 1, 0])
    assert (found["region"].per, found["region"].values.tolist()) == ("user", [1, -1, 0])
    assert (found["region"].names, found["member"].names) == (("east", "north"), ("false", "true"))
    assert found["price_tier"].values.tolist() == [0, 2, -1, 1, 1]
    assert found["season"].names == ()
    torch.testing.assert_close(found["season"].values[1], torch.tensor(91 / 366))


@pytest.mark.parametrize(
    ("name", "nearest"), [("sesaon", "season"), ("devices", "device"), ("regio", "region"), ("histori", "history")]
)
def test_an_unknown_condition_names_the_nearest(name: str, nearest: str) -> None:
    with pytest.raises(InvalidInput, match=f"Unknown condition '{name}'. Nearest known condition: '{nearest}'"):
        contexts_of(shop(), [name], shop().events.history())


def test_a_moment_is_that_of_the_first_event_asked_and_tells_no_price() -> None:
    dataset = shop(time_zone="Asia/Tokyo")
    users = torch.tensor([2, 1])
    relevant = dataset.events.history().select(users)
    at_us, found = moments(dataset, users, relevant)
    assert at_us is not None
    assert at_us.tolist() == [us("2024-12-01"), us("2024-07-01")]
    assert set(found) == {"season", "device", "region", "member"}
    assert found["device"].tolist() == [0, -1]
    assert found["region"].tolist() == [0, -1]
    torch.testing.assert_close(found["season"], torch.tensor([335 / 366, 182 / 366]))


def test_words_of_users() -> None:
    dataset = shop()
    assert user_words(dataset, ["region", "member", "season", "device", "history"]) == {
        "region": ["north", None, "east"],
        "member": ["true", "false", "true"],
    }


@pytest.mark.parametrize(
    ("prices", "tiers"),
    [
        ([3.0, 1.0, 2.0], [2, 0, 1]),
        ([5.0, 5.0, 5.0], [1, 1, 1]),
        ([None, float("nan"), 7.0], [-1, -1, 1]),
        ([None, None, None], [-1, -1, -1]),
        ([1, 2, 3], [0, 1, 2]),
    ],
)
def test_prices_fall_into_thirds(prices: list[float | None], tiers: list[int]) -> None:
    items = pl.DataFrame({"item": list("abc"), "price": prices}, schema_overrides={"price": pl.Float64})
    frame = pl.DataFrame({"user": ["u"] * 3, "item": list("abc")})
    assert price_tiers(Dataset.from_events("x", frame, items=items).catalog).tolist() == tiers


def test_contexts_survive_what_is_done_to_a_history() -> None:
    history = shop().events.history()
    assert history.select(torch.tensor([1, 0])).context["device"].tolist() == [-1, 1, 1, 0]
    kept = history.keep(history.items != history.items[0])
    assert kept.context["device"].tolist() == [0, -1, 1, 0]
    assert kept.to("cpu").context["device"].tolist() == [0, -1, 1, 0]
    assert shop().events.contexts == {"device": ("desk", "phone")}


def test_a_column_that_says_the_same_of_an_item_every_time_tells_of_it() -> None:
    """A category that was declared as a context would name the category of the answer."""
    rng = np.random.default_rng(0)
    items = rng.integers(0, 12, 400)
    frame = pl.DataFrame(
        {
            "user": [f"u{n % 40}" for n in range(400)],
            "item": [f"i{n}" for n in items],
            "time_us": [us("2024-01-01") + n for n in range(400)],
            "context_category": np.array(["coat", "dress", "shoe"])[items % 3],
            "context_device": rng.choice(["phone", "desk"], 400, p=[0.9, 0.1]),
        }
    )
    dataset = Dataset.from_events("shop", frame)
    users = torch.arange(40)
    _, found = moments(dataset, users, dataset.events.history().select(users))
    assert set(found) == {"season", "device"}
    # It may be a condition all the same, and be asked for by name.
    assert "category" in context_names(dataset)
