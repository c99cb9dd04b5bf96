"""Examples that stand at a moment: nothing later than it is told, and x_0 is what was asked for."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from rediffuse.config import RunConfig
from rediffuse.data.weighting import weigh
from rediffuse.errors import InvalidInput
from rediffuse.protocols import Context, FitData
from rediffuse.training.moments import MomentConfig, Moments, condition_of, drawn, examples, sizes_for
from rediffuse.types import Condition, Query, Ragged, SparseRows

RUN = RunConfig(device="cpu")
# Each item stands once, so that it tells the event: user u's event j is item 100 u + j. Users 1 and 4 have none.
LENGTHS = (7, 0, 1, 12, 0, 2)
LISTS = [[100 * user + j for j in range(n)] for user, n in enumerate(LENGTHS)]
KNOWN = [user for user, n in enumerate(LENGTHS) if n]
ITEMS = 600


def data(order: str = "time") -> FitData:
    history = Ragged.of(LISTS)
    of_event = Context("event", history.items.clone(), tuple(map(str, range(ITEMS))))
    of_user = Context("user", torch.tensor([10, 11, 12, 13, 14, -1]), tuple(map(str, range(20))))
    return FitData(history, ITEMS, order, {"device": of_event, "region": of_user})  # type: ignore[arg-type]


def config(*condition: str, **more: object) -> MomentConfig:
    return MomentConfig.make(condition=condition, **{"horizon": 3, "condition_drop": 0.0, **more})


class Drawn(NamedTuple):
    """One example of one user."""

    user: int
    row: dict[int, float]
    """item -> its weight in x_0."""
    wanted: dict[int, float]
    values: dict[str, list[int]]
    cond: Condition


def weights(rows: SparseRows, row: int) -> dict[int, float]:
    one = rows.select(torch.tensor([row]))
    return dict(zip(one.items.tolist(), one.values.tolist(), strict=True))


def many(settings: MomentConfig, times: int = 120) -> list[Drawn]:
    """Many draws of every user."""
    moments = Moments.of(data(), settings, "cpu")
    assert len(moments) == len(KNOWN)
    generator, batch = torch.Generator().manual_seed(0), torch.arange(len(KNOWN))
    out = []
    for _ in range(times):
        row, wanted, cond = moments.draw(batch, generator)
        assert cond is not None
        for place, user in enumerate(KNOWN):
            values = {name: value[place].reshape(-1).tolist() for name, value in cond.values.items()}
            own = cond.select(torch.tensor([place]))
            out.append(Drawn(user, weights(row, place), weights(wanted, place), values, own))
    return out


@pytest.mark.parametrize("target", ["row", "next"])
def test_history_is_what_was_before_the_event_and_x0_what_was_asked_for(target: str) -> None:
    seen: dict[int, set[int]] = {user: set() for user in KNOWN}
    for user, row, wanted, values, cond in many(config("history", "device", "region", target=target, horizon=3)):
        moment = values["device"][0] - 100 * user  # the context is that of the drawn event
        seen[user].add(moment)
        before = [item for item in values["history"] if item >= 0]
        assert before == LISTS[user][:moment][::-1]
        last = min(moment + 3, LENGTHS[user])
        asked = LISTS[user] if target == "row" else LISTS[user][moment:last]
        assert row == dict.fromkeys(asked, 1.0)
        # Each event has a device of its own: a row counts that of the moment twice, the others at right angles once.
        assert wanted == {item: 1.0 + (target == "row" and item == LISTS[user][moment]) for item in asked}
        assert values["region"] == [(10, 11, 12, 13, 14, -1)[user]]
        assert bool(cond.present["history"]) == (moment > 0)
        assert bool(cond.present["region"]) == (user != 5)
    # Every event has its turn; what comes next is asked from the second on, but for a single one.
    first = {user: int(target == "next" and LENGTHS[user] > 1) for user in KNOWN}
    assert seen == {user: set(range(first[user], LENGTHS[user])) for user in KNOWN}


@pytest.mark.parametrize("target", ["row", "next"])
def test_the_history_is_cut_to_its_newest(target: str) -> None:
    for user, _, _, values, _ in many(config("history", "device", history_length=2, target=target), times=10):
        moment = values["device"][0] - 100 * user
        assert [item for item in values["history"] if item >= 0] == LISTS[user][:moment][::-1][:2]


def test_what_is_known_of_a_user_or_before_a_moment_weighs_nothing() -> None:
    for settings in (config("region"), config("history"), config("region", "history", horizon=1)):
        for drawn_ in many(settings, times=3):
            assert drawn_.row == drawn_.wanted == dict.fromkeys(LISTS[drawn_.user], 1.0)


def moments_of(
    contexts: Mapping[str, Context], items: list[int], *, weight: Tensor | None = None, **more: object
) -> Moments:
    """Those of a single user."""
    history = replace(Ragged.of([items]), weight=weight)
    return Moments.of(FitData(history, 10, "time", contexts), config(*contexts, **more), "cpu")


def by_moment(moments: Moments, name: str, times: int = 60) -> dict[float, list[float]]:
    """What a condition is -> the dense row that is wanted then; the same in every draw, and what is noised is plain."""
    found: dict[float, list[float]] = {}
    generator = torch.Generator().manual_seed(1)
    for _ in range(times):
        row, wanted, cond = moments.draw(torch.tensor([0]), generator)
        assert cond is not None
        assert torch.equal(row.dense(), weigh(moments.history, moments.config, 10).dense())
        value, dense = cond.values[name].item(), wanted.dense()[0].tolist()
        value = -1.0 if math.isnan(value) else round(value, 4)
        assert found.setdefault(value, dense) == dense
    return found


SEASONS = Context("event", torch.tensor([0.0, 0.25, 0.5, 0.125, float("nan")]))
HALF = math.sqrt(0.5)


def test_a_row_counts_events_by_how_near_their_season_is() -> None:
    """1 + cos of the angle between: 2 in the same season, 0 half a year apart, 1 a quarter apart or unknown."""
    found = by_moment(moments_of({"season": SEASONS}, [3, 4, 5, 6, 7]), "season")
    expected = {
        0.0: [2, 1, 0, 1 + HALF, 1],
        0.25: [1, 2, 1, 1 + HALF, 1],
        0.5: [0, 1, 2, 1 - HALF, 1],
        0.125: [1 + HALF, 1 + HALF, 1 - HALF, 2, 1],
        -1.0: [1, 1, 1, 1, 1],  # the moment's season is unknown
    }
    assert set(found) == set(expected)
    for season, wanted in expected.items():
        assert found[season] == pytest.approx([0, 0, 0, *wanted, 0, 0], abs=1e-6)


def test_a_row_counts_events_of_the_same_word_twice() -> None:
    device = Context("event", torch.tensor([0, 1, 0, 2, -1]), ("phone", "desk", "till"))
    found = by_moment(moments_of({"device": device}, [3, 4, 5, 6, 7]), "device")
    one = [0, 0, 0, 1, 1, 1, 1, 1, 0, 0]
    twice = {0: (3, 5), 1: (4,), 2: (6,), -1: ()}
    assert found == {
        code: [weight + (item in items) for item, weight in enumerate(one)] for code, items in twice.items()
    }


def test_conditions_multiply_with_each_other_with_age_and_with_what_an_event_weighs() -> None:
    device = Context("event", torch.tensor([0, 0, 1, 1, 1]), ("phone", "desk"))
    own = torch.tensor([1.0, 1.0, 3.0, 1.0, 1.0])
    more = {"recency": "linear", "weight_min": 0.2, "weight_max": 1.0}
    moments = moments_of({"season": SEASONS, "device": device}, [3, 4, 5, 6, 7], weight=own, **more)
    found = by_moment(moments, "season")
    age = [0.2, 0.4, 0.6, 0.8, 1.0]
    near = {0.0: [2 * 2, 1 * 2, 0, 1 + HALF, 1], -1.0: [1, 1, 2, 2, 2]}
    for season, weight in near.items():
        expected = [a * w * o for a, w, o in zip(age, weight, own.tolist(), strict=True)]
        assert found[season] == pytest.approx([0, 0, 0, *expected, 0, 0], abs=1e-6)


def test_an_item_taken_twice_weighs_as_its_nearest_event() -> None:
    device = Context("event", torch.tensor([0, 1, 1]), ("phone", "desk"))
    found = by_moment(moments_of({"device": device}, [3, 4, 3]), "device")
    assert {code: (row[3], row[4]) for code, row in found.items()} == {0: (2, 1), 1: (2, 2)}


def test_a_condition_that_is_dropped_weighs_nothing() -> None:
    season = Context("event", torch.tensor([0.0, 0.5]))
    device = Context("event", torch.tensor([0, 1]), ("phone", "desk"))
    moments = moments_of({"season": season, "device": device}, [3, 4], condition_drop=0.4)
    generator, counts = torch.Generator().manual_seed(2), dict.fromkeys(itertools.product((True, False), repeat=2), 0)
    for _ in range(400):
        row, wanted, cond = moments.draw(torch.tensor([0]), generator)
        assert cond is not None
        here, there = (bool(cond.present[name]) for name in ("season", "device"))
        counts[here, there] += 1
        own = int(cond.values["device"])
        near, far = wanted.dense()[0, 3 + own], wanted.dense()[0, 4 - own]
        assert (float(near), float(far)) == pytest.approx(((1 + here) * (1 + there), float(not here)), abs=1e-6)
        assert row.dense()[0, 3:5].tolist() == [1, 1]
    for (here, there), count in counts.items():
        assert count / 400 == pytest.approx((0.6 if here else 0.4) * (0.6 if there else 0.4), abs=0.08)


@pytest.mark.parametrize("target", ["row", "next"])
def test_x0_weighs_as_the_settings_say(target: str) -> None:
    settings = config("history", "region", recency="linear", weight_min=0.2, target=target, horizon=100)
    moments = Moments.of(data(), settings, "cpu")
    row, wanted, cond = moments.draw(torch.arange(len(KNOWN)), torch.Generator().manual_seed(0))
    assert cond is not None
    assert wanted is row
    before = (cond.values["history"] >= 0).sum(1).tolist() if target == "next" else [0] * len(KNOWN)
    asked = [LISTS[user][moment:] for user, moment in zip(KNOWN, before, strict=True)]
    torch.testing.assert_close(row.dense(), weigh(Ragged.of(asked), settings, ITEMS).dense())


def test_conditions_are_dropped_in_training() -> None:
    moments = examples(data(), config("history", "region", condition_drop=0.25), RUN)
    row, _, cond = drawn(moments, torch.full((4000,), 2), torch.Generator().manual_seed(0))
    assert (len(row), row.width) == (4000, ITEMS)
    assert cond is not None
    first = 1 / LENGTHS[KNOWN[2]]  # of its events, which nothing comes before
    for name, share in (("history", 0.75 * (1 - first)), ("region", 0.75)):
        assert float(cond.present[name].double().mean()) == pytest.approx(share, abs=0.03)


def test_without_conditions_examples_are_the_rows() -> None:
    rows = examples(data(), config(), RUN)
    assert isinstance(rows, SparseRows)
    row, wanted, cond = drawn(rows, torch.tensor([2]), torch.Generator())
    assert cond is None
    assert wanted is row
    assert weights(row, 0) == dict.fromkeys(LISTS[3], 1.0)


@pytest.mark.parametrize("condition", [("history",), ("region", "device")])
def test_a_moment_needs_an_order(condition: Sequence[str]) -> None:
    with pytest.raises(InvalidInput, match="needs events in a known order; this data has none"):
        examples(data("none"), config(*condition), RUN)
    assert len(examples(data("none"), config("region"), RUN)) == len(KNOWN)


def test_sizes_are_those_of_the_data() -> None:
    assert sizes_for(("history", "region"), data()) == {"history": ITEMS, "region": 20}
    with pytest.raises(InvalidInput, match=r"Unknown condition 'regions'\. Nearest known condition: 'region'"):
        sizes_for(("regions",), data())


def test_a_query_tells_what_it_knows() -> None:
    query = Query.from_history(Ragged.of([[1, 2], []]))
    assert condition_of((), query, 5) is None
    asked = Query(query.user, query.history, query.key, context={"season": torch.tensor([0.5, float("nan")])})
    cond = condition_of(("history", "season", "region"), asked, 5)
    assert cond is not None
    told = {name: there.tolist() for name, there in cond.present.items()}
    assert told == {"history": [True, False], "season": [True, False], "region": [False, False]}
    assert cond.values["history"].tolist() == [[2, 1], [-1, -1]]


@pytest.mark.parametrize(
    ("given", "names"), [("season", ("season",)), ("history, season", ("history", "season")), ("", ()), (["a"], ("a",))]
)
def test_conditions_may_be_written_in_one_word(given: object, names: tuple[str, ...]) -> None:
    assert MomentConfig.make(condition=given).condition == names
