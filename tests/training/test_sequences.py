"""Windows of histories, and which item is wanted at which place."""

import pytest
import torch
from torch import Tensor

from rediffuse.errors import InvalidInput
from rediffuse.protocols import FitData
from rediffuse.training.sequences import continued, later, windows
from rediffuse.types import Ragged

LONG = Ragged.of([[1, 2], list(range(10, 17)), [3, 4, 5]])


def draws() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_a_short_history_is_given_whole_and_a_long_one_in_windows() -> None:
    generator, ends = draws(), []
    for _ in range(300):
        short, long, full = windows(LONG, 3, generator).tolist()
        assert (short, full) == ([1, 2, -1], [3, 4, 5])
        assert long == list(range(long[0], long[0] + 3))
        ends.append(long[-1])
    counts = torch.bincount(torch.tensor(ends) - 12, minlength=5)
    assert len(counts) == 5
    assert bool((counts > 40).all()), "each end is as likely"


def test_with_a_horizon_of_one_the_next_event_is_wanted_and_nothing_drawn() -> None:
    items, generator = torch.tensor([[1, 2, -1], [3, 4, 5]]), draws()
    places = later(items, 1, generator)
    assert places.at.tolist() == [[True, False], [True, True]]
    assert places.target.tolist() == [2, 4, 5]
    assert places.horizon.tolist() == [1, 1, 1]
    assert torch.equal(generator.get_state(), draws().get_state())


def test_a_target_lies_within_the_horizon_and_the_window() -> None:
    items, generator = torch.tensor([list(range(6)), [6, 7, 8, -1, -1, -1]]), draws()
    found: list[Tensor] = []
    for _ in range(400):
        places = later(items, 3, generator)
        assert int(places.at.sum()) == 7
        at = items[:, :-1][places.at]
        found.append(torch.stack((at, places.horizon, places.target - at)))
    at, h, d = torch.cat(found, 1)
    assert bool(((d >= 1) & (d <= h) & (h <= 3)).all())
    assert bool((at + d <= torch.where(at < 6, 5, 8)).all())
    first = at == 0
    for horizon in (1, 2, 3):
        share = torch.bincount(d[first & (h == horizon)], minlength=4)[1:] / (first & (h == horizon)).sum()
        expected = torch.tensor([1.0] * horizon + [0.0] * (3 - horizon)) / horizon
        torch.testing.assert_close(share, expected, rtol=0, atol=0.15)


def test_what_cannot_be_learned_from_is_refused() -> None:
    assert continued(FitData(Ragged.of([[1], [2, 3], []]), 5, "sequence"), "sasrec").to_lists() == [[2, 3]]
    with pytest.raises(InvalidInput, match="sasrec needs events in a known order; this data has none"):
        continued(FitData(LONG, 20, "none"), "sasrec")
    with pytest.raises(InvalidInput, match="sasrec needs users with two events or more"):
        continued(FitData(Ragged.of([[1], []]), 20, "time"), "sasrec")
