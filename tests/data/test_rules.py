"""Which events count, and how much: cases worked by hand."""

import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rediffuse.data.dataset import Dataset
from rediffuse.data.interactions import Order
from rediffuse.data.rules import EventRules
from rediffuse.data.splits import ColdUsers, GlobalTime
from rediffuse.data.weighting import RecencyConfig, weigh
from rediffuse.errors import InvalidConfig, InvalidInput
from rediffuse.types import Ragged

Row = tuple[str, str, int, str | None, float | None]
NAMES = {"user": pl.String, "item": pl.String, "time_us": pl.Int64, "kind": pl.String, "value": pl.Float64}


def shop(rows: list[Row], rules: EventRules | None = None, order: Order = "time") -> Dataset:
    return Dataset.from_events("s", pl.DataFrame(rows, NAMES, orient="row"), order=order, rules=rules)


def weights(data: Dataset) -> list[float]:
    return data.events.frame["weight"].to_list()


ROWS: list[Row] = [("u", "x", 1, "view", 3.0), ("u", "x", 2, "purchase", 5.0), ("v", "y", 3, "cart", None)]


def test_without_kinds_nothing_weighs() -> None:
    data = shop(ROWS)
    assert "weight" not in data.events.frame.columns
    assert data.history().weight is None
    assert data.facts == {"duplicates": 0}
    assert data.repeats == "mask"


def test_kinds_weigh_and_others_are_left_out_and_counted() -> None:
    rules = EventRules(kinds={"purchase": 1, "view": 0.25}, repeats="allow")
    data = shop([*ROWS, ("w", "z", 4, None, None)], rules)
    assert weights(data) == [0.25, 1.0]
    assert data.users.items.ids == ("u",)
    assert data.catalog.items.ids == ("x",)
    assert data.facts["left_out"] == {"no kind": 1, "kind cart": 1}
    assert data.facts["rules"] == rules.model_dump(mode="json")
    assert data.repeats == "allow"
    history = data.history()
    assert history.weight is not None
    assert history.weight.dtype == torch.float32
    assert weigh(history, RecencyConfig(), 1).values.tolist() == [1.0]


def test_weights_multiply_with_recency_and_the_largest_stays() -> None:
    history = Ragged(torch.tensor([0, 3]), torch.tensor([0, 1, 0]), weight=torch.tensor([1.0, 0.5, 0.25]))
    rows = weigh(history, RecencyConfig(recency="exponential", half_life=1), 2)
    assert rows.items.tolist() == [0, 1]
    assert rows.values.tolist() == [0.25, 0.25]


def test_low_ratings_are_left_out_and_missing_ones_stay() -> None:
    data = shop(ROWS, EventRules(min_rating=4))
    assert data.events.frame["value"].to_list() == [5.0, None]
    assert data.facts["left_out"] == {"value below 4": 1}


@pytest.mark.parametrize(
    ("rows", "order", "expected"),
    [
        (["purchase", "return"], "time", [0, 0]),
        (["Purchase", "REFUND"], "time", [0, 0]),
        (["return", "purchase"], "time", [0, 1]),
        (["return", "purchase"], "none", [0, 0]),
        (["purchase", "purchase", "return"], "time", [1, 0, 0]),
        (["purchase", "purchase", "return"], "sequence", [1, 0, 0]),
        (["purchase", "view", "return"], "time", [0, 1, 0]),
        (["purchase", "return", "return", "purchase"], "time", [0, 0, 0, 1]),
        (["purchase", "return", "return", "purchase", "return"], "time", [0, 0, 0, 0, 0]),
        (["purchase", "purchase", "return", "purchase", "return", "return"], "time", [0] * 6),
        (["purchase", "return", "purchase"], "time", [0, 0, 1]),
    ],
)
def test_a_return_takes_back_the_latest_purchase_that_stands(
    rows: list[str], order: Order, expected: list[float]
) -> None:
    events: list[Row] = [("u", "x", at, kind, None) for at, kind in enumerate(rows)]
    data = shop([*events, ("u", "y", 1, "purchase", None), ("w", "x", 1, "purchase", None)], order=order)
    mine = data.events.frame.filter(user=0, item=0).sort("time_us")
    assert mine["weight"].to_list() == expected
    assert data.events.frame["weight"].sum() == sum(expected) + 2
    returns = sum(kind.casefold() in ("return", "refund", "cancel") for kind in rows)
    assert data.facts["returns"]["events"] == returns
    assert data.history().lengths.sum() == sum(expected) + 2


@given(kinds=st.lists(st.sampled_from(["purchase", "return"]), max_size=12))
def test_returns_match_like_a_stack(kinds: list[str]) -> None:
    open_: list[int] = []
    expected = [0.0] * len(kinds)
    for at, kind in enumerate(kinds):
        if kind == "purchase":
            open_.append(at)
            expected[at] = 1.0
        elif open_:
            expected[open_.pop()] = 0.0
    rows: list[Row] = [("u", "x", at, kind, None) for at, kind in enumerate(kinds)]
    data = shop([*rows, ("u", "x", 99, "return", None)])
    last = open_.pop() if open_ else None
    assert weights(data) == [0.0 if at == last else w for at, w in enumerate(expected)] + [0.0]


