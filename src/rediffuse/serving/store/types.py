"""What an event store takes and gives, and what every store promises."""

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass, field
from typing import Protocol, runtime_checkable

from rediffuse.errors import InvalidInput, StorageError, say

ANONYMOUS = "p:"
"""How the subject of an event without a known user begins; the anonymous id follows."""
SHOWN = frozenset({"impression"})
"""Kinds of events that tell of no interest, however many there are: no history holds them."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_LONGEST, _TEXT, _ENTRIES = 256, 1024, 64
_END_OF_TIME_US = 253_402_300_800_000_000  # the year 10000: beyond it no calendar of ours writes a date


class StoreBusy(StorageError):  # noqa: N818  # named for what the caller sees
    """More events wait for the disk than may wait; nothing was taken."""


@dataclass(frozen=True, slots=True)
class Event:
    """Someone met an item. At least one of `user` and `anonymous` is given."""

    event_id: str
    """Names the event for ever: sent twice, it counts once."""
    item: str
    kind: str
    time_us: int
    """UTC microseconds, as the sender has them; 0 is 1970."""
    user: str | None = None
    anonymous: str | None = None
    """A device or cookie; `Store.alias` says whose it is."""
    session: str | None = None
    value: float | None = None
    quantity: float = 1.0
    context: Mapping[str, str] = field(default_factory=dict[str, str])
    """What was so at the moment: placement, device, campaign. Never ids of people: erasure does not read it."""

    def __post_init__(self) -> None:
        """Refuse what no store could keep. Raises: InvalidInput naming the field."""
        for name in ("event_id", "item", "kind"):
            _check_id(name, getattr(self, name))
        for name in ("user", "anonymous", "session"):
            if getattr(self, name) is not None:
                _check_id(name, getattr(self, name))
        if self.user is None and self.anonymous is None:
            raise InvalidInput(say("An event needs a user or an anonymous id", remedy="Give one of them"))
        if self.user is not None:
            check_user(self.user)
        check_time("time_us", self.time_us)
        for name, number in (("value", 0.0 if self.value is None else self.value), ("quantity", self.quantity)):
            if not _is_finite(number):
                raise InvalidInput(say(f"{name} must be a finite number", got=number))
        if self.quantity < 0:
            raise InvalidInput(say("quantity must not be negative", got=self.quantity))
        if self.context:
            _check_context(self.context)

    @property
    def subject(self) -> str:
        """Whose event it is: the user, else `p:` and the anonymous id."""
        return self.user if self.user is not None else ANONYMOUS + str(self.anonymous)


@dataclass(frozen=True, slots=True)
class Item:
    """What the shop says of an item now; the last word counts."""

    item_id: str
    group: str | None = None
    """The product of which the item is a variant."""
    available: bool = True
    attributes: Mapping[str, str | float | tuple[str, ...]] = field(
        default_factory=dict[str, str | float | tuple[str, ...]]
    )

    def __post_init__(self) -> None:
        """Refuse what no store could keep. Raises: InvalidInput naming the field."""
        _check_id("item_id", self.item_id)
        if self.group is not None:
            _check_id("group", self.group)
        for name, value in self.attributes.items():
            _check_id("name of an attribute", name)
            texts = (value,) if isinstance(value, str) else value if isinstance(value, tuple) else ()
            for text in texts:
                _check_text(f"attribute {name!r}", text, longest=64 * _TEXT)
            if not isinstance(value, str | tuple) and not _is_finite(value):
                raise InvalidInput(
                    say(f"Attribute {name!r} cannot be kept", got=value, allowed="text, texts, a finite number")
                )


@dataclass(frozen=True, slots=True)
class Appended:
    """What became of events, in the order given; it arrives only after they are on disk."""

    seq: int
    """Number of the last one: whoever has read as far has read them."""
    accepted: tuple[bool, ...]
    """False: known already, or refused."""
    refused: tuple[bool, ...]
    """True: the subject was erased."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """Of an erasure: it holds no id, and its hash, kept elsewhere, makes an altered one plain."""

    subject: str
    """Keyed hash of the subject, hex; the key never leaves the store."""
    at_us: int
    """When, UTC microseconds."""
    seq: int
    events: int
    """Events that went."""
    aliases: int
    """Anonymous ids that went."""

    @property
    def sha256(self) -> str:
        """Hex SHA-256 of the fields as `name=value` lines, in their order."""
        return hashlib.sha256("".join(f"{name}={value}\n" for name, value in asdict(self).items()).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class StoreState:
    """How much there is."""

    seq: int
    events: int
    bytes: int
    erased_seq: int
    """Number of the last erasure, 0 none: a model that read the store before it knows somebody it should not."""
    name: str
    """Of the store, the same wherever it is moved."""


@runtime_checkable
class Store(Protocol):
    """Events, items, who is who; safe to use from any thread.

    A subject is a user's id, or `anonymous_subject(id)`. Every change has a number, `seq`, that only rises.
    Every method raises StorageError when the disk or the server fails, and then nothing was promised.
    """

    def submit(self, events: Sequence[Event]) -> Future[Appended]:
        """Hand events over at once; the future is done when they are on disk. Raises: StoreBusy."""
        ...

    def append(self, events: Sequence[Event]) -> Appended:
        """Keep events, all or none; return when they are on disk. Raises: StoreBusy."""
        ...

    def history(self, subject: str, limit: int) -> list[Event]:
        """The newest `limit` events of a person but those that were only shown (SHOWN), oldest first, with its aliases'."""
        ...

    def alias(self, anonymous: str, user: str) -> int:
        """Record that an anonymous id is a user; its earlier events count as the user's. Returns: the seq.

        Raises: InvalidInput when it is another user's already, or when either was erased.
        """
        ...

    def owner(self, subject: str) -> str:
        """The user behind a subject; the subject itself where no alias is recorded."""
        ...

    def erase(self, subject: str) -> Receipt:
        """Forget a person under every id: events, aliases, freed pages and logs of the store; bar their return.

        Returns: when nothing of them is left in the store's files (PostgreSQL: in its tables).
        """
        ...

    def erased(self, subject: str) -> bool:
        """Whether the subject was erased: import, export and publishing ask."""
        ...

    def retain(self, before_us: int) -> int:
        """Drop the events before a moment. Returns: how many went."""
        ...

    def since(self, seq: int, limit: int) -> list[tuple[int, Event]]:
        """The first `limit` events after a number, in the order in which they were taken."""
        ...

    def put_items(self, items: Sequence[Item]) -> int:
        """Keep what is said of items, in place of what was said before. Returns: the seq."""
        ...

    def items_since(self, seq: int) -> list[tuple[int, Item]]:
        """Items told of after a number, in that order."""
        ...

    def state(self) -> StoreState:
        """How much there is."""
        ...

    def close(self) -> None:
        """Finish what was handed over, then let go of everything; closing twice is no error."""
        ...


