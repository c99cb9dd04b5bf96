"""Files of a folder or an archive: found by name, never unpacked, refused where an archive is not what it says."""

import re
import zipfile
from pathlib import Path
from typing import Any

import pytest

from rediffuse.data.importers.archive import LARGEST, SPARE, Members
from rediffuse.errors import InvalidInput


def refused(message: str) -> Any:
    return pytest.raises(InvalidInput, match=re.escape(message))


def packed(place: Path, **files: bytes) -> Path:
    with zipfile.ZipFile(place, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return place


def content(source: Path, name: str) -> bytes:
    with Members.of(source).open(name) as file:
        return file.read()


def test_a_folder_and_an_archive_give_the_same(tmp_path: Path) -> None:
    (tmp_path / "d" / "inner").mkdir(parents=True)
    (tmp_path / "d" / "a.txt").write_bytes(b"one\n")
    flat = packed(tmp_path / "flat.zip", **{"a.txt": b"one\n"})
    deep = packed(tmp_path / "deep.zip", **{"d/a.txt": b"one\n", "d/inner/a.txt": b"other", "../../b": b"x"})
    for source in (tmp_path / "d", flat, deep):
        assert content(source, "a.txt") == b"one\n"
        assert "b" not in Members.of(source)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["d", "deep.zip", "flat.zip"]


def test_what_is_not_there_stands_twice_or_is_no_archive_is_refused(tmp_path: Path) -> None:
    twice = packed(tmp_path / "twice.zip", **{"d/a": b"1", "e/a": b"2"})
    with refused("'twice.zip' holds 2 files 'a'"):
        content(twice, "a")
    with refused("'twice.zip' holds no file 'b'"):
        content(twice, "b")
    with refused("There is no file or folder"):
        Members.of(tmp_path / "none")
    whole = packed(tmp_path / "whole.zip", a=b"1" * 5000).read_bytes()
    for data in (b"", b"junk", whole[:-30]):
        (tmp_path / "cut.zip").write_bytes(data)
        with refused("'cut.zip' is cut off or no zip archive. Fetch it again."):
            Members.of(tmp_path / "cut.zip")


def test_damage_is_found_at_the_end_of_a_member(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a", b"0123456789")
    path.write_bytes(path.read_bytes().replace(b"0123456789", b"0123456780"))
    with refused("'a' in 'a.zip' cannot be read. Got \"Bad CRC-32"):
        content(path, "a")


def test_a_member_that_swells_beyond_the_bound_is_refused(tmp_path: Path) -> None:
    path = packed(tmp_path / "bomb.zip", a=bytes(SPARE + 1), b=bytes(SPARE))
    assert path.stat().st_size * LARGEST < SPARE
    with refused(f"unpacks to {SPARE + 1:,} bytes. Allowed: up to {SPARE:,}, {LARGEST} times the archive."):
        content(path, "a")
    assert len(content(path, "b")) == SPARE


def test_an_encrypted_member_is_refused(tmp_path: Path) -> None:
    path = packed(tmp_path / "a.zip", a=b"x")
    data = bytearray(path.read_bytes())
    for mark, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(mark) + at] |= 1
    path.write_bytes(data)
    with refused("'a' in 'a.zip' is encrypted. Unpack it first."):
        content(path, "a")
