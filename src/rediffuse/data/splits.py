"""How events are parted, as a value: the recipe is recorded with the result."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from pydantic import AfterValidator, Field, PositiveInt, TypeAdapter

from rediffuse.config import FrozenConfig
from rediffuse.data.interactions import Interactions
from rediffuse.errors import InvalidConfig, InvalidInput, say, unknown
from rediffuse.random import stable_key, uniform_of_pairs

PARTS = ("train", "valid", "test")
Share = Annotated[float, Field(gt=0, lt=0.5)]


def _share_or_count(value: float) -> float:
    if isinstance(value, int) and value >= 1:
        return value
    if not 0 < value < 0.5:
        raise ValueError("it is a share above 0 and below 0.5, or a whole number of events")
    return float(value)


ShareOrCount = Annotated[int | float, AfterValidator(_share_or_count)]


class AsShipped(FrozenConfig):
    """The parts that came with the data."""

    recipe: Literal["as-shipped"] = "as-shipped"
    parts: tuple[str, ...] = PARTS
    """Their names in the order in which they stand in time, earliest first."""


class ShippedTail(FrozenConfig):
    """Train and test came with the data; the last of each user's training events, as shipped, select."""

    recipe: Literal["shipped-tail"] = "shipped-tail"
    parts: tuple[str, ...] = PARTS
    """Their names, the one that selects between the shipped ones."""
    valid: Share = 0.1
    """Share of a user's shipped training events: rounded down, at least one; a single one is kept to learn from."""


class ShippedDrawn(FrozenConfig):
    """Train and test came with the data, without an order; drawn ones of each user's training events select.

    Whether an event is drawn depends on the seed, the ids of its user and item, and the user's other training events.
    """

    recipe: Literal["shipped-drawn"] = "shipped-drawn"
    parts: tuple[str, ...] = PARTS
    """Their names, the one that selects between the shipped ones."""
    valid: Share = 0.1
    """Share of a user's shipped training events: rounded down, at least one; a single one is kept to learn from."""
    seed: int = Field(default=1, ge=0, lt=2**63)
    """Another seed draws other events."""


class GlobalTime(FrozenConfig):
    """Two moments part the events of everybody: the split that a shop lives in."""

    recipe: Literal["global-time"] = "global-time"
    valid: Share = 0.1
    """Share of the events between the two moments."""
    test: Share = 0.1
    """Share of the events after the second."""


class UserOrder(FrozenConfig):
    """Each user's events are parted by their own order: the first share learns, then valid, then test."""

    recipe: Literal["user-order"] = "user-order"
    valid: Share = 0.1
    """Share of a user's events, rounded down."""
    test: Share = 0.2
    """Share of a user's events, rounded down."""


class LeaveLastOut(FrozenConfig):
    """Each user's last event tests, the last but one selects. Users with fewer than 3 events only train."""

    recipe: Literal["leave-last-out"] = "leave-last-out"


class ColdItems(FrozenConfig):
    """A drawn share of the items is never learned from: all their events select or test, whoever took them.

    Whether an item is drawn depends on the seed and its id alone, so items that join later move no other.
    """

    recipe: Literal["cold-items"] = "cold-items"
    valid: Share = 0.1
    """Chance of an item that its events are in valid."""
    test: Share = 0.1
    """Chance of an item that its events are in test."""
    seed: int = Field(default=1, ge=0, lt=2**63)
    """Another seed draws other items."""


class ColdUsers(FrozenConfig):
    """A drawn share of the users is never learned from: their first events are given as history, their last are asked.

    Users are drawn like the items of cold-items. Users without an event more than is asked only train.
    Reference: strong generalization, Marlin 2004; Liang et al. 2018 (Mult-VAE), section 4.1. With asked = 1 and
    history = 10 it is the split by users, 8:1:1, of Liu et al. 2025 (PreferDiff).
    """

    recipe: Literal["cold-users"] = "cold-users"
    valid: Share = 0.1
    """Chance of a user to select."""
    test: Share = 0.1
    """Chance of a user to test."""
    asked: ShareOrCount = 0.2
    """What of a cold user's events is asked, the last ones: a share, rounded down, at least one; or how many."""
    history: PositiveInt | None = None
    """How many events before those are given as history, the newest; none: all. Older ones are used for nothing."""
    seed: int = Field(default=1, ge=0, lt=2**63)
    """Another seed draws other users."""


