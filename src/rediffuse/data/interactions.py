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

COLUMNS: Mapping[str, type[pl.DataType]] = {
    "user": pl.Int32,
    "item": pl.Int32,
    "position": pl.Int32,
    "time_us": pl.Int64,
    "kind": pl.Enum,
    "value": pl.Float64,
    "weight": pl.Float32,
    "group": pl.String,
    "event_id": pl.String,
}
"""Names and types; the first three always stand, the others where known."""

REQUIRED = ("user", "item", "position")
CONTEXT = "context_"
"""How a column begins that tells of the moment of an event: its device, its channel."""

_SLICE = 1 << 20


@dataclass(frozen=True)
class Interactions:
    """Who met what, when. Sorted by (user, position); position counts a user's events from 0, oldest first."""

    frame: pl.DataFrame
    """Columns as in COLUMNS, brought to their types; user and item are dense numbers, time is UTC microseconds; the
    categories of `kind` are the kinds that occur, sorted. An event of weight 0 is on record only: no history holds it."""
    n_users: int
    n_items: int
    order: Order
    """How far the order of events is known."""

    def __post_init__(self) -> None:
        """Check columns, types and ranges."""
        if missing := [name for name in REQUIRED if name not in self.frame.columns]:
            raise InvalidInput(say(f"Events lack the column {missing[0]!r}", allowed=", ".join(COLUMNS)))
        object.__setattr__(self, "frame", self.frame.with_columns(_typed(column) for column in self.frame))
        for name, size in (("user", self.n_users), ("item", self.n_items)):
            column = self.frame[name]
            if column.has_nulls() or not column.is_between(0, size - 1).all():
                raise InvalidInput(say(f"A number of column {name!r} lies outside 0..{size - 1}"))
        if self.order == "time" and ("time_us" not in self.frame.columns or self.frame["time_us"].has_nulls()):
            raise InvalidInput(say("Order by time needs the time of every event", remedy="Give a time_us column"))

    def __len__(self) -> int:
        """Number of events."""
        return self.frame.height

    @cached_property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of events that occur, sorted; their places are the numbers in `Ragged.kind`."""
        dtype = self.frame.schema.get("kind")
        return tuple(dtype.categories) if isinstance(dtype, pl.Enum) else ()

    @cached_property
    def contexts(self) -> dict[str, tuple[str, ...]]:
        """What was declared of the moment of an event: name -> the values that occur, sorted; places are codes."""
        columns = {name.removeprefix(CONTEXT): t for name, t in self.frame.schema.items() if name.startswith(CONTEXT)}
        return {name: tuple(t.categories) for name, t in columns.items() if isinstance(t, pl.Enum)}

    def kind_counts(self) -> dict[str, int]:
        """Events of each kind."""
        if not self.kinds:
            return {}
        counts = np.bincount(self.frame["kind"].to_physical().drop_nulls().to_numpy(), minlength=len(self.kinds))
        return dict(zip(self.kinds, counts.tolist(), strict=True))

    def history(self, keep: NDArray[np.bool_] | None = None) -> Ragged:
        """One row per user with their events, oldest first; events of weight 0 are no part of it.

        Args: keep: (n,) which events; None: all.
        """
        frame = self.frame if keep is None else self.frame.filter(keep)
        if "weight" in frame.columns:
            frame = frame.filter(pl.col("weight") > 0)
        lengths = np.bincount(frame["user"].to_numpy(), minlength=self.n_users)
        return Ragged(
            indptr=torch.from_numpy(np.concatenate(([0], lengths.cumsum()))),
            items=_tensor(frame["item"]),
            time_us=_tensor(frame["time_us"]) if self.order == "time" else None,
            kind=_tensor(_codes(frame["kind"])) if self.kinds else None,
            weight=torch.from_numpy(frame["weight"].to_numpy().copy()) if "weight" in frame.columns else None,
            context={name: _tensor(_codes(frame[CONTEXT + name])) for name in self.contexts},
        )

    def digest(self) -> str:
        """SHA-256 of the content in canonical order."""
        return self._digest

    @cached_property
    def _digest(self) -> str:
        out = hashlib.sha256(f"{self.n_users},{self.n_items},{self.order},{self.kinds}".encode())
        for name in (*COLUMNS, *(CONTEXT + name for name in sorted(self.contexts))):
            if name in self.frame.columns:
                out.update(name.encode())
                for start in range(0, len(self), _SLICE):
                    out.update(_bytes(self.frame[name].slice(start, _SLICE)))
        return out.hexdigest()


def kinds_of(column: pl.Series) -> pl.Series:
    """Text or categories -> an Enum of those that occur, sorted."""
    words = column.cast(pl.Categorical(pl.Categories.random())) if column.dtype == pl.String else column
    present = words.unique().drop_nulls().cast(pl.String).sort()
    if isinstance(column.dtype, pl.Enum) and column.dtype.categories.to_list() == present.to_list():
        return column
    return words.cast(pl.Enum(present))


def _codes(column: pl.Series) -> pl.Series:
    return column.to_physical().cast(pl.Int64).fill_null(-1)


def _typed(column: pl.Series) -> pl.Series:
    dtype = column.dtype
    wanted = pl.Enum if column.name.startswith(CONTEXT) else COLUMNS.get(column.name)
    if wanted is pl.Enum and isinstance(dtype, pl.String | pl.Categorical | pl.Enum):
        return kinds_of(column)
    if dtype == wanted:
        return column
    if wanted is not None and dtype.is_integer() and wanted.is_integer():
        try:
            return column.cast(wanted)
        except pl.exceptions.InvalidOperationError:
            raise InvalidInput(say(f"Column {column.name!r} of events holds a number beyond {wanted}")) from None
    raise InvalidInput(say(f"Column {column.name!r} of events cannot be {dtype}", allowed=", ".join(COLUMNS)))


def _bytes(column: pl.Series) -> bytes:
    """What a digest reads of a column: equal for equal values."""
    if column.dtype == pl.String:
        lengths = column.str.len_bytes().cast(pl.Int64).fill_null(-1)
        return lengths.to_numpy().tobytes() + "".join(column.drop_nulls()).encode()
    if column.dtype.is_float():
        return column.fill_null(float("nan")).to_numpy().tobytes()
    return _codes(column).to_numpy().tobytes()


def _tensor(column: pl.Series) -> torch.Tensor:
    return torch.from_numpy(column.to_numpy().astype(np.int64))
