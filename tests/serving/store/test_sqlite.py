"""The store in a file: locks, faults of the disk, erasure down to the bytes."""

import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import apsw
import pytest

from rediffuse.errors import InvalidInput, MissingExtra, StorageError
from rediffuse.serving.store import Store, StoreBusy, open_store, sqlite
from rediffuse.serving.store.erasure import ScrubOwed
from rediffuse.serving.store.sqlite import SQLiteStore
from tests.serving.store.conformance import NOW, StoreConformance, event


class TestSQLite(StoreConformance):
    """One suite for every store."""

    @pytest.fixture
    def place(self, tmp_path: Path) -> Callable[[], Store]:
        return lambda: open_store(f"sqlite:///{tmp_path}/store/events.db")


def bytes_of(folder: Path, needle: str) -> int:
    """How often the bytes occur in the files of a store."""
    return sum(path.read_bytes().count(needle.encode()) for path in folder.iterdir())


def test_one_process_writes(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "events.db")
    with pytest.raises(StorageError, match="open in another process"):
        SQLiteStore(tmp_path / "events.db")
    other = "from rediffuse.serving.store import open_store; import sys; open_store(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", other, tmp_path / "events.db"], capture_output=True, text=True, check=False
    )
    assert "open in another process" in done.stderr
    store.close()
    SQLiteStore(tmp_path / "events.db").close()


def test_a_closed_store_leaves_no_log(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "events.db")
    store.append([event(1)])
    store.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["events.db", "events.db.lock"]


@pytest.mark.parametrize("seed", [1, 2])
def test_no_byte_of_an_erased_id_is_left(tmp_path: Path, seed: int) -> None:
    """Among rows of any length in any order: those that move between pages leave copies before they are deleted."""
    store = SQLiteStore(tmp_path / "events.db", checkpoint_pages=200)
    dice = random.Random(seed)
    ids = [f"person-{n:05d}-{'x' * dice.randrange(60)}-{dice.getrandbits(40):010x}" for n in range(300)]
    for start in range(0, 6000, 150):
        told = [
            event(
                start + n,
                event_id=f"{dice.getrandbits(64):016x}",
                item="i" * dice.randrange(1, 100),
                user=dice.choice(ids),
                anonymous=f"cookie-{dice.choice(ids)}",
                time_us=NOW + dice.randrange(10**9),
                context={"padding": "y" * dice.choice([0, 50, 900])},
            )
            for n in range(150)
        ]
        store.append(told)
        if start % 1000 == 0:
            store.retain(NOW + dice.randrange(10**8))
    for one in ids[:40:5]:
        store.alias(f"cookie-{one}", one)
    for one in ids[:40]:
        store.erase(one)
        if not store.erased(f"p:cookie-{one}"):
            store.erase(f"p:cookie-{one}")
        assert bytes_of(tmp_path, one) == 0
    assert store.state().events == len(store.since(0, 10_000)) > 1000
    assert bytes_of(tmp_path, ids[40]) > 0  # they do show where they are
    store.close()
    assert all(bytes_of(tmp_path, one) == 0 for one in ids[:40])


def visitors(store: Store, count: int) -> list[str]:
    """Ids of visitors with an event each, in an order that moves rows between pages."""
    dice = random.Random(0)
    made = [f"cookie-{dice.getrandbits(64):016x}" for _ in range(count)]
    for start in range(0, count, 500):
        told = [
            event(start + n, event_id=f"{dice.getrandbits(80):x}", user=None, anonymous=one)
            for n, one in enumerate(made[start : start + 500])
        ]
        store.append(told)
    return made


@contextmanager
def reading(path: Path) -> Generator[None]:
    """Another program reads, as a backup does."""
    with closing(apsw.Connection(str(path))) as backup:
        backup.execute("BEGIN")
        backup.execute("SELECT count(*) FROM events").fetchall()
        yield


