"""What is said of items while the store is away, and while it is said."""

import logging
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from rediffuse.errors import StorageError
from rediffuse.serving.engine import Answered, Ask
from rediffuse.serving.ladder import Rung
from rediffuse.serving.shelf import Shelf
from rediffuse.serving.store import Item, Store, open_store
from rediffuse.serving.versions import Versions
from tests.serving.shop import opened

HISTORY = ("A00083", "A00037")


def test_a_store_that_is_away_keeps_nobody_from_a_list(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def away(self: Store, sql: str, values: object = ()) -> list[object]:
        raise StorageError("The server is away.")

    def told() -> list[str]:
        return [record.getMessage() for record in caplog.records if record.name == "rediffuse.serving.shelf"]

    with opened(models, tmp_path) as shop:
        first = shop.items(history=list(HISTORY))[0]
        shop.client.put(f"/v1/items/{first}", json={"available": False}).raise_for_status()
        for period in range(1, 3):
            with monkeypatch.context() as patch, caplog.at_level(logging.WARNING):
                patch.setattr(type(shop.service.store), "_read", away)
                for _ in range(4):
                    shop.hands.seconds += 2
                    assert first not in shop.items(history=list(HISTORY))
                assert shop.client.post("/v1/recommendations", json={"user": "ann"}).status_code == 503
            assert len(told()) == period
            assert "The server is away" in told()[-1]
            shop.service.store.put_items([Item(first, available=period == 1)])
            shop.hands.seconds += 2
            assert (first in shop.items(history=list(HISTORY))) == (period == 1)
            shop.service.store.put_items([Item(first, available=False)])
            shop.hands.seconds += 2
            assert first not in shop.items(history=list(HISTORY))


class Interrupted:
    """A lock that, when it is given back for the first time, lets somebody else go on."""

    def __init__(self, other: Callable[[], object]) -> None:
        self._lock, self._others = threading.Lock(), [other]

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()
        if self._others:
            self._others.pop()()


def test_items_told_of_in_the_middle_of_a_list(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For the first time: the list is by what was known when it began, the next one by what is known now."""
    versions = Versions(models, "cpu")
    versions.promote("one")
    store = open_store(str(tmp_path / "events.sqlite"))
    shelf = Shelf(store, lambda: 0.0)

    def first() -> str:
        with versions.current() as version:
            [found] = shelf.answer(version.engine, [Ask(history=HISTORY)], Rung.WHOLE)
        assert isinstance(found, Answered), found
        return found.items[0].item_id

    best = first()

    def tell() -> None:
        store.put_items([Item(best, available=False)])
        shelf.refresh()

    monkeypatch.setattr(shelf, "_lock", Interrupted(tell))
    assert first() == best
    assert first() != best
    store.close()
