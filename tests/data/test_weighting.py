"""How events weigh: formulas against numbers worked by hand."""

import pytest
import torch

from rediffuse.data.weighting import DAY_US, RecencyConfig, weigh
from rediffuse.errors import InvalidConfig, InvalidInput
from rediffuse.types import Ragged


def values(history: Ragged, at_us: torch.Tensor | None = None, **setting: object) -> list[float]:
    return weigh(history, RecencyConfig.make(setting), 10, at_us).values.tolist()


def at_days(rows: list[list[int]], days: list[float]) -> Ragged:
    history = Ragged.of(rows)
    return Ragged(history.indptr, history.items, time_us=(torch.tensor(days, dtype=torch.float64) * DAY_US).long())


def test_binary_weights_are_one_and_rows_keep_their_shape() -> None:
    rows = weigh(Ragged.of([[3, 1], [], [2]]), RecencyConfig(), 10)
    assert rows.values.tolist() == [1, 1, 1]
    assert rows.lengths.tolist() == [2, 0, 1]
    assert rows.items.tolist() == [3, 1, 2]
    assert rows.width == 10
    RecencyConfig().check_order("none")


def test_linear_is_golden() -> None:
    found = values(Ragged.of([[4, 3, 2, 1, 0]]), recency="linear", weight_min=0.1, weight_max=1.0)
    assert found == pytest.approx([0.1, 0.325, 0.55, 0.775, 1.0], rel=1e-6)
    with pytest.raises(InvalidInput, match="needs events in a known order"):
        RecencyConfig(recency="linear").check_order("none")


def test_linear_gives_a_single_event_the_smallest_weight() -> None:
    assert values(Ragged.of([[7], [1, 2]]), recency="linear", weight_min=0.25) == [0.25, 0.25, 1.0]


def test_exponential_by_events_halves_after_so_many_newer_ones() -> None:
    found = values(Ragged.of([[0, 1, 2, 3, 4], [5]]), recency="exponential", half_life=2)
    assert found == pytest.approx([0.25, 2**-1.5, 0.5, 2**-0.5, 1.0, 1.0])


def test_exponential_by_days_counts_from_the_newest_event_of_each_user() -> None:
    history = at_days([[0, 1], [2, 3]], [0, 90, 10, 190])
    assert values(history, recency="exponential", half_life_days=90) == pytest.approx([0.5, 1.0, 0.25, 1.0])


def test_exponential_by_days_counts_from_the_query_and_never_from_the_future() -> None:
    history = at_days([[0, 1]], [0, 90])
    at = torch.tensor([45 * DAY_US])
    assert values(history, at, recency="exponential", half_life_days=45) == pytest.approx([0.5, 1.0])


def test_days_need_times() -> None:
    with pytest.raises(InvalidInput, match=r"needs the time of every event\. Give times_us"):
        values(Ragged.of([[1]]), recency="exponential", half_life_days=1)


def test_a_repeated_item_keeps_its_largest_weight() -> None:
    rows = weigh(
        Ragged.of([[5, 1, 5], [], [5, 5]]), RecencyConfig(recency="linear", weight_min=0.0, weight_max=1.0), 10
    )
    assert rows.lengths.tolist() == [2, 0, 1]
    assert rows.dense()[0].tolist() == [0, 0.5, 0, 0, 0, 1, 0, 0, 0, 0]
    assert rows.dense()[2, 5] == 1


def test_nobody_and_nothing_is_possible() -> None:
    assert values(Ragged.empty(0)) == []
    assert weigh(Ragged.empty(2), RecencyConfig(recency="linear"), 10).lengths.tolist() == [0, 0]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"recency": "exponential", "half_life": 1, "half_life_days": 1}, "exclude each other"),
        ({"recency": "exponential"}, "needs half_life"),
        ({"recency": "linear", "half_life": 1}, "half_life goes with recency = 'exponential'"),
        ({"recency": "exponential", "half_life": 0}, "half_life = 0"),
        ({"recency": "linear", "weight_min": -0.1}, "weight_min = -0.1"),
    ],
)
def test_contradicting_settings_are_refused(setting: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidConfig, match=message):
        RecencyConfig.make(setting)
