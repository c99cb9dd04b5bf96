"""Recipes on data small enough to split by hand."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from rediffuse.data.dataset import Dataset
from rediffuse.data.interactions import Interactions, Order
from rediffuse.data.splits import (
    COLD_USER_PARTS,
    RECIPES,
    AsShipped,
    ColdItems,
    ColdUsers,
    GlobalTime,
    LeaveLastOut,
    Recipe,
    ShippedDrawn,
    ShippedTail,
    UserOrder,
    drawn,
    protocols_of,
    recipe_from_json,
    recipe_of,
    split,
    tail,
)
from rediffuse.errors import InvalidConfig, InvalidInput
from rediffuse.evaluation.protocol import Protocol


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
    for recipe in (ShippedTail(), ShippedDrawn()):
        with pytest.raises(InvalidInput, match=r"shipped-\w+ keeps the parts .* Allowed: global-time, user-order"):
            split(by_user([5]), recipe)


def test_another_seed_draws_other_pairs_and_what_joins_moves_no_other_user() -> None:
    """As many of each user's as the tail takes, none of a single one."""
    pairs = pl.DataFrame({"user": ["a"] * 20 + ["b"] * 9 + ["c"], "item": [*range(20), *range(9), 0]})
    one = drawn(pairs, ShippedDrawn(valid=0.2))
    assert pairs.filter(one)["user"].value_counts(sort=True).rows() == [("a", 4), ("b", 1)]
    assert not drawn(pairs, ShippedDrawn(valid=0.2, seed=2)).equals(one)
    assert drawn(pairs[::-1], ShippedDrawn(valid=0.2))[::-1].equals(one)
    more = pl.concat([pairs, pl.DataFrame({"user": ["d"] * 5, "item": range(5)})])
    assert drawn(more, ShippedDrawn(valid=0.2))[:30].equals(one)


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
    for name in RECIPES:
        assert recipe_from_json(recipe_of(name).model_dump(mode="json")).recipe == name


def test_unknown_recipes_and_shares_are_refused() -> None:
    with pytest.raises(
        InvalidConfig, match=r"Unknown split recipe 'global'\. Nearest known split recipe: 'global-time'"
    ):
        recipe_of("global")
    with pytest.raises(InvalidConfig, match=r"test = 0\.5 is not possible"):
        recipe_of("global-time", {"test": 0.5})


def met(pairs: list[tuple[int, int]], n_items: int, order: Order = "sequence") -> Interactions:
    """Events of (user, item), sorted by user."""
    frame = pl.DataFrame(pairs, schema={"user": pl.Int64, "item": pl.Int64}, orient="row")
    frame = frame.with_columns(position=pl.int_range(pl.len(), dtype=pl.Int64).over("user"))
    return Interactions(frame, max(user for user, _ in pairs) + 1, n_items, order)


def test_a_tail_has_at_least_one_and_spares_a_single_event() -> None:
    users = pl.Series("u", [*"ababa", *"c", *"aaaaaaaaaaaaaaaaa"])
    assert tail(users, 0.1).to_list() == [*[False] * 3, True, *[False] * 17, True, True]
    assert tail(pl.Series([0] * 100), 0.29).sum() == 29


def test_every_event_of_a_cold_item_is_in_its_part() -> None:
    pairs = [(user, item) for user in range(20) for item in range(50)]
    found = split(met(pairs, 50, "none"), ColdItems(valid=0.2, test=0.3))
    part = found.part.reshape(20, 50)
    assert (part == part[0]).all()
    assert set(part[0].tolist()) == {0, 1, 2}
    other = split(met(pairs, 50, "none"), ColdItems(valid=0.2, test=0.3, seed=2))
    assert (other.part != found.part).any()


def test_the_draw_is_of_the_id_alone_and_near_its_share() -> None:
    ids = [f"item {n}" for n in range(2000)]
    recipe = ColdItems(valid=0.1, test=0.2)
    part = split(met([(0, n) for n in range(2000)], 2000), recipe, items=ids).part
    assert abs((part == 1).mean() - 0.1) < 0.03
    assert abs((part == 2).mean() - 0.2) < 0.03
    fewer = split(met([(0, n) for n in range(1000)], 1000), recipe, items=ids[1000:]).part
    assert (fewer == part[1000:]).all()
    assert recipe_from_json(recipe.model_dump(mode="json")) == recipe


def test_cold_users_are_asked_for_their_last_events() -> None:
    sizes = [10, 1, 2, 5] * 10
    found = split(by_user(sizes), ColdUsers(valid=0.3, test=0.3, asked=0.25))
    assert found.parts == COLD_USER_PARTS
    seen: set[str] = set()
    ends = np.cumsum(sizes)
    for size, end in zip(sizes, ends.tolist(), strict=True):
        mine = [found.parts[place] for place in found.part[end - size : end]]
        asked = {10: 2, 5: 1, 2: 1, 1: 0}[size]
        whole = {"train": ["train"] * size}
        for name in ("valid", "test"):
            whole[name] = [f"{name}-history"] * (size - asked) + [name] * asked
        kind = mine[-1]
        assert mine == whole[kind]
        assert size > 1 or kind == "train"
        seen.add(kind)
    assert seen == {"train", "valid", "test"}


