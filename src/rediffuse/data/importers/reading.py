"""Any table on disk -> columns as they stand: CSV, TSV, JSONL (each also .gz) and parquet."""

import csv
import functools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import NoReturn

import polars as pl

from rediffuse.data.importers.blocks import FORMATS, blocks
from rediffuse.errors import InvalidInput, say

DELIMITERS = (",", ";", "\t", "|")
ROWS = 1 << 19
"""Rows of a parquet file that are read at a time."""

PARQUET = b"PAR1"
_SUFFIXES = {
    **dict.fromkeys((".csv", ".tsv", ".tab", ".txt", ".inter", ".user", ".item"), "text"),
    **dict.fromkeys((".jsonl", ".ndjson", ".json"), "jsonl"),
    **dict.fromkeys((".parquet", ".pq"), "parquet"),
}
# polars panics, outside the Exception tree, on some damaged files
DAMAGE = (pl.exceptions.PolarsError, pl.exceptions.PanicException)


@dataclass(frozen=True)
class Table:
    """A table whose column names are known."""

    name: str
    """The file's, for messages."""
    format: str
    """csv, tsv, jsonl or parquet."""
    columns: tuple[str, ...]
    batches: Callable[[Sequence[str]], Iterator[pl.DataFrame]]
    """The named columns, some rows at a time; all are text for csv and tsv, whatever the file says otherwise."""

    def read(self, columns: Sequence[str]) -> pl.DataFrame:
        """The named columns of all rows. Limits: held in memory whole."""
        parts = list(self.batches(columns))
        return pl.concat(parts) if parts else pl.DataFrame(schema=dict.fromkeys(columns, pl.String))


def open_table(path: Path) -> Table:
    """Find the names of a table's columns; JSONL is read through once for them.

    Raises: InvalidInput for what is no file, is empty, cut off or not of the formats; reading rows raises it too.
    """
    start = start_of(path)
    kind = _SUFFIXES.get(Path(path.name.removesuffix(".gz")).suffix.lower())
    if kind == "parquet" or (kind is None and start == PARQUET):
        return _open_parquet(path)
    if kind == "jsonl" or (kind is None and next(blocks(path, quoted=False)).lstrip().startswith(b"{")):
        return _open_jsonl(path)
    return _open_csv(path)


def start_of(path: Path) -> bytes:
    """The first four bytes. Raises: InvalidInput for what is no file or cannot be read."""
    if not path.is_file():
        problem = f"{str(path)!r} is a folder" if path.is_dir() else f"There is no file {str(path)!r}"
        raise InvalidInput(say(problem, allowed=f"a file: {FORMATS}"))
    try:
        with path.open("rb") as file:
            return file.read(4)
    except OSError as error:
        raise InvalidInput(say(f"{path.name!r} cannot be read", got=error.strerror or str(error))) from None


def stem(path: Path) -> str:
    """The file's name without its suffixes."""
    return Path(path.name.removesuffix(".gz")).stem


def _open_parquet(path: Path) -> Table:
    def batches(columns: Sequence[str]) -> Iterator[pl.DataFrame]:
        try:
            yield from scan.select(columns).collect_batches(chunk_size=ROWS, maintain_order=True)
        except DAMAGE:
            _refuse_parquet(path)

    try:
        scan = pl.scan_parquet(path, glob=False)
        names = scan.collect_schema().names()
    except DAMAGE:
        _refuse_parquet(path)
    return Table(path.name, "parquet", tuple(names), batches)


def _refuse_parquet(path: Path) -> NoReturn:
    raise InvalidInput(say(f"{path.name!r} is cut off or no parquet file", remedy="Fetch it again")) from None


def _open_jsonl(path: Path) -> Table:
    """Names and types come from a first reading: a column has one type in all rows."""
    mixed = say(
        f"A column of {path.name!r} changes its type from line to line", remedy="Write ids as text in every line"
    )
    seen: list[pl.DataFrame] = []
    before = 0
    for rows in blocks(path, quoted=False):
        try:
            seen = [pl.concat([*seen, pl.read_ndjson(rows, infer_schema_length=None).clear()], how="diagonal_relaxed")]
        except DAMAGE:
            complain_of_line(path.name, rows, before)
            raise InvalidInput(mixed) from None
        before += rows.count(b"\n") + 1
    schema = seen[0].schema

    def batches(columns: Sequence[str]) -> Iterator[pl.DataFrame]:
        for rows in blocks(path, quoted=False):
            try:
                yield pl.read_ndjson(rows, schema={name: schema[name] for name in columns}).select(columns)
            except DAMAGE:
                raise InvalidInput(mixed) from None

    return Table(path.name, "jsonl", tuple(schema), batches)


