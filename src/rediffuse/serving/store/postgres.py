"""Events in PostgreSQL: one store for several replicas.

A commit returns when the server has synced its log (synchronous_commit on). When the connection breaks during a
commit nobody here knows its fate: the sender is told that it failed, sends again, and nothing counts twice.
"""

import importlib.util
import re
import threading
import time
from collections.abc import Collection, Generator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from rediffuse.errors import MissingExtra, StorageError, say
from rediffuse.serving.store.erasure import ScrubOwed
from rediffuse.serving.store.group import GroupCommit, Row, Session
from rediffuse.serving.store.tables import TableStore

if TYPE_CHECKING:
    import psycopg

_TYPES = {"key": "BIGINT PRIMARY KEY", "int": "BIGINT", "real": "DOUBLE PRECISION", "bytes": "BYTEA"}
_MAKING, _SCRUBBING = 0x7265_6469_6666, 0x7265_6469_6667  # one replica at a time makes the tables, rewrites them
_POLL_S = 0.02
_TRIES = ((0.0, "200ms"), (0.3, "200ms"), (0.3, "1500ms"), (1.0, "200ms"), (2.0, "200ms"), (2.0, "1500ms"))
"""A pause in seconds, then how long a rewrite waits for readers: some outlast the second after which a server's own vacuum
gives way, and all together its gathering of statistics, which keeps deleted rows as any transaction does."""
_KEPT = re.compile(r"\D*[1-9]")
"""What is told of a table in which deleted rows had to stay, since an older transaction may still see them: how many."""


class PostgresStore(TableStore):
    """An event store in a database of its own.

    Limits: erasure rewrites the tables; the server's own log and its backups keep what was there until they are
    recycled, which is its operator's to arrange.
    """

    def __init__(
        self, dsn: str, *, largest: int = 5000, wait_ms: float = 0.0, backlog: int = 100_000, timeout_s: int = 5
    ) -> None:
        """Connect, and make the tables where there are none.

        Args: largest, wait_ms, backlog: see `GroupCommit`.   timeout_s: for connecting.
        Raises: MissingExtra; StorageError.
        """
        super().__init__()
        self._psycopg: Any = _library()
        self._dsn, self._timeout_s = dsn, timeout_s
        self._reading = threading.Lock()
        self._open = True
        self._write: psycopg.Connection[Row] | None = None
        self._reader: psycopg.Connection[Row] | None = None
        with self._told(), self._transaction() as session:
            session.run("SELECT pg_advisory_xact_lock(?)", (_MAKING,))
            if session.run("SELECT to_regclass('head') IS NOT NULL") == [(True,)]:
                session.run("SELECT seq FROM head FOR UPDATE")  # as every writer does first: nobody waits in a circle
            self._prepare(session, _TYPES)
        with self._told():
            self._scrub_first()
        self._group = GroupCommit(
            self._transaction, name="in PostgreSQL", largest=largest, wait_ms=wait_ms, backlog=backlog
        )

    @property
    def _writer(self) -> GroupCommit:
        return self._group

    def close(self) -> None:
        """Finish what was handed over, then leave the server."""
        if not self._open:
            return
        self._open = False
        self._group.close()
        with self._reading:
            for connection in (self._write, self._reader):
                if connection is not None:
                    connection.close()

    def _read(self, sql: str, values: Row = ()) -> list[Row]:
        with self._reading, self._told():
            if not self._open:
                raise StorageError(say("The event store in PostgreSQL is closed"))
            self._reader = self._alive(self._reader)
            try:
                return self._reader.execute(_marked(sql), values).fetchall()
            except self._psycopg.OperationalError:
                if not self._reader.closed:
                    raise
            self._reader = self._alive(None)  # the server had gone away since the last question, which changes nothing
            return self._reader.execute(_marked(sql), values).fetchall()

    @contextmanager
    def _transaction(self) -> Generator[Session]:
        try:
            self._write = self._alive(self._write)
            with self._write.transaction(), self._write.cursor() as cursor:
                yield _Session(cursor)
        except BaseException:
            self._undone()
            raise

    def _scrub_owed(self, note: bytes | None = None, ids: Collection[str] = ()) -> None:
        """One replica at a time; who comes later finds it done."""
        with self._alive(None) as connection:
            # asked for again and again: a statement that waits for a lock keeps all that was deleted meanwhile
            while connection.execute("SELECT pg_try_advisory_lock(%s)", (_SCRUBBING,)).fetchall() != [(True,)]:
                time.sleep(_POLL_S)
            super()._scrub_owed(note, ids)

    def _scrub(self, ids: Collection[str] | None) -> None:
        """Rewrite the tables without what was deleted. Whoever asks for them queues behind a rewrite that waits."""
        del ids
        with self._alive(None) as connection:
            told: list[str] = []
            connection.add_notice_handler(lambda notice: told.append(notice.message_detail or ""))
            for pause_s, wait in _TRIES:
                time.sleep(pause_s)
                told.clear()
                connection.execute("SELECT set_config('lock_timeout', %s, false)", (wait,))
                with suppress(self._psycopg.errors.LockNotAvailable):
                    connection.execute("VACUUM (FULL, VERBOSE) events, aliases")
                    if not any(_KEPT.match(detail) for detail in told):
                        return
        raise ScrubOwed(
            say(
                "The person is erased, but the tables in PostgreSQL could not be rewritten without their traces",
                got="a transaction that still reads, as a backup does",
                remedy="When it has ended, erase again",
            )
        )

    def _bytes(self) -> int:
        [(size,)] = self._read("SELECT pg_database_size(current_database())")
        return size

    def _alive(self, connection: "psycopg.Connection[Row] | None") -> "psycopg.Connection[Row]":
        if connection is not None and not connection.closed:
            return connection
        made: psycopg.Connection[Row] = self._psycopg.connect(
            self._dsn, autocommit=True, connect_timeout=self._timeout_s, application_name="rediffuse"
        )
        made.execute("SET synchronous_commit = on")
        made.execute("SET client_min_messages = warning")
        return made

    @contextmanager
    def _told(self) -> Generator[None]:
        """Word what the library says. Raises: StorageError."""
        try:
            yield
        except self._psycopg.Error as error:
            raise StorageError(
                say("The event store in PostgreSQL cannot be used", got=f"{type(error).__name__}: {error}")
            ) from error


class _Session:
    """Statements of one transaction."""

    def __init__(self, cursor: "psycopg.Cursor[Row]") -> None:
        self._cursor = cursor

    def run(self, sql: str, values: Row = ()) -> list[Row]:
        self._cursor.execute(_marked(sql), values)
        return self._cursor.fetchall() if self._cursor.description else []

    def many(self, sql: str, rows: Sequence[Row]) -> int:
        if not rows:
            return 0
        self._cursor.executemany(_marked(sql), rows)
        return self._cursor.rowcount


def _marked(sql: str) -> Any:
    return sql.replace("?", "%s")


def _library() -> Any:
    if importlib.util.find_spec("psycopg") is None:
        raise MissingExtra(
            say(
                "PostgreSQL needs psycopg, which is not installed",
                remedy='Run: pip install "rediffuse[serve,postgres]"',
            )
        )
    import psycopg

    return psycopg