@given(st.integers(0, 2**63 - 1), st.lists(st.integers(1, 12), min_size=8, max_size=40))
def test_no_cold_user_is_ever_learned_from(seed: int, sizes: list[int]) -> None:
    events = by_user(sizes)
    try:
        found = split(events, ColdUsers(seed=seed, valid=0.4, test=0.4))
    except InvalidInput:  # a part is empty
        assume(False)
        raise
    users = events.frame["user"].to_numpy()
    groups = [
        set(users[found.mask(names)]) for names in (["train"], ["valid-history", "valid"], ["test-history", "test"])
    ]
    assert sum(map(len, groups)) == len(sizes)
    assert set(users[found.mask(["valid"])]) == set(users[found.mask(["valid-history"])]) == groups[1]


def test_a_cold_user_may_be_asked_one_event_after_so_many() -> None:
    sizes = [12, 4, 2, 1] * 60
    events = by_user(sizes)
    whole = split(events, ColdUsers(valid=0.3, test=0.3))
    found = split(events, ColdUsers(valid=0.3, test=0.3, asked=1, history=3))
    assert found.parts == ("older", *COLD_USER_PARTS)
    users, seen = events.frame["user"].to_numpy(), set[tuple[int, str]]()
    for user, size in enumerate(sizes):
        mine = [found.parts[place] for place in found.part[users == user]]
        kind = mine[-1]
        assert kind == whole.parts[whole.part[users == user][-1]]  # the same users are drawn
        if kind != "train":
            given = min(size - 1, 3)
            assert mine == ["older"] * (size - 1 - given) + [f"{kind}-history"] * given + [kind]
        else:
            assert set(mine) == {"train"}
        seen.add((size, kind))
    assert seen == {(size, kind) for size in (12, 4, 2) for kind in ("train", "valid", "test")} | {(1, "train")}


def test_a_short_history_leaves_nothing_older_and_users_who_have_too_little_only_train() -> None:
    events = by_user([3] * 40 + [2] * 40)
    found = split(events, ColdUsers(valid=0.4, test=0.4, asked=2, history=10))
    assert not found.mask(["older"]).any()
    assert found.mask(["train"])[120:].all()
    assert np.bincount(events.frame["user"].to_numpy()[found.mask(["valid", "test"])]).max() == 2


@pytest.mark.parametrize("asked", [0, 0.5, 1.5, -1, 2.0])
def test_what_is_asked_is_a_share_or_a_number_of_events(asked: float) -> None:
    with pytest.raises(InvalidConfig, match=rf"asked = {asked} is not possible: it is a share above 0 and below 0\.5"):
        recipe_of("cold-users", {"asked": asked})
    assert recipe_of("cold-users", {"asked": 3}).model_dump()["asked"] == 3
    for value in (0.2, 1):
        again = recipe_from_json(ColdUsers(asked=value).model_dump(mode="json"))
        assert isinstance(again, ColdUsers)
        assert type(again.asked) is type(value)


def test_cold_users_need_an_order_and_cold_items_none() -> None:
    with pytest.raises(InvalidInput, match="cold-users needs events in a known order; this data has none"):
        split(by_user([10] * 50, "none"), ColdUsers())
    split(by_user([10] * 50, "none"), ColdItems())
    with pytest.raises(InvalidInput, match=r"cold-items leaves the part '\w+' empty\. Choose another recipe"):
        split(by_user([2]), ColdItems())


@pytest.mark.parametrize(
    "recipe",
    [ColdItems(valid=0.3, test=0.3), ColdUsers(valid=0.3, test=0.3), ColdUsers(asked=1, history=2)],
)
def test_cold_recipes_bring_a_protocol_that_fits_and_leaks_nothing(recipe: Recipe) -> None:
    frame = pl.DataFrame({"user": [f"u{n // 8}" for n in range(400)], "item": [f"i{n % 50}" for n in range(400)]})
    data = Dataset.from_events("d", frame, order="sequence")
    parted = replace(data, split=split(data.events, recipe), protocols=protocols_of(recipe))
    protocol = Protocol.make(parted.protocols[recipe.recipe])
    protocol.check(parted)
    assert protocol.leaks(parted) == []
    assert [*protocols_of(recipe)] == [recipe.recipe]
    learned = parted.history(*protocol.fit)
    relevant = parted.history(protocol.report.relevant)
    if isinstance(recipe, ColdItems):
        assert not set(relevant.items.tolist()) & set(learned.items.tolist())
    else:
        assert not ((relevant.lengths > 0) & (learned.lengths > 0)).any()
        history = parted.history(*protocol.report.history)
        assert ((history.lengths > 0) == (relevant.lengths > 0)).all()


def test_the_standard_protocol_fits_the_other_recipes() -> None:
    assert [protocols_of(recipe) for recipe in (AsShipped(), GlobalTime(), UserOrder(), LeaveLastOut())] == [{}] * 4
    changed = protocols_of(ColdItems())
    changed["cold-items"]["fit"].append("test")
    assert protocols_of(ColdItems())["cold-items"]["fit"] == ["train"]
