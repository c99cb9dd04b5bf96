"""Records of a shop's export, JSONL or parquet, in the shape that an importer asks for; what else they hold is passed over.

All that is not nested is text: exports write 64-bit integers as text or as numbers, and both are read.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import polars as pl

from rediffuse.data.importers.blocks import blocks
from rediffuse.data.importers.reading import (
    DAMAGE,
    PARQUET,
    broken_lines,
    header_fields,
    no_object,
    open_table,
    start_of,
)
from rediffuse.data.importers.tolerance import complain, lose
from rediffuse.errors import InvalidInput, say

Shape = Mapping[str, pl.DataType]
"""Names -> String, or lists and structs of it."""
LINE = "line"
"""The column that numbers the records from 1."""
TEXT = pl.String()


def struct(*names: str, **more: pl.DataType) -> pl.Struct:
    """A struct of text fields, and others."""
    return pl.Struct({**dict.fromkeys(names, TEXT), **more})


def records(path: Path, shape: Shape) -> Iterator[pl.DataFrame]:
    """Yield the records of a file some at a time, with the column `line`.

    Raises: InvalidInput when the file cannot be read, a line is no object, or a field is nested otherwise.
    Limits: about 16 MiB of text, or 500,000 rows of parquet, at a time.
    """
    before = 0
    frames = _of_parquet(path, shape) if start_of(path) == PARQUET else _of_jsonl(path, shape)
    for frame in frames:
        yield frame.with_row_index(LINE, offset=before + 1)
        before += frame.height


def peek(path: Path) -> Mapping[str, Any]:
    """The first record of JSONL, else the names of the columns with nothing; empty where a file holds neither."""
    try:
        if start_of(path) == PARQUET:
            return dict.fromkeys(open_table(path).columns)
        line = next(blocks(path, quoted=False)).lstrip().split(b"\n", 1)[0].rstrip(b"\r")
        if not line.startswith(b"{"):
            return dict.fromkeys(header_fields(line, path.name)[1])
        found = json.loads(line)
    except (InvalidInput, ValueError, RecursionError):
        return {}
    return found


def refuse(frame: pl.DataFrame, wrong: pl.Series, column: str, name: str, what: str, *, remedy: str) -> None:
    """Complain about the records that are wrong, if any, in the words of the first. Args: wrong: (n,) bool.   name: the file's."""
    if wrong.any():
        at = wrong.arg_max() or 0
        record = f"Record {frame[LINE][at]} of {name!r} {what} in {column!r}"
        complain(say(record, got=frame[column][at], remedy=remedy), frame[LINE].filter(wrong))


def numbers(frame: pl.DataFrame, column: str, name: str) -> pl.Series:
    """Text -> (n,) Float64; what is missing is null. Raises: InvalidInput naming record, column and value."""
    text = frame[column]
    out = text.cast(pl.Float64, strict=False)
    wrong = (text.is_not_null() & (text != "") & out.is_null()) | ~out.is_finite().fill_null(value=True)
    refuse(frame, wrong, column, name, "holds no number", remedy="Write plain numbers such as 12.50")
    return out.set(wrong, None)


def _of_jsonl(path: Path, shape: Shape) -> Iterator[pl.DataFrame]:
    before = 0
    for rows in blocks(path, quoted=False):
        found = _decoded(rows, shape)
        if isinstance(found, str) and (wrong := [*broken_lines(rows, before)]):
            lose(len(wrong), no_object(path.name, wrong[0]))
            gone = set(wrong)
            right = (line for number, line in enumerate(rows.split(b"\n"), start=before + 1) if number not in gone)
            found = _decoded(b"\n".join(right), shape)
        if isinstance(found, str):
            problem = f"A field of {path.name!r} is nested otherwise than its format says"
            raise InvalidInput(say(problem, got=found, remedy="Check which format it is"))
        before += rows.count(b"\n") + 1
        yield found


def _decoded(rows: bytes, shape: Shape) -> pl.DataFrame | str:
    """Lines as objects of a shape; where one is none, why."""
    lines = pl.Series([line for line in rows.decode().split("\n") if line.strip()], dtype=pl.String)
    try:
        found = lines.str.json_decode(pl.Struct(shape))
    except DAMAGE as error:
        return str(error).partition("\n")[0].removeprefix("error deserializing JSON: ")[:120]
    # lines are decoded as one list: some that are no objects alone may be one together
    if len(found) != len(lines) or found.has_nulls():
        return "a record across lines"
    return found.struct.unnest()


def _of_parquet(path: Path, shape: Shape) -> Iterator[pl.DataFrame]:
    table = open_table(path)
    for raw in table.batches([name for name in shape if name in table.columns]):
        known = raw.schema
        columns = [
            _shaped(pl.col(name), known[name], want, f"{name!r} of {path.name!r}").alias(name)
            if name in known
            else pl.lit(None, dtype=want).alias(name)
            for name, want in shape.items()
        ]
        yield raw.select(columns)


def _shaped(column: pl.Expr, have: pl.DataType, want: pl.DataType, where: str) -> pl.Expr:
    """A column as the shape wants it. Raises: InvalidInput when it is nested otherwise."""
    if isinstance(want, pl.List) and isinstance(have, pl.List):
        return column.list.eval(_shaped(pl.element(), have.inner, want.inner, where))  # pyright: ignore[reportArgumentType]
    if isinstance(want, pl.Struct) and isinstance(have, pl.Struct):
        there = {field.name: field.dtype for field in have.fields}
        parts = [
            (
                _shaped(column.struct.field(field.name), there[field.name], field.dtype, where)  # pyright: ignore[reportArgumentType]
                if field.name in there
                else pl.lit(None, dtype=field.dtype)
            ).alias(field.name)
            for field in want.fields
        ]
        return pl.when(column.is_not_null()).then(pl.struct(parts))
    if have == pl.Null or not (want.is_nested() or have.is_nested()):
        return column.cast(want)
    raise InvalidInput(say(f"Column {where} is nested otherwise than its format says", got=str(have)))
