"""Events in one SQLite file: the store of a single service.

The log is synced at every commit (WAL, synchronous FULL): with less, a power cut loses what was acknowledged. One
process writes, under a lock of the system that goes with it; a log that is still there when a store is opened was
left by one that did not close, and then the file is checked before anything is promised on it.
"""

import contextlib
import fcntl
import importlib.util
import threading
import time
from collections.abc import Collection, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

from rediffuse.errors import InvalidInput, MissingExtra, StorageError, say
from rediffuse.serving.store.erasure import ScrubOwed
from rediffuse.serving.store.group import GroupCommit, Row, Session
from rediffuse.serving.store.tables import TableStore

if TYPE_CHECKING:
    import apsw

OLDEST = (3, 51, 3)
"""Before it, two connections that check-point and write can tear the file (sqlite.org/wal.html, the reset bug)."""

_TYPES = {"key": "INTEGER PRIMARY KEY", "int": "INTEGER", "real": "REAL", "bytes": "BLOB"}
_PAGE, _CACHE_KIB = 8192, 65_536  # ids come in any order: nearly each touches a page of its own
_WINDOW = 1 << 20
_BUSY_MS = 5000
_PAUSES_S = (0.0, 0.1, 0.2, 0.4, 0.8)


class SQLiteStore(TableStore):
    """An event store in a file."""

    def __init__(
        self,
        path: Path | str,
        *,
        vfs: str | None = None,
        synchronous: Literal["FULL", "NORMAL"] = "FULL",
        checkpoint_pages: int = 5000,
        largest: int = 5000,
        wait_ms: float = 0.0,
        backlog: int = 100_000,
    ) -> None:
        """Open or make the file; its folder is made where there is none.

        Args: vfs: name of SQLite's file layer, for tests.   synchronous: NORMAL loses acknowledged events when the
            power goes; it is there to be compared with.   checkpoint_pages: length of the log after which it is
            brought into the file.   largest, wait_ms, backlog: see `GroupCommit`.
        Raises: MissingExtra; StorageError when it is open elsewhere, damaged, no event store, or cannot be opened.
        """
        super().__init__()
        self.path = Path(path).absolute()
        self._apsw: Any = _library()
        self._lock = self._take_lock()
        self._reading = threading.Lock()
        self._open = True
        unclean = self._log.exists() and self._log.stat().st_size > 0
        with contextlib.ExitStack() as undo:
            undo.callback(self._lock.close)
            with self._told():
                self._write = self._connect(vfs)
                undo.callback(self._write.close)
                self._write.execute(f"PRAGMA page_size = {_PAGE}")
                self._write.execute("PRAGMA journal_mode = WAL")
                self._write.execute(f"PRAGMA synchronous = {synchronous}")
                self._write.execute("PRAGMA secure_delete = ON")
                self._write.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
                self._write.wal_autocheckpoint(checkpoint_pages)
                if unclean:
                    self._check()
                with self._transaction() as session:
                    self._prepare(session, _TYPES)
                self._reader = self._connect(vfs)
                undo.callback(self._reader.close)
                self._reader.execute("PRAGMA query_only = ON")
                self._scrub_first()
            undo.pop_all()
        self._group = GroupCommit(
            self._transaction,
            name=str(self.path),
            largest=largest,
            wait_ms=wait_ms,
            backlog=backlog,
            stops=self._must_stop,
        )

    @property
    def _writer(self) -> GroupCommit:
        return self._group

    @property
    def _log(self) -> Path:
        return _log_of(self.path)

    def close(self) -> None:
        """Finish what was handed over, bring the log into the file, give the lock back."""
        if not self._open:
            return
        self._open = False
        self._group.close()
        try:
            with self._told(), self._reading:
                self._reader.close()
                self._write.close()
        finally:
            self._lock.close()

    def _read(self, sql: str, values: Row = ()) -> list[Row]:
        with self._told(), self._reading:
            return self._reader.execute(sql, values).fetchall()

    @contextmanager
    def _transaction(self) -> Generator[Session]:
        self._write.execute("BEGIN IMMEDIATE")
        try:
            yield _Session(self._write)
            self._write.execute("COMMIT")
        except BaseException:
            self._undone()
            if self._write.in_transaction:  # a failed commit may have rolled back by itself
                self._write.execute("ROLLBACK")
            raise

    def _scrub(self, ids: Collection[str] | None) -> None:
        """Empty the log; rewrite the file where rows that moved between pages left copies in freed space."""
        self._truncate_log()
        if ids is None or any(_holds(path, one.encode()) for one in ids for path in (self.path, self._log)):
            try:
                self._write.execute("VACUUM")
            except self._apsw.FullError as error:
                raise self._owes(f"there is no room to rewrite it: {error}", "Make room, and erase again") from error
            self._truncate_log()

    def _truncate_log(self) -> None:
        """Bring the log into the file and leave it empty. Raises: ScrubOwed when others who read hold it."""
        for pause_s in _PAUSES_S:
            time.sleep(pause_s)
            self._write.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()  # most of the work, while reads go on
            with self._reading:  # our own reader would hold the log
                self._write.set_busy_timeout(0)
                try:
                    [(busy, _, _)] = self._write.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
                finally:
                    self._write.set_busy_timeout(_BUSY_MS)
            if not busy:
                return
        raise self._owes("another program reads it", "Close it, and erase again")

    def _owes(self, why: str, remedy: str) -> ScrubOwed:
        return ScrubOwed(
            say(
                f"The person is erased, but traces could not be removed from {str(self.path)!r}",
                got=why,
                remedy=remedy,
            )
        )

    def _bytes(self) -> int:
        return _size(self.path)

    def _connect(self, vfs: str | None) -> "apsw.Connection":
        connection: apsw.Connection = self._apsw.Connection(str(self.path), vfs=vfs)
        connection.set_busy_timeout(_BUSY_MS)
        return connection

    def _check(self) -> None:
        found = self._write.execute("PRAGMA integrity_check").fetchall()
        if found != [("ok",)]:
            raise self._damaged(str(found[0][0]))

    def _damaged(self, why: str) -> StorageError:
        return StorageError(say(f"The event store {str(self.path)!r} is damaged", got=why, remedy="Restore a backup"))

    def _take_lock(self) -> BinaryIO:
        with self._told():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            lock = self.path.with_name(self.path.name + ".lock").open("ab")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            raise StorageError(
                say(f"The event store {str(self.path)!r} is open in another process", remedy="Stop that one first")
            ) from None
        return lock

    @contextmanager
    def _told(self) -> Generator[None]:
        """Word what the library or the system says. Raises: StorageError."""
        try:
            yield
        except StorageError:
            raise
        except (self._apsw.CorruptError, self._apsw.NotADBError) as error:
            raise self._damaged(str(error)) from error
        except (OSError, self._apsw.Error) as error:
            raise StorageError(
                say(f"The event store {str(self.path)!r} cannot be used", got=f"{type(error).__name__}: {error}")
            ) from error

    def _must_stop(self, error: Exception) -> bool:
        # After a failed sync nobody knows what is on disk: only opening the file anew finds out. A full disk is known.
        return isinstance(error, self._apsw.IOError | self._apsw.CorruptError | self._apsw.NotADBError)


