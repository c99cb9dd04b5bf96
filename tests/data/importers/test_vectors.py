"""Tables of vectors: three forms, whose row is whose, and what is refused."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from rediffuse.data.importers.vectors import Vectors, read_vectors, write_vectors
from rediffuse.errors import InvalidInput
from rediffuse.random import stable_key
from rediffuse.spaces.embeddings import Embeddings

ITEMS, USERS = torch.arange(12.0).view(4, 3), torch.arange(6.0).view(2, 3) - 7


def keys(*names: str) -> torch.Tensor:
    return torch.tensor([stable_key(name) for name in names])


def arrays(place: Path, **tables: object) -> Path:
    for name, table in tables.items():
        np.save(place / f"{name}.npy", np.asarray(table), allow_pickle=True)
    return place


def test_what_is_written_is_read(tmp_path: Path) -> None:
    target, ids = tmp_path / "tables.safetensors", ["a", "b\n", "ü", ""]
    tables = Embeddings.named(ITEMS, USERS, keys("y", "x"))
    write_vectors(target, ids, tables)
    found = read_vectors(target)
    assert torch.equal(found.items, ITEMS)
    assert torch.equal(found.item_keys, keys(*ids))
    assert found.users is not None
    assert found.user_keys is not None
    again = Embeddings.named(found.items, found.users, found.user_keys)
    assert torch.equal(again.users, tables.users)
    assert torch.equal(again.keys, tables.keys)


def test_parts_of_one_table_are_written_and_read(tmp_path: Path) -> None:
    both = torch.arange(18.0).view(6, 3)
    write_vectors(tmp_path / "t.safetensors", list("abcd"), Embeddings(both[:4], both[4:], torch.tensor([1, 2])))
    found = read_vectors(tmp_path / "t.safetensors")
    assert found.users is not None
    assert torch.equal(torch.cat((found.items, found.users)), both)


def test_items_alone_are_written_and_read(tmp_path: Path) -> None:
    write_vectors(tmp_path / "t.safetensors", list("abcd"), Embeddings(ITEMS))
    assert read_vectors(tmp_path / "t.safetensors").users is None


def test_rows_are_found_by_the_ids_of_the_catalog(tmp_path: Path) -> None:
    found = read_vectors(arrays(tmp_path, items=ITEMS.double(), users=USERS.half()))
    assert found.items.dtype == torch.float32
    # A catalog stands in the order of its ids as text.
    assert found.of_items(keys("0", "3", "1")).tolist() == ITEMS[[0, 3, 1]].tolist()
    with pytest.raises(InvalidInput, match=r"1 of 2 items have no row in the table\. Give the table the ids"):
        found.of_items(keys("0", "4"))


def test_ids_may_stand_beside_an_array(tmp_path: Path) -> None:
    arrays(tmp_path, items=ITEMS, users=USERS)
    (tmp_path / "items.txt").write_text("w\nx\ny\nz\n")
    (tmp_path / "users.txt").write_text("p\nq")
    found = read_vectors(tmp_path)
    assert torch.equal(found.item_keys, keys(*"wxyz"))
    assert found.user_keys is not None
    assert torch.equal(found.user_keys, keys("p", "q"))


def test_a_checkpoint_numbers_its_rows(tmp_path: Path) -> None:
    torch.save({"item_emb.weight": ITEMS, "user_emb.weight": USERS}, tmp_path / "model.pth.tar")
    found = read_vectors(tmp_path / "model.pth.tar")
    assert torch.equal(found.items, ITEMS)
    assert found.user_keys is not None
    assert torch.equal(found.user_keys, keys("0", "1"))


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({}, r"holds no items\.npy"),
        ({"items": ITEMS.long()}, r"items\.npy must be floats of shape \(rows, width\)\. Got 'int64 \(4, 3\)'"),
        ({"items": ITEMS[0]}, r"must be floats of shape"),
        ({"items": ITEMS, "users": USERS[:, :2]}, r"differ in width\. Got \(3, 2\)"),
        ({"items": ITEMS / 0}, r"The table of items holds a number that is not finite"),
        ({"items": ITEMS.double() * 1e300}, r"not finite in float32"),
        ({"items": np.array([{}, {}])}, r"items\.npy holds pickled objects, which are never loaded"),
    ],
)
def test_arrays_that_are_no_tables_are_refused(tmp_path: Path, tables: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        read_vectors(arrays(tmp_path, **tables))


def test_an_array_that_promises_more_than_it_holds_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "items.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (10**9, 10**6)})
    with pytest.raises(InvalidInput, match=r"items\.npy cannot be read as npy"):
        read_vectors(tmp_path)
    for content in (b"", b"PK\x03\x04", pickle.dumps([1.0]), b"\x93NUMPY\x01\x00\x08\x00{'descr"):
        (tmp_path / "items.npy").write_bytes(content)
        with pytest.raises(InvalidInput, match=r"items\.npy cannot be read as npy"):
            read_vectors(tmp_path)


def _metadata(value: object) -> dict[str, str]:
    return {"item_ids": value if isinstance(value, str) else json.dumps(value)}


@pytest.mark.parametrize(
    ("tensors", "metadata", "message"),
    [
        ({"other": ITEMS}, None, r"must hold items, and may hold users and user_keys\. Got \['other'\]"),
        ({"items": ITEMS, "code": USERS}, None, r"must hold items"),
        ({"items": ITEMS.long()}, None, r"must hold its vectors as floats"),
        ({"items": ITEMS * float("nan")}, None, r"not finite"),
        ({"items": ITEMS[0]}, None, r"must have shape \(rows, width\)\. Got \(3,\)"),
        ({"items": ITEMS}, _metadata(["a", "b"]), r"has 4 rows, and not an id for each"),
        ({"items": ITEMS}, _metadata(["a", "b", "c", "a"]), r"An id stands twice"),
        ({"items": ITEMS}, _metadata([1, 2, 3, 4]), r"item_ids of t\.safetensors are no list of texts"),
        ({"items": ITEMS}, _metadata("[" * 10**5), r"no list of texts"),
        ({"items": ITEMS, "users": USERS, "user_keys": torch.zeros(2)}, None, r"not an id for each"),
    ],
)
def test_safetensors_of_another_form_are_refused(
    tmp_path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str] | None, message: str
) -> None:
    save_file(tensors, tmp_path / "t.safetensors", metadata=metadata)
    with pytest.raises(InvalidInput, match=message):
        read_vectors(tmp_path / "t.safetensors")


def test_what_is_damaged_missing_or_unknown_is_refused(tmp_path: Path) -> None:
    write_vectors(tmp_path / "t.safetensors", list("abcd"), Embeddings(ITEMS))
    whole = (tmp_path / "t.safetensors").read_bytes()
    cases: list[tuple[Callable[[bytes], bytes], str]] = [
        (lambda b: b[:-1], "cannot be read as safetensors"),
        (lambda b: b"\xff" * 8 + b[8:], "cannot be read as safetensors"),
        (lambda _: b"", "cannot be read as safetensors"),
    ]
    for change, message in cases:
        (tmp_path / "t.safetensors").write_bytes(change(whole))
        with pytest.raises(InvalidInput, match=message):
            read_vectors(tmp_path / "t.safetensors")
    with pytest.raises(InvalidInput, match="There is no file or folder"):
        read_vectors(tmp_path / "nothing.npy")
    (tmp_path / "t.csv").write_text("1,2")
    with pytest.raises(InvalidInput, match=r"'t\.csv' is no known kind of table\. Got '\.csv'"):
        read_vectors(tmp_path / "t.csv")


def test_rows_and_keys_must_fit() -> None:
    with pytest.raises(InvalidInput, match="not an id for each"):
        Vectors(ITEMS, keys("a"))
