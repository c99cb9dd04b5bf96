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
    season   s cos(2 pi (day - peak) / year)           Utility.on_day; nothing for items of all seasons
    novelty  n exp(-days since launch / novelty_days)  Utility.on_day
    trend    r log(1 + c_i / mean c)                   trend_term; c_i counts the views of earlier weeks and fades

`Truth.preference` gives that softmax; `atelier_events._choose` draws from the same weights. A cart follows a view, and a
purchase a cart, with log odds that rise with `fit_of`: how well the item was liked against what else might have been
chosen. Choices have no memory but the trend: an item seen or bought may be chosen again, as often as the formula says.

Items, users and events have a random stream each, so that later parts of the world (outfits, images) move none of them.
The calendar is UTC: the shop's time zone is UTC too.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import polars as pl
from numpy.random import PCG64, Generator

from rediffuse.data.worlds.atelier_config import END_US, SIZES, START_US, VERSION, AtelierConfig
from rediffuse.data.worlds.atelier_events import draw_events, text_frame
from rediffuse.data.worlds.atelier_fast import choose
from rediffuse.data.worlds.atelier_items import draw_items, item_frame
from rediffuse.data.worlds.atelier_truth import Truth, Utility
from rediffuse.data.worlds.atelier_users import draw_styles, draw_users, user_frame
from rediffuse.errors import InvalidInput, say, unknown

__all__ = ["SIZES", "AtelierConfig", "Truth", "World", "generate", "regenerate"]


@dataclass(frozen=True)
class World:
    """A shop: what was recorded, and the truth behind it."""

    log: pl.DataFrame
    """The events, narrow: user and item (numbers, UInt32), time_us, kind (Enum), value (the price); by time."""
    items: pl.DataFrame
    """A row for each item, in the order of the item numbers."""
    users: pl.DataFrame
    """A row for each user, in the order of the user numbers; visible attributes only."""
    truth: Truth
    recipe: dict[str, Any]
    """What made it, ready for JSON; `sha256` is of all the rest."""

    @cached_property
    def events(self) -> pl.DataFrame:
        """user, item, time_us, kind (view, cart, purchase), value, event_id; by time. Ids are text."""
        return text_frame(self.log, self.users.height, self.items.height)

    def blocks(self, rows: int = 1 << 20) -> Iterator[pl.DataFrame]:
        """The log in slices, by time: what to write or send on when there are millions."""
        return self.log.iter_slices(rows)


def generate(size: str = "small", seed: int = 1) -> World:
    """Make the world of a size; the same size and seed give the same world.

    Raises: InvalidInput for a size that is none or a negative seed.
    Limits: `small` takes seconds on one core; for `large` see `atelier_fast`.
    """
    recipe = _recipe(size, seed)
    config = SIZES[size]
    for_items, for_users, for_events = Generator(PCG64(seed)).spawn(3)
    items = draw_items(config, for_items)
    styles = draw_styles(config, for_users)
    users = draw_users(config, styles, for_users)
    log, truth = draw_events(Utility(config, items, styles, users), for_events, choose if config.alternatives else None)
    return World(log, item_frame(items), user_frame(users), truth, recipe)


def regenerate(facts: Mapping[str, Any]) -> World:
    """The world that a dataset was made from, with its truth. Args: facts: `Dataset.facts`, which hold the recipe.

    Raises: InvalidInput when they name no world, or one that this version draws differently.
    """
    if facts.get("world") != "atelier":
        raise InvalidInput(
            say("This dataset is of no world whose truth is known", got=facts.get("world"), allowed="atelier")
        )
    remedy = "Import the world anew with this version of rediffuse"
    if facts.get("version") != VERSION:
        raise InvalidInput(
            say("This world is of another version", got=facts.get("version"), allowed=VERSION, remedy=remedy)
        )
    recipe = _recipe(str(facts.get("size")), int(facts.get("seed", 0)))
    if facts.get("sha256") != recipe["sha256"]:
        raise InvalidInput(
            say(
                f"The recipe of this world is not that of atelier {recipe['size']}, seed {recipe['seed']}",
                got=facts.get("sha256"),
                allowed=recipe["sha256"],
                remedy=remedy,
            )
        )
    return generate(recipe["size"], recipe["seed"])


def _recipe(size: str, seed: int) -> dict[str, Any]:
    if size not in SIZES:
        raise InvalidInput(unknown("size", size, SIZES))
    if seed < 0:
        raise InvalidInput(say("The seed must not be negative", got=seed))
    recipe = {
        "world": "atelier",
        "version": VERSION,
        "size": size,
        "seed": seed,
        "start_us": START_US,
        "end_us": END_US,
        "time_zone": "UTC",
        **asdict(SIZES[size]),
    }
    return {**recipe, "sha256": hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()}
