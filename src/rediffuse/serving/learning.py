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
from rediffuse.serving.store import SHOWN, Event, Store

STORE = "store"
"""Of the facts: the store that events came from."""
_READ, _TIMES = 10_000, 3
_OF_EVENT = ("item", "time_us", "kind", "value", "event_id")
_TOLD = {
    "user": pl.String,
    "item": pl.String,
    "time_us": pl.Int64,
    "kind": pl.String,
    "value": pl.Float64,
    "event_id": pl.String,
    "counts": pl.Boolean,
}
_SAME = ("user", "item", "time_us", "kind")
"""What makes two events one, in a dataset."""


def collected(store: Store, base: Dataset, now_us: int) -> Dataset:
    """The events of a dataset and of a store, of everybody who was not erased; it is not split.

    What somebody was only shown, or gave back, is left out of the store's events, as it is out of a history when lists
    are made; a return of what the store never had cancels what the dataset has, by its rules. Users and items stay,
    with their attributes, whoever is gone and whatever was given back. Collected at once or in several steps it is, to
    its content hash, the same; without the erased it is what it would be had they never been there.

    Args: base: events with times.   now_us: what lies ahead of it has not happened.
    Raises: InvalidInput when the dataset has no times; StorageError when people keep being erased while it is read.
    """
    if base.events.order != "time":
        raise InvalidInput(
            say("Events of a store have times, those of this dataset do not", remedy="Import it with a column of times")
        )
    rules = EventRules.make(base.facts.get("rules", {}))
    for _ in range(_TIMES):
        before = store.state()
        known, told = _known(store, base), _told(store, before.seq, now_us, rules)
        if store.state().erased_seq == before.erased_seq:
            break
    else:
        raise StorageError(say("People were erased while the store was read", remedy="Collect again"))
    void = told.filter(~pl.col("counts"))
    known = known.join(void, on=[name for name in _SAME if name in known.columns], how="anti")
    rows = pl.concat([known, told.filter("counts").drop("counts")], how="diagonal_relaxed")
    users, items = (
        _with(pl.DataFrame({column: catalog.items.ids}, {column: pl.String}).hstack(catalog.attributes), void[column])
        for catalog, column in ((base.users, "user"), (base.catalog, "item"))
    )
    here = [store.owner(user) == user and not store.erased(user) for user in users["user"]]
    users = users.filter(pl.Series(here, dtype=pl.Boolean))
    mark = {name: value for name, value in asdict(before).items() if name in ("name", "seq", "erased_seq")}
    return Dataset.from_events(
        base.name, rows, items=items, users=users, rules=rules, time_zone=base.time_zone, facts={STORE: mark}
    )


def _known(store: Store, base: Dataset) -> pl.DataFrame:
    """Events of the dataset under the shop's ids and the names of their owners, without the erased."""
    ids, items = base.users.items.ids, pl.Series(base.catalog.items.ids, dtype=pl.String)
    gone = pl.Series([store.erased(user) for user in ids], dtype=pl.Boolean)
    owners = pl.Series([store.owner(user) for user in ids], dtype=pl.String)
    frame = base.events.frame.filter(~gone.gather(base.events.frame["user"]))
    named = frame.with_columns(user=owners.gather(frame["user"]), item=items.gather(frame["item"]))
    return named.drop("position", "weight", strict=False).with_columns(pl.col(pl.Enum).cast(pl.String))


def _told(store: Store, until: int, now_us: int, rules: EventRules) -> pl.DataFrame:
    """Events of the store under the names of their owners, up to a number, but those that were only shown.

    Those that do not count were taken back or take back, or lie ahead; what takes back what the store never had counts
    where the rules know it as a return.
    """
    owners, by_owner = dict[str, str](), dict[str, list[Event]]()
    for event in _read(store, until):
        if event.kind not in SHOWN:
            owner = owners.setdefault(event.subject, store.owner(event.subject))
            by_owner.setdefault(owner, []).append(event)
    returns, rows = {name.casefold() for name in rules.returns}, list[tuple[object, ...]]()
    for owner, events in by_owner.items():
        events.sort(key=lambda event: event.time_us)
        found, left = telling(events, now_us)
        counts = {event.event_id for event in (*found, *(one for one in left if one.kind.casefold() in returns))}
        rows += [(owner, *(getattr(one, name) for name in _OF_EVENT), one.event_id in counts) for one in events]
    return pl.DataFrame(rows, _TOLD, orient="row")


def _with(table: pl.DataFrame, ids: pl.Series) -> pl.DataFrame:
    """A table of users or items, and these; an event of theirs may have counted when a dataset was made before."""
    more = ids.unique().to_frame().join(table, on=ids.name, how="anti")
    return pl.concat([table, more], how="diagonal")


def _read(store: Store, until: int) -> Iterator[Event]:
    seq = 0
    while found := store.since(seq, _READ):
        for seq, event in found:  # the last one is where reading goes on
            if seq > until:
                return
            yield event
