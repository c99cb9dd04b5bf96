"""Events in PostgreSQL: one store for several replicas.

A commit returns when the server has synced its log (synchronous_commit on). When the connection breaks during a
commit nobody here knows its fate: the sender is told that it failed, sends again, and nothing counts twice.
"""

import importlib.util
import threading
from collections.abc import Collection, Generator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rediffuse.errors import MissingExtra, StorageError, say
from rediffuse.serving.store.group import GroupCommit, Row, Session
from rediffuse.serving.store.tables import TableStore

if TYPE_CHECKING:
    import psycopg

_TYPES = {"key": "BIGINT PRIMARY KEY", "int": "BIGINT", "real": "DOUBLE PRECISION", "bytes": "BYTEA"}
_MAKING = 0x7265_6469_6666  # one replica at a time makes the tables


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
            self._prepare(session, _TYPES)
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

    def _scrub(self, ids: Collection[str]) -> None:
        """Rewrite the tables without what was deleted."""
        del ids
        self._write = self._alive(self._write)
        self._write.execute("VACUUM FULL events, aliases")

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
