"""The world Atelier: what it promises of its events, and that they follow its own truth."""

import json
import time
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from scipy.stats import kstest

from rediffuse.data.worlds import atelier
from rediffuse.data.worlds.atelier import SIZES, World, generate
from rediffuse.data.worlds.atelier_config import DAY_US, DAYS, END_US, START_US, WEEKS
from rediffuse.data.worlds.atelier_items import CATEGORIES, SEASON_PEAK, colour_names
from rediffuse.data.worlds.atelier_truth import fit_of, trend_term, week_of
from rediffuse.errors import InvalidInput

YEAR = 365.25


@pytest.fixture(scope="module")
def world() -> World:
    return generate("tiny", seed=1)


def numbers(events: pl.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """User numbers, item numbers and times."""
    user, item = (events[name].str.slice(1).cast(pl.Int64).to_numpy() for name in ("user", "item"))
    return user, item, events["time_us"].to_numpy()


def views(world: World) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return numbers(world.events.filter(pl.col("kind") == "view"))


def at_day(day: int) -> np.ndarray:
    return np.array([START_US + day * DAY_US], dtype=np.int64)


def test_same_seed_same_world(world: World) -> None:
    again = generate("tiny", seed=1)
    for name in ("events", "items", "users"):
        assert getattr(world, name).equals(getattr(again, name))
    assert np.array_equal(world.truth.trend, again.truth.trend)


def test_other_seed_other_world(world: World) -> None:
    other = generate("tiny", seed=2)
    for name in ("events", "items", "users"):
        assert not getattr(world, name).equals(getattr(other, name))


def test_items_and_users_do_not_depend_on_how_events_are_drawn(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(atelier, "SIZES", {"tiny": replace(SIZES["tiny"], trend=0.0, views_per_session=2.0)})
    other = generate("tiny", seed=1)
    assert other.items.equals(world.items)
    assert other.users.equals(world.users)
    assert not other.events.equals(world.events)


def columns(frame: pl.DataFrame, dtype: type[pl.DataType]) -> str:
    return " ".join(name for name, found in frame.schema.items() if found == dtype)


def test_columns(world: World) -> None:
    assert world.events.columns == ["user", "item", "time_us", "kind", "value", "event_id"]
    assert columns(world.events, pl.String) == "user item kind event_id"
    assert columns(world.events, pl.Int64) == "time_us"
    assert columns(world.events, pl.Float64) == "value"
    assert columns(world.items, pl.String) == "item title category slot brand colour pattern material season"
    assert columns(world.items, pl.Int64) == "first_seen_us"
    assert columns(world.items, pl.Float64) == "hue saturation value pattern_scale length price formality"
    assert columns(world.users, pl.String) == "user age_band region tier"
    assert columns(world.users, pl.Int64) == "joined_us"
    for frame, width in ((world.events, 6), (world.items, 17), (world.users, 5)):
        assert frame.width == width
        assert sum(frame.null_count().row(0)) == 0


def test_ids_are_numbers_of_rows(world: World) -> None:
    assert world.items["item"].to_list() == [f"A{n:05d}" for n in range(SIZES["tiny"].items)]
    assert world.users["user"].to_list() == [f"U{n:05d}" for n in range(SIZES["tiny"].users)]
    assert world.events["event_id"].n_unique() == world.events.height


def test_items_are_in_range(world: World) -> None:
    for column in ("hue", "saturation", "value", "pattern_scale", "length", "formality"):
        assert world.items[column].is_between(0.0, 1.0).all(), column
    assert world.items["price"].is_between(1.0, 5_000.0).all()
    assert set(world.items["season"]) == {"spring", "summer", "autumn", "winter", "all"}
    assert set(world.items["slot"]) == {"top", "layer", "bottom", "shoes", "accessory"}
    assert world.items["category"].n_unique() == 12
    assert ((world.items["pattern"] == "solid") == (world.items["pattern_scale"] == 0.0)).all()
    title = world.items["title"]
    for column in ("colour", "material", "category"):
        named = zip(title.str.to_lowercase(), world.items[column], strict=True)
        assert all(word in text for text, word in named)


def test_prices_follow_category_and_brand(world: World) -> None:
    middle = world.items.group_by("category").agg(pl.col("price").median()).rows()
    price = dict(middle)
    assert price["coat"] > 3 * price["t-shirt"]
    log = world.items.with_columns(pl.col("price").log().alias("log"))
    within = log["log"] - log.select(pl.col("log").mean().over("category", "brand"))["log"]
    of_category = log["log"] - log.select(pl.col("log").mean().over("category"))["log"]
    assert within.var() < 0.6 * of_category.var()


def test_colours_have_everyday_names() -> None:
    hue = np.array([0.0, 0.05, 0.6, 0.6, 0.33, 0.1, 0.3, 0.3])
    saturation = np.array([0.9, 0.8, 0.9, 0.9, 0.8, 0.1, 0.05, 0.02])
    value = np.array([0.9, 0.6, 0.9, 0.35, 0.9, 0.7, 0.95, 0.1])
    expected = ["red", "rust", "blue", "navy", "green", "beige", "white", "black"]
    assert colour_names(hue, saturation, value).tolist() == expected


def test_events_lie_between_launch_or_join_and_the_end(world: World) -> None:
    user, item, time_us = numbers(world.events)
    assert (np.diff(time_us) >= 0).all()
    assert (time_us >= START_US).all()
    assert (time_us < END_US).all()
    assert (time_us >= world.items["first_seen_us"].to_numpy()[item]).all()
    assert (time_us >= world.users["joined_us"].to_numpy()[user]).all()
    assert (world.events["value"].to_numpy() == world.items["price"].to_numpy()[item]).all()


def test_every_user_has_views(world: World) -> None:
    per_user = np.bincount(views(world)[0], minlength=SIZES["tiny"].users)
    assert per_user.min() >= 5
    assert 20 <= per_user.mean() <= 60


def test_catalog_opens_and_grows(world: World) -> None:
    launch = world.items["first_seen_us"].to_numpy()
    assert (launch == START_US).mean() == pytest.approx(SIZES["tiny"].opening_share, abs=0.01)
    assert (launch > START_US + 0.8 * DAYS * DAY_US).any()
    assert launch.max() < END_US
    assert ((launch - START_US) % DAY_US == 0).all()


def test_preference_is_a_distribution_over_items_on_sale(world: World) -> None:
    user = np.arange(SIZES["tiny"].users)
    launch = world.items["first_seen_us"].to_numpy()
    for day in (0, 44, 45, 400, DAYS):
        now = np.repeat(at_day(day), len(user))
        chance = world.truth.preference(user, now)
        assert chance.shape == (len(user), len(launch))
        np.testing.assert_allclose(chance.sum(axis=1), 1.0, atol=1e-12)
        assert (chance[:, launch > now[0]] == 0.0).all()
        assert (chance[:, launch <= now[0]] > 0.0).all()


def test_preference_is_the_softmax_of_the_documented_utility(world: World) -> None:
    utility = world.truth.utility
    config, items, users, styles = utility.config, utility.items, utility.users, utility.styles
    density = np.exp(config.taste * styles.log_density(items))
    density /= density.mean(axis=1, keepdims=True)
    middle = np.array([c.price for c in CATEGORIES])[items.category]
    for user, day in ((0, 3), (17, 250), (93, 365), (159, 730)):
        gone, now = (day + 0.5) / DAYS, at_day(day) + DAY_US // 2
        mixture = (1 - gone) * users.style_first[user] + gone * users.style_last[user]
        wave = np.cos(2 * np.pi * (day - np.append(SEASON_PEAK, 0)[items.season]) / YEAR)
        terms = [
            np.log(mixture @ density),
            users.loyalty[user] * np.isin(items.brand, users.favourite[user]),
            users.category[user, items.category],
            -((np.log(items.price / middle) - users.log_budget[user]) ** 2) / (2 * config.budget_width**2),
            items.appeal,
            config.season * np.where(items.season < 4, wave, 0.0),
            config.novelty * np.exp(-(day - items.launch_day).clip(0) / config.novelty_days),
            world.truth.trend[day // 7],
        ]
        weight = np.where(items.launch_day <= day, np.exp(np.sum(terms, axis=0)), 0.0)
        chance = world.truth.preference(np.array([user]), now)[0]
        np.testing.assert_allclose(chance, weight / weight.sum(), rtol=1e-9)


def test_trend_is_made_by_the_views_of_earlier_weeks(world: World) -> None:
    _, item, time_us = views(world)
    config, recent = SIZES["tiny"], np.zeros(SIZES["tiny"].items)
    for week in range(WEEKS):
        np.testing.assert_allclose(world.truth.trend[week], trend_term(config, recent), atol=1e-12)
        now = np.bincount(item[week_of(time_us) == week], minlength=len(recent))
        recent = config.trend_memory * recent + now
    assert world.truth.trend[0].max() == 0.0
    assert world.truth.trend[-1].max() > 0.1


@pytest.mark.parametrize("seed", [1, 2])
def test_views_are_drawn_from_the_preference(seed: int) -> None:
    world = generate("tiny", seed)
    user, item, time_us = views(world)
    chance = world.truth.preference(user, time_us)
    count = np.bincount(item, minlength=chance.shape[1])
    z = (count - chance.sum(axis=0)) / np.sqrt((chance * (1 - chance)).sum(axis=0))
    chi_square = (z**2).sum()
    assert abs(chi_square - len(z)) < 3 * np.sqrt(2 * len(z))

    log = np.log(np.maximum(chance, 1e-300))
    mean = (chance * log).sum(axis=1)
    variance = (chance * log**2).sum(axis=1) - mean**2
    chosen = log[np.arange(len(item)), item]
    assert abs((chosen - mean).sum()) < 3 * np.sqrt(variance.sum())

    place = np.arange(len(item)), item
    position = chance.cumsum(axis=1)[place] - chance[place] * np.random.default_rng(0).random(len(item))
    assert kstest(position, "uniform").pvalue > 0.01
    assert position.min() < 0.002
    assert position.max() > 0.998


def test_views_are_calibrated(world: World) -> None:
    user, item, time_us = views(world)
    chance = world.truth.preference(user, time_us)
    hit = np.zeros_like(chance)
    hit[np.arange(len(item)), item] = 1.0
    for low, high in ((0.0, 0.003), (0.003, 0.01), (0.01, 0.03), (0.03, 0.1), (0.1, 1.0)):
        part = (chance > low) & (chance <= high)
        expected = chance[part].sum()
        assert abs(hit[part].sum() - expected) < 3 * np.sqrt(expected)


def test_seasons_move_what_is_viewed(world: World) -> None:
    season = world.items["season"].to_numpy()
    _, item, time_us = views(world)
    day = ((time_us - START_US) // DAY_US) % YEAR
    summer_now, winter_now = (day > 150) & (day < 240), (day < 60) | (day > 335)
    for name, on, off in (("summer", summer_now, winter_now), ("winter", winter_now, summer_now)):
        assert (season[item[on]] == name).mean() > 2 * (season[item[off]] == name).mean()


def test_launches_are_looked_at(world: World) -> None:
    user = np.arange(SIZES["tiny"].users)
    utility = world.truth.utility
    launched = np.flatnonzero(utility.items.launch_day > 0)
    gain = []
    for item in launched:
        day = int(utility.items.launch_day[item])
        fresh, stale = (utility.weights(user, np.repeat(at_day(d), len(user))) for d in (day, min(day + 60, DAYS - 1)))
        same = np.flatnonzero((utility.items.launch_day == 0) & (utility.items.season == utility.items.season[item]))
        gain.append(np.log((fresh[:, item] / fresh[:, same[0]]) / (stale[:, item] / stale[:, same[0]])).mean())
    assert min(gain) > 0.1


def test_tastes_drift(world: World) -> None:
    user = np.arange(SIZES["tiny"].users)
    early, late = (world.truth.utility.mixture(user, np.repeat(at_day(day), len(user))) for day in (0, DAYS))
    assert 0.05 < np.abs(early - late).sum(axis=1).mean() / 2 <= SIZES["tiny"].drift
    np.testing.assert_allclose(late.sum(axis=1), 1.0)


def test_funnel_keeps_its_order(world: World) -> None:
    times: dict[tuple[str, str], dict[str, list[int]]] = {}
    for user, item, time_us, kind in world.events.select("user", "item", "time_us", "kind").rows():
        times.setdefault((user, item), {"view": [], "cart": [], "purchase": []})[kind].append(time_us)
    for found in times.values():
        for before, after in (("view", "cart"), ("cart", "purchase")):
            assert len(found[after]) <= len(found[before])
            for earlier, later in zip(found[before], found[after], strict=False):
                assert earlier < later
            for later in found[after]:
                assert any(0 < later - earlier <= 3_600_000_000 for earlier in found[before])


def test_funnel_narrows_and_follows_the_preference(world: World) -> None:
    count = dict(world.events.group_by("kind").len().rows())
    assert 0.1 < count["cart"] / count["view"] < 0.3
    assert 0.3 < count["purchase"] / count["cart"] < 0.7
    fit = {}
    for kind in count:
        user, item, time_us = numbers(world.events.filter(pl.col("kind") == kind))
        fit[kind] = fit_of(world.truth.preference(user, time_us), item).mean()
    assert fit["view"] + 0.1 < fit["cart"] < fit["purchase"]


def test_personal_truth_beats_popularity(world: World) -> None:
    user, item, time_us = views(world)
    later = time_us > np.quantile(time_us, 0.8)
    popularity = np.bincount(item[~later], minlength=SIZES["tiny"].items)
    by_popularity = np.isin(item[later], np.argsort(-popularity, kind="stable")[:20]).mean()
    chance = world.truth.preference(user[later], time_us[later])
    rank = (chance > chance[np.arange(len(chance)), item[later]][:, None]).sum(axis=1)
    assert (rank < 20).mean() > 1.7 * by_popularity


@pytest.mark.slow
def test_small_has_room_between_popularity_ease_and_the_truth() -> None:
    user, item, time_us = views(world := generate("small", seed=1))
    per_user = np.bincount(user, minlength=2_000)
    assert per_user.min() >= 5
    assert 45 <= per_user.mean() <= 70
    later = time_us > np.quantile(time_us, 0.8)
    rows = np.zeros((2_000, 1_000))
    rows[user[~later], item[~later]] = 1.0
    inverse = np.linalg.inv(rows.T @ rows + 300 * np.eye(1_000))
    ease = -inverse / np.diag(inverse)
    np.fill_diagonal(ease, 0.0)
    asked = np.flatnonzero(later)[::5]
    scores = {
        "popularity": np.tile(np.bincount(item[~later], minlength=1_000), (len(asked), 1)),
        "ease": (rows @ ease)[user[asked]],
        "truth": world.truth.preference(user[asked], time_us[asked]),
    }
    recall = {
        name: ((s >= s[np.arange(len(s)), item[asked]][:, None]).sum(1) <= 20).mean() for name, s in scores.items()
    }
    assert recall["ease"] > 1.5 * recall["popularity"]
    assert recall["truth"] > 2.5 * recall["popularity"]
    assert recall["truth"] > 1.3 * recall["ease"]


def test_tiny_is_small_and_quick(world: World) -> None:
    assert world.users.height <= 200
    assert world.items.height <= 300
    started = time.process_time()
    generate("tiny", seed=3)
    assert time.process_time() - started < 1.0


def test_recipe_says_all(world: World) -> None:
    recipe = json.loads(json.dumps(world.recipe))
    assert recipe == world.recipe
    assert (recipe["world"], recipe["version"], recipe["size"], recipe["seed"]) == ("atelier", "1", "tiny", 1)
    assert recipe["drift"] == SIZES["tiny"].drift


def test_unknown_size_names_the_nearest() -> None:
    with pytest.raises(InvalidInput, match=r"Unknown size 'smal'. Nearest known size: 'small'."):
        generate("smal")


def test_negative_seed_is_refused() -> None:
    with pytest.raises(InvalidInput, match="seed must not be negative"):
        generate("tiny", seed=-1)


@pytest.mark.parametrize(("user", "time_us"), [(-1, START_US), (160, START_US), (0, START_US - 1), (0, END_US + 1)])
def test_preference_outside_the_world_is_refused(world: World, user: int, time_us: int) -> None:
    with pytest.raises(InvalidInput, match=r"outside the world\. Got -?\d+\. Allowed: \d+\.\.\d+"):
        world.truth.preference(np.array([user]), np.array([time_us]))