def test_a_return_at_the_same_moment_stands_behind_its_purchase() -> None:
    assert weights(shop([("u", "x", 1, "cancel", None), ("u", "x", 1, "purchase", None)])) == [0, 0]


def test_where_no_purchase_is_named_the_strongest_kind_is_taken_back() -> None:
    rows: list[Row] = [("u", "x", at, kind, None) for at, kind in enumerate(["play", "skip", "play", "skip", "cancel"])]
    assert weights(shop(rows)) == [1, 1, 1, 0, 0]
    assert weights(shop(rows, EventRules(kinds={"play": 1, "skip": 0.1}))) == pytest.approx([1, 0.1, 0, 0.1, 0])


def test_returns_weigh_nothing_beside_kinds_and_can_be_switched_off() -> None:
    rows: list[Row] = [("u", "x", 1, "order", None), ("u", "x", 2, "view", None), ("u", "x", 3, "return", None)]
    assert weights(shop(rows, EventRules(kinds={"order": 2, "view": 0.5}))) == [0, 0.5, 0]
    assert weights(shop(rows, EventRules(kinds={"order": 2, "view": 0.5}, purchases=("view",)))) == [2, 0, 0]
    data = shop(rows, EventRules(returns=()))
    assert "weight" not in data.events.frame.columns
    assert weights(shop(rows, EventRules(kinds={"order": 1, "return": 0}, returns=()))) == [1, 0]


def test_weights_survive_the_folder_and_tell_content_apart(tmp_path) -> None:
    one, other = (shop(ROWS, EventRules(kinds={"purchase": 1, "view": w})) for w in (0.25, 0.5))
    assert one.digest() != other.digest()
    one.write(tmp_path / "d")
    again = Dataset.read(tmp_path / "d")
    assert again.describe() == one.describe()
    assert weights(again) == [0.25, 1.0]
    allowing = shop(ROWS, EventRules(repeats="allow"))
    allowing.write(tmp_path / "a")
    assert Dataset.read(tmp_path / "a").repeats == "allow"


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        (EventRules(kinds={"purchas": 1}), "Unknown kind 'purchas'. Nearest known kind: 'purchase'."),
        (EventRules(min_rating=9, kinds={"view": 1}), r"The rules leave no event\. Got .*'value below 9': 1"),
    ],
)
def test_rules_that_fit_nothing_are_refused(rules: EventRules, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        shop(ROWS, rules)


@pytest.mark.parametrize(
    ("rules", "needs"), [(EventRules(kinds={"a": 1}), "kinds"), (EventRules(min_rating=1), "values")]
)
def test_rules_need_their_columns(rules: EventRules, needs: str) -> None:
    with pytest.raises(InvalidInput, match=f"column of {needs}. Name it: --map"):
        Dataset.from_events("s", pl.DataFrame({"user": ["u"], "item": ["x"]}), rules=rules)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kinds": {"a": -1}}, "kinds.a = -1 is not possible"),
        ({"kinds": {"a": float("inf")}}, "kinds.a = inf"),
        ({"kinds": {"refund": 1}}, "kind 'refund' cannot both weigh and cancel. Take it out of returns."),
        ({"repeats": "maybe"}, "repeats = 'maybe'"),
        ({"kind": {}}, "Unknown key 'kind'. Nearest known key: 'kinds'."),
    ],
)
def test_contradicting_rules_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidConfig, match=message):
        EventRules.make(values)


def test_a_return_is_not_known_before_it_is_made() -> None:
    """The history of the parts before it holds the purchase still; with it, the purchase is gone."""
    rows = [("u", item, 1_700_000_000_000_000 + n, "purchase") for n, item in enumerate("abcde")]
    rows += [("u", "a", 1_700_000_000_000_100, "return")]
    frame = pl.DataFrame(rows, schema=["user", "item", "time_us", "kind"], orient="row")
    data = Dataset.from_events("shop", frame).with_split(GlobalTime(valid=0.2, test=0.3))
    assert data.history("train").to_lists() == [[0, 1, 2]]
    assert data.history("train", "valid").to_lists() == [[0, 1, 2, 3]]
    assert data.history().to_lists() == [[1, 2, 3, 4]]
    assert data.history("test").to_lists() == [[4]]


def test_cold_users_are_asked_for_events_that_count() -> None:
    rows = [
        (f"u{user}", item, 1_700_000_000_000_000 + n, kind)
        for user in range(40)
        for n, (item, kind) in enumerate([("a", "buy"), ("b", "buy"), ("c", "buy"), ("d", "buy"), ("d", "return")])
    ]
    frame = pl.DataFrame(rows, schema=["user", "item", "time_us", "kind"], orient="row")
    data = Dataset.from_events("shop", frame).with_split(ColdUsers(valid=0.3, test=0.3, asked=0.3))
    for part in ("valid", "test"):
        asked = data.history(part).lengths
        assert int((asked > 0).sum()) > 0
        assert set(asked.tolist()) <= {0, 1}
