"""The layout of the DiffRec authors: train_list.npy, valid_list.npy, test_list.npy.

Each file is int64 (n, 2): user, item; ids from 0, rows in the order of a user's events. The shipped ML-1M parts
stand in time as train -> test -> valid, so two protocols come with an import: `as-shipped` (select on valid,
report on test, history = train: what published figures use) and `in-time-order` (select on test, report on
valid with history = train + test).
"""

import tokenize
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rediffuse.data.dataset import Dataset
from rediffuse.errors import InvalidInput, say

PARTS_IN_TIME = ("train", "test", "valid")

PROTOCOLS: dict[str, dict[str, Any]] = {
    "as-shipped": {
        "name": "as-shipped",
        "fit": ["train"],
        "selection": {"relevant": "valid", "history": ["train"], "mask": ["train"]},
        "report": {"relevant": "test", "history": ["train"], "mask": ["train", "valid"]},
    },
    "in-time-order": {
        "name": "in-time-order",
        "fit": ["train"],
        "selection": {"relevant": "test", "history": ["train"], "mask": ["train"]},
        "report": {"relevant": "valid", "history": ["train", "test"], "mask": ["train", "test"]},
    },
}


def load(source: Path, *, name: str | None = None) -> Dataset:
    """Read the three files of a folder.

    Raises: InvalidInput when one is missing, holds anything but (n, 2) integers from 0, or when a user or item of
        valid or test does not occur in train.
    """
    pairs = {part: _pairs(source / f"{part}_list.npy") for part in PARTS_IN_TIME}
    train = pairs["train"]
    for part in PARTS_IN_TIME[1:]:
        for column, what in enumerate(("user", "item")):
            unseen = np.setdiff1d(pairs[part][:, column], train[:, column])
            if unseen.size:
                raise InvalidInput(
                    say(
                        f"{part}_list.npy holds {unseen.size} {what}s that train_list.npy has not",
                        got=int(unseen[0]),
                        remedy="Use the files as they were shipped, or import the events as a table and split them here",
                    )
                )
    columns = {part: _distinct(rows) for part, rows in pairs.items()}
    frame = pl.concat(
        pl.DataFrame({"user": rows[:, 0], "item": rows[:, 1]}).cast(pl.String).with_columns(part=pl.lit(part))
        for part, rows in columns.items()
    )
    dropped = sum(len(rows) for rows in pairs.values()) - frame.height
    dataset = Dataset.from_events(
        name or source.resolve().name,
        frame,
        order="sequence",
        parts=PARTS_IN_TIME,
        protocols=PROTOCOLS,
    )
    return replace(dataset, facts={"format": "diffrec", "duplicates": dropped})


def _distinct(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """The pairs in file order, each once: the authors' code sums repeated pairs, which is a quirk."""
    first = np.unique(rows, axis=0, return_index=True)[1]
    return rows[np.sort(first)]


def _pairs(path: Path) -> NDArray[np.int64]:
    if not path.is_file():
        raise InvalidInput(
            say(
                f"There is no file {str(path)!r}",
                remedy="The folder must hold train_list.npy, valid_list.npy, test_list.npy",
            )
        )
    try:
        with path.open("rb") as file:
            rows = np.lib.format.read_array(file, allow_pickle=False)
    except (ValueError, TypeError, EOFError, OSError, MemoryError, tokenize.TokenError) as error:
        problem = "holds pickled objects, which are never loaded" if "pickle" in str(error) else "cannot be read as npy"
        raise InvalidInput(
            say(f"{path.name} {problem}", remedy="Save the pairs as an int64 array of shape (n, 2)")
        ) from None
    if rows.ndim != 2 or rows.shape[1] != 2 or not np.issubdtype(rows.dtype, np.integer):
        raise InvalidInput(say(f"{path.name} must be integers of shape (n, 2)", got=f"{rows.dtype} {rows.shape}"))
    if not len(rows):
        raise InvalidInput(say(f"{path.name} is empty"))
    if rows.min() < 0:
        raise InvalidInput(say(f"{path.name} holds a negative id", got=int(rows.min()), allowed="ids from 0"))
    return rows.astype(np.int64)
