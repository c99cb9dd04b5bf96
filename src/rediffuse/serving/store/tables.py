"""The tables of an event store and the statements on them, once for every database.

`head` has one row, which every writer changes first: numbers rise in the order of commits, also with several
replicas, so that whoever reads `since` a number misses nothing. Erased ids stay known only by keyed hashes.
"""

import hmac
import json
import logging
import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager

from rediffuse.errors import InvalidInput, StorageError, say
from rediffuse.serving.store.erasure import ScrubOwed, forget, owe, owed, settle
from rediffuse.serving.store.group import GroupCommit, Row, Session
from rediffuse.serving.store.types import (
    ANONYMOUS,
    SHOWN,
    Appended,
    Event,
    Item,
    Receipt,
    StoreState,
    anonymous_subject,
    check_limit,
    check_subject,
    check_time,
    check_user,
)

_log = logging.getLogger(__name__)

Run = Callable[[str, Row], list[Row]]
"""Runs a statement with its values."""

_NAME = 16
"""Letters of a store's name."""
FORMAT = 1
"""Of the tables; a store of another format is refused."""

_COLUMNS = "seq, event_id, subject, anonymous, item, kind, time_us, session, value, quantity, context"
_SHOWN = "CASE WHEN kind IN ({}) THEN 1 ELSE 0 END".format(", ".join(f"'{kind}'" for kind in sorted(SHOWN)))
_TABLES = (
    "CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value {bytes} NOT NULL)",
    "CREATE TABLE IF NOT EXISTS head (one {key}, seq {int} NOT NULL, erased_seq {int} NOT NULL, events {int} NOT NULL)",
    (
        "CREATE TABLE IF NOT EXISTS events (seq {key}, event_id TEXT NOT NULL UNIQUE, subject TEXT NOT NULL,"
        " anonymous TEXT, item TEXT NOT NULL, kind TEXT NOT NULL, time_us {int} NOT NULL, session TEXT,"
        " value {real}, quantity {real} NOT NULL, context TEXT)"
    ),
    f"CREATE INDEX IF NOT EXISTS events_by_interest ON events (subject, ({_SHOWN}), time_us, seq)",
    "DROP INDEX IF EXISTS events_by_subject",  # what stores had before it
    "CREATE INDEX IF NOT EXISTS events_by_anonymous ON events (anonymous) WHERE anonymous IS NOT NULL",
    "CREATE TABLE IF NOT EXISTS aliases (alias TEXT PRIMARY KEY, owner TEXT NOT NULL, seq {int} NOT NULL)",
    "CREATE INDEX IF NOT EXISTS aliases_by_owner ON aliases (owner)",
    "CREATE TABLE IF NOT EXISTS tombstones (hash {bytes} PRIMARY KEY, seq {int} NOT NULL, at_us {int} NOT NULL)",
    (
        "CREATE TABLE IF NOT EXISTS items (item_id TEXT PRIMARY KEY, seq {int} NOT NULL, product TEXT,"
        " available {int} NOT NULL, attributes TEXT NOT NULL)"
    ),
    "CREATE INDEX IF NOT EXISTS items_by_seq ON items (seq)",
)
_INSERT = f"INSERT INTO events ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (event_id) DO NOTHING"  # noqa: S608
_BAR = "INSERT INTO tombstones (hash, seq, at_us) VALUES (?, ?, ?) ON CONFLICT (hash) DO NOTHING"
_PUT_ITEM = (
    "INSERT INTO items (item_id, seq, product, available, attributes) VALUES (?, ?, ?, ?, ?) ON CONFLICT (item_id)"
    " DO UPDATE SET seq = excluded.seq, product = excluded.product, available = excluded.available,"
    " attributes = excluded.attributes"
)