Recipe = AsShipped | ShippedTail | ShippedDrawn | GlobalTime | UserOrder | LeaveLastOut | ColdItems | ColdUsers
_SHIPPED: dict[str, type[Recipe]] = {
    "as-shipped": AsShipped,
    "shipped-tail": ShippedTail,
    "shipped-drawn": ShippedDrawn,
}
_MADE: dict[str, type[Recipe]] = {
    "global-time": GlobalTime,
    "user-order": UserOrder,
    "leave-last-out": LeaveLastOut,
    "cold-items": ColdItems,
    "cold-users": ColdUsers,
}
_RECIPES = {**_SHIPPED, **_MADE}
RECIPES: Sequence[str] = tuple(_RECIPES)

COLD_USER_PARTS = ("train", "valid-history", "valid", "test-history", "test")
OLDER = "older"
"""Events of cold users from before their history, where that is limited."""

_PROTOCOLS: dict[str, dict[str, Any]] = {
    "cold-items": {
        "name": "cold-items",
        "fit": ["train"],
        "selection": {"relevant": "valid", "history": ["train"], "mask": ["train"]},
        "report": {"relevant": "test", "history": ["train"], "mask": ["train", "valid"]},
    },
    "cold-users": {
        "name": "cold-users",
        "fit": ["train"],
        "selection": {"relevant": "valid", "history": ["valid-history"], "mask": ["valid-history"]},
        "report": {"relevant": "test", "history": ["test-history"], "mask": ["test-history"]},
    },
}


@dataclass(frozen=True)
class Split:
    """Which part each event belongs to."""

    recipe: Recipe
    parts: tuple[str, ...]
    """Names in the order in which they stand in time, earliest first."""
    part: NDArray[np.int8]
    """(events,) place of the part in `parts`, aligned with the sorted events."""

    def mask(self, names: Sequence[str]) -> NDArray[np.bool_]:
        """Which events belong to one of the named parts, (events,). Raises: InvalidInput for an unknown part."""
        return np.isin(self.part, [self.place(name) for name in names])

    def place(self, name: str) -> int:
        """Where a part stands in time, 0 earliest. Raises: InvalidInput for an unknown part."""
        if name not in self.parts:
            raise InvalidInput(unknown("part", name, self.parts))
        return self.parts.index(name)


def recipe_of(name: str, values: dict[str, Any] | None = None) -> Recipe:
    """A recipe by name. Raises: InvalidConfig when the name or a key is unknown."""
    if name not in _RECIPES:
        raise InvalidConfig(unknown("split recipe", name, _RECIPES))
    return _RECIPES[name].make(values)


def recipe_from_json(value: dict[str, Any]) -> Recipe:
    """A recipe as `dataset.json` records it."""
    return TypeAdapter[Recipe](Annotated[Recipe, Field(discriminator="recipe")]).validate_python(value)


def protocols_of(recipe: Recipe) -> dict[str, dict[str, Any]]:
    """The evaluation protocols that go with a recipe, by name, the default first; none where the standard one fits."""
    own = _PROTOCOLS.get(recipe.recipe)
    return {recipe.recipe: deepcopy(own)} if own else {}


def split(
    events: Interactions, recipe: Recipe, *, users: Sequence[str] | None = None, items: Sequence[str] | None = None
) -> Split:
    """Part events by a recipe.

    Args: users, items: external ids in the order of their numbers, what cold users and items are drawn by; None: the
        numbers themselves.
    Raises: InvalidInput when the recipe needs an order or times that the data has not, or a part stays empty.
    """
    if isinstance(recipe, AsShipped | ShippedTail | ShippedDrawn):
        raise InvalidInput(
            say(f"{recipe.recipe} keeps the parts a data set came with; this one has none", allowed=", ".join(_MADE))
        )
    names = _cold_user_parts(recipe) if isinstance(recipe, ColdUsers) else PARTS
    if isinstance(recipe, GlobalTime):
        part = _by_time(events, recipe)
    elif isinstance(recipe, ColdItems):
        part = _drawn(items or _numbers(events.n_items), recipe)[events.frame["item"].to_numpy()]
    elif events.order == "none":
        raise InvalidInput(say(f"{recipe.recipe} needs events in a known order; this data has none"))
    elif isinstance(recipe, ColdUsers):
        part = _by_cold_user(events, recipe, users or _numbers(events.n_users))
    else:
        part = _by_user(events, recipe)
    counts = _counting(events)
    for place, name in enumerate(names):
        if name != OLDER and not ((part == place) & counts).any():
            raise InvalidInput(say(f"{recipe.recipe} leaves the part {name!r} empty", remedy="Choose another recipe"))
    return Split(recipe, names, part)


def tail(users: pl.Series, size: float) -> pl.Series:
    """Which events are the last of their user: a share, rounded down, at least one; or so many. Never all of them.

    Args: users: (n,) whose each event is, in any order; a user's own events stand in their order.
    Returns: (n,) Boolean.
    """
    count, place = pl.len().over("user"), pl.int_range(pl.len()).over("user")
    wanted = pl.lit(size) if isinstance(size, int) else _rounded(count, size).clip(1)
    last = pl.when(count > wanted).then(wanted).otherwise(0)
    return users.alias("user").to_frame().select(last=place >= count - last)["last"]


