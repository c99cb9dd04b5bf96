"""Events, immutable and columnar, with a view by user."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from rediffuse.errors import InvalidInput, say
from rediffuse.types import Ragged

Order = Literal["time", "sequence", "none"]

COLUMNS: Mapping[str, pl.DataType] = {
    "user": pl.Int64(),
    "item": pl.Int64(),
    "position": pl.Int64(),
    "time_us": pl.Int64(),
    "kind": pl.String(),
    "value": pl.Float64(),
    "group": pl.String(),
    "event_id": pl.String(),
}
"""Names and types; the first three always stand, the others where known."""

REQUIRED = ("user", "item", "position")


@dataclass(frozen=True)
class Interactions:
    """Who met what, when. Sorted by (user, position); position counts a user's events from 0, oldest first."""

    frame: pl.DataFrame
    """Columns as in COLUMNS; user and item are dense numbers, time is UTC microseconds."""
    n_users: int
    n_items: int
    order: Order
    """How far the order of events is known."""

    def __post_init__(self) -> None:
        """Check columns, types and ranges."""
        if missing := [name for name in REQUIRED if name not in self.frame.columns]:
            raise InvalidInput(say(f"Events lack the column {missing[0]!r}", allowed=", ".join(COLUMNS)))
        for name, dtype in self.frame.schema.items():
            if COLUMNS.get(name) != dtype:
                raise InvalidInput(say(f"Column {name!r} of events cannot be {dtype}", allowed=", ".join(COLUMNS)))
        for name, size in (("user", self.n_users), ("item", self.n_items)):
            column = self.frame[name].to_numpy()
            if column.size and not (column.min() >= 0 and column.max() < size):
                raise InvalidInput(say(f"A number of column {name!r} lies outside 0..{size - 1}"))

        if self.order == "time" and ("time_us" not in self.frame.columns or self.frame["time_us"].has_nulls()):
            raise InvalidInput(say("Order by time needs the time of every event", remedy="Give a time_us column"))

    def __len__(self) -> int:
        """Number of events."""
        return self.frame.height

    @cached_property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of events that occur, sorted; their places are the numbers in `Ragged.kind`."""
        return tuple(self.frame["kind"].unique().drop_nulls().sort()) if "kind" in self.frame.columns else ()

    def history(self, keep: NDArray[np.bool_] | None = None) -> Ragged:
        """One row per user with their events, oldest first. Args: keep: (n,) which events; None: all."""
        frame = self.frame if keep is None else self.frame.filter(keep)
        lengths = np.bincount(frame["user"].to_numpy(), minlength=self.n_users)
        kind = None
        if self.kinds:
            places = {name: place for place, name in enumerate(self.kinds)}
            kind = _tensor(frame["kind"].replace_strict(places, default=-1, return_dtype=pl.Int64))
        return Ragged(
            indptr=torch.from_numpy(np.concatenate(([0], lengths.cumsum()))),
            items=_tensor(frame["item"]),
            time_us=_tensor(frame["time_us"]) if self.order == "time" else None,
            kind=kind,
        )

    def digest(self) -> str:
        """SHA-256 of the content in canonical order."""
        out = hashlib.sha256(f"{self.n_users},{self.n_items},{self.order}".encode())
        for name in COLUMNS:
            if name in self.frame.columns:
                column = self.frame[name]
                out.update(name.encode())
                if column.dtype == pl.String:
                    out.update("\x1f".join(column.fill_null("\x00")).encode())
                else:
                    out.update(column.to_numpy().tobytes())
        return out.hexdigest()


def _tensor(column: pl.Series) -> torch.Tensor:
    return torch.from_numpy(column.to_numpy().astype(np.int64))
