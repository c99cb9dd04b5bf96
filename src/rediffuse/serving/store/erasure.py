"""What an erasure takes out of the tables, and the note that stands until the space it freed was scrubbed.

The note is written by the erasure's own transaction: neither a kill nor an error between commit and scrub is
forgotten. It holds a number, no id.
"""

from collections.abc import Callable, Sequence

from rediffuse.errors import StorageError
from rediffuse.serving.store.group import Row, Session
from rediffuse.serving.store.types import ANONYMOUS

_NOTE = "scrub"


class ScrubOwed(StorageError):  # noqa: N818  # named for what is left to do
    """The rows of an erased person are gone, traces in freed space are not yet; the next erasure or start goes on."""


def forget(session: Session, ids: Sequence[str]) -> int:
    """Delete what is known of a person. Args: ids: every subject, the owner first. Returns: the events that went.

    Others may have signed in on the same device: their events stay theirs, without its id.
    """
    owner = ids[0]
    session.run(
        "UPDATE events SET session = NULL"
        " WHERE session = ? OR session IN (SELECT substr(alias, ?) FROM aliases WHERE owner = ?)",
        (owner.removeprefix(ANONYMOUS), len(ANONYMOUS) + 1, owner),
    )
    events = 0
    for one in ids:
        [(found,)] = session.run("SELECT count(*) FROM events WHERE subject = ?", (one,))
        events += found
        session.run("DELETE FROM events WHERE subject = ?", (one,))
        session.run("DELETE FROM aliases WHERE alias = ?", (one,))
        if one.startswith(ANONYMOUS):
            session.run("UPDATE events SET anonymous = NULL WHERE anonymous = ?", (one.removeprefix(ANONYMOUS),))
    return events


def owe(session: Session, seq: int) -> bytes | None:
    """Note that an erasure is to be scrubbed. Returns: the note; None where one before it is not scrubbed either."""
    before, note = owed(session.run), str(seq).encode()
    session.run(
        "INSERT INTO facts (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        (_NOTE, note),
    )
    return None if before else note


def owed(run: Callable[[str, Row], Sequence[Row]]) -> bytes | None:
    """The note of the last erasure that is not scrubbed."""
    found = run("SELECT value FROM facts WHERE name = ?", (_NOTE,))
    return bytes(found[0][0]) if found else None


def settle(session: Session, note: bytes) -> None:
    """Take the note away, unless a later erasure has written its own since."""
    session.run("DELETE FROM facts WHERE name = ? AND value = ?", (_NOTE, note))