class TableStore(ABC):
    """An event store in tables. A database says how it writes, reads, scrubs and measures itself."""

    def __init__(self) -> None:
        """What was erased is read with the first event."""
        self._tombstones: set[bytes] = set()
        self._erasures_known = 0
        self._key = b""

    @property
    @abstractmethod
    def _writer(self) -> GroupCommit:
        """Runs what changes the store."""

    @abstractmethod
    def _read(self, sql: str, values: Row = ()) -> list[Row]:
        """Run a query on what is committed."""

    @abstractmethod
    def _transaction(self) -> AbstractContextManager[Session]:
        """A transaction of the writer's; leaving it well is the commit."""

    @abstractmethod
    def _scrub(self, ids: Collection[str] | None) -> None:
        """Leave no byte of deleted ids behind. Args: ids: None where nobody knows which.

        Raises: ScrubOwed when it cannot be done while others read.
        """

    @abstractmethod
    def _bytes(self) -> int:
        """Size on disk."""

    @abstractmethod
    def close(self) -> None:
        """Finish what was handed over, then let go of everything; closing twice is no error."""

    def submit(self, events: Sequence[Event]) -> Future[Appended]:
        """Hand events over at once; the future is done when they are on disk. Raises: StoreBusy."""
        events = tuple(events)
        return self._writer.submit(lambda session: self._insert(session, events), size=len(events))

    def append(self, events: Sequence[Event]) -> Appended:
        """Keep events, all or none; return when they are on disk. Raises: StoreBusy."""
        return self.submit(events).result()

    def history(self, subject: str, limit: int) -> list[Event]:
        """The newest `limit` events of a person but those that were only shown (SHOWN), oldest first, with its aliases'."""
        check_limit(limit)
        rows: list[Row] = []
        for one in _ids(self._read, self.owner(subject)):
            rows += self._read(
                f"SELECT {_COLUMNS} FROM events WHERE subject = ? AND {_SHOWN} = 0"  # noqa: S608
                " ORDER BY time_us DESC, seq DESC LIMIT ?",
                (one, limit),
            )
        rows.sort(key=lambda row: (row[6], row[0]))
        return [_event(row) for row in rows[-limit:]]

    def alias(self, anonymous: str, user: str) -> int:
        """Record that an anonymous id is a user; its earlier events count as the user's. Returns: the seq.

        Raises: InvalidInput when it is another user's already, or when either was erased.
        """
        check_user(user)
        check_subject(alias := anonymous_subject(anonymous))

        def work(session: Session) -> int:
            seq = self._claim(session, 1)
            for subject in (alias, user):
                if self._hash(subject) in self._tombstones:
                    raise InvalidInput(say("An erased id takes no alias", got=subject, remedy="Use a new id"))
            owner = _owner(session.run, alias)
            if owner not in {alias, user}:
                raise InvalidInput(
                    say(
                        "This anonymous id is another user's already",
                        got=anonymous,
                        remedy="Give a device a new anonymous id when its user signs out",
                    )
                )
            if owner == alias:
                session.run("INSERT INTO aliases (alias, owner, seq) VALUES (?, ?, ?)", (alias, user, seq))
            return seq

        return self._writer.submit(work).result()

    def owner(self, subject: str) -> str:
        """The user behind a subject; the subject itself where no alias is recorded."""
        check_subject(subject)
        return _owner(self._read, subject)

    def erase(self, subject: str) -> Receipt:
        """Forget a person under every id: events, aliases, freed pages and logs of the store; bar their return.

        Limits: it is unserved at the commit; the store rewrites itself where traces remain in freed space, and
        nothing else is written meanwhile.
        Raises: ScrubOwed when others read for so long that traces remain; saying it again removes them.
        """
        check_subject(subject)
        gone: list[str] = []
        note: bytes | None = None

        def work(session: Session) -> Receipt:
            nonlocal note
            seq = self._claim(session, 1)
            gone.extend(_ids(session.run, _owner(session.run, subject)))
            at_us = time.time_ns() // 1000
            events = forget(session, gone)
            barred = session.many(_BAR, [(self._hash(one), seq, at_us) for one in gone])
            if barred or events:  # said again of somebody who is gone, it is no news to a model
                session.run("UPDATE head SET erased_seq = ?, events = events - ?", (seq, events))
            note = owe(session, seq)
            return Receipt(self._hash(gone[0]).hex(), at_us, seq, events=events, aliases=len(gone) - 1)

        def after() -> None:
            self._scrub_owed(note, [one.removeprefix(ANONYMOUS) for one in gone])

        return self._writer.submit(work, after=after).result()

    def erased(self, subject: str) -> bool:
        """Whether the subject was erased: import, export and publishing ask."""
        check_subject(subject)
        return bool(self._read("SELECT 1 FROM tombstones WHERE hash = ?", (self._hash(subject),)))

    def retain(self, before_us: int) -> int:
        """Drop the events before a moment. Returns: how many went."""
        check_time("before_us", before_us)

        def work(session: Session) -> int:
            self._claim(session, 1)
            [(dropped,)] = session.run("SELECT count(*) FROM events WHERE time_us < ?", (before_us,))
            session.run("DELETE FROM events WHERE time_us < ?", (before_us,))
            session.run("UPDATE head SET events = events - ?", (dropped,))
            return dropped

        return self._writer.submit(work).result()

    def since(self, seq: int, limit: int) -> list[tuple[int, Event]]:
        """The first `limit` events after a number, in the order in which they were taken."""
        check_limit(limit)
        rows = self._read(f"SELECT {_COLUMNS} FROM events WHERE seq > ? ORDER BY seq LIMIT ?", (seq, limit))  # noqa: S608
        return [(row[0], _event(row)) for row in rows]

    def put_items(self, items: Sequence[Item]) -> int:
        """Keep what is said of items, in place of what was said before. Returns: the seq."""
        items = tuple(items)

        def work(session: Session) -> int:
            seq = self._claim(session, len(items))
            rows = [_item_row(seq - len(items) + place, item) for place, item in enumerate(items, start=1)]
            session.many(_PUT_ITEM, rows)
            return seq

        return self._writer.submit(work, size=len(items)).result()

    def items_since(self, seq: int) -> list[tuple[int, Item]]:
        """Items told of after a number, in that order."""
        rows = self._read(
            "SELECT seq, item_id, product, available, attributes FROM items WHERE seq > ? ORDER BY seq", (seq,)
        )
        return [(row[0], _item(row)) for row in rows]

    def state(self) -> StoreState:
        """How much there is."""
        [(seq, events, erased_seq)] = self._read("SELECT seq, events, erased_seq FROM head")
        name = self._hash("").hex()[:_NAME]
        return StoreState(seq=seq, events=events, bytes=self._bytes(), erased_seq=erased_seq, name=name)

    def _prepare(self, session: Session, types: dict[str, str]) -> None:
        """Make the tables where there are none. Raises: StorageError when they are of another format."""
        for statement in _TABLES:
            session.run(statement.format(**types))
        session.run("INSERT INTO head (one, seq, erased_seq, events) VALUES (1, 0, 0, 0) ON CONFLICT (one) DO NOTHING")
        for name, value in (("format", str(FORMAT).encode()), ("key", secrets.token_bytes(32))):
            session.run("INSERT INTO facts (name, value) VALUES (?, ?) ON CONFLICT (name) DO NOTHING", (name, value))
        self._know(session.run("SELECT name, value FROM facts"))

    def _know(self, facts: Sequence[Row]) -> None:
        """Take the key. Raises: StorageError when the tables are of another format."""
        found = {name: bytes(value) for name, value in facts}
        if found["format"] != str(FORMAT).encode():
            raise StorageError(say("The event store has another format", got=found["format"].decode(), allowed=FORMAT))
        self._key = found["key"]

    def _insert(self, session: Session, events: tuple[Event, ...]) -> Appended:
        """Number the events, insert those that are new.

        Numbers are given before it is known which events are: where fewer rows arrive than were sent, the numbers
        that are missing tell which.
        """
        last = self._claim(session, len(events))
        first = last - len(events) + 1
        barred = {one for one in {event.subject for event in events if self._tombstones} if self._is_barred(one)}
        rows = [
            _row(
                seq,
                event,
                anonymous=None if event.user is None else self._kept(event.anonymous),
                session=self._kept(event.session),
            )
            for seq, event in enumerate(events, start=first)
            if event.subject not in barred
        ]
        new = session.many(_INSERT, rows)
        if new:
            session.run("UPDATE head SET events = events + ?", (new,))
        if new == len(events):
            accepted = (True,) * new
        else:
            found = {seq for (seq,) in session.run("SELECT seq FROM events WHERE seq >= ?", (first,))}
            accepted = tuple(seq in found for seq in range(first, last + 1))
        return Appended(last, accepted, tuple(event.subject in barred for event in events))

    def _claim(self, session: Session, numbers: int) -> int:
        """The last of so many new numbers. No other writer goes on before this transaction ends.

        What was erased meanwhile, perhaps through another replica, is known afterwards.
        """
        [(seq, erased_seq)] = session.run("UPDATE head SET seq = seq + ? RETURNING seq, erased_seq", (numbers,))
        if erased_seq > self._erasures_known:
            rows = session.run("SELECT hash FROM tombstones WHERE seq > ?", (self._erasures_known,))
            self._tombstones |= {bytes(hashed) for (hashed,) in rows}
            self._erasures_known = erased_seq
        return seq

    def _undone(self) -> None:
        """After a transaction that did not come about: what it taught of erasures is not so."""
        self._tombstones.clear()
        self._erasures_known = 0

    def _scrub_owed(self, note: bytes | None = None, ids: Collection[str] = ()) -> None:
        """Scrub what erasures have noted, if another scrub has not done it by now.

        Args: note, ids: of an erasure; where its note stands alone, `ids` are all whose traces may be left.
        """
        with self._transaction() as session:
            owes = owed(session.run)
        if owes is None:
            return
        self._scrub(ids if owes == note else None)
        with self._transaction() as session:
            settle(session, owes)

    def _scrub_first(self) -> None:
        """When the store is opened: scrub what a kill or an error left. Who reads just now keeps nobody from opening."""
        try:
            self._scrub_owed()
        except ScrubOwed as error:
            _log.warning("%s", error)

    def _is_barred(self, subject: str) -> bool:
        return bool(self._tombstones) and self._hash(subject) in self._tombstones

    def _kept(self, visitor: str | None) -> str | None:
        """A visitor's id beside another's event; none where it was erased."""
        return None if visitor is None or self._is_barred(anonymous_subject(visitor)) else visitor

    def _hash(self, subject: str) -> bytes:
        return hmac.digest(self._key, subject.encode(), "sha256")


