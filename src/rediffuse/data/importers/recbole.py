"""Atomic files of RecBole: NAME.inter and, where they are shipped, NAME.item and NAME.user.

Fields are separated by tabs, the first line is `name:type` with the types token, token_seq, float, float_seq;
sequences are separated by spaces. Sequences become list columns, but for titles, which stay text.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import polars as pl

from rediffuse.data.dataset import Dataset
from rediffuse.data.importers.archive import Members
from rediffuse.data.importers.lines import fields, refuse
from rediffuse.data.importers.names import TITLES, attribute_names, match, match_id, plain
from rediffuse.data.importers.times import TimeUnit, to_utc_us
from rediffuse.data.interactions import Order
from rediffuse.data.rules import EventRules
from rediffuse.errors import InvalidInput, say
from rediffuse.files import new_folder

TYPES = ("token", "token_seq", "float", "float_seq")
_HEADER = re.compile(r"[^\t:]+:(token|float)(_seq)?")
_LONGEST_HEADER = 1 << 16
_OTHERS = ("kg", "link", "net", "ent")
_PART = "part"


def load(
    source: Path,
    *,
    columns: Mapping[str, str] | None = None,
    order: Order | None = None,
    time_unit: TimeUnit = "s",
    name: str | None = None,
    rules: EventRules | None = None,
) -> Dataset:
    """Read NAME.inter, or the one of a folder, with the tables beside it.

    Args: columns: our name -> theirs, where well-known names are not enough; an empty one leaves ours out.
        order: None: "time" when there are times, else "none"; "sequence": rows stand in the order of events.
        time_unit: what the time stamps count.   rules: which events count, and how much; None: all alike.
    A column `part`, as `write_recbole` writes it, gives the parts, in the order in which they first occur.
    Raises: InvalidInput naming file, line and value for what is not as the header says.
    """
    path = _events_file(source)
    if order is not None and order not in get_args(Order):
        raise InvalidInput(say("Unknown order", got=order, allowed=get_args(Order)))
    table = _Table.open(path)
    found = match([*table.types], columns or {})
    frame = _events(table, found, time_unit)
    parts = tuple(frame[_PART].unique(maintain_order=True)) if _PART in frame.columns else None
    facts: dict[str, Any] = {"format": "recbole", "source": path.name, "columns": found, "rows": frame.height}
    tables: dict[str, pl.DataFrame] = {}
    for what in ("item", "user"):
        beside = path.with_suffix(f".{what}")
        if beside.is_file():
            tables[what] = _attributes(_Table.open(beside), what, found[what])
            facts[f"{what}s"] = beside.name
    ignored = [path.with_suffix(f".{end}").name for end in _OTHERS if path.with_suffix(f".{end}").is_file()]
    if ignored:
        facts["ignored"] = ignored
    return Dataset.from_events(
        name or path.stem,
        frame,
        order=order,
        items=tables.get("item"),
        users=tables.get("user"),
        parts=parts,
        facts=facts,
        rules=rules,
    )


def recognises(source: Path) -> bool:
    """Whether it is a .inter file with a typed header, or a folder with one."""
    if source.is_dir():
        return any(recognises(path) for path in sorted(source.glob("*.inter")))
    if source.suffix != ".inter" or not source.is_file():
        return False
    return all(_HEADER.fullmatch(column) for column in _header(source).split("\t"))


@dataclass(frozen=True)
class _Table:
    """An atomic file, as text."""

    name: str
    types: Mapping[str, str]
    """Column, with its type as in the file -> that type alone."""
    frame: pl.DataFrame
    """All text; what is empty is null."""

    @classmethod
    def open(cls, path: Path) -> "_Table":
        header = _header(path)
        columns = header.split("\t")
        for column in columns:
            if not _HEADER.fullmatch(column):
                raise InvalidInput(
                    say(
                        f"The first line of {path.name!r} is no typed header",
                        got=column[:60],
                        allowed="name:type with the types " + ", ".join(TYPES),
                    )
                )
            if columns.count(column) > 1:
                raise InvalidInput(say(f"Column {column!r} stands twice in {path.name!r}", remedy="Rename one"))
        with Members.of(path.parent).open(path.name) as file:
            frame = fields(file, path.name, dict.fromkeys(columns, pl.String()), header=header)
        return cls(path.name, {column: column.rpartition(":")[2] for column in columns}, frame)

    def ids(self, column: str) -> pl.Series:
        """Ids as they stand."""
        found = self.frame[column]
        refuse(found.is_null(), self.name, f"has no {column}", found, header=1, remedy="Remove the line")
        return found

    def numbers(self, column: str) -> pl.Series:
        """(n,) Float64, null where empty."""
        found = self.frame[column]
        out = found.cast(pl.Float64, strict=False)
        wrong = (out.is_null() & found.is_not_null()) | ~out.is_finite().fill_null(value=True)
        refuse(wrong, self.name, f"holds no number in {column}", found, header=1)
        return out

    def lists(self, column: str) -> pl.Series:
        """(n,) lists of words, null where empty."""
        return self.frame[column].str.extract_all("[^ ]+")

    def number_lists(self, column: str) -> pl.Series:
        """(n,) lists of Float64, null where empty."""
        words = self.lists(column)
        out = words.list.eval(pl.element().cast(pl.Float64, strict=False))
        wrong = out.list.eval(pl.element().is_null() | ~pl.element().is_finite()).list.any().fill_null(value=False)
        refuse(wrong, self.name, f"holds no numbers in {column}", self.frame[column], header=1)
        return out


_READ: Mapping[str, Callable[[_Table, str], pl.Series]] = {
    "token": lambda table, column: table.frame[column],
    "token_seq": _Table.lists,
    "float": _Table.numbers,
    "float_seq": _Table.number_lists,
}


def write_recbole(dataset: Dataset, folder: Path) -> None:
    """Publish a dataset as NAME.inter, NAME.item and NAME.user, whole or not at all; `load` reads it back.

    Times become seconds. Parts become a column `part`, beside which the recipe of the split is lost; so is the order of
    events without times, unless it is named when the files are read, and where parts interleave within a user.
    Raises: InvalidInput when the folder exists, or when an id or text holds what the format cannot carry.
    """
    name = re.sub(r"[^\w.-]+", "-", dataset.name) or "data"
    with new_folder(folder, kind="recbole") as place:
        _write(_event_columns(dataset), place / f"{name}.inter")
        for catalog, what in ((dataset.catalog, "item"), (dataset.users, "user")):
            ids = pl.Series(f"{what}_id:token", catalog.items.ids, dtype=pl.String)
            _write([ids, *map(_typed, catalog.attributes.iter_columns())], place / f"{name}.{what}")


def _event_columns(dataset: Dataset) -> list[pl.Series]:
    frame = dataset.events.frame
    if dataset.split:
        frame = frame.with_columns(part=pl.Series(dataset.split.part)).sort("part", maintain_order=True)
    out = [
        pl.Series("user_id:token", dataset.users.items.ids, dtype=pl.String).gather(frame["user"]),
        pl.Series("item_id:token", dataset.catalog.items.ids, dtype=pl.String).gather(frame["item"]),
    ]
    if "value" in frame.columns:
        out.append(frame["value"].alias("rating:float"))
    if "time_us" in frame.columns:
        out.append(_seconds(frame["time_us"]).alias("timestamp:float"))
    out += [
        frame[column].alias(f"{column}:token") for column in ("kind", "group", "event_id") if column in frame.columns
    ]
    if dataset.split:
        out.append(pl.Series("part:token", dataset.split.parts, dtype=pl.String).gather(frame[_PART]))
    return out


def _seconds(time_us: pl.Series) -> pl.Series:
    """Microseconds -> seconds as text, with six decimals where they are not whole."""
    whole, rest = pl.col("us") // 1_000_000, pl.col("us") % 1_000_000
    decimals = pl.concat_str(pl.lit("."), rest.cast(pl.String).str.zfill(6))
    text = pl.concat_str(whole.cast(pl.String), pl.when(rest > 0).then(decimals).otherwise(pl.lit("")))
    return time_us.alias("us").to_frame().select(seconds=text)["seconds"]


def _typed(column: pl.Series) -> pl.Series:
    """A column named with its type; lists of words become text."""
    dtype = column.dtype
    inner = dtype.inner if isinstance(dtype, pl.List) else dtype
    kind = "float" if inner.is_numeric() else "token"
    if inner.is_nested():
        raise InvalidInput(say(f"RecBole has no type for {column.name!r}", got=str(dtype), allowed=", ".join(TYPES)))
    if not isinstance(dtype, pl.List):
        return column.alias(f"{column.name}:{kind}")
    words = column.cast(pl.List(pl.String))
    if words.explode().str.contains("[ ]").any():
        raise InvalidInput(say(f"A list in {column.name!r} holds text with a space in it, which parts sequences"))
    return words.list.join(" ").alias(f"{column.name}:{kind}_seq")


def _write(columns: list[pl.Series], path: Path) -> None:
    for column in columns:
        if not _HEADER.fullmatch(column.name):
            raise InvalidInput(say("A column of atomic files cannot be called so", got=column.name))
        if column.dtype == pl.String:
            broken = column.str.contains(r"[\t\r\n\x00]")
            refuse(broken, path.name, f"cannot hold a tab or line break in {column.name}", column, header=1)
    frame = pl.DataFrame(columns).with_columns(pl.selectors.float().fill_nan(None))
    frame.write_csv(path, separator="\t", quote_style="never")


def _events_file(source: Path) -> Path:
    if not source.is_dir():
        if not source.is_file():
            raise InvalidInput(say(f"There is no file or folder {str(source)!r}"))
        return source
    found = sorted(source.glob("*.inter"))
    if len(found) != 1:
        held = "several files" if found else "no file"
        shown = ", ".join(path.name for path in found or sorted(source.iterdir()))
        raise InvalidInput(say(f"{str(source)!r} holds {held} NAME.inter", got=shown, remedy="Name the file itself"))
    return found[0]


def _header(path: Path) -> str:
    with Members.of(path.parent).open(path.name) as file:
        line = file.readline(_LONGEST_HEADER)
    return line.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "replace").rstrip("\r\n")


def _events(table: _Table, found: Mapping[str, str], unit: TimeUnit) -> pl.DataFrame:
    out: dict[str, pl.Series] = {}
    for ours, theirs in found.items():
        if ours in ("user", "item"):
            out[ours] = table.ids(theirs)
        elif ours == "time":
            table.numbers(theirs)
            out["time_us"] = to_utc_us(table.frame[theirs], unit)
        elif ours == "value":
            out[ours] = table.numbers(theirs)
        else:
            out[ours] = table.frame[theirs]
    if f"{_PART}:token" in table.types:
        out[_PART] = table.ids(f"{_PART}:token")
    return pl.DataFrame(out)


def _attributes(table: _Table, what: str, like: str) -> pl.DataFrame:
    """A table of attributes with its ids in the column `item` or `user`."""
    identity = match_id([*table.types], what, like)
    ids = table.ids(identity)
    refuse(~ids.is_first_distinct(), table.name, "holds an id that stands on an earlier line", ids, header=1)
    rest = [column for column in table.types if column != identity]
    names = attribute_names(rest, what, title=what == "item")
    titles = {plain(title) for title in TITLES}
    columns = [
        (
            table.frame[column]
            if plain(column) in titles and names[column] == "title"
            else _READ[table.types[column]](table, column)
        ).alias(names[column])
        for column in rest
    ]
    return pl.DataFrame([ids.alias(what), *columns])
