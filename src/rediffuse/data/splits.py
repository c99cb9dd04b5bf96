"""How events are parted, as a value: the recipe is recorded with the result."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import Field, TypeAdapter

from rediffuse.config import FrozenConfig
from rediffuse.data.interactions import Interactions
from rediffuse.errors import InvalidConfig, InvalidInput, say, unknown

PARTS = ("train", "valid", "test")
Share = Annotated[float, Field(gt=0, lt=0.5)]


class AsShipped(FrozenConfig):
    """The parts that came with the data."""

    recipe: Literal["as-shipped"] = "as-shipped"
    parts: tuple[str, ...] = PARTS
    """Their names in the order in which they stand in time, earliest first."""


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


Recipe = AsShipped | GlobalTime | UserOrder | LeaveLastOut
_RECIPES: dict[str, type[Recipe]] = {
    "as-shipped": AsShipped,
    "global-time": GlobalTime,
    "user-order": UserOrder,
    "leave-last-out": LeaveLastOut,
}
RECIPES: Sequence[str] = tuple(_RECIPES)


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


def split(events: Interactions, recipe: Recipe) -> Split:
    """Part events by a recipe.

    Raises: InvalidInput when the recipe needs an order or times that the data has not, or a part stays empty.
    """
    if isinstance(recipe, AsShipped):
        raise InvalidInput(
            say("as-shipped keeps the parts a data set came with; this one has none", allowed=", ".join(RECIPES[1:]))
        )
    if isinstance(recipe, GlobalTime):
        part = _by_time(events, recipe)
    else:
        if events.order == "none":
            raise InvalidInput(say(f"{recipe.recipe} needs events in a known order; this data has none"))
        part = _by_user(events, recipe)
    for place, name in enumerate(PARTS):
        if not (part == place).any():
            raise InvalidInput(say(f"{recipe.recipe} leaves the part {name!r} empty", remedy="Choose another recipe"))
    return Split(recipe, PARTS, part)


def _by_time(events: Interactions, recipe: GlobalTime) -> NDArray[np.int8]:
    if events.order != "time":
        raise InvalidInput(say("global-time needs the time of every event", remedy="Use user-order or leave-last-out"))
    time = events.frame["time_us"].to_numpy()
    cuts = np.quantile(time, [1 - recipe.valid - recipe.test, 1 - recipe.test], method="lower")
    return np.searchsorted(cuts, time, side="left").astype(np.int8)


def _by_user(events: Interactions, recipe: UserOrder | LeaveLastOut) -> NDArray[np.int8]:
    size = pl.len().over("user")
    if isinstance(recipe, LeaveLastOut):
        test = pl.when(size >= 3).then(1).otherwise(0)
        valid = test
    else:
        # 100 * 0.29 is 28.999.. in binary
        test, valid = ((size * share + 1e-9).floor() for share in (recipe.test, recipe.valid))
    left = size - pl.col("position")
    part = pl.when(left <= test).then(2).when(left <= test + valid).then(1).otherwise(0)
    return events.frame.select(part.cast(pl.Int8)).to_series().to_numpy()
