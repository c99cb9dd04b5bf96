"""Recipes on data small enough to split by hand."""

import numpy as np
import polars as pl
import pytest

from rediffuse.data.interactions import Interactions, Order
from rediffuse.data.splits import (
    AsShipped,
    GlobalTime,
    LeaveLastOut,
    Recipe,
    UserOrder,
    recipe_from_json,
    recipe_of,
    split,
)
from rediffuse.errors import InvalidConfig, InvalidInput


def by_user(sizes: list[int], order: Order = "sequence", time: list[int] | None = None) -> Interactions:
    """Users with so many events each; each of an item of its own."""
    columns = {
        "user": [user for user, size in enumerate(sizes) for _ in range(size)],
        "item": list(range(sum(sizes))),
        "position": [place for size in sizes for place in range(size)],
    }
    if time is not None:
        columns["time_us"] = time
    return Interactions(pl.DataFrame(columns, schema=dict.fromkeys(columns, pl.Int64)), len(sizes), sum(sizes), order)


def test_global_time_cuts_everybody_at_the_same_moments() -> None:
    events = by_user([5, 5], "time", time=[1, 3, 5, 7, 9, 2, 4, 6, 8, 10])
    found = split(events, GlobalTime(valid=0.2, test=0.2))
    assert found.parts == ("train", "valid", "test")
    assert found.part.tolist() == [0, 0, 0, 1, 2, 0, 0, 0, 1, 2]


def test_global_time_never_parts_events_of_one_moment() -> None:
    events = by_user([10], "time", time=[1, 1, 1, 1, 1, 1, 2, 2, 2, 3])
    found = split(events, GlobalTime(valid=0.3, test=0.1))
    assert found.part.tolist() == [0, 0, 0, 0, 0, 0, 1, 1, 1, 2]


def test_global_time_needs_times() -> None:
    with pytest.raises(InvalidInput, match=r"global-time needs the time of every event\. Use user-order"):
        split(by_user([5, 5]), GlobalTime())


def test_a_part_that_stays_empty_is_refused() -> None:
    with pytest.raises(InvalidInput, match="global-time leaves the part 'valid' empty"):
        split(by_user([4], "time", time=[1, 1, 1, 1]), GlobalTime())
    with pytest.raises(InvalidInput, match="leave-last-out leaves the part 'valid' empty"):
        split(by_user([2, 1]), LeaveLastOut())


def test_user_order_rounds_down_so_tiny_users_only_train() -> None:
    found = split(by_user([10, 4, 1]), UserOrder(valid=0.1, test=0.2))
    assert found.part.tolist() == [0] * 7 + [1, 2, 2] + [0] * 4 + [0]


def test_user_order_counts_whole_shares_whole() -> None:
    found = split(by_user([100]), UserOrder(valid=0.35, test=0.29))
    assert np.bincount(found.part).tolist() == [36, 35, 29]


def test_leave_last_out_needs_three_events_of_a_user() -> None:
    found = split(by_user([4, 3, 2, 1]), LeaveLastOut())
    assert found.part.tolist() == [0, 0, 1, 2, 0, 1, 2, 0, 0, 0]


@pytest.mark.parametrize("recipe", [UserOrder(), LeaveLastOut()])
def test_recipes_by_user_need_an_order(recipe: Recipe) -> None:
    with pytest.raises(InvalidInput, match=f"{recipe.recipe} needs events in a known order; this data has none"):
        split(by_user([10], "none"), recipe)


def test_as_shipped_is_no_recipe_for_other_data() -> None:
    with pytest.raises(InvalidInput, match="as-shipped keeps the parts"):
        split(by_user([5]), AsShipped())


def test_masks_and_places_know_the_parts() -> None:
    found = split(by_user([4]), LeaveLastOut())
    assert found.mask(["train", "test"]).tolist() == [True, True, False, True]
    assert found.mask([]).tolist() == [False] * 4
    assert found.place("valid") == 1
    with pytest.raises(InvalidInput, match=r"Unknown part 'tst'\. Nearest known part: 'test'"):
        found.mask(["tst"])


def test_recipes_come_by_name_and_survive_json() -> None:
    recipe = recipe_of("user-order", {"test": 0.3})
    assert recipe == UserOrder(valid=0.1, test=0.3)
    assert recipe_from_json(recipe.model_dump(mode="json")) == recipe
    for name in ("as-shipped", "global-time", "leave-last-out"):
        assert recipe_from_json(recipe_of(name).model_dump(mode="json")).recipe == name


def test_unknown_recipes_and_shares_are_refused() -> None:
    with pytest.raises(
        InvalidConfig, match=r"Unknown split recipe 'global'\. Nearest known split recipe: 'global-time'"
    ):
        recipe_of("global")
    with pytest.raises(InvalidConfig, match=r"test = 0\.5 is not possible"):
        recipe_of("global-time", {"test": 0.5})
