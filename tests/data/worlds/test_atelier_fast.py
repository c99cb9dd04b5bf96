"""The way that large worlds are drawn: the same distribution as the softmax, without one."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from scipy.stats import chisquare, kstest

from rediffuse.data.worlds import atelier
from rediffuse.data.worlds.atelier import SIZES, World, generate
from rediffuse.data.worlds.atelier_config import DAY_US, START_US, WEEKS
from rediffuse.data.worlds.atelier_fast import Day
from rediffuse.data.worlds.atelier_truth import fit_of, trend_term, week_of

SMALLER = replace(SIZES["large"], users=300, items=150, brands=12, styles=5, sessions=12.0)


@pytest.fixture(scope="module")
def world() -> World:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(atelier, "SIZES", {"large": SMALLER})
        return generate("large", seed=1)


def day_of(world: World, day: int) -> Day:
    truth = world.truth
    return Day(truth.utility, truth.utility.on_day(np.array([day]))[0] * np.exp(truth.trend[day // 7]))


@pytest.mark.parametrize("pick", ["median", "dearest", "most loyal"])
def test_draws_follow_the_preference(world: World, pick: str) -> None:
    users = world.truth.utility.users
    by = {"median": users.log_budget, "dearest": users.log_budget, "most loyal": users.loyalty}[pick]
    one = int(np.argsort(by)[len(by) // 2 if pick == "median" else -1])
    n, now = 40_000, START_US + 333 * DAY_US
    user, time_us = np.full(n, one), np.full(n, now)
    item, _ = day_of(world, 333).draw(user, time_us, np.random.default_rng(1))
    expected = n * world.truth.preference(user[:1], time_us[:1])[0]
    count = np.bincount(item, minlength=len(expected)).astype(float)
    assert (count[expected == 0.0] == 0).all()
    common = expected >= 5
    seen, law = (np.append(v[common], v[~common].sum()) for v in (count, expected))
    assert chisquare(seen, law).pvalue > 0.01


def test_views_of_the_whole_world_follow_its_truth(world: World) -> None:
    views = world.log.filter(pl.col("kind") == "view")
    user, item = (views[name].to_numpy().astype(np.int64) for name in ("user", "item"))
    chance = world.truth.preference(user, views["time_us"].to_numpy())
    place = np.arange(len(item)), item
    position = chance.cumsum(axis=1)[place] - chance[place] * np.random.default_rng(0).random(len(item))
    assert kstest(position, "uniform").pvalue > 0.01
    count, law = np.bincount(item, minlength=chance.shape[1]), chance.sum(axis=0)
    z = (count - law) / np.sqrt((chance * (1 - chance)).sum(axis=0))
    assert abs((z**2).sum() - len(z)) < 3 * np.sqrt(2 * len(z))


def test_trend_is_made_by_the_views_of_earlier_weeks(world: World) -> None:
    views = world.log.filter(pl.col("kind") == "view")
    item, week = views["item"].to_numpy(), week_of(views["time_us"].to_numpy())
    recent = np.zeros(SMALLER.items)
    for place in range(WEEKS):
        np.testing.assert_allclose(world.truth.trend[place], trend_term(SMALLER, recent), atol=1e-12)
        recent = SMALLER.trend_memory * recent + np.bincount(item[week == place], minlength=len(recent))


def test_the_fit_is_that_of_the_truth_but_for_the_draws_it_is_measured_on(world: World) -> None:
    user = np.arange(SMALLER.users)
    time_us = np.full(len(user), START_US + 500 * DAY_US)
    chance = world.truth.preference(user, time_us)
    errors = {}
    for alternatives in (32, 3_200):
        utility = replace(world.truth.utility, config=replace(SMALLER, alternatives=alternatives))
        day = Day(utility, utility.on_day(np.array([500]))[0] * np.exp(world.truth.trend[500 // 7]))
        item, fit = day.draw(user, time_us, np.random.default_rng(2))
        errors[alternatives] = fit - fit_of(chance, item)
    assert errors[32].std() < 0.45
    assert abs(errors[32].mean()) < 0.1
    assert errors[3_200].std() < 0.2 * errors[32].std()
    assert abs(errors[3_200].mean()) < 0.02


def test_same_seed_same_world(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(atelier, "SIZES", {"large": SMALLER})
    assert generate("large", seed=1).log.equals(world.log)


def test_every_user_has_views_and_carts_follow_them(world: World) -> None:
    count = dict(world.log.group_by("kind").len().rows())
    assert 0.1 < count["cart"] / count["view"] < 0.3
    assert 0.3 < count["purchase"] / count["cart"] < 0.7
    views = world.log.filter(pl.col("kind") == "view")["user"].to_numpy()
    assert np.bincount(views, minlength=SMALLER.users).min() >= 5
    assert world.log["time_us"].is_sorted()


def test_large_has_a_million_users_and_a_hundred_thousand_items() -> None:
    large = SIZES["large"]
    assert (large.users, large.items) == (1_000_000, 100_000)
    assert large.alternatives > 0
    assert not any(SIZES[size].alternatives for size in ("tiny", "small"))
