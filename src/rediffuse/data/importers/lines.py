"""Plain text that research files are made of: fields and rows of ids, read block by block, each fault with its line."""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import IO, NoReturn

import polars as pl

from rediffuse.errors import InvalidInput, say

LONGEST_LINE = 1 << 24
"""Bytes; a longer line is no data of ours, and a file without line breaks is not held in memory to find out."""

_BLOCK = 1 << 24
_BOM = b"\xef\xbb\xbf"
_NEVER = "\x01"
_SHOWN = 60
_IDS = "whole numbers from 0"
_FLOAT = r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?"
_WHOLE: Mapping[pl.DataType, int] = {pl.UInt32(): 2**32, pl.Int64(): 2**63}


@dataclass(frozen=True)
class Block:
    """Whole lines of a file."""

    first: int
    """Number of the first line, from 1."""
    data: bytes


def blocks(file: IO[bytes], name: str) -> Iterator[Block]:
    """A file in blocks of whole lines, without byte order mark and trailing empty lines.

    Args: name: the file's, for messages.
    Raises: InvalidInput for a line longer than LONGEST_LINE or a NUL byte, naming the line.
    """
    number, rest = 1, file.read(len(_BOM)).removeprefix(_BOM)
    while piece := file.read(_BLOCK):
        data = rest + piece
        body = len(data[: data.rfind(b"\n") + 1].rstrip(b"\r\n"))
        end = data.index(b"\n", body) + 1 if body else 0
        if len(data) - end > LONGEST_LINE:
            line = number + data.count(b"\n", 0, end)
            raise InvalidInput(say(f"Line {line} of {name!r} is longer than {LONGEST_LINE >> 20} MiB"))
        if end:
            yield _block(number, data[:end], name)
        number, rest = number + data.count(b"\n", 0, end), data[end:]
    if rest := rest.rstrip(b"\r\n"):
        yield _block(number, rest, name)


def fields(
    file: IO[bytes], name: str, columns: Mapping[str, pl.DataType], *, separator: str = "\t", header: str = ""
) -> pl.DataFrame:
    """A table whose fields are never quoted.

    Args: name: the file's.   columns: name -> UInt32, Int64, Float32, Float64 or String (empty text is null).
        header: the first line, where there is one.
    Returns: a row per line, numbers without nulls: row r stands in line r + 1, or r + 2 below a header.
    Raises: InvalidInput naming file, line and value for a wrong number of fields, a field that is no number, text that
        is not UTF-8, a file without rows.
    Limits: holds the columns and one block of text.
    """
    frames: list[pl.DataFrame] = []
    for block in blocks(file, name):
        rows = _below(block, name, header) if header and block.first == 1 else block
        if rows.data:
            frames.append(_parse(rows, name, columns, separator))
    if not frames:
        raise InvalidInput(say(f"{name!r} has no rows", remedy="Check that it is whole"))
    return pl.concat(frames)


def id_rows(file: IO[bytes], name: str) -> pl.DataFrame:
    """Lines of whole numbers separated by any white space; empty lines are left out.

    Returns: `line` (Int64, from 1) and `ids` (list of UInt32, at least one).
    Raises: InvalidInput naming file, line and value for what is no whole number from 0.
    """
    frames: list[pl.DataFrame] = []
    for block in blocks(file, name):
        try:
            text = pl.read_csv(
                block.data, has_header=False, separator=_NEVER, quote_char=None, schema={"line": pl.String()}
            )["line"]
        except pl.exceptions.PolarsError:
            _complain(block, name, {"ids": pl.String()}, _NEVER)
        words = text.str.extract_all(r"\S+").fill_null([])
        ids = words.list.eval(pl.element().cast(pl.UInt32, strict=False))
        wrong = ids.list.eval(pl.element().is_null()).list.any()
        if wrong.any():
            at = wrong.arg_max() or 0
            bad = next(word for word, number in zip(words[at], ids[at], strict=True) if number is None)
            raise InvalidInput(say(f"Line {block.first + at} of {name!r} holds no id", got=bad[:_SHOWN], allowed=_IDS))
        rows = pl.DataFrame({"ids": ids}).with_row_index("line", offset=block.first).cast({"line": pl.Int64})
        frames.append(rows.filter(pl.col("ids").list.len() > 0))
    found = pl.concat(frames) if frames else pl.DataFrame()
    if not found.height:
        raise InvalidInput(say(f"{name!r} has no rows", remedy="Check that it is whole"))
    return found