def drawn(pairs: pl.DataFrame, recipe: ShippedDrawn) -> pl.Series:
    """Which pairs are drawn, as many of each user's as `tail` takes: those whose number by seed and ids is least.

    Args: pairs: user and item, (n,) ids each, in any order, none twice.
    Returns: (n,) Boolean.
    """

    def keys(ids: pl.Series) -> torch.Tensor:
        names = ids.cast(pl.String).to_list()
        known = {name: stable_key(name) for name in set(names)}
        return torch.tensor([known[name] for name in names], dtype=torch.int64)

    words = (recipe.seed & 0xFFFFFFFF, recipe.seed >> 32)
    number = uniform_of_pairs(keys(pairs["user"]), keys(pairs["item"]), words)
    order = pl.Series(number.numpy()).arg_sort(descending=True)
    return tail(pairs["user"].gather(order), recipe.valid).gather(order.arg_sort())


def _counting(events: Interactions) -> NDArray[np.bool_]:
    """Which events count for anything: those that do not weigh 0."""
    if "weight" not in events.frame.columns:
        return np.ones(len(events), dtype=bool)
    return events.frame["weight"].to_numpy() > 0


def _rounded(size: pl.Expr, share: float) -> pl.Expr:
    """A share, rounded down; 100 * 0.29 is 28.999.. in binary."""
    return (size * share + 1e-9).floor()


def _numbers(count: int) -> Sequence[str]:
    return tuple(map(str, range(count)))


def _drawn(ids: Sequence[str], recipe: ColdItems | ColdUsers) -> NDArray[np.int8]:
    """(n,) 0 for those learned from, 1 for those that select, 2 for those that test: a function of (seed, id) alone."""
    keys = np.fromiter((stable_key(f"{recipe.seed}\x1f{name}") for name in ids), np.int64, len(ids))
    uniform = keys.view(np.uint64) / 2.0**64
    return np.where(uniform < recipe.test, 2, np.where(uniform < recipe.test + recipe.valid, 1, 0)).astype(np.int8)


def _cold_user_parts(recipe: ColdUsers) -> tuple[str, ...]:
    return COLD_USER_PARTS if recipe.history is None else (OLDER, *COLD_USER_PARTS)


def _by_cold_user(events: Interactions, recipe: ColdUsers, ids: Sequence[str]) -> NDArray[np.int8]:
    users, counts = events.frame["user"].to_numpy(), _counting(events)
    asked = np.zeros(len(events), dtype=bool)
    asked[counts] = tail(events.frame["user"].filter(counts), recipe.asked).to_numpy()
    enough = np.bincount(users[asked], minlength=events.n_users) > 0
    drawn = np.where(enough, _drawn(ids, recipe), 0)[users]
    part = np.where(drawn > 0, 2 * drawn - 1 + asked, 0)
    if recipe.history is not None:
        given = np.flatnonzero(counts & ~asked & (drawn > 0))
        left = pl.int_range(pl.len()).reverse().over("user")
        old = pl.DataFrame({"user": users[given]}).select(left >= recipe.history).to_series().to_numpy()
        part += 1
        part[given[old]] = 0
    return part.astype(np.int8)


def _by_time(events: Interactions, recipe: GlobalTime) -> NDArray[np.int8]:
    if events.order != "time":
        raise InvalidInput(say("global-time needs the time of every event", remedy="Use user-order or leave-last-out"))
    time = events.frame["time_us"].to_numpy()
    cuts = np.quantile(time, [1 - recipe.valid - recipe.test, 1 - recipe.test], method="lower")
    return np.searchsorted(cuts, time, side="left").astype(np.int8)


def _by_user(events: Interactions, recipe: UserOrder | LeaveLastOut) -> NDArray[np.int8]:
    counts = pl.col("weight") > 0 if "weight" in events.frame.columns else pl.lit(value=True)
    size = counts.sum().over("user") if "weight" in events.frame.columns else pl.len().over("user")
    if isinstance(recipe, LeaveLastOut):
        test = pl.when(size >= 3).then(1).otherwise(0)
        valid = test
    else:
        test, valid = (_rounded(size, share) for share in (recipe.test, recipe.valid))
    left = size - (counts.cum_sum().over("user") - 1 if "weight" in events.frame.columns else pl.col("position"))
    part = pl.when(~counts).then(0).when(left <= test).then(2).when(left <= test + valid).then(1).otherwise(0)
    return events.frame.select(part.cast(pl.Int8)).to_series().to_numpy()
