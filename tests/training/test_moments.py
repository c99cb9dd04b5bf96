"""Examples that stand at a moment: nothing later than it is told, and x_0 is what was asked for."""

from collections.abc import Sequence

import pytest
import torch

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
    return MomentConfig.make(condition=condition, **{"horizon": 3, **more})


def many(settings: MomentConfig, times: int = 60) -> list[tuple[int, list[int], dict[str, list[int]], Condition]]:
    """(user, items of x_0, values of the conditions, conditions) of many draws."""
    moments = Moments.of(data(), settings, "cpu")
    assert len(moments) == len(KNOWN)
    generator, batch = torch.Generator().manual_seed(0), torch.arange(len(KNOWN))
    out = []
    for _ in range(times):
        x0, cond = moments.draw(batch, generator)
        for row, user in enumerate(KNOWN):
            one = x0.select(torch.tensor([row]))
            values = {name: value[row].reshape(-1).tolist() for name, value in cond.values.items()}
            out.append((user, one.items.tolist(), values, cond.select(torch.tensor([row]))))
    return out


@pytest.mark.parametrize("target", ["row", "next"])
def test_history_is_what_was_before_the_event_and_x0_what_was_asked_for(target: str) -> None:
    seen: dict[int, set[int]] = {user: set() for user in KNOWN}
    for user, x0, values, cond in many(config("history", "device", "region", target=target, horizon=3)):
        moment = values["device"][0] - 100 * user  # the context is that of the drawn event
        seen[user].add(moment)
        before = [item for item in values["history"] if item >= 0]
        assert before == LISTS[user][:moment][::-1]
        last = min(moment + 3, LENGTHS[user])
        assert sorted(x0) == LISTS[user][0 if target == "row" else moment : last]
        assert values["region"] == [(10, 11, 12, 13, 14, -1)[user]]
        assert bool(cond.present["history"]) == (moment > 0)
        assert bool(cond.present["region"]) == (user != 5)
    # Every event from the second on has its turn; a single one follows an empty history.
    assert seen == {user: set(range(1, n)) if (n := LENGTHS[user]) > 1 else {0} for user in KNOWN}


def test_the_history_is_cut_to_its_newest() -> None:
    for user, _, values, _ in many(config("history", "device", history_length=2), times=10):
        moment = values["device"][0] - 100 * user
        assert [item for item in values["history"] if item >= 0] == LISTS[user][:moment][::-1][:2]


def test_where_no_condition_tells_of_a_moment_rows_are_whole() -> None:
    for user, x0, values, _ in many(config("region", horizon=1), times=3):
        assert sorted(x0) == LISTS[user]
        assert list(values) == ["region"]


def test_x0_weighs_as_the_settings_say() -> None:
    moments = Moments.of(data(), config("region", recency="linear", weight_min=0.2), "cpu")
    x0, _ = moments.draw(torch.arange(len(KNOWN)), torch.Generator())
    whole = weigh(Ragged.of([LISTS[user] for user in KNOWN]), moments.config, ITEMS)
    torch.testing.assert_close(x0.dense(), whole.dense())


def test_conditions_are_dropped_only_on_the_way_to_training() -> None:
    moments = examples(data(), config("history", "region"), RUN)
    batch = torch.zeros(4000, dtype=torch.int64)
    x0, cond = drawn(moments, batch, 0.25, torch.Generator().manual_seed(0))
    assert x0.shape == (4000, ITEMS)
    assert cond is not None
    for there in cond.present.values():
        assert float(there.double().mean()) == pytest.approx(0.75, abs=0.03)


def test_without_conditions_examples_are_the_rows() -> None:
    rows = examples(data(), config(), RUN)
    assert isinstance(rows, SparseRows)
    x0, cond = drawn(rows, torch.tensor([2]), 0.5, torch.Generator())
    assert cond is None
    assert x0[0].nonzero().flatten().tolist() == LISTS[3]


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
