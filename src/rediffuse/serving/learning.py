"""From the event store to the next training: a dataset and what happened since, without whoever was erased.

The dataset records the store and its last erasure (`facts["store"]`); a model folder repeats it, and so the next training
can tell whether an earlier model may still know somebody it should not.
"""

from collections.abc import Iterator
from dataclasses import asdict

import polars as pl

from rediffuse.data.dataset import Dataset
from rediffuse.data.rules import EventRules
from rediffuse.errors import InvalidInput, StorageError, say
from rediffuse.serving.past import telling
from rediffuse.serving.store import Event, Store

STORE = "store"
"""Of the facts: the store that events came from."""
_READ, _TIMES = 10_000, 3
_KEPT = ("user", "item", "time_us", "kind", "value", "event_id")


def collected(store: Store, base: Dataset, now_us: int) -> Dataset:
    """The events of a dataset and of a store, of everybody who was not erased; it is not split.

    What somebody was only shown, or gave back, is left out of the store's events, as it is out of a history when lists
    are made. Items stay, with their attributes, whoever is gone. Without the erased it is, to its content hash, what it
    would be had they never been there.

    Args: base: events with times.   now_us: what lies ahead of it has not happened.
    Raises: InvalidInput when the dataset has no times; StorageError when people keep being erased while it is read.
    """
    if base.events.order != "time":
        raise InvalidInput(
            say("Events of a store have times, those of this dataset do not", remedy="Import it with a column of times")
        )
    for _ in range(_TIMES):
        before = store.state()
        rows = pl.concat([_known(store, base), _told(store, before.seq, now_us)], how="diagonal_relaxed")
        if store.state().erased_seq == before.erased_seq:
            break
    else:
        raise StorageError(say("People were erased while the store was read", remedy="Collect again"))
    items, users = (
        pl.DataFrame({column: catalog.items.ids}, {column: pl.String}).hstack(catalog.attributes)
        for catalog, column in ((base.catalog, "item"), (base.users, "user"))
    )
    users = users.filter(~pl.Series([store.erased(user) for user in base.users.items.ids], dtype=pl.Boolean))
    rules = EventRules.make(base.facts["rules"]) if "rules" in base.facts else None
    mark = {name: value for name, value in asdict(before).items() if name in ("name", "seq", "erased_seq")}
    return Dataset.from_events(
        base.name, rows, items=items, users=users, rules=rules, time_zone=base.time_zone, facts={STORE: mark}
    )


def _known(store: Store, base: Dataset) -> pl.DataFrame:
    """Events of the dataset under the shop's ids, without the erased."""
    users, items = (pl.Series(catalog.items.ids, dtype=pl.String) for catalog in (base.users, base.catalog))
    gone = pl.Series([store.erased(user) for user in users], dtype=pl.Boolean)
    frame = base.events.frame.filter(~gone.gather(base.events.frame["user"]))
    named = frame.with_columns(user=users.gather(frame["user"]), item=items.gather(frame["item"]))
    return named.drop("position", "weight", strict=False).with_columns(pl.col(pl.Enum).cast(pl.String))


def _told(store: Store, until: int, now_us: int) -> pl.DataFrame:
    """Events of the store under the names of their owners, up to a number."""
    owners, by_owner = dict[str, str](), dict[str, list[Event]]()
    for event in _read(store, until):
        owner = owners.setdefault(event.subject, store.owner(event.subject))
        by_owner.setdefault(owner, []).append(event)
    rows = [
        (owner, event.item, event.time_us, event.kind, event.value, event.event_id)
        for owner, events in by_owner.items()
        for event in telling(sorted(events, key=lambda event: event.time_us), now_us)
    ]
    kinds = (pl.String, pl.String, pl.Int64, pl.String, pl.Float64, pl.String)
    return pl.DataFrame(rows, dict(zip(_KEPT, kinds, strict=True)), orient="row")


def _read(store: Store, until: int) -> Iterator[Event]:
    seq = 0
    while found := store.since(seq, _READ):
        for seq, event in found:  # the last one is where reading goes on
            if seq > until:
                return
            yield event