def complain_of_line(name: str, rows: bytes, before: int) -> None:
    """Name the first line that holds no object, if any. Args: before: lines of the file that stand before these."""
    for number in broken_lines(rows, before):
        raise InvalidInput(no_object(name, number))


def no_object(name: str, number: int) -> str:
    """What is said of a line that holds no object."""
    return say(f"Line {number} of {name!r} is not a JSON object", remedy="Write one object a line")


def broken_lines(rows: bytes, before: int) -> Iterator[int]:
    """Yield the numbers of lines that hold no object. Args: before: lines of the file that stand before these."""
    for number, line in enumerate(rows.split(b"\n"), start=before + 1):
        try:
            right = not line.strip() or isinstance(json.loads(line, parse_constant=_no_constant), dict)
        except (ValueError, RecursionError):
            right = False
        if not right:
            yield number


def _no_constant(text: str) -> NoReturn:
    raise ValueError(text)


def _open_csv(path: Path) -> Table:
    first = next(blocks(path, quoted=False)).lstrip(b"\r\n")
    header = first.split(b"\n", 1)[0].rstrip(b"\r")
    mark, names = header_fields(header, path.name)
    for column in names:
        if names.count(column) > 1:
            raise InvalidInput(say(f"Column {column!r} stands twice in {path.name!r}", remedy="Rename one"))
    quote = None if mark == "\t" and b'"' not in header and _reads_unquoted(path, header) else '"'
    rows = functools.partial(_csv_batches, path, header, mark, quote)
    return Table(path.name, "tsv" if mark == "\t" else "csv", tuple(names), rows)


def header_fields(header: bytes, name: str) -> tuple[str, list[str]]:
    """What separates a first line into most fields, and their names. Raises: InvalidInput when it is none."""
    try:
        fields = {mark: next(csv.reader([header.decode()], delimiter=mark)) for mark in DELIMITERS}
    except csv.Error:
        raise InvalidInput(say(f"The first line of {name!r} holds no column names", allowed=FORMATS)) from None
    mark = max(DELIMITERS, key=lambda m: len(fields[m]))
    return mark, [column for column in fields[mark] if column.strip()]


def _reads_unquoted(path: Path, header: bytes) -> bool:
    """Whether quotes are text: files separated by tabs rarely quote, and a lone one must not swallow what follows."""
    if not any(b'"' in rows for rows in blocks(path, quoted=False)):
        return True
    try:
        for _ in _csv_batches(path, header, "\t", None, ()):
            pass
    except InvalidInput:
        return False
    return True


def _csv_batches(
    path: Path, header: bytes, mark: str, quote: str | None, columns: Sequence[str]
) -> Iterator[pl.DataFrame]:
    parts = blocks(path, quoted=quote is not None)
    first = next(parts).lstrip(b"\r\n")[len(header) :].removeprefix(b"\r").removeprefix(b"\n")
    for rows in chain([first] if first else [], parts):
        try:
            # all columns: with a choice of columns, polars lets rows with too many fields pass
            whole = pl.read_csv(header + b"\n" + rows, separator=mark, quote_char=quote, infer_schema=False)
        except pl.exceptions.PolarsError as error:
            if "more fields" in str(error):
                problem, remedy = "A row of {} has more fields than its first line", f"Quote fields that hold {mark!r}"
            else:
                problem, remedy = f"{{}} cannot be read as fields separated by {mark!r}", "Check its quotes"
            raise InvalidInput(say(problem.format(repr(path.name)), remedy=remedy)) from None
        if not set(columns) <= set(whole.columns):
            raise InvalidInput(
                say(f"The first line of {path.name!r} cannot be read as names", remedy="Check its quotes")
            )
        yield whole.select(columns)