def refuse(wrong: pl.Series, name: str, what: str, values: pl.Series, *, header: int = 0, remedy: str = "") -> None:
    """Complain about the first row that is wrong, if any, by its line and value.

    Args: wrong: (n,) which rows.   name: the file's.   values: (n,) what they hold.   header: lines above the rows.
    Raises: InvalidInput.
    """
    if wrong.any():
        at = wrong.arg_max() or 0
        raise InvalidInput(say(f"Line {at + 1 + header} of {name!r} {what}", got=values[at], remedy=remedy))


def _block(number: int, data: bytes, name: str) -> Block:
    if b"\0" in data:
        line = number + data.count(b"\n", 0, data.index(b"\0"))
        raise InvalidInput(say(f"Line {line} of {name!r} holds a NUL byte: it is no text", remedy="Fetch it again"))
    return Block(number, data)


def _below(block: Block, name: str, header: str) -> Block:
    first, _, data = block.data.partition(b"\n")
    if first.rstrip(b"\r") != header.encode():
        shown = first[:_SHOWN].decode(errors="replace").rstrip("\r")
        raise InvalidInput(say(f"The first line of {name!r} is another", got=shown, allowed=header))
    return Block(2, data)


def _parse(block: Block, name: str, columns: Mapping[str, pl.DataType], separator: str) -> pl.DataFrame:
    data, mark = block.data, separator
    if len(separator) > 1:
        data, mark = data.replace(separator.encode(), b"\t"), "\t"
    height = data.count(b"\n") + (not data.endswith(b"\n"))
    try:
        frame = pl.read_csv(data, has_header=False, separator=mark, quote_char=None, schema=dict(columns))
    except pl.exceptions.PolarsError:
        _complain(block, name, columns, separator)
    numbers = frame.select(pl.selectors.numeric()).get_columns()
    fine = all(not column.has_nulls() and (column.dtype.is_integer() or column.is_finite().all()) for column in numbers)
    # polars fills the fields that a short line lacks
    if not (fine and frame.height == height and data.count(mark.encode()) == height * (len(columns) - 1)):
        _complain(block, name, columns, separator)
    return frame


def _complain(block: Block, name: str, columns: Mapping[str, pl.DataType], separator: str) -> NoReturn:
    """Look line by line for what the quick reader stumbled over."""
    for number, line in enumerate(block.data.removesuffix(b"\n").split(b"\n"), start=block.first):
        where = f"Line {number} of {name!r}"
        try:
            text = line.decode().rstrip("\r")
        except UnicodeDecodeError:
            raise InvalidInput(say(f"{where} is not UTF-8 text", remedy="Save it as UTF-8")) from None
        values = text.split(separator)
        if len(values) != len(columns):
            allowed = f"{len(columns)}: {', '.join(columns)}"
            count = f"{len(values)} field" + "s" * (len(values) > 1)
            raise InvalidInput(say(f"{where} has {count}", got=text[:_SHOWN], allowed=allowed))
        for (column, dtype), value in zip(columns.items(), values, strict=True):
            if not _fits(dtype, value):
                allowed = "numbers" if dtype.is_float() else _IDS if dtype == pl.UInt32() else "whole numbers"
                raise InvalidInput(say(f"{where} holds no {column}", got=value[:_SHOWN], allowed=allowed))
    raise InvalidInput(say(f"{name!r} cannot be read as fields: {', '.join(columns)}", remedy="Fetch it again"))


def _fits(dtype: pl.DataType, value: str) -> bool:
    """Whether a field can be read as that type."""
    if dtype in _WHOLE:
        sign = "" if dtype == pl.UInt32() else "-?"
        return re.fullmatch(sign + r"\+?[0-9]{1,19}", value) is not None and int(value) < _WHOLE[dtype]
    if dtype.is_float():
        return re.fullmatch(_FLOAT, value) is not None and math.isfinite(float(value))
    return True
