"""Which event is wanted, and what is told of the events before it."""

import pytest
import torch

from rediffuse.errors import InvalidInput
from rediffuse.protocols import FitData
from rediffuse.training.prefixes import Prefixes, Which
from rediffuse.types import Ragged

ROWS = [[1, 2, 3, 4], [5], [], [6, 7], [8, 9, 10]]
Pairs = list[tuple[list[int], int]]


def prefixes(which: Which, length: int = 50) -> Prefixes:
    return Prefixes.of(FitData(Ragged.of(ROWS), 11, "sequence"), length, "cpu", which)


def shown(found: Prefixes, batch: list[int] | None = None, seed: int = 0) -> Pairs:
    """History and wanted item of each example, padding left out once it is known to stand on the right."""
    which = torch.arange(len(found)) if batch is None else torch.tensor(batch)
    items, wanted = found.examples(which, torch.Generator().manual_seed(seed))
    lengths = (items >= 0).sum(1).tolist()
    assert all((row[:n] >= 0).all() and (row[n:] == -1).all() for row, n in zip(items, lengths, strict=True))
    return [(row[:n].tolist(), int(item)) for row, n, item in zip(items, lengths, wanted, strict=True)]


def test_every_event_after_the_first_is_wanted_once() -> None:
    expected: Pairs = [([1], 2), ([1, 2], 3), ([1, 2, 3], 4), ([6], 7), ([8], 9), ([8, 9], 10)]
    assert shown(prefixes("every")) == expected
    assert shown(prefixes("every"), seed=1) == expected


def test_the_last_event_of_each_user_is_wanted() -> None:
    assert shown(prefixes("last")) == [([1, 2, 3], 4), ([6], 7), ([8, 9], 10)]


def test_a_drawn_event_is_any_but_the_first_and_each_as_often() -> None:
    found = prefixes("drawn")
    assert len(found) == 3, "one example a user who has two events"
    many = shown(found, [0, 1, 2] * 2000)
    possible = {tuple(h): item for h, item in shown(prefixes("every"))}
    assert all(possible[tuple(h)] == item for h, item in many)
    for user, count in ((0, 3), (1, 1), (2, 2)):
        own = [item for _, item in many[user::3]]
        shares = [own.count(item) / 2000 for item in sorted(set(own))]
        assert shares == pytest.approx([1 / count] * count, abs=0.05)


@pytest.mark.parametrize("which", ["drawn", "every", "last"])
def test_a_history_holds_neither_what_is_wanted_nor_what_came_later(which: Which) -> None:
    """Every item stands once in these rows, so its place tells when it was."""
    place = {item: (user, rank) for user, row in enumerate(ROWS) for rank, item in enumerate(row)}
    found = prefixes(which)
    for seed in range(5):
        for told, item in shown(found, list(range(len(found))) * 20, seed):
            user, rank = place[item]
            assert [place[other] for other in told] == [(user, before) for before in range(rank)]


def test_a_history_is_its_newest_events() -> None:
    assert shown(prefixes("every", 2))[2] == ([2, 3], 4)
    assert shown(prefixes("last", 1)) == [([3], 4), ([6], 7), ([9], 10)]


def test_the_order_of_a_batch_is_that_of_its_numbers() -> None:
    whole = shown(prefixes("every"))
    assert shown(prefixes("every"), [4, 0, 2]) == [whole[4], whole[0], whole[2]]


def test_a_repeated_item_may_be_wanted_again() -> None:
    found = Prefixes.of(FitData(Ragged.of([[3, 3, 4, 3]]), 5, "time"), 9, "cpu", "every")
    assert shown(found) == [([3], 3), ([3, 3], 4), ([3, 3, 4], 3)]


@pytest.mark.parametrize("which", ["drawn", "every", "last"])
def test_what_has_no_next_is_refused(which: Which) -> None:
    with pytest.raises(InvalidInput, match="needs events in a known order; this data has none"):
        Prefixes.of(FitData(Ragged.of(ROWS), 11, "none"), 9, "cpu", which)
    with pytest.raises(InvalidInput, match="needs users with two events or more"):
        Prefixes.of(FitData(Ragged.of([[1], [], [4]]), 11, "sequence"), 9, "cpu", which)
