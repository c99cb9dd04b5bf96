"""What happens in Atelier: visits, the views in them, and the few that end in a cart and a purchase."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import polars as pl
from numpy.random import Generator
from numpy.typing import NDArray

from rediffuse.data.worlds.atelier_config import DAY_US, DAYS, END_US, START_US, WEEKS, AtelierConfig
from rediffuse.data.worlds.atelier_items import item_ids
from rediffuse.data.worlds.atelier_truth import YEAR_DAYS, Truth, Utility, fit_of, trend_term, week_of, weeks_table
from rediffuse.data.worlds.atelier_users import UserTable, user_ids

HOUR_US = DAY_US // 24
SECOND_US = 1_000_000
KINDS = ("view", "cart", "purchase")
CLOSING_US = 6 * HOUR_US
"""No visit begins this close to the end, so that the last one and its purchases stay inside."""
MOST_VIEWS = 40
ROWS = 512
"""Views drawn at once: small enough for the cache."""


@dataclass(frozen=True)
class Choices:
    """The views, by time."""

    user: NDArray[np.int64]
    time_us: NDArray[np.int64]
    item: NDArray[np.int64]
    fit: NDArray[np.float64]
    """See `fit_of`."""


Choose = Callable[[Utility, NDArray[np.int64], NDArray[np.int64], Generator], tuple[Choices, Truth]]
"""Draws the item of every view: (utility, users, times, random numbers) -> views and the truth with its trend."""


def draw_events(utility: Utility, rng: Generator, choose: Choose | None = None) -> tuple[pl.DataFrame, Truth]:
    """Draw all events, and the truth completed with the trend that they made.

    Args: choose: how items are drawn; None: from the whole softmax, exactly.
    Returns: user and item (numbers), time_us, kind and value, by time.
    """
    views, truth = (choose or _choose)(utility, *_views(utility.config, utility.users, rng), rng)
    config = utility.config

    def moves_on(log_odds: float, fit: NDArray[np.float64]) -> NDArray[np.bool_]:
        return rng.random(len(fit)) < 1.0 / (1.0 + np.exp(-(log_odds + config.fit * fit)))

    cart = np.flatnonzero(moves_on(config.cart, views.fit))
    cart_us = views.time_us[cart] + _seconds(rng, len(cart), median=70.0, spread=0.8, most=1_500.0)
    bought = np.flatnonzero(moves_on(config.purchase, views.fit[cart]))
    bought_us = cart_us[bought] + _seconds(rng, len(bought), median=240.0, spread=0.8, most=3_600.0)
    row = np.concatenate((np.arange(len(views.user)), cart, cart[bought]))
    time_us = np.concatenate((views.time_us, cart_us, bought_us))
    kind = np.repeat(np.arange(3), (len(views.user), len(cart), len(bought)))
    order = np.lexsort((row, kind, time_us))
    return _log(utility, views.user[row[order]], views.item[row[order]], time_us[order], kind[order]), truth


def text_frame(log: pl.DataFrame, n_users: int, n_items: int) -> pl.DataFrame:
    """The events as a shop would export them: user, item, time_us, kind, value, event_id; ids are text."""
    number = pl.int_range(log.height, eager=True).cast(pl.String).str.zfill(8)
    return log.select(
        user=pl.Series(user_ids(n_users)).gather(log["user"]),
        item=pl.Series(item_ids(n_items)).gather(log["item"]),
        time_us="time_us",
        kind=pl.col("kind").cast(pl.String),
        value="value",
        event_id="E" + number,
    )


def passed_by(time_us: NDArray[np.int64]) -> NDArray[np.float64]:
    """Part of all visits begun by a time, 0 at the start and 1 at the end. Args: time_us: any shape."""
    return np.interp(time_us - START_US, *_rhythm())


def _views(config: AtelierConfig, users: UserTable, rng: Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Who looks at something when, by time. Returns: user numbers and times, both (n,)."""
    clock, passed = _rhythm()
    first = np.interp(np.maximum(users.joined_us - START_US, 0), clock, passed)
    last = float(np.interp(END_US - START_US - CLOSING_US, clock, passed))
    visits = 1 + rng.poisson(np.maximum(users.visits * (last - first) - 1.0, 0.0))
    visitor = np.repeat(np.arange(len(users)), visits)
    opened = first[visitor] + (last - first[visitor]) * rng.random(len(visitor))
    start_us = START_US + np.ceil(np.interp(opened, passed, clock)).astype(np.int64)
    size = np.minimum(1 + rng.poisson(config.views_per_session - 1.0, len(visitor)), MOST_VIEWS)
    one_visit = visits.cumsum() - visits
    size[one_visit] = np.maximum(size[one_visit], config.fewest_views)
    head = size.cumsum() - size
    gap = _seconds(rng, int(size.sum()), median=35.0, spread=0.8, most=300.0)
    gap[head] = 0
    waited = gap.cumsum()
    time_us = np.repeat(start_us - waited[head], size) + waited
    order = np.argsort(time_us, kind="stable")
    return np.repeat(visitor, size)[order], time_us[order]


