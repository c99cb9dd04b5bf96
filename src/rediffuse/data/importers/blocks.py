"""A text file as blocks of whole rows: unpacked, checked, never held whole."""

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from rediffuse.errors import InvalidInput, say

FORMATS = "CSV, TSV, JSONL (each also .gz), parquet"

BLOCK = 1 << 24
"""Bytes that are read at a time."""
LONGEST = 1 << 26
"""Bytes that a row may have."""

_GZIP, _BOM = b"\x1f\x8b", b"\xef\xbb\xbf"


def blocks(path: Path, *, quoted: bool) -> Iterator[bytes]:
    """Yield the rows of a UTF-8 text file, several in a block.

    A block ends with its last row, without the line break; byte order mark and trailing empty lines are gone, gzip
    is unpacked, and a file whose first block knows no line feed has its lines ended by carriage returns.

    Args: quoted: whether a line break between double quotes belongs to the row.
    Raises: InvalidInput when the file cannot be read, is empty, cut off, no UTF-8 text, or has an endless row.
    Limits: about three blocks in memory; a block is 16 MiB, or as long as the longest row.
    """
    left, done, returns = b"", 0, False
    pieces = chunks(path)
    chunk = next(pieces, b"").removeprefix(_BOM)
    while chunk:
        returns = returns or (not done and b"\r" in chunk[:-1] and b"\n" not in left + chunk)
        left += chunk.replace(b"\r", b"\n") if returns else chunk
        chunk = next(pieces, b"")
        rows = left[: _cut(left, quoted=quoted) if chunk else None].rstrip(b"\r\n")
        if rows.strip():
            _check(path.name, rows, done)
            yield rows
            rest = left[len(rows) :].removeprefix(b"\r").removeprefix(b"\n")  # empty lines in between are rows
            done += len(left) - len(rest)
            left = rest
        elif len(left) > LONGEST:
            _check(path.name, left[: LONGEST // 2], done)
            raise InvalidInput(
                say(f"A row of {path.name!r} is longer than {LONGEST >> 20} MiB", remedy="Check its quotes")
            )
    if not done:
        raise InvalidInput(say(f"{path.name!r} is empty"))


def chunks(path: Path) -> Iterator[bytes]:
    """The bytes of a file, unpacked. Raises: InvalidInput when it cannot be read or unpacked."""
    try:
        with path.open("rb") as file:
            packed = file.read(2) == _GZIP
            file.seek(0)
            # gzip.GzipFile reads like any binary file
            source = cast("BinaryIO", gzip.GzipFile(fileobj=file)) if packed else file
            while chunk := source.read(BLOCK):
                yield chunk
    except (gzip.BadGzipFile, EOFError, zlib.error):
        raise InvalidInput(say(f"{path.name!r} is cut off or no gzip file", remedy="Fetch it again")) from None
    except OSError as error:
        raise InvalidInput(say(f"{path.name!r} cannot be read", got=error.strerror or str(error))) from None


def _cut(data: bytes, *, quoted: bool) -> int:
    """Where the last whole row ends, behind its line break; 0 when there is none."""
    end = len(data)
    inside = quoted and data.count(b'"') % 2 == 1
    while (at := data.rfind(b"\n", 0, end)) >= 0:
        inside ^= quoted and data.count(b'"', at, end) % 2 == 1
        if not inside:
            return at + 1
        end = at
    return 0


def _check(name: str, rows: bytes, before: int) -> None:
    """Refuse what is no text. Args: before: bytes of the file that stand before these."""
    if not rows.isascii():
        try:
            rows.decode()
        except UnicodeDecodeError as error:
            at = before + error.start
            raise InvalidInput(
                say(f"{name!r} is not UTF-8 text (byte {at})", allowed=FORMATS, remedy="Save it as UTF-8")
            ) from None
    if b"\0" in rows:
        raise InvalidInput(say(f"{name!r} is no text", allowed=FORMATS))
