"""Atelier: a seeded fashion shop whose truth is known, two years of views, carts and purchases from 2024-01-01 UTC.

Every view is an independent choice. The probability of item i for user u at time t is the softmax, over the items on
sale, of the utility

    U(u, i, t) = style + loyalty + use + budget + appeal + season + novelty + trend

    style    log sum_k w_uk(t) f_k(i)^taste            Utility.mixture, Styles.log_density
             w_u drifts evenly from the first mixture of the user to the last; f_k is a density over hue (von Mises
             bumps), saturation, brightness, formality, pattern, category and brand, scaled to mean 1 over the catalog
    loyalty  l_u if the brand is one of three          UserTable.favourite, .loyalty
    use      g_u,category                              UserTable.category
    budget   -(p_i - b_u)^2 / (2 width^2)              UserTable.log_budget; p_i is the log price against its category's
    appeal   q_i                                       ItemTable.appeal
    season   s cos(2 pi (day - peak) / year)           Utility._days; nothing for items of all seasons
    novelty  n exp(-days since launch / novelty_days)  Utility._days
    trend    r log(1 + c_i / mean c)                   trend_term; c_i counts the views of earlier weeks and fades

`Truth.preference` gives that softmax; `atelier_events._choose` draws from the same weights. A cart follows a view, and a
purchase a cart, with log odds that rise with `fit_of`: how well the item was liked against what else might have been
chosen. Choices have no memory but the trend: an item seen or bought may be chosen again, as often as the formula says.

Items, users and events have a random stream each, so that later parts of the world (outfits, images) move none of them.
The calendar is UTC: the shop's time zone is UTC too.
"""

from dataclasses import asdict, dataclass
from typing import Any

import polars as pl
from numpy.random import PCG64, Generator

from rediffuse.data.worlds.atelier_config import END_US, SIZES, START_US, AtelierConfig
from rediffuse.data.worlds.atelier_events import draw_events
from rediffuse.data.worlds.atelier_items import draw_items, item_frame
from rediffuse.data.worlds.atelier_truth import Truth, Utility
from rediffuse.data.worlds.atelier_users import draw_styles, draw_users, user_frame
from rediffuse.errors import InvalidInput, say, unknown

__all__ = ["SIZES", "AtelierConfig", "Truth", "World", "generate"]


@dataclass(frozen=True)
class World:
    """A shop: what was recorded, and the truth behind it."""

    events: pl.DataFrame
    """user, item, time_us, kind (view, cart, purchase), value (the price), event_id; by time."""
    items: pl.DataFrame
    """A row for each item, in the order of the item numbers."""
    users: pl.DataFrame
    """A row for each user, in the order of the user numbers; visible attributes only."""
    truth: Truth
    recipe: dict[str, Any]
    """What made it, ready for JSON."""


def generate(size: str = "small", seed: int = 1) -> World:
    """Make the world of a size; the same size and seed give the same world.

    Raises: InvalidInput for a size that is none or a negative seed.
    Limits: `small` takes a few seconds on one core.
    """
    if size not in SIZES:
        raise InvalidInput(unknown("size", size, SIZES))
    if seed < 0:
        raise InvalidInput(say("The seed must not be negative", got=seed))
    config = SIZES[size]
    for_items, for_users, for_events = Generator(PCG64(seed)).spawn(3)
    items = draw_items(config, for_items)
    styles = draw_styles(config, for_users)
    users = draw_users(config, styles, for_users)
    events, truth = draw_events(Utility(config, items, styles, users), for_events)
    return World(events, item_frame(items), user_frame(users), truth, _recipe(size, seed, config))


def _recipe(size: str, seed: int, config: AtelierConfig) -> dict[str, Any]:
    return {
        "world": "atelier",
        "version": "1",
        "size": size,
        "seed": seed,
        "start_us": START_US,
        "end_us": END_US,
        "time_zone": "UTC",
        **asdict(config),
    }
