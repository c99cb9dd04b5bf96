"""The layouts of the LightGCN authors: train.txt and test.txt, or data1.txt and test1.txt for last.fm.

The first holds a user and their items on each line; the second a user, an item and a listening count, with
friendships in trustnetwork.txt. Rows mean no order in time, so methods that need one refuse this data. No part to
choose settings on is shipped: a drawn share of each user's training row becomes it, or the last as it stands in the
file. Where rows ascend by item, as those of Gowalla do, the last share holds the highest item ids alone.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import polars as pl

from rediffuse.data.dataset import Dataset
from rediffuse.data.importers.archive import Members
from rediffuse.data.importers.lines import fields, id_rows
from rediffuse.data.splits import ShippedDrawn, ShippedTail, drawn, tail
from rediffuse.errors import InvalidInput, say, unknown

PROTOCOL: dict[str, Any] = {
    "name": "lightgcn",
    "fit": ["train"],
    "selection": {"relevant": "valid", "history": ["train"], "mask": ["train"]},
    "refit": ["train", "valid"],
    "report": {"relevant": "test", "history": ["train", "valid"], "mask": ["train", "valid"]},
    "ks": [10, 20],
    "select_by": "recall@20",
}

_LAYOUTS = (("train.txt", "test.txt"), ("data1.txt", "test1.txt"))
_COLUMNS = {"user": pl.UInt32(), "item": pl.UInt32(), "value": pl.Float64()}
_FRIENDS = "trustnetwork.txt"
_PUBLISHED = ("train", "test")
_CUTS: dict[str, type[ShippedDrawn | ShippedTail]] = {"drawn": ShippedDrawn, "tail": ShippedTail}


def load(
    source: Path, *, valid: float = 0.1, cut: Literal["drawn", "tail"] = "drawn", name: str | None = None
) -> Dataset:
    """Read the files of a folder.

    Args: valid: share of each user's training items that becomes the part `valid`: rounded down, at least one, none of a
            single one; 0 keeps train and test as they were shipped, without a protocol.
        cut: which items these are: drawn by seed and ids, or the last in the order of the file.
    Raises: InvalidInput when a file is missing, a line is not what it should be or the cut is unknown; InvalidConfig
        for another share.
    """
    if cut not in _CUTS:
        raise InvalidInput(unknown("cut", cut, _CUTS))
    recipe = _CUTS[cut].make(valid=valid) if valid else None
    files = Members.of(source)
    layout = next((both for both in _LAYOUTS if all(name in files for name in both)), None)
    if layout is None:
        allowed = " or ".join(" and ".join(both) for both in _LAYOUTS)
        raise InvalidInput(
            say(f"{str(source)!r} holds no files of LightGCN", got=", ".join(files.places), allowed=allowed)
        )
    read = {name: _pairs(files, name) for name in layout}
    train, test = (
        pairs.drop_nulls("item").unique(["user", "item"], keep="first", maintain_order=True) for pairs in read.values()
    )
    part = pl.when(_selecting(train, recipe)).then(pl.lit("valid")).otherwise(pl.lit("train"))
    data = Dataset.from_events(
        name or source.resolve().name,
        _as_text(pl.concat([train.with_columns(part=part), test.with_columns(part=pl.lit("test"))])),
        order="none",
        users=_users(files, pl.concat([pairs["user"] for pairs in read.values()])),
        parts=recipe.parts if recipe else _PUBLISHED,
        protocols={"lightgcn": PROTOCOL} if recipe else {},
    )
    assert data.split is not None
    facts = {
        "format": "lightgcn",
        "files": list(layout),
        **{f"test_{what}s_not_in_train": len(set(test[what]) - set(train[what])) for what in ("user", "item")},
        "duplicates": sum(pairs["item"].count() for pairs in read.values()) - len(data.events),
    }
    return replace(data, facts=facts, split=replace(data.split, recipe=recipe or data.split.recipe))


def _selecting(train: pl.DataFrame, recipe: ShippedDrawn | ShippedTail | None) -> pl.Series:
    """Which rows of user and item select, (n,) Boolean."""
    if recipe is None:
        return pl.repeat(value=False, n=train.height, eager=True)
    return drawn(train, recipe) if isinstance(recipe, ShippedDrawn) else tail(train["user"], recipe.valid)


def recognises(source: Path) -> bool:
    """Whether a folder holds the two files of one of the layouts."""
    return source.is_dir() and any(all((source / name).is_file() for name in both) for both in _LAYOUTS)


def _pairs(files: Members, name: str) -> pl.DataFrame:
    """Columns user, item and, in the second layout, value, in the order of the file; item is null for a user alone."""
    with files.open(name) as file:
        if name not in _LAYOUTS[0]:
            return fields(file, name, _COLUMNS)
        rows = id_rows(file, name)["ids"]
    return pl.DataFrame({"user": rows.list.first(), "item": rows.list.slice(1)}).explode("item", empty_as_null=True)


def _users(files: Members, seen: pl.Series) -> pl.DataFrame:
    """Everybody whom a file names, with their friends where they are shipped."""
    users = pl.DataFrame({"user": seen}).unique()
    if _FRIENDS in files:
        with files.open(_FRIENDS) as file:
            pairs = fields(file, _FRIENDS, {"user": pl.UInt32(), "friend": pl.UInt32()})
        friends = pairs.group_by("user").agg(pl.col("friend").unique().sort().cast(pl.String).alias("friends"))
        users = users.join(friends, on="user", how="full", coalesce=True)
    return _as_text(users)


def _as_text(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.with_columns(pl.selectors.by_name("user", "item", require_all=False).cast(pl.String))
