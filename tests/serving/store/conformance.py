"""What every event store must do, whatever database it is in.

A subclass gives the fixture `place`: a function that opens the same, at first empty, store again and again.
"""

import hashlib
import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from rediffuse.errors import InvalidInput, StorageError
from rediffuse.serving.store import Event, Item, Store, anonymous_subject

NOW = 1_700_000_000_000_000


def event(n: int, **change: object) -> Event:
    """An event of user `u<n mod 7>`."""
    made = Event(event_id=f"e{n}", item=f"i{n % 11}", kind="view", time_us=NOW + n, user=f"u{n % 7}")
    return replace(made, **change)


class StoreConformance:
    """Inherited by the tests of each store."""

    @pytest.fixture
    def store(self, place: Callable[[], Store]) -> Iterator[Store]:
        store = place()
        yield store
        store.close()

    def test_what_goes_in_comes_out(self, store: Store) -> None:
        full = event(
            1,
            event_id="Ümlaut 'quoted\" ; --",
            anonymous="cookie",
            session="s",
            value=-1.5,
            quantity=0.25,
            context={"device": "phone", "query": "naïve ☃\n100%s ?"},
        )
        bare = event(2, user=None, anonymous="cookie", time_us=0)
        assert isinstance(store, Store)
        answer = store.append([full, bare])
        assert (answer.accepted, answer.refused) == ((True, True), (False, False))
        assert [told for _, told in store.since(0, 10)] == [full, bare]
        assert store.history("u1", 10) == [full]
        assert store.history(anonymous_subject("cookie"), 10) == [bare]
        assert store.history("nobody", 10) == []

    def test_what_was_kept_is_there_when_opened_again(self, place: Callable[[], Store]) -> None:
        store = place()
        seq = store.append([event(n) for n in range(30)]).seq
        store.put_items([Item("i1")])
        store.alias("cookie", "u1")
        before = store.state()
        store.close()
        store = place()
        assert [told for _, told in store.since(0, 100)] == [event(n) for n in range(30)]
        assert store.since(0, 100)[-1][0] == seq
        assert store.owner("p:cookie") == "u1"
        assert (store.state().seq, store.state().events) == (before.seq, 30)
        assert store.state().bytes > 0
        assert store.append([event(40)]).seq > before.seq
        store.close()

    def test_an_event_sent_twice_counts_once(self, store: Store) -> None:
        store.append([event(1), event(2)])
        seq = store.state().seq
        again = store.append([event(0), event(2, item="other"), event(3), event(3), event(1)])
        assert again.accepted == (True, False, True, False, False)
        assert again.seq > seq
        assert sorted(told.event_id for _, told in store.since(0, 99)) == ["e0", "e1", "e2", "e3"]
        assert store.history("u2", 9) == [event(2)]
        assert store.state().events == 4
        assert store.append([]).accepted == ()

    def test_history_is_the_newest_oldest_first(self, store: Store) -> None:
        told = [event(n, user="u") for n in range(60)]
        random.Random(0).shuffle(told)
        store.append(told[:30])
        store.append(told[30:])
        assert store.history("u", 25) == [event(n, user="u") for n in range(35, 60)]
        same = [event(n, user="tie", time_us=NOW) for n in range(69, 60, -1)]
        store.append(same)
        assert store.history("tie", 5) == same[-5:]  # of one moment: as they were taken

    def test_what_was_only_shown_pushes_nothing_out(self, store: Store) -> None:
        store.append([event(1, user="u"), event(2, user=None, anonymous="c")])
        store.append([event(n, user="u", kind="impression") for n in range(10, 70)])
        store.append([event(n, user=None, anonymous="c", kind="impression") for n in range(70, 130)])
        store.alias("c", "u")
        assert [told.event_id for told in store.history("u", 20)] == ["e1", "e2"]
        assert len(store.since(0, 1000)) == 122
        assert store.erase("u").events == 122

    def test_reading_on_from_a_number_misses_nothing(self, store: Store) -> None:
        for start in range(0, 100, 10):
            store.append([event(n) for n in range(start - 3, start + 10) if n >= 0])
        seen: list[str] = []
        seq = 0
        while part := store.since(seq, 7):
            assert [number for number, _ in part] == sorted({number for number, _ in part})
            seen += [told.event_id for _, told in part]
            seq = part[-1][0]
        assert seen == [f"e{n}" for n in range(100)]

    def test_numbers_rise_in_the_order_of_commits(self, place: Callable[[], Store], store: Store) -> None:
        """A reader that goes on from the last number it saw sees all, while others write."""
        seen: list[str] = []
        done = threading.Event()

        def read() -> None:
            seq, last = 0, False
            while True:
                part = store.since(seq, 1000)
                seen.extend(told.event_id for _, told in part)
                seq = part[-1][0] if part else seq
                if last and not part:
                    return
                last = done.is_set()

        reader = threading.Thread(target=read)
        reader.start()
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda n: store.append([event(n)]), range(200)))
        done.set()
        reader.join()
        assert len({answer.seq for answer in answers}) == 200
        assert sorted(seen) == sorted(f"e{n}" for n in range(200))

    def test_one_event_from_many_at_once_is_accepted_once(self, store: Store) -> None:
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: store.append([event(1), event(2)]).accepted, range(40)))
        assert sum(answer == (True, True) for answer in answers) == 1
        assert sum(answer == (False, False) for answer in answers) == 39
        assert store.state().events == 2

    def test_a_future_is_done_when_the_event_can_be_read(self, store: Store) -> None:
        futures = [store.submit([event(n)]) for n in range(50)]
        assert futures[-1].result(timeout=10).accepted == (True,)
        assert len(store.since(0, 100)) == 50

    def test_an_alias_joins_histories(self, store: Store) -> None:
        store.append([event(1, user=None, anonymous="c"), event(2, user="ada"), event(3, user=None, anonymous="c")])
        seq = store.alias("c", "ada")
        assert [told.event_id for told in store.history("ada", 9)] == ["e1", "e2", "e3"]
        assert store.history("p:c", 2) == store.history("ada", 2)
        assert [told.event_id for told in store.history("ada", 2)] == ["e2", "e3"]
        assert (store.owner("p:c"), store.owner("ada"), store.owner("p:d")) == ("ada", "ada", "p:d")
        assert store.alias("c", "ada") >= seq
        with pytest.raises(InvalidInput, match="another user's already"):
            store.alias("c", "bob")
        assert store.owner("p:c") == "ada"
        store.append([event(4)])  # a refusal leaves the store in order

    @pytest.mark.parametrize("subject", ["mona", "p:c1"])
    def test_an_erased_person_is_gone_under_every_id_and_stays_away(
        self, place: Callable[[], Store], store: Store, subject: str
    ) -> None:
        mine = [event(1, user="mona", anonymous="c1"), event(2, user=None, anonymous="c1"), event(3, user="mona")]
        others = [event(4, user="bob", anonymous="c1"), event(5, user=None, anonymous="c3")]
        store.append(mine + others)
        store.alias("c1", "mona")
        store.alias("c2", "mona")
        assert not store.erased(subject)
        assert store.state().erased_seq == 0
        receipt = store.erase(subject)
        assert (receipt.events, receipt.aliases) == (3, 2)
        assert "mona" not in str(receipt)  # no hex digits, which the hash of the subject is made of
        lines = f"subject={receipt.subject}\nat_us={receipt.at_us}\nseq={receipt.seq}\nevents=3\naliases=2\n"
        assert receipt.sha256 == hashlib.sha256(lines.encode()).hexdigest()
        assert replace(receipt, events=4).sha256 != receipt.sha256
        assert [told for _, told in store.since(0, 99)] == [replace(others[0], anonymous=None), others[1]]
        assert (store.state().events, store.state().erased_seq) == (2, receipt.seq)
        store.close()
        store = place()  # what was barred is barred by whoever opens the store next
        assert all(store.erased(one) and store.history(one, 9) == [] for one in ("mona", "p:c1", "p:c2"))
        assert not store.erased("bob")
        again = store.append([*mine, event(6, user="bob", anonymous="c1"), event(7, user=None, anonymous="c2")])
        assert again.refused == (True, True, True, False, True)
        assert again.accepted == (False, False, False, True, False)
        assert [told.anonymous for told in store.history("bob", 9)] == [None, None]
        for anonymous, user in (("c9", "mona"), ("c2", "bob")):
            with pytest.raises(InvalidInput, match="takes no alias"):
                store.alias(anonymous, user)
        assert store.erase("mona").events == 0
        store.close()

    def test_a_device_that_names_the_session_of_others_goes_from_there_too(self, store: Store) -> None:
        store.append([event(1, user="ada", anonymous="c1", session="c1")])
        store.alias("c1", "ada")
        others = [
            event(2, user="bob", anonymous="c1", session="c1"),
            event(3, user="bob", session="c1"),
            event(4, user=None, anonymous="c2", session="c1"),
            event(5, user="bob", session="s1"),
        ]
        cleared = [replace(one, anonymous=None if one.user else "c2", session=None) for one in others[:3]]
        store.append(others)
        store.erase("ada")
        assert [told for _, told in store.since(0, 9)] == [*cleared, others[3]]
        later = [replace(one, event_id=f"later-{one.event_id}") for one in others]
        seq = store.state().seq
        assert store.append(later).accepted == (True,) * 4
        assert [told.session for _, told in store.since(seq, 9)] == [None, None, None, "s1"]
        store.erase("p:c2")  # a visitor without a user
        assert {told.session for _, told in store.since(0, 9)} == {None, "s1"}

    def test_an_erasure_said_again_is_no_news(self, store: Store) -> None:
        """A model that learned after the first would be trained anew for nothing."""
        store.append([event(1, user=None, anonymous="c1"), event(2, user="ada")])
        store.alias("c1", "ada")
        first = store.erase("ada")
        again = [store.erase(subject) for subject in ("ada", "p:c1")]
        assert all(one.seq > first.seq and one.events == 0 for one in again)
        assert store.state().erased_seq == first.seq
        new = store.erase("ghost")
        assert store.state().erased_seq == new.seq
        assert store.append([event(3, user="ghost"), event(4, user="ada")]).refused == (True, True)

    def test_erasing_the_unknown_bars_it(self, store: Store) -> None:
        assert store.erase("ghost").events == 0
        assert store.append([event(1, user="ghost")]).refused == (True,)

    def test_erasure_and_ingest_at_once(self, store: Store) -> None:
        """Whatever the order, nothing of the erased remains."""
        stop = threading.Event()

        def ingest(worker: int) -> None:
            n = 0
            while not stop.is_set():
                store.append([event(1000 * worker + n, user="ada"), event(1000 * worker + 500 + n, user="bob")])
                n += 1

        workers = [threading.Thread(target=ingest, args=(n,)) for n in range(1, 4)]
        for worker in workers:
            worker.start()
        store.append([event(0, user="ada")])
        store.erase("ada")
        assert store.history("ada", 1) == []
        stop.set()
        for worker in workers:
            worker.join()
        assert {told.user for _, told in store.since(0, 9999)} <= {"bob"}
        assert store.state().events == len(store.since(0, 9999))

    def test_retention_drops_what_is_old(self, store: Store) -> None:
        store.append([event(n) for n in range(20)])
        seq = store.state().seq
        assert store.retain(NOW + 15) == 15
        assert [told.event_id for _, told in store.since(0, 99)] == [f"e{n}" for n in range(15, 20)]
        assert store.state().events == 5
        assert store.retain(NOW + 20) == 5
        assert store.append([event(30)]).seq > seq  # numbers never come again

    def test_the_last_word_on_an_item_counts(self, store: Store) -> None:
        first = Item("i1", group="g", attributes={"title": "Réd % ?", "price": 9.5, "path": ("a", "b")})
        seq = store.put_items([first, Item("i2")])
        assert [item for _, item in store.items_since(0)] == [first, Item("i2")]
        assert store.items_since(seq) == []
        new = replace(first, available=False)
        later = store.put_items([new])
        assert store.items_since(seq) == [(later, new)]
        assert [item for _, item in store.items_since(0)] == [Item("i2"), new]

    def test_a_large_batch_is_one(self, store: Store) -> None:
        answer = store.append([event(n) for n in range(3000)])
        assert answer.accepted == (True,) * 3000
        assert store.state().events == 3000

    def test_bad_questions_are_refused(self, store: Store) -> None:
        for ask in (
            lambda: store.history("u", 0),
            lambda: store.since(0, 0),
            lambda: store.history("", 1),
            lambda: store.erase("p:"),
            lambda: store.alias("c", "p:d"),
            lambda: store.retain(-1),
            lambda: store.erased("a\0b"),
        ):
            with pytest.raises(InvalidInput):
                ask()

    def test_a_closed_store_takes_and_tells_nothing(self, store: Store) -> None:
        waiting = [store.submit([event(n)]) for n in range(20)]
        store.close()
        store.close()
        assert all(future.result(timeout=0).accepted == (True,) for future in waiting)
        with pytest.raises(StorageError, match="is closed"):
            store.append([event(99)])
        with pytest.raises(StorageError, match=r"closed|cannot be used"):
            store.history("u1", 1)
