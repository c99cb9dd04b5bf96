"""The store in PostgreSQL; REDIFFUSE_TEST_POSTGRES names a server on which these tests may make databases."""

import os
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest

from rediffuse.errors import StorageError
from rediffuse.serving.store import open_store
from rediffuse.serving.store.erasure import ScrubOwed
from tests.serving.store.conformance import StoreConformance, event

DSN = os.environ.get("REDIFFUSE_TEST_POSTGRES", "")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not DSN, reason="no PostgreSQL: name a server in REDIFFUSE_TEST_POSTGRES"),
]


@pytest.fixture
def empty() -> Generator[str]:
    """A database without tables, one for each process that tests at the same time."""
    import psycopg

    name = f"tests_{os.environ.get('PYTEST_XDIST_WORKER', 'alone')}"
    with psycopg.connect(DSN, autocommit=True) as server:
        server.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        server.execute(f"CREATE DATABASE {name}")
        yield urlsplit(DSN)._replace(path=f"/{name}").geturl()
        server.execute(f"DROP DATABASE {name} WITH (FORCE)")


class TestPostgres(StoreConformance):
    """One suite for every store."""

    @pytest.fixture
    def place(self, empty: str) -> Callable[[], object]:
        return lambda: open_store(empty)


def test_two_replicas_share_events_erasures_and_order(empty: str) -> None:
    first, second = open_store(empty), open_store(empty)
    assert first.append([event(1, user="ada")]).seq < second.append([event(2, user="ada")]).seq
    assert [told.event_id for told in first.history("ada", 9)] == ["e1", "e2"]
    assert second.append([event(1, user="ada")]).accepted == (False,)
    first.erase("ada")
    assert second.history("ada", 9) == []
    assert second.append([event(3, user="ada")]).refused == (True,)
    first.close()
    second.close()


@pytest.mark.parametrize("asks", ["LOCK TABLE events IN ACCESS SHARE MODE", "SELECT seq FROM head"])
def test_an_erasure_during_a_backup_stops_nobody_and_stays_owed(empty: str, asks: str) -> None:
    """The tables are locked by who reads them; who only began earlier keeps what it could still ask for."""
    import psycopg

    first, second = open_store(empty), open_store(empty)
    first.append([event(1, user="ada"), event(2, user="bob")])
    with psycopg.connect(empty) as backup, ThreadPoolExecutor(1) as pool:
        backup.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        backup.execute(asks)  # pyright: ignore[reportArgumentType, reportCallIssue]
        erasure = pool.submit(first.erase, "ada")
        took = list[float]()
        while not erasure.done():
            began = time.perf_counter()
            assert [told.event_id for told in second.history("bob", 9)] == ["e2"]
            took.append(time.perf_counter() - began)
        assert max(took) < 2.5
        assert len(took) > 5
        with pytest.raises(ScrubOwed, match=r"is erased, but.*as a backup does.*erase again"):
            erasure.result()
        assert second.history("ada", 9) == []
        assert second.append([event(3, user="bob"), event(1, user="ada")]).accepted == (True, False)
        third = open_store(empty)  # a start is not kept up either
        third.close()
        assert noted(empty)
    again = second.erase("ada")
    assert (again.events, noted(empty)) == (0, False)
    assert not holds(empty, "ada")
    first.close()
    second.close()


def test_replicas_that_erase_at_once_all_finish(empty: str) -> None:
    stores = [open_store(empty) for _ in range(3)]
    people = [f"person-{n}" for n in range(12)]
    stores[0].append([event(n, user=one) for n, one in enumerate(people)])
    with ThreadPoolExecutor(12) as pool:
        waiting = [pool.submit(stores[n % 3].erase, one) for n, one in enumerate(people)]
        receipts = [one.result() for one in waiting]
    assert [one.events for one in receipts] == [1] * 12
    assert not noted(empty)
    assert not any(holds(empty, one) for one in people)
    for store in stores:
        store.close()


def test_a_start_finishes_an_erasure_that_was_left(empty: str) -> None:
    store = open_store(empty)
    store.append([event(1, user="person-1")])
    store._scrub = _broken  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(StorageError, match="no connection any more"):
        store.erase("person-1")
    store.close()
    assert noted(empty)
    assert holds(empty, "person-1")
    open_store(empty).close()
    assert not noted(empty)
    assert not holds(empty, "person-1")


def _broken(ids: object) -> None:
    raise OSError(f"no connection any more for {ids}")


def noted(dsn: str) -> bool:
    """Whether a scrub is owed."""
    import psycopg

    with psycopg.connect(dsn) as server:
        return bool(server.execute("SELECT 1 FROM facts WHERE name = 'scrub'").fetchall())


def holds(dsn: str, needle: str) -> bool:
    """Whether the files of the table of events, or of its indices, have the bytes of an id."""
    import psycopg

    with psycopg.connect(dsn, autocommit=True) as server:
        server.execute("CHECKPOINT")
        paths = server.execute(
            "SELECT pg_relation_filepath(oid) FROM pg_class"
            " WHERE relname IN ('events', 'events_by_subject', 'events_pkey', 'aliases')"
        ).fetchall()
        files = [server.execute("SELECT pg_read_binary_file(%s)", path).fetchall()[0][0] for path in paths]
    return any(needle.encode() in content for content in files)


def test_a_broken_connection_fails_one_group_and_is_made_anew(empty: str) -> None:
    import psycopg

    store = open_store(empty)
    store.append([event(1)])
    assert store.history("u1", 1) == [event(1)]
    with psycopg.connect(empty, autocommit=True) as other:
        other.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'rediffuse' AND datname = current_database()"
        )
    with pytest.raises(StorageError, match="send it again"):
        store.append([event(2)])
    assert store.append([event(2)]).accepted == (True,)
    assert store.history("u1", 1) == [event(1)]
    store.close()


def test_a_server_that_is_not_there_is_said() -> None:
    with pytest.raises(StorageError, match="PostgreSQL cannot be used"):
        open_store("postgresql://nobody@127.0.0.1:1/none")
