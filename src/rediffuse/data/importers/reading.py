"""Any table on disk -> columns as they stand: CSV, TSV, JSONL (each also .gz) and parquet."""

import csv
import gzip
import json
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import polars as pl

from rediffuse.errors import InvalidInput, say

FORMATS = "CSV, TSV, JSONL (each also .gz), parquet"
DELIMITERS = (",", ";", "\t", "|")

_GZIP, _PARQUET, _BOM = b"\x1f\x8b", b"PAR1", b"\xef\xbb\xbf"
_SUFFIXES = {
    **dict.fromkeys((".csv", ".tsv", ".tab", ".txt", ".inter", ".user", ".item"), "text"),
    **dict.fromkeys((".jsonl", ".ndjson", ".json"), "jsonl"),
    **dict.fromkeys((".parquet", ".pq"), "parquet"),
}


@dataclass(frozen=True)
class Table:
    """A table whose column names are known."""

    name: str
    """The file's, for messages."""
    format: str
    """csv, tsv, jsonl or parquet."""
    columns: tuple[str, ...]
    read: Callable[[Sequence[str]], pl.DataFrame]
    """The named columns; all are text for csv and tsv, whatever the file says otherwise."""


def open_table(path: Path) -> Table:
    """Read a table's header, or the whole where the format has none.

    Raises: InvalidInput for what is no file, is empty, cut off or not of the formats; reading rows raises it too.
    Limits: text is held in memory whole, about twice the size of the (unpacked) file.
    """
    if not path.is_file():
        problem = f"{str(path)!r} is a folder" if path.is_dir() else f"There is no file {str(path)!r}"
        raise InvalidInput(say(problem, allowed=f"a file: {FORMATS}"))
    try:
        with path.open("rb") as file:
            start = file.read(4)
        kind = _SUFFIXES.get(Path(path.name.removesuffix(".gz")).suffix.lower())
        if kind == "parquet" or (kind is None and start == _PARQUET):
            return _open_parquet(path)
        data = _text(path)
    except OSError as error:
        raise InvalidInput(say(f"{path.name!r} cannot be read", got=error.strerror or str(error))) from None
    if kind == "jsonl" or (kind is None and data.lstrip().startswith(b"{")):
        return _open_jsonl(path.name, data)
    return _open_csv(path.name, data)


def stem(path: Path) -> str:
    """The file's name without its suffixes."""
    return Path(path.name.removesuffix(".gz")).stem


def _text(path: Path) -> bytes:
    """The bytes of a text file, unpacked, without byte order mark and trailing empty lines."""
    data = path.read_bytes()
    if data.startswith(_GZIP):
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error):
            raise InvalidInput(say(f"{path.name!r} is cut off or no gzip file", remedy="Fetch it again")) from None
    data = data.removeprefix(_BOM).rstrip(b"\r\n")
    if b"\n" not in data:
        data = data.replace(b"\r", b"\n")
    if not data.strip():
        raise InvalidInput(say(f"{path.name!r} is empty"))
    try:
        data.decode()
    except UnicodeDecodeError as error:
        raise InvalidInput(
            say(f"{path.name!r} is not UTF-8 text (byte {error.start})", allowed=FORMATS, remedy="Save it as UTF-8")
        ) from None
    if b"\0" in data:
        raise InvalidInput(say(f"{path.name!r} is no text", allowed=FORMATS))
    return data


def _open_parquet(path: Path) -> Table:
    def read(columns: Sequence[str] | None, rows: int | None = None) -> pl.DataFrame:
        # polars panics, outside the Exception tree, on some damaged files
        try:
            return pl.read_parquet(path, columns=None if columns is None else list(columns), n_rows=rows, glob=False)
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException):
            raise InvalidInput(say(f"{path.name!r} is cut off or no parquet file", remedy="Fetch it again")) from None

    return Table(path.name, "parquet", tuple(read(None, 0).columns), read)


def _open_jsonl(name: str, data: bytes) -> Table:
    try:
        frame = pl.read_ndjson(data, infer_schema_length=None)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException):
        _complain_of_line(name, data)
    return Table(name, "jsonl", tuple(frame.columns), frame.select)


def _complain_of_line(name: str, data: bytes) -> NoReturn:
    for number, line in enumerate(data.split(b"\n"), start=1):
        try:
            right = not line.strip() or isinstance(json.loads(line, parse_constant=_no_constant), dict)
        except (ValueError, RecursionError):
            right = False
        if not right:
            raise InvalidInput(say(f"Line {number} of {name!r} is not a JSON object", remedy="Write one object a line"))
    raise InvalidInput(
        say(f"A column of {name!r} changes its type from line to line", remedy="Write ids as text in every line")
    )


def _no_constant(text: str) -> NoReturn:
    raise ValueError(text)


def _open_csv(name: str, data: bytes) -> Table:
    header = data.lstrip(b"\r\n").split(b"\n", 1)[0].decode().rstrip("\r")
    try:
        rows = {mark: next(csv.reader([header], delimiter=mark)) for mark in DELIMITERS}
    except csv.Error:
        raise InvalidInput(say(f"The first line of {name!r} holds no column names", allowed=FORMATS)) from None
    mark = max(DELIMITERS, key=lambda m: len(rows[m]))
    names = [column for column in rows[mark] if column.strip()]
    for column in names:
        if names.count(column) > 1:
            raise InvalidInput(say(f"Column {column!r} stands twice in {name!r}", remedy="Rename one"))
    # files separated by tabs rarely quote, and a lone quote in a title must not swallow the rows that follow
    quotes = (None, '"') if mark == "\t" and '"' not in header else ('"',)
    return Table(
        name, "tsv" if mark == "\t" else "csv", tuple(names), lambda cs: _read_csv(name, data, mark, quotes, cs)
    )


def _read_csv(name: str, data: bytes, mark: str, quotes: Sequence[str | None], columns: Sequence[str]) -> pl.DataFrame:
    problem = ""
    for quote in quotes:
        try:
            # all columns: with a choice of columns, polars lets rows with too many fields pass
            whole = pl.read_csv(data, separator=mark, quote_char=quote, infer_schema=False)
            return whole.select(columns)
        except pl.exceptions.PolarsError as error:
            problem = str(error)
    if "more fields" in problem:
        raise InvalidInput(
            say(f"A row of {name!r} has more fields than its first line", remedy=f"Quote fields that hold {mark!r}")
        )
    raise InvalidInput(say(f"{name!r} cannot be read as fields separated by {mark!r}", remedy="Check its quotes"))