@cache
def _rhythm() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Microseconds after the start, and the part of all visits begun by then: evenings, weekends and December are busy."""
    hour = np.arange(DAYS * 24)
    day = hour // 24
    evening = 0.15 + np.exp(3.0 * (np.cos(2 * np.pi * (hour % 24 - 20) / 24) - 1.0))
    weekend = np.where(day % 7 >= 5, 1.35, 1.0)
    gifts = 1.0 + 0.5 * np.exp(-0.5 * ((day % YEAR_DAYS - 340) / 15.0) ** 2)
    passed = np.concatenate((np.zeros(1), (evening * weekend * gifts).cumsum()))
    return np.linspace(0.0, DAYS * DAY_US, DAYS * 24 + 1), passed / passed[-1]


def _choose(
    utility: Utility, user: NDArray[np.int64], time_us: NDArray[np.int64], rng: Generator
) -> tuple[Choices, Truth]:
    """Draw the item of every view, a week at a time, since a week's trend is made by the weeks before it."""
    trend = weeks_table(len(utility.items))
    recent = np.zeros(len(utility.items))
    item, fit = np.zeros(len(user), dtype=np.int64), np.zeros(len(user))
    point = rng.random(len(user))
    edges = np.searchsorted(week_of(time_us), np.arange(WEEKS + 1))
    for week, (start, stop) in enumerate(itertools.pairwise(edges.tolist())):
        trend[week] = trend_term(utility.config, recent)
        for low in range(start, stop, ROWS):
            rows = slice(low, min(low + ROWS, stop))
            weights = utility.weights(user[rows], time_us[rows]) * np.exp(trend[week])
            item[rows], fit[rows] = _draw(weights, point[rows])
        counts = np.bincount(item[start:stop], minlength=len(recent))
        recent = utility.config.trend_memory * recent + counts
    trend.setflags(write=False)
    return Choices(user, time_us, item, fit), Truth(utility, trend)


def _draw(weights: NDArray[np.float64], point: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Invert the cumulative distribution of each row. Args: weights: (n, I).   point: (n,) in [0, 1)."""
    cumulative = weights.cumsum(axis=1)
    total = cumulative[:, -1:]
    item = (cumulative <= point[:, None] * total).sum(axis=1)
    return item, fit_of(weights / total, item)


def _seconds(rng: Generator, n: int, *, median: float, spread: float, most: float) -> NDArray[np.int64]:
    """Log-normal waiting times of at least a second, in microseconds."""
    seconds = np.clip(median * np.exp(rng.normal(0.0, spread, n)), 1.0, most)
    return (seconds * SECOND_US).astype(np.int64)


def _log(
    utility: Utility,
    user: NDArray[np.int64],
    item: NDArray[np.int64],
    time_us: NDArray[np.int64],
    kind: NDArray[np.int64],
) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "user": user.astype(np.uint32),
            "item": item.astype(np.uint32),
            "time_us": time_us,
            "kind": pl.Series(KINDS, dtype=pl.Enum(KINDS)).gather(kind),
            "value": utility.items.price[item],
        }
    )
