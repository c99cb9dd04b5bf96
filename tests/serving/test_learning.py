"""What the next training learns from: a dataset and a store, as if the erased had never been there."""

import threading
from collections.abc import Sequence
from pathlib import Path

import polars as pl
import pytest

from rediffuse import registry
from rediffuse.config import RunConfig
from rediffuse.data.dataset import Dataset
from rediffuse.data.rules import EventRules
from rediffuse.data.splits import GlobalTime
from rediffuse.errors import InvalidInput, StorageError
from rediffuse.evaluation.protocol import Protocol
from rediffuse.files import sha256
from rediffuse.serving.learning import collected
from rediffuse.serving.past import Past, joined
from rediffuse.serving.store import Event, Store, open_store

ZOE, DEVICE = "zoe-8c1f", "cookie-77d2"
NOW_US = 2_000_000_000_000_000
LEARNED = ("weights.safetensors", "vocabulary.parquet", "attributes.parquet")


def named(data: Dataset) -> pl.DataFrame:
    """Events under the shop's ids."""
    frame = data.events.frame
    return frame.select(
        user=pl.Series(data.users.items.ids).gather(frame["user"]),
        item=pl.Series(data.catalog.items.ids).gather(frame["item"]),
        time_us="time_us",
    )


def made(rows: pl.DataFrame, tiny: Dataset) -> Dataset:
    items = tiny.catalog.attributes.with_columns(item=pl.Series(tiny.catalog.items.ids))
    return Dataset.from_events("shop", rows, items=items)


def filled(path: Path, tiny: Dataset, *more: Event) -> Store:
    """A store with events of users whom the dataset knows, and others."""
    store, last = open_store(str(path)), tiny.events.frame["time_us"].max()
    assert isinstance(last, int)
    ids = tiny.catalog.items.ids
    users = [*tiny.users.items.ids[:20], "new-1", "new-2"]
    events = [
        Event(f"e{n}", ids[n * 7 % len(ids)], "purchase", last + n * 1_000_000, user=users[n % len(users)])
        for n in range(120)
    ]
    store.append([*events[:60], *more, *events[60:]])
    return store


def of_zoe(ids: Sequence[str], at_us: int) -> list[Event]:
    first = Event("z1", ids[0], "purchase", at_us, anonymous=DEVICE)
    return [first, *(Event(f"z{n}", ids[n], "purchase", at_us + n, user=ZOE) for n in range(2, 9))]


@pytest.mark.parametrize("method", ["ease", "diffrec"])
def test_a_model_after_an_erasure_is_the_one_that_never_knew(tiny: Dataset, tmp_path: Path, method: str) -> None:
    """By the SHA-256 of all that was learned: the erased was in the dataset, in the store and behind an alias."""
    ids, rows = tiny.catalog.items.ids, named(tiny)
    last = int(rows["time_us"].max())  # type: ignore[arg-type]
    hers = pl.DataFrame({"user": [ZOE] * 5, "item": ids[3:8], "time_us": [last - n for n in range(5)]})
    with_her = made(pl.concat([rows, hers]), tiny)
    store = filled(tmp_path / "with.sqlite", tiny, *of_zoe(ids, last))
    store.alias(DEVICE, ZOE)
    found = [collected(store, with_her, NOW_US)]
    assert ZOE in found[0].users.items.ids
    receipt = store.erase(ZOE)
    assert receipt.events == 8
    found.append(collected(store, with_her, NOW_US))
    never = filled(tmp_path / "without.sqlite", tiny)
    found.append(collected(never, made(rows, tiny), NOW_US))
    assert len({data.digest() for data in found}) == 2
    assert found[1].digest() == found[2].digest()
    assert found[1].facts["store"]["erased_seq"] == receipt.seq
    settings = {} if method == "ease" else {"hidden": [16], "epochs": 2}
    hashes = list[list[str]]()
    for place, data in enumerate(found):
        fitted = registry.fit(
            registry.recipe(method, None, settings),
            data.with_split(GlobalTime()),
            Protocol(),
            RunConfig(device="cpu", threads=1),
        )
        fitted.write(tmp_path / f"model-{place}")
        hashes.append([sha256(tmp_path / f"model-{place}" / name) for name in LEARNED])
        assert fitted.folder.data["store"] == data.facts["store"]
    assert hashes[1] == hashes[2]
    assert hashes[0][0] != hashes[1][0]
    for one in (store, never):
        one.close()


