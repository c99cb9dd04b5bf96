"""The store in PostgreSQL; REDIFFUSE_TEST_POSTGRES names a server on which these tests may make databases."""

import os
from collections.abc import Callable, Generator
from urllib.parse import urlsplit

import pytest

from rediffuse.errors import StorageError
from rediffuse.serving.store import open_store
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