def _owner(run: Run, subject: str) -> str:
    found = run("SELECT owner FROM aliases WHERE alias = ?", (subject,)) if subject.startswith(ANONYMOUS) else []
    return found[0][0] if found else subject


def _ids(run: Run, owner: str) -> list[str]:
    """Every subject of a person, the owner first."""
    aliases = run("SELECT alias FROM aliases WHERE owner = ? ORDER BY seq", (owner,))
    return [owner, *(alias for (alias,) in aliases)]


def _row(seq: int, event: Event, *, anonymous: str | None, session: str | None) -> Row:
    context = json.dumps(dict(event.context), ensure_ascii=False) if event.context else None
    return (
        seq,
        event.event_id,
        event.subject,
        anonymous,
        event.item,
        event.kind,
        event.time_us,
        session,
        event.value,
        event.quantity,
        context,
    )


def _event(row: Row) -> Event:
    _, event_id, subject, anonymous, item, kind, time_us, session, value, quantity, context = row
    unknown = subject.startswith(ANONYMOUS)
    return Event(
        event_id=event_id,
        item=item,
        kind=kind,
        time_us=time_us,
        user=None if unknown else subject,
        anonymous=subject.removeprefix(ANONYMOUS) if unknown else anonymous,
        session=session,
        value=value,
        quantity=quantity,
        context=json.loads(context) if context else {},
    )


def _item_row(seq: int, item: Item) -> Row:
    attributes = json.dumps(dict(item.attributes), ensure_ascii=False)
    return item.item_id, seq, item.group, int(item.available), attributes


def _item(row: Row) -> Item:
    _, item_id, product, available, attributes = row
    read = {name: tuple(value) if isinstance(value, list) else value for name, value in json.loads(attributes).items()}
    return Item(item_id=item_id, group=product, available=bool(available), attributes=read)
