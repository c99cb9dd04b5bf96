"""The three arrays of the DiffRec authors, and what is refused of them."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from rediffuse.data.importers import diffrec
from rediffuse.errors import InvalidInput

TRAIN = [[0, 2], [0, 0], [0, 10], [1, 1], [1, 0], [1, 1]]
VALID = [[0, 1]]
TEST = [[1, 10], [1, 2], [1, 10]]


def folder(place: Path, **parts: object) -> Path:
    place.mkdir(exist_ok=True)
    for name, rows in {"train": TRAIN, "valid": VALID, "test": TEST, **parts}.items():
        if rows is not None:
            np.save(place / f"{name}_list.npy", np.asarray(rows))
    return place


def test_order_parts_protocols_and_duplicates(tmp_path: Path) -> None:
    data = diffrec.load(folder(tmp_path / "ml"))
    assert data.name == "ml"
    assert data.events.order == "sequence"
    assert data.users.items.ids == ("0", "1")
    assert data.catalog.items.ids == ("0", "1", "10", "2")
    assert data.part_counts() == {"train": 5, "test": 2, "valid": 1}
    assert data.history("train").to_lists() == [[3, 0, 2], [1, 0]]
    assert data.history("test").to_lists() == [[], [2, 3]]
    assert data.history("valid").to_lists() == [[1], []]
    assert dict(data.facts) == {"format": "diffrec", "duplicates": 2}
    assert list(data.protocols) == ["as-shipped", "in-time-order"]


def test_the_name_may_be_given_and_never_is_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder(tmp_path / "ml"))
    assert diffrec.load(Path(), name="x").name == "x"
    assert diffrec.load(Path()).name == "ml"


def test_a_round_trip_keeps_parts(tmp_path: Path) -> None:
    data = diffrec.load(folder(tmp_path / "ml"))
    data.write(tmp_path / "d")
    assert type(data).read(tmp_path / "d").describe() == data.describe()


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"valid": [[0, 3]]}, r"valid_list\.npy holds 1 items that train_list\.npy has not\. Got 3\."),
        ({"test": [[2, 0]]}, r"test_list\.npy holds 1 users that train_list\.npy has not\. Got 2\."),
        ({"train": [1, 2, 3]}, r"train_list\.npy must be integers of shape \(n, 2\)\. Got 'int64 \(3,\)'"),
        ({"train": [[1, 2, 3]]}, r"shape \(n, 2\)\. Got 'int64 \(1, 3\)'"),
        ({"train": [[1.0, 2.0]]}, r"must be integers of shape \(n, 2\)\. Got 'float64"),
        ({"valid": np.zeros((0, 2), dtype=np.int64)}, r"valid_list\.npy is empty"),
        ({"test": [[0, -1]]}, r"test_list\.npy holds a negative id\. Got -1"),
        ({"test": None}, r"There is no file .*test_list\.npy'\. The folder must hold"),
    ],
)
def test_wrong_arrays_are_refused(tmp_path: Path, parts: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        diffrec.load(folder(tmp_path / "ml", **parts))


def test_pickled_objects_are_never_loaded(tmp_path: Path) -> None:
    source = folder(tmp_path / "ml")
    np.save(source / "train_list.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(InvalidInput, match=r"train_list\.npy holds pickled objects, which are never loaded"):
        diffrec.load(source)


def truncated(path: Path) -> bytes:
    return path.read_bytes()[:-5]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"junk, not npy",
        b"PK\x03\x04 a zip archive",
        pickle.dumps([1, 2]),
        truncated,
        b"\x93NUMPY\x01\x00\x10\x00{'descr': (((\n  ",
        b"\x93NUMPY\x01\x00\x40\x00{'descr': 3, 'fortran_order': False, 'shape': (2, 2), }         \n",
    ],
)
def test_what_is_no_npy_is_refused(tmp_path: Path, content: object) -> None:
    source = folder(tmp_path / "ml")
    path = source / "valid_list.npy"
    path.write_bytes(content(path) if callable(content) else content)
    with pytest.raises(InvalidInput, match=r"valid_list\.npy cannot be read as npy\. Save the pairs"):
        diffrec.load(source)


def test_an_npz_archive_is_refused(tmp_path: Path) -> None:
    source = folder(tmp_path / "ml")
    with (source / "train_list.npy").open("wb") as file:
        np.savez(file, rows=np.array(TRAIN))
    with pytest.raises(InvalidInput, match=r"train_list\.npy cannot be read as npy"):
        diffrec.load(source)
