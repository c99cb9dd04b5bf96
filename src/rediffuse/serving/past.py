"""What of somebody's events a model is told, and what a dataset knows of them from before."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import torch

from rediffuse.data.dataset import Dataset
from rediffuse.data.rules import EventRules
from rediffuse.serving.store import Event
from rediffuse.types import Ragged

SHOWN = frozenset({"impression"})
"""What was shown is no sign of interest."""
TAKES_BACK = {**dict.fromkeys(EventRules().returns, EventRules().purchases), "cart_remove": ("cart",)}
"""A kind -> the kinds of which it takes back the same item's latest."""
AHEAD_US = 5 * 60 * 1_000_000
"""How far a clock may be ahead of ours; what is later has not happened yet."""

Seen = tuple[str, int | None]
"""An item, and when: UTC microseconds, None unknown."""


def interests(events: Iterable[Event], now_us: int) -> list[Seen]:
    """The items somebody was interested in, oldest first."""
    return [(event.item, event.time_us) for event in telling(events, now_us)]


def telling(events: Iterable[Event], now_us: int) -> list[Event]:
    """What tells of somebody's interests, oldest first: nothing that was only shown, taken back, or lies ahead."""
    found = list[Event]()
    for event in events:
        if event.kind in SHOWN or event.time_us > now_us + AHEAD_US:
            continue
        if event.kind not in TAKES_BACK:
            found.append(event)
            continue
        for place in range(len(found) - 1, -1, -1):
            if found[place].item == event.item and found[place].kind in TAKES_BACK[event.kind]:
                del found[place]
                break
    return found


@dataclass(frozen=True)
class Past:
    """Histories of the users of a dataset."""

    dataset: Dataset

    def __call__(self, user: str) -> list[Seen]:
        """A user's items, oldest first; none of whom it does not know. What weighs nothing was taken back."""
        number = self.dataset.users.items.number(user)
        if number < 0:
            return []
        row = self._history.select(torch.tensor([number]))
        times = [None] * row.items.numel() if row.time_us is None else row.time_us.tolist()
        weights = [1.0] * len(times) if row.weight is None else row.weight.tolist()
        items = self.dataset.catalog.items.decode(row.items.tolist())
        return [(item, at) for item, at, weight in zip(items, times, weights, strict=True) if weight > 0]

    @cached_property
    def _history(self) -> Ragged:
        return self.dataset.history()


def nothing(user: str) -> list[Seen]:
    """The past where there is no dataset."""
    del user
    return []


def joined(before: list[Seen], after: list[Seen], most: int) -> list[Seen]:
    """Two histories as one, its newest events; what stands in both, with its time, counts once.

    Order is by time where all have one, else what is known from before comes first.
    """
    known = {seen for seen in before if seen[1] is not None}
    found = [*before, *(seen for seen in after if seen not in known)]
    if all(at is not None for _, at in found):
        found.sort(key=lambda seen: seen[1] or 0)
    return found[-most:]