def anonymous_subject(anonymous: str) -> str:
    """The subject of an anonymous id."""
    return ANONYMOUS + anonymous


def check_user(user: str) -> None:
    """Refuse an id that no user may have. Raises: InvalidInput."""
    _check_id("user", user)
    if user.startswith(ANONYMOUS):
        raise InvalidInput(
            say(f"A user's id must not begin with {ANONYMOUS!r}", got=user, remedy="Give it as an anonymous id")
        )


def check_subject(subject: str) -> None:
    """Refuse what is neither a user's id nor an anonymous subject. Raises: InvalidInput."""
    _check_id("subject", subject.removeprefix(ANONYMOUS))


def check_time(name: str, time_us: int) -> None:
    """Refuse what is no time. Raises: InvalidInput."""
    if type(time_us) is not int or not 0 <= time_us < _END_OF_TIME_US:
        raise InvalidInput(say(f"{name} must be whole UTC microseconds from 1970 to 9999", got=time_us))


def check_limit(limit: int) -> None:
    """Refuse a limit below 1. Raises: InvalidInput."""
    if limit < 1:
        raise InvalidInput(say("limit must be 1 or more", got=limit))


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _check_id(name: str, value: object) -> None:
    # NUL, line breaks and halves of characters are what some store or log could not hold; the usual id is told at a glance
    if not (
        isinstance(value, str)
        and 0 < len(value) <= _LONGEST
        and ((value.isascii() and value.isprintable()) or not _CONTROL.search(value))
    ):
        shown = value[:_LONGEST] if isinstance(value, str) else value
        raise InvalidInput(say(f"{name} must be 1 to {_LONGEST} printable characters", got=shown))


def _check_text(name: str, value: object, longest: int = _TEXT) -> None:
    if not isinstance(value, str) or len(value) > longest or "\0" in value or _half_characters(value):
        shown = value[:_LONGEST] if isinstance(value, str) else value
        raise InvalidInput(say(f"{name} must be text of at most {longest} characters without NUL", got=shown))


def _half_characters(text: str) -> bool:
    return not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text)


def _check_context(context: Mapping[str, str]) -> None:
    if len(context) > _ENTRIES:
        raise InvalidInput(say(f"context must have at most {_ENTRIES} entries", got=len(context)))
    for name, value in context.items():
        _check_id("name in context", name)
        _check_text(f"context {name!r}", value)