class SQLiteReader(TableStore):
    """The event store in a file that a service may be writing: what is committed can be read, nothing changed."""

    def __init__(self, path: Path | str) -> None:
        """Open the file. Raises: MissingExtra; InvalidInput when there is none; StorageError when it is no event store."""
        super().__init__()
        self.path = Path(path).absolute()
        apsw: Any = _library()
        if not self.path.is_file():
            raise InvalidInput(say(f"There is no event store {str(path)!r}", remedy="Name the one that `serve` writes"))
        try:
            self._reader = apsw.Connection(str(self.path), flags=apsw.SQLITE_OPEN_READWRITE)
            self._reader.set_busy_timeout(_BUSY_MS)
            self._reader.execute("PRAGMA query_only = ON")
            self._know(self._read("SELECT name, value FROM facts"))
        except apsw.Error as error:
            raise StorageError(say(f"{str(path)!r} cannot be read as an event store", got=str(error))) from error

    @property
    def _writer(self) -> GroupCommit:
        raise self._refusal()

    def _transaction(self) -> AbstractContextManager[Session]:
        raise self._refusal()

    def _scrub(self, ids: Collection[str] | None) -> None:
        del ids
        raise self._refusal()

    def _refusal(self) -> StorageError:
        return StorageError(say(f"The event store {str(self.path)!r} was opened to be read only"))

    def _read(self, sql: str, values: Row = ()) -> list[Row]:
        return self._reader.execute(sql, values).fetchall()

    def _bytes(self) -> int:
        return _size(self.path)

    def close(self) -> None:
        """Let go of the file."""
        self._reader.close()


class _Session:
    """Statements of one transaction."""

    def __init__(self, connection: "apsw.Connection") -> None:
        self._connection = connection

    def run(self, sql: str, values: Row = ()) -> list[Row]:
        return self._connection.execute(sql, values).fetchall()

    def many(self, sql: str, rows: Sequence[Row]) -> int:
        before = self._connection.total_changes()
        self._connection.executemany(sql, rows)
        return self._connection.total_changes() - before


def _library() -> Any:
    if importlib.util.find_spec("apsw") is None:
        raise MissingExtra(
            say("The event store needs apsw, which is not installed", remedy='Run: pip install "rediffuse[serve]"')
        )
    import apsw

    version = apsw.sqlite_lib_version()
    if tuple(int(part) for part in version.split(".")) < OLDEST:
        raise MissingExtra(
            say(
                "This SQLite can damage a store that is written and check-pointed at once",
                got=version,
                allowed=".".join(map(str, OLDEST)) + " or newer",
                remedy='Run: pip install --upgrade "rediffuse[serve]"',
            )
        )
    return apsw


def _log_of(path: Path) -> Path:
    return path.with_name(path.name + "-wal")


def _size(path: Path) -> int:
    """Bytes of a store and of its log."""
    return sum(one.stat().st_size for one in (path, _log_of(path)) if one.exists())


def _holds(path: Path, needle: bytes) -> bool:
    """Whether a file has these bytes anywhere."""
    if not path.exists():
        return False
    tail = b""
    with path.open("rb") as file:
        while block := file.read(_WINDOW):
            if needle in tail + block:
                return True
            tail = block[-len(needle) :]
    return False