def test_what_was_shown_or_given_back_teaches_nothing(tiny: Dataset, tmp_path: Path) -> None:
    ids, base = tiny.catalog.items.ids, made(named(tiny), tiny)
    store = open_store(str(tmp_path / "events.sqlite"))
    kinds = ["impression", "purchase", "cart", "cart_remove", "view"]
    at = 1_900_000_000_000_000
    store.append([Event(f"n{n}", ids[n // 4], kind, at + n, user="new") for n, kind in enumerate(kinds)])
    store.append([Event("late", ids[0], "view", NOW_US + 10**9, user="new")])
    found = collected(store, base, NOW_US)
    new = found.events.frame.filter(pl.col("user") == found.users.items.number("new"))
    assert new["time_us"].to_list() == [at + 1, at + 4]
    assert len(found.events) == len(base.events) + 2
    store.close()


def shop_of(*events: tuple[str, str, int, str], **more: object) -> Dataset:
    rows = pl.DataFrame(events, ["user", "item", "time_us", "kind"], orient="row")
    return Dataset.from_events("shop", rows, **more)  # type: ignore[arg-type]


BOUGHT = [("ann", "A", 1, "purchase"), ("ann", "B", 2, "purchase"), ("bob", "A", 3, "purchase")]


def test_a_return_cancels_what_the_dataset_has(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "events.sqlite"))
    store.append([Event("r", "A", "refund", 10, user="ann"), Event("s", "B", "refund", 11, user="bob")])
    found = collected(store, shop_of(*BOUGHT), NOW_US)
    together = shop_of(*BOUGHT, ("ann", "A", 10, "refund"), ("bob", "B", 11, "refund"))
    columns = ["user", "item", "time_us", "weight"]
    assert found.events.frame.select(columns).equals(together.events.frame.select(columns))
    assert found.history().to_lists() == [[1], [0]]
    past = Past(found)
    for user, left in (("ann", [("B", 2)]), ("bob", [("A", 3)])):
        for before in (Past(shop_of(*BOUGHT))(user), past(user)):  # what is served says the same, collected or not
            assert joined(before, store.history(user, 9), NOW_US, 9) == left
    unknown = collected(store, shop_of(*BOUGHT, rules=EventRules(returns=())), NOW_US)
    assert "refund" not in unknown.events.kinds
    store.close()


def test_collected_in_two_steps_it_is_what_it_is_at_once(tmp_path: Path) -> None:
    """Bought, put into the cart, seen as a visitor: then collected; then given back, taken out, known."""
    store, base = open_store(str(tmp_path / "events.sqlite")), shop_of(*BOUGHT)
    store.append(
        [
            Event("p1", "C", "purchase", 20, user="ann"),
            Event("p2", "C", "purchase", 21, user="cy"),
            Event("c1", "D", "cart", 22, user="dan"),
            Event("v1", "E", "view", 23, anonymous=DEVICE),
            Event("v2", "A", "view", 24, user="ann"),
            Event("i1", "F", "impression", 25, user="eve"),
        ]
    )
    first = collected(store, base, NOW_US)
    assert {"cy", "dan", f"p:{DEVICE}"} < set(first.users.items.ids)
    store.append(
        [
            Event("r1", "C", "refund", 30, user="ann"),
            Event("r2", "C", "refund", 31, user="cy"),
            Event("r3", "A", "refund", 32, user="bob"),
            Event("c2", "D", "cart_remove", 33, user="dan"),
        ]
    )
    store.alias(DEVICE, ZOE)
    second, at_once = collected(store, first, NOW_US), collected(store, base, NOW_US)
    assert second.digest() == at_once.digest() == collected(store, second, NOW_US).digest()
    pairs = zip(second.users.items.ids, second.history().to_lists(), strict=True)
    items = {user: second.catalog.items.decode(row) for user, row in pairs}
    assert items == {"ann": ["A", "B", "A"], "bob": [], "cy": [], "dan": [], ZOE: ["E"]}
    past = Past(first)
    for user in ("ann", "bob", "cy", "dan"):
        assert [item for item, _ in joined(past(user), store.history(user, 9), NOW_US, 9)] == items[user]
    store.close()


def test_a_store_in_use_can_be_read_but_not_written(tiny: Dataset, tmp_path: Path) -> None:
    store = filled(tmp_path / "events.sqlite", tiny)
    reader = open_store(str(tmp_path / "events.sqlite"), read_only=True)
    assert reader.state() == store.state()
    base = made(named(tiny), tiny)
    assert collected(reader, base, NOW_US).digest() == collected(store, base, NOW_US).digest()
    store.erase("new-1")
    assert reader.erased("new-1")
    assert "new-1" not in collected(reader, base, NOW_US).users.items.ids
    with pytest.raises(StorageError, match="opened to be read only"):
        reader.append([Event("x", "i", "view", 1, user="u")])
    reader.close()
    store.close()
    with pytest.raises(InvalidInput, match="There is no event store"):
        open_store(str(tmp_path / "none.sqlite"), read_only=True)
    (tmp_path / "text").write_text("hello " * 1000)
    with pytest.raises(StorageError, match="cannot be read as an event store"):
        open_store(str(tmp_path / "text"), read_only=True)


def test_erasures_while_it_is_read(tiny: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, base = filled(tmp_path / "events.sqlite", tiny), made(named(tiny), tiny)
    since, users = type(store).since, iter([*tiny.users.items.ids[:1], *(f"x{n}" for n in range(20))])

    def reading(self: Store, seq: int, limit: int) -> list[tuple[int, Event]]:
        erasing = threading.Thread(target=store.erase, args=(next(users),))
        erasing.start()
        erasing.join()
        return since(self, seq, limit)  # type: ignore[arg-type]

    monkeypatch.setattr(type(store), "since", reading)
    with pytest.raises(StorageError, match="Collect again"):
        collected(store, base, NOW_US)
    monkeypatch.undo()
    assert tiny.users.items.ids[0] not in collected(store, base, NOW_US).users.items.ids
    store.close()


def test_events_without_times_cannot_be_joined(tiny: Dataset, tmp_path: Path) -> None:
    store = filled(tmp_path / "events.sqlite", tiny)
    untimed = made(named(tiny).drop("time_us"), tiny)
    with pytest.raises(InvalidInput, match="those of this dataset do not"):
        collected(store, untimed, NOW_US)
    store.close()
