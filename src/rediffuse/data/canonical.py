"""The one order of events that does not depend on how they came, and their duplicates."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rediffuse.data.interactions import CONTEXT, Order

_DETAILS = ("event_id", "value", "group")
_KEYS: dict[Literal["time", "none"], tuple[str, ...]] = {
    "time": ("user", "part", "time_us", "item", "kind"),
    "none": ("user", "part", "item", "time_us", "kind"),
}
_BITS, _SAMPLE = 64, 1000


def canonical(frame: pl.DataFrame, order: Order) -> tuple[pl.DataFrame, int]:
    """Sort events by user, part, time and what else tells them apart; count exact duplicates once.

    Duplicates are events of the same user, item, time, kind and part. Where only the sequence is known, rows keep
    their order within a user and part, and a repeated event is an event.

    Args: frame: user, item, part as numbers, kind as an Enum; time_us, event_id, value, group and contexts where known.
    Returns: the events, and how many were left out.
    Limits: two copies of the events and 24 bytes for each. Events that neither user, time, item nor kind tell apart
        are compared in full, which is slower.
    """
    if order == "sequence":
        keys = [name for name in ("user", "part") if name in frame.columns]
        return frame[np.argsort(_pack(frame, keys)[0], kind="stable")], 0
    keys = [name for name in _KEYS[order] if name in frame.columns]
    details = [name for name in _DETAILS if name in frame.columns]
    details += sorted(name for name in frame.columns if name.startswith(CONTEXT))
    rows, ties = _sorted(frame, keys, details)
    out = frame[pl.Series(rows, dtype=pl.get_index_type())]
    same = np.ones(len(ties), dtype=np.bool_)
    for name in keys:
        same &= out[name][ties].eq_missing(out[name][ties - 1]).to_numpy()
    repeated = ties[same]
    return (out.filter(_all_but(repeated, out.height)) if repeated.size else out), repeated.size


def _sorted(
    frame: pl.DataFrame, keys: Sequence[str], details: Sequence[str]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows in the order of keys and details, nulls last, (n,); and the places that tie with the one before them, rising.

    As many keys as fit are packed into one integer, which sorts ten times as fast as several columns; rows that tie
    in it are sorted by the keys that are left and by the details. Whatever is equal in all keys ties.
    """
    packed, left = _pack(frame, keys)
    left += details
    rows = np.argsort(packed)
    packed = packed[rows]
    same = packed[1:] == packed[:-1]
    if left and same.any():
        tied = np.append(same, values=False) | np.insert(same, 0, values=False)
        some = frame.select(left)[rows[tied]].with_columns(pl.col(pl.Categorical, pl.Enum).cast(pl.String))
        some = some.with_columns(packed=packed[tied], row=rows[tied]).sort("packed", *left, nulls_last=True)
        rows[tied] = some["row"].to_numpy()
    return rows, np.flatnonzero(same) + 1


def _pack(frame: pl.DataFrame, keys: Sequence[str]) -> tuple[NDArray[np.uint64], list[str]]:
    """The first keys as one number a row, and the keys that found no room in it."""
    packed = np.zeros(frame.height, dtype=np.uint64)
    room = _BITS
    for place, key in enumerate(keys):
        column = frame[key].to_physical()
        if not column.dtype.is_integer() or isinstance(frame[key].dtype, pl.Categorical):
            return packed, list(keys[place:])
        numbers = _from_zero(column)
        bits = int(numbers.max()).bit_length()
        if bits > room and bits > frame.height.bit_length():
            numbers = _from_zero(column.rank("dense"))
            bits = int(numbers.max()).bit_length()
        if bits > room:
            return packed, list(keys[place:])
        packed = (packed << np.uint64(bits)) | numbers
        room -= bits
    return packed, []


def _from_zero(column: pl.Series) -> NDArray[np.uint64]:
    """Whole numbers as small ones in the same order, null the largest; times in whole seconds count seconds."""
    numbers = column.cast(pl.Int64)
    lowest, highest = int(numbers.min() or 0), int(numbers.max() or 0)  # pyright: ignore[reportArgumentType]
    out = (numbers.fill_null(highest + 1) - lowest).to_numpy().view(np.uint64)
    for unit in (1_000_000, 1_000) if column.name == "time_us" else ():
        if not (out[:_SAMPLE] % np.uint64(unit)).any() and not (out % np.uint64(unit)).any():
            return out // np.uint64(unit)
    return out


def _all_but(places: NDArray[np.int64], size: int) -> NDArray[np.bool_]:
    keep = np.ones(size, dtype=np.bool_)
    keep[places] = False
    return keep
