"""What of somebody's events a model is told, and what a dataset knows of them from before."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from rediffuse.data.dataset import Dataset
from rediffuse.data.rules import EventRules
from rediffuse.serving.store import SHOWN, Event

RETURNS = frozenset(EventRules().returns)
TAKES_BACK = {**dict.fromkeys(RETURNS, EventRules().purchases), "cart_remove": ("cart",)}
"""A kind -> the kinds of which it takes back the same item's latest."""
AHEAD_US = 5 * 60 * 1_000_000
"""How far a clock may be ahead of ours; what is later has not happened yet."""

Seen = tuple[str, int | None]
"""An item, and when: UTC microseconds, None unknown."""

_T = TypeVar("_T")


class Known(NamedTuple):
    """An event of a dataset."""

    item: str
    time_us: int | None = None
    counts: bool = True
    """False: it weighs nothing, as a return, or what was taken back by one."""

    @property
    def seen(self) -> Seen:
        """The item and when."""
        return self.item, self.time_us


def telling(events: Iterable[Event], now_us: int) -> tuple[list[Event], list[Event]]:
    """What tells of somebody's interests: nothing that was only shown, taken back, or lies ahead.

    Args: events: oldest first.
    Returns: that, oldest first; and what takes back something that is not among the events.
    """
    found, left = list[Event](), list[Event]()
    for event in events:
        if event.kind in SHOWN or event.time_us > now_us + AHEAD_US:
            continue
        taken = TAKES_BACK.get(event.kind)
        if taken is None:
            found.append(event)
        elif not _drop_last(found, lambda one, of=event, taken=taken: one.item == of.item and one.kind in taken):
            left.append(event)
    return found, left


@dataclass(frozen=True)
class Past:
    """Histories of the users of a dataset."""

    dataset: Dataset

    def __call__(self, user: str) -> list[Known]:
        """A user's events, oldest first; none of whom it does not know."""
        events, number = self.dataset.events, self.dataset.users.items.number(user)
        if number < 0:
            return []
        first, end = (events.frame["user"].search_sorted(number, side) for side in ("left", "right"))
        rows = events.frame[first:end]
        items = self.dataset.catalog.items.decode(rows["item"].to_list())
        times = rows["time_us"].to_list() if events.order == "time" else [None] * rows.height
        weights = rows["weight"].to_list() if "weight" in rows.columns else [1.0] * rows.height
        return [Known(*row[:2], row[2] > 0) for row in zip(items, times, weights, strict=True)]


def nothing(user: str) -> list[Known]:
    """The past where there is no dataset."""
    del user
    return []


def joined(before: Sequence[Known], events: Sequence[Event], now_us: int, most: int) -> list[Seen]:
    """What a dataset and a store tell of somebody's interests, as one: the newest of it, oldest first.

    An event in both is the store's to tell, unless the dataset has seen it taken back or take back; a return of what the
    store never had takes back the latest earlier event of the item that the dataset knows. Order is by time where all
    have one, else what is known from before comes first.

    Args: events: the store's, oldest first.
    """
    settled = {one.seen for one in before if not one.counts}
    stored = {(event.item, event.time_us) for event in events}
    known = [one.seen for one in before if one.counts and one.seen not in stored]
    told, left = telling((event for event in events if (event.item, event.time_us) not in settled), now_us)
    for event in left:
        if event.kind in RETURNS:  # whether something had been put into the cart, a dataset does not say here
            _drop_last(known, lambda one, of=event: one[0] == of.item and (one[1] is None or one[1] <= of.time_us))
    found = [*known, *((event.item, event.time_us) for event in told)]
    if all(at is not None for _, at in found):
        found.sort(key=lambda seen: seen[1] or 0)
    return found[-most:]


def _drop_last(those: list[_T], fits: Callable[[_T], bool]) -> bool:
    """Take out the last that fits. Returns: whether one did."""
    for place in range(len(those) - 1, -1, -1):
        if fits(those[place]):
            del those[place]
            return True
    return False
