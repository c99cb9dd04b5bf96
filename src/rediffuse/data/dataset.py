"""A dataset: users, catalog, events, their split; and its folder on disk.

dataset.json       counts, time range or kind of order, content hash, health, split recipe, protocols
events.parquet     user, item, position and, where known, time_us, kind, value, weight, group, event_id, part
users.parquet      external ids in the order of their numbers, attributes
items.parquet      likewise
manifest.json      bytes and SHA-256 of the others
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self, get_args

import numpy as np
import polars as pl

from rediffuse.data.canonical import canonical
from rediffuse.data.catalog import Catalog
from rediffuse.data.health import health, moment
from rediffuse.data.interactions import COLUMNS, CONTEXT, Interactions, Order, kinds_of
from rediffuse.data.rules import EventRules, Repeats, kept, weights
from rediffuse.data.splits import AsShipped, Recipe, Split, protocols_of, recipe_from_json, split
from rediffuse.data.vocabulary import Vocabulary
from rediffuse.errors import ArtifactError, InvalidInput, say
from rediffuse.files import new_folder, open_folder, write_json
from rediffuse.types import Ragged

FORMAT_VERSION = 2
ROW_GROUP = 1 << 20
"""Rows of `events.parquet` that are packed together."""


@dataclass(frozen=True)
class Dataset:
    """What happened, ready to learn from."""

    name: str
    users: Catalog
    """Users with their attributes."""
    catalog: Catalog
    """Items with their attributes."""
    events: Interactions
    split: Split | None = None
    protocols: Mapping[str, Mapping[str, Any]] = field(default_factory=dict[str, Mapping[str, Any]])
    """Evaluation protocols that came with the data, the default first."""
    facts: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Where it came from and what was noticed on the way: source, duplicates, recipe of a world."""
    time_zone: str = "UTC"
    """The shop's, for seasons."""
    repeats: Repeats = "mask"
    """Whether an item that somebody has had may be recommended to them again: mask (no) or allow."""

    @classmethod
    def from_events(
        cls,
        name: str,
        frame: pl.DataFrame,
        *,
        order: Order | None = None,
        items: pl.DataFrame | None = None,
        users: pl.DataFrame | None = None,
        parts: tuple[str, ...] | None = None,
        rules: EventRules | None = None,
        **more: Any,
    ) -> Self:
        """Build from a table with external ids.

        Exact duplicates (the same user, item, time, kind and part) count once; their number is a fact. Where only
        the sequence is known, a repeated event is an event.

        Args: frame: user, item (text or categories) and, where known, time_us, kind, value, group, event_id, part, in
                any order if times are known, else in the order of events.
            order: None: "time" when there is a time_us column, else "none".
            items, users: tables with an `item` / `user` column and attributes; ids without events are kept.
            parts: names of shipped parts, earliest first.
            rules: which events count, and how much; None: all alike, but for returns.
        Raises: InvalidInput when there is no event, or none that the rules take.
        """
        if frame.height == 0:
            raise InvalidInput(say("There is no event", remedy="Check the file and its columns"))
        order = order or ("time" if "time_us" in frame.columns else "none")
        rules = rules or EventRules()
        if "kind" in frame.columns:
            frame = frame.with_columns(kinds_of(frame["kind"]))
        frame, left_out = kept(frame, rules)
        user_ids, item_ids = _ids(frame, users, "user"), _ids(frame, items, "item")
        frame = frame.with_columns(
            user_ids.encode_column(frame["user"]).alias("user"), item_ids.encode_column(frame["item"]).alias("item")
        )
        if parts is not None:
            places = {part: place for place, part in enumerate(parts)}
            frame = frame.with_columns(pl.col("part").replace_strict(places, return_dtype=pl.Int8))
        frame, duplicates = canonical(frame, order)
        frame = frame.with_columns(_positions(frame["user"]), pl.col(pl.Categorical).cast(pl.String))
        weight, returned = weights(frame, rules, order)
        if weight is not None:
            frame = frame.with_columns(weight.alias("weight"))
        shipped = None if parts is None else Split(AsShipped(parts=parts), parts, frame["part"].to_numpy())
        contexts = sorted(name for name in frame.columns if name.startswith(CONTEXT))
        known = [name for name in (*COLUMNS, *contexts) if name in frame.columns]
        events = Interactions(frame.select(known), len(user_ids), len(item_ids), order)
        facts = {**more.pop("facts", {}), "duplicates": duplicates, **returned}
        if rules != EventRules() or returned:
            facts |= {"rules": rules.model_dump(mode="json"), "left_out": left_out}
        catalogs = Catalog.of(user_ids, users, "user"), Catalog.of(item_ids, items)
        return cls(name, *catalogs, events, shipped, facts=facts, repeats=rules.repeats, **more)

    def with_split(self, recipe: Recipe) -> "Dataset":
        """The same events, parted by a recipe, with the protocols that go with it instead of those of an earlier split."""
        found = split(self.events, recipe, users=self.users.items.ids, items=self.catalog.items.ids)
        return replace(self, split=found, protocols=protocols_of(recipe))

    def numbered_like(self, ids: Sequence[str]) -> "Dataset":
        """The same with items in a given order, as an earlier model knows them; items that are new come after.

        Args: ids: of the model's items; those that this data has not stand there without events.
        """
        vocabulary = Vocabulary(tuple(ids)).extend(self.catalog.items.ids)
        if vocabulary == self.catalog.items:
            return self
        new = pl.Series(vocabulary.encode(self.catalog.items.ids))
        frame = self.events.frame.with_columns(item=new.gather(self.events.frame["item"]))
        table = self.catalog.attributes.with_columns(pl.Series("item", self.catalog.items.ids))
        catalog = Catalog.of(vocabulary, table)
        events = Interactions(frame, len(self.users), len(vocabulary), self.events.order)
        return replace(self, catalog=catalog, events=events)

    def history(self, *parts: str) -> Ragged:
        """One row per user with their events in the named parts (all when none is named), oldest first.

        A return that stands in a later part than those named is not known yet: what it takes back still counts.

        Raises: InvalidInput when parts are named and the data has no split.
        """
        if not parts:
            return self.events.history()
        found = self._split()
        events = self.events
        if "returns" in self.facts:
            known = found.part <= max(found.place(part) for part in parts)
            rules = EventRules.make(self.facts["rules"])
            weight, _ = weights(events.frame.filter(known), rules, events.order)
            column = np.zeros(len(events), dtype=np.float32)
            column[known] = 1.0 if weight is None else weight.to_numpy()
            events = replace(events, frame=events.frame.with_columns(weight=pl.Series(column)))
        return events.history(found.mask(parts))

    def part_counts(self) -> dict[str, int]:
        """Events in each part."""
        found = self._split()
        return {name: int((found.part == place).sum()) for place, name in enumerate(found.parts)}

    def digest(self) -> str:
        """SHA-256 of ids, events and split: the same events in any order give the same."""
        return self._digest

    @cached_property
    def _digest(self) -> str:
        out = hashlib.sha256(self.events.digest().encode())
        for vocabulary in (self.users.items, self.catalog.items):
            out.update("\x1f".join((*vocabulary.ids, "")).encode())
        if self.split:
            out.update(",".join(self.split.parts).encode() + self.split.part.tobytes())
        return out.hexdigest()

    def describe(self, now_us: int | None = None) -> dict[str, Any]:
        """What `dataset.json` records. Args: now_us: later times are reported; None: they are not looked for."""
        events = self.events
        per_user, per_item = (np.bincount(events.frame[c].to_numpy()) for c in ("user", "item"))
        out: dict[str, Any] = {
            "format_version": FORMAT_VERSION,
            "name": self.name,
            "users": len(self.users),
            "items": len(self.catalog),
            "events": len(events),
            "users_with_events": int((per_user > 0).sum()),
            "items_with_events": int((per_item > 0).sum()),
            "events_per_user": {
                "min": int(per_user.min()),
                "median": float(np.median(per_user)),
                "max": int(per_user.max()),
            },
            "density": len(events) / (len(self.users) * len(self.catalog)),
            "order": events.order,
            "kinds": events.kind_counts(),
            "time_zone": self.time_zone,
            "repeats": self.repeats,
            "content_sha256": self.digest(),
            "split": None,
            "protocols": dict(self.protocols),
            "facts": dict(self.facts),
            "health": health(self, now_us).record(),
        }
        if events.order == "time":
            time = events.frame["time_us"].to_numpy()
            out["first_event"], out["last_event"] = moment(time.min()), moment(time.max())
        if self.split:
            out["split"] = {"parts": self.part_counts(), "recipe": self.split.recipe.model_dump(mode="json")}
            if events.order == "time":
                time = events.frame["time_us"].to_numpy()
                parts = ((name, time[self.split.mask([name])]) for name in self.split.parts)
                out["split"]["first_event"] = {name: moment(times.min()) for name, times in parts if times.size}
        return out

    def write(self, folder: Path, now_us: int | None = None) -> dict[str, Any]:
        """Publish the folder, whole or not at all.

        Args: now_us: as in `describe`.   Returns: what `dataset.json` records.
        Raises: InvalidInput when it exists already.
        """
        with new_folder(folder, kind="dataset") as place:
            frame = self.events.frame
            if self.split:
                frame = frame.with_columns(part=pl.Series(self.split.part))
            frame.write_parquet(place / "events.parquet", compression_level=1, row_group_size=ROW_GROUP)
            for catalog, name, column in ((self.users, "users", "user"), (self.catalog, "items", "item")):
                ids = pl.DataFrame({column: catalog.items.ids}, schema={column: pl.String})
                pl.concat([ids, catalog.attributes], how="horizontal").write_parquet(place / f"{name}.parquet")
            facts = self.describe(now_us)
            write_json(place / "dataset.json", facts)
        return facts

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Load and verify a dataset folder. Raises: ArtifactError when it is none, altered or of a newer format."""
        facts = open_folder(
            folder, "dataset", FORMAT_VERSION, "Make one with: rediffuse import FORMAT SOURCE --to DATASET"
        )
        frame = pl.read_parquet(folder / "events.parquet", glob=False)
        users, items = (_read_catalog(folder / f"{name}.parquet", name[:-1]) for name in ("users", "items"))
        order = facts["order"]
        if order not in get_args(Order):
            raise ArtifactError(say("dataset.json names an unknown order", got=order, allowed=get_args(Order)))
        found = None
        if facts["split"]:
            recipe = recipe_from_json(facts["split"]["recipe"])
            found = Split(recipe, tuple(facts["split"]["parts"]), frame["part"].to_numpy())
        events = Interactions(frame.drop("part", strict=False), len(users), len(items), order)
        more = (facts[key] for key in ("protocols", "facts", "time_zone", "repeats"))
        return cls(facts["name"], users, items, events, found, *more)

    def _split(self) -> Split:
        if self.split is None:
            raise InvalidInput(
                say(
                    f"Dataset {self.name!r} is not split yet", remedy="Run: rediffuse split DATASET RECIPE --to DATASET"
                )
            )
        return self.split


def _ids(frame: pl.DataFrame, table: pl.DataFrame | None, column: str) -> Vocabulary:
    seen = frame[column].unique().cast(pl.String)
    return Vocabulary.of_column(seen if table is None else pl.concat([seen, table[column].cast(pl.String)]))


def _positions(user: pl.Series) -> pl.Series:
    """Places of events among those of their user, from 0. Args: user: (n,) sorted."""
    lengths = np.bincount(user.to_numpy())
    starts = np.repeat(lengths.cumsum() - lengths, lengths)
    return pl.Series("position", (np.arange(len(user)) - starts).astype(np.int32))


def _read_catalog(path: Path, column: str) -> Catalog:
    table = pl.read_parquet(path, glob=False)
    return Catalog(Vocabulary(tuple(table[column].to_list())), table.drop(column))
