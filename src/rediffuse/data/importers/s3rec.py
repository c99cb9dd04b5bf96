"""The text layouts of S3-Rec and SASRec: who took what, oldest first, without times; ids count from 1.

S3-Rec: NAME.txt with a user and their items on each line, and NAME_item2attributes.json. SASRec: NAME.txt with one
interaction, user and item, on each line. Both are parted by leave-last-out by convention; nothing is parted here.
NAME_sample.txt (99 negatives a user) is never read: a rank among sampled items says little about the whole catalog.
"""

import json
from pathlib import Path
from typing import Any

import polars as pl

from rediffuse.data.dataset import Dataset
from rediffuse.data.importers.archive import Members
from rediffuse.data.importers.lines import id_rows
from rediffuse.errors import InvalidInput, say

_SAMPLE, _ATTRIBUTES = "_sample", "_item2attributes.json"
_PARTS = ("train", "test", "valid", "data1", "test1", "trustnetwork", "user_list", "item_list", "readme")
_LOOKED_AT = 1 << 16


def load(source: Path, *, name: str | None = None) -> Dataset:
    """Read NAME.txt, or the one such file of a folder, with the attributes beside it (a list column of items).

    Raises: InvalidInput when a folder holds none or several, a line holds anything but ids from 1, a user stands on two
        lines of S3-Rec or alone on one, or the attributes are no object of lists.
    """
    path = _events_file(source)
    with Members.of(path.parent).open(path.name) as file:
        rows = id_rows(file, path.name)
    _refuse_zero(rows, path.name)
    sizes = rows["ids"].list.len()
    users = rows["ids"].list.first()
    single = bool((sizes == 2).all())
    _refuse_lines(rows, sizes < 2, path.name, "holds a user without items")
    if not single:
        _refuse_lines(rows, ~users.is_first_distinct(), path.name, "holds a user who stands on an earlier line")
    frame = pl.DataFrame({"user": users, "item": rows["ids"].list.slice(1)}).explode("item").cast(pl.String)
    facts: dict[str, Any] = {"format": "s3rec", "layout": "sasrec" if single else "s3rec", "source": path.name}
    beside = path.with_name(path.stem + _ATTRIBUTES)
    items = None
    if beside.is_file():
        items = _attributes(beside)
        facts["attributes"] = beside.name
    sample = path.with_name(f"{path.stem}{_SAMPLE}.txt")
    if sample.is_file():
        facts["ignored"] = [sample.name]
    return Dataset.from_events(name or path.stem, frame, order="sequence", items=items, facts=facts)


def recognises(source: Path) -> bool:
    """Whether it is a text file whose first lines hold nothing but ids, or a folder with such files."""
    if source.is_dir():
        return any(recognises(path) for path in _candidates(source))
    if source.suffix.lower() != ".txt" or not source.is_file():
        return False
    with Members.of(source.parent).open(source.name) as file:
        start = file.read(_LOOKED_AT)
    words = start.split()
    return len(words) > 1 and all(word.isdigit() for word in words) and start.split(b"\n", 1)[0].strip().count(b" ") > 0


def _candidates(folder: Path) -> list[Path]:
    return [
        path
        for path in sorted(folder.glob("*.txt"))
        if not path.stem.endswith(_SAMPLE) and path.stem.lower() not in _PARTS
    ]


def _events_file(source: Path) -> Path:
    if not source.is_dir():
        if not source.is_file():
            raise InvalidInput(say(f"There is no file or folder {str(source)!r}"))
        return source
    found = _candidates(source)
    if len(found) != 1:
        held = "several files" if found else "no file"
        shown = ", ".join(path.name for path in found or sorted(source.iterdir()))
        raise InvalidInput(say(f"{str(source)!r} holds {held} NAME.txt", got=shown, remedy="Name the file itself"))
    return found[0]


def _refuse_zero(rows: pl.DataFrame, name: str) -> None:
    _refuse_lines(rows, rows["ids"].list.contains(0), name, "holds the id 0, which is padding; ids count from 1")


def _refuse_lines(rows: pl.DataFrame, wrong: pl.Series, name: str, what: str) -> None:
    """Complain about the first wrong line, if any: empty lines are not among the rows, so they carry their numbers."""
    if wrong.any():
        line, ids = rows.row(wrong.arg_max() or 0)
        raise InvalidInput(say(f"Line {line} of {name!r} {what}", got=" ".join(map(str, ids[:8]))))


def _attributes(path: Path) -> pl.DataFrame:
    """Item -> its attributes, each once, in the order of the file."""
    try:
        value = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise InvalidInput(say(f"{path.name!r} is not JSON", got=str(error), remedy="Fetch it again")) from None
    if not isinstance(value, dict):
        raise InvalidInput(say(f"{path.name!r} must hold an object: item -> attributes", got=type(value).__name__))
    rows: list[tuple[str, list[str]]] = []
    for item, listed in value.items():
        plain = isinstance(listed, list) and all(isinstance(one, int | str) for one in listed)
        if not plain or not item.isdecimal() or int(item) < 1:
            raise InvalidInput(
                say(
                    f"{path.name!r} gives item {item!r} no list of attributes",
                    got=str(listed)[:60],
                    allowed="lists of numbers, ids from 1",
                )
            )
        rows.append((str(int(item)), list(dict.fromkeys(map(str, listed)))))
    return pl.DataFrame(rows, schema={"item": pl.String, "attributes": pl.List(pl.String)}, orient="row")