def test_an_erasure_that_could_not_be_finished_is_finished_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By then nobody knows the ids, whose copies may be anywhere: the next erasure, of whomever, rewrites the file."""
    monkeypatch.setattr(sqlite, "_PAUSES_S", (0.0,))
    store = SQLiteStore(tmp_path / "events.db")
    cookies = visitors(store, 6000)[::60]
    for n, one in enumerate(cookies):
        store.alias(one, f"person-{n}")
    with reading(tmp_path / "events.db"):
        for n in range(len(cookies)):
            with pytest.raises(ScrubOwed, match=r"is erased, but.*another program reads it.*erase again"):
                store.erase(f"person-{n}")
        assert all(bytes_of(tmp_path, one) for one in cookies)
    assert (store.erase("somebody-else").events, store.erased(f"p:{cookies[-1]}")) == (0, True)
    assert sum(bytes_of(tmp_path, one) for one in cookies) == 0
    store.close()


KILLED = """
import os, sys
from rediffuse.serving.store.sqlite import SQLiteStore
store = SQLiteStore(sys.argv[1])
store._truncate_log = lambda: os._exit(9)
store.erase("ann")
"""


def test_a_start_finishes_the_erasure_that_a_kill_interrupted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "events.db"
    store = SQLiteStore(path)
    cookie = visitors(store, 3000)[7]
    store.alias(cookie, "ann")
    store.close()
    assert subprocess.run([sys.executable, "-c", KILLED, path], check=False).returncode == 9
    assert bytes_of(tmp_path, cookie) > 0
    with reading(path):  # whoever reads delays the scrub, not the start
        store = SQLiteStore(path)
        assert store.state().events == 2999
        assert "another program reads it" in caplog.text
        store.close()
    for owed in (True, False):
        before = path.stat().st_mtime_ns
        store = SQLiteStore(path)
        assert bytes_of(tmp_path, cookie) == 0
        assert store.erased("ann")
        store.close()
        assert (path.stat().st_mtime_ns != before) == owed  # what is scrubbed once is not rewritten again


def held(store: SQLiteStore) -> threading.Event:
    """Occupy the writer until the event is set: what is handed over meanwhile shares a commit."""
    began, go_on = threading.Event(), threading.Event()
    store._writer.submit(lambda _: (began.set(), go_on.wait()))
    began.wait()
    return go_on


def test_a_scrub_that_cannot_run_fails_nobody_else_and_lets_reads_go_on(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "events.db")
    store.append([event(1, user="ann"), event(2, user="bob")])
    with reading(tmp_path / "events.db"), ThreadPoolExecutor(1) as pool:
        go_on = held(store)
        erasure = pool.submit(store.erase, "ann")
        while not store._writer._jobs:
            time.sleep(0.001)
        beside = store.submit([event(3, user="bob")])  # of the same commit
        go_on.set()
        assert beside.result(10).accepted == (True,)
        longest = 0.0
        while not erasure.done():
            began = time.perf_counter()
            assert [told.event_id for told in store.history("bob", 9)] == ["e2", "e3"]
            longest = max(longest, time.perf_counter() - began)
        assert longest < 0.5
        with pytest.raises(ScrubOwed):
            erasure.result()
    store.close()


def test_erasures_of_one_commit_are_scrubbed_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = SQLiteStore(tmp_path / "events.db")
    people = [f"p:{one}" for one in visitors(store, 1000)[:20]]
    scrub, scrubbed = store._scrub, list[object]()

    def counted(ids: Collection[str] | None) -> None:
        scrubbed.append(ids)
        scrub(ids)

    monkeypatch.setattr(store, "_scrub", counted)
    go_on = held(store)
    with ThreadPoolExecutor(20) as pool:
        waiting = [pool.submit(store.erase, one) for one in people]
        while len(store._writer._jobs) < 20:
            time.sleep(0.001)
        go_on.set()
        assert [one.result().events for one in waiting] == [1] * 20
    assert scrubbed == [None]
    assert sum(bytes_of(tmp_path, one.removeprefix("p:")) for one in people) == 0
    store.close()


@pytest.mark.parametrize("whole_pages", [False, True])
def test_a_store_that_was_not_closed_is_checked(tmp_path: Path, whole_pages: bool) -> None:
    path = tmp_path / "events.db"
    store = SQLiteStore(path)
    store.append([event(n, event_id=f"unmistakable-{n:05d}") for n in range(2000)])
    store.close()
    content = bytearray(path.read_bytes())
    if whole_pages:
        content[4096 * 10 : 4096 * 30] = bytes(4096 * 20)
    else:
        place = content.index(b"unmistakable-01234")
        content[place : place + 18] = b"unmistakable-x1234"  # the row and its index do not agree any more
    path.write_bytes(content)
    if not whole_pages:
        SQLiteStore(path).close()  # it was closed: nobody looks
    path.with_name("events.db-wal").write_bytes(b"left behind")
    with pytest.raises(StorageError, match="is damaged"):
        SQLiteStore(path)


def test_what_is_no_store_is_refused(tmp_path: Path) -> None:
    (tmp_path / "events.db").write_bytes(b"no database at all " * 100)
    with pytest.raises(StorageError, match=r"is damaged.*not a database"):
        SQLiteStore(tmp_path / "events.db")
    with pytest.raises(StorageError, match="cannot be used"):
        SQLiteStore(tmp_path)


def test_a_store_of_before_gets_the_index_of_histories(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "events.db")
    store.append([event(n, user="u", kind="view" if n < 3 else "impression") for n in range(9)])
    store.close()
    with apsw.Connection(str(tmp_path / "events.db")) as connection:
        connection.execute("DROP INDEX events_by_interest; CREATE INDEX events_by_subject ON events (subject, time_us)")
    connection.close()
    reader = open_store(str(tmp_path / "events.db"), read_only=True)
    assert [told.event_id for told in reader.history("u", 2)] == ["e1", "e2"]
    reader.close()
    store = SQLiteStore(tmp_path / "events.db")
    asked = list[str]()
    store._reader.trace_v2(apsw.SQLITE_TRACE_STMT, lambda told: asked.append(told["sql"]))
    assert [told.event_id for told in store.history("u", 2)] == ["e1", "e2"]
    store._reader.trace_v2(0, None)
    [sql] = [sql for sql in asked if "LIMIT" in sql]
    [(*_, plan)] = store._read(f"EXPLAIN QUERY PLAN {sql}", ("u", 2))  # it neither sorts nor passes over what was shown
    assert plan == "SEARCH events USING INDEX events_by_interest (subject=? AND <expr>=?)"
    assert store._read("SELECT name FROM sqlite_schema WHERE name = 'events_by_subject'") == []
    store.close()


def test_another_format_is_refused(tmp_path: Path) -> None:
    SQLiteStore(tmp_path / "events.db").close()
    with apsw.Connection(str(tmp_path / "events.db")) as connection:
        connection.execute("UPDATE facts SET value = x'39' WHERE name = 'format'")
    connection.close()
    with pytest.raises(StorageError, match=r"another format. Got '9'. Allowed: 1"):
        SQLiteStore(tmp_path / "events.db")


def test_urls() -> None:
    for url in ("mysql://host/x", "sqlite://relative", "sqlite:///"):
        with pytest.raises(InvalidInput, match="names no event store"):
            open_store(url)


def test_an_old_sqlite_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "OLDEST", (99, 0, 0))
    with pytest.raises(MissingExtra, match=r"Allowed: 99\.0\.0 or newer"):
        SQLiteStore(tmp_path / "events.db")


def test_more_than_may_wait_is_refused(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "events.db", backlog=50, wait_ms=300)
    waiting = [store.submit([event(0)]), store.submit([event(100 + n) for n in range(60)])]  # any size gets in
    with pytest.raises(StoreBusy, match=r"Got 61\..*a little later"):
        store.submit([event(1)])
    assert [len(future.result(10).accepted) for future in waiting] == [1, 60]
    assert store.append([event(2)]).accepted == (True,)
    store.close()


class Failing(apsw.VFS):
    """A file layer in which an operation of the log can fail."""

    def __init__(self) -> None:
        self.fails: apsw.Error | None = None
        self.operation = ""
        super().__init__("failing", "")

    def xOpen(self, name: str, flags: list[int]) -> apsw.VFSFile:
        layer = self
        is_log = bool(flags[0] & apsw.SQLITE_OPEN_WAL)

        class File(apsw.VFSFile):
            def __init__(self) -> None:
                super().__init__("", name, flags)

            def xSync(self, how: int) -> None:
                if is_log and layer.fails is not None and layer.operation == "sync":
                    raise layer.fails
                super().xSync(how)

            def xWrite(self, data: bytes, offset: int) -> None:
                if is_log and layer.fails is not None and layer.operation == "write":
                    raise layer.fails
                super().xWrite(data, offset)

        return File()


@pytest.fixture
def layer() -> Failing:
    return Failing()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_after_a_failed_sync_the_writer_stops_and_says_so(tmp_path: Path, layer: Failing) -> None:
    store = SQLiteStore(tmp_path / "events.db", vfs="failing")
    store.append([event(1)])
    layer.fails, layer.operation = apsw.IOError("the disk is gone"), "sync"
    with pytest.raises(StorageError, match="acknowledged"):
        store.append([event(2)])
    layer.fails = None
    for _ in range(2):  # the disk may seem well again: nobody knows what it holds
        with pytest.raises(StorageError, match="stopped writing"):
            store.append([event(3)])
    assert store.history("u1", 9) == [event(1)]
    store.close()
    again = SQLiteStore(tmp_path / "events.db")
    assert event(1) in [told for _, told in again.since(0, 9)]
    assert again.append([event(2)]).seq > 1
    again.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_full_disk_fails_only_while_it_is_full(tmp_path: Path, layer: Failing) -> None:
    store = SQLiteStore(tmp_path / "events.db", vfs="failing")
    store.erase("ghost")
    layer.fails, layer.operation = apsw.FullError("no room"), "write"
    with pytest.raises(StorageError, match="FullError"):
        store.append([event(2)])
    with pytest.raises(StorageError, match="FullError"):
        store.erase("u2")
    layer.fails = None
    answer = store.append([event(2), event(3, user="ghost")])
    assert (answer.accepted, answer.refused) == ((True, False), (False, True))
    store.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_erasure_that_did_not_come_about_bars_nobody(tmp_path: Path, layer: Failing) -> None:
    store = SQLiteStore(tmp_path / "events.db", vfs="failing", wait_ms=400)
    layer.fails, layer.operation = apsw.FullError("no room"), "write"
    with ThreadPoolExecutor(1) as pool:
        erasure = pool.submit(store.erase, "u2")
        while not store._writer._jobs:
            time.sleep(0.001)
        with pytest.raises(StorageError, match="FullError"):  # it shares the commit, in which u2 was barred
            store.append([event(2)])
        with pytest.raises(StorageError, match="FullError"):
            erasure.result()
    layer.fails = None
    assert store.append([event(2)]).accepted == (True,)
    assert not store.erased("u2")
    store.close()
