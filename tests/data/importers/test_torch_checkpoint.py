"""Checkpoints made elsewhere: three spellings, and what is refused without anything of it being run."""

import pickle
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

from rediffuse.data.importers import torch_checkpoint
from rediffuse.data.importers.torch_checkpoint import SPELLINGS, read_checkpoint, tables_in
from rediffuse.errors import InvalidInput

ITEMS, USERS = torch.arange(12.0).view(4, 3), torch.arange(6.0).view(2, 3) - 7
NAMES = ("embedding_item.weight", "embedding_user.weight")


class Touch:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return (Path.touch, (self.path,))


def saved(place: Path, content: object, **options: object) -> Path:
    torch.save(content, place / "model.pt", **options)
    return place / "model.pt"


def of(items: object, users: object = USERS) -> dict[str, object]:
    return dict(zip(NAMES, (items, users), strict=True))


@pytest.mark.parametrize("pair", SPELLINGS)
def test_each_spelling_is_known(tmp_path: Path, pair: tuple[str, str]) -> None:
    found = tables_in(saved(tmp_path, {pair[1]: USERS, "other.weight": torch.zeros(3), pair[0]: ITEMS.double()}))
    assert list(found) == ["items", "users"]
    assert torch.equal(found["items"], ITEMS)
    assert torch.equal(found["users"], USERS)
    assert found["items"].dtype == torch.float32


@pytest.mark.parametrize("zipped", [True, False])
def test_a_child_reads_both_formats_of_torch(tmp_path: Path, zipped: bool) -> None:
    path = saved(tmp_path, of(torch.nn.Parameter(ITEMS)), _use_new_zipfile_serialization=zipped)
    items, users = read_checkpoint(path)
    assert torch.equal(items, ITEMS)
    assert users is not None
    assert torch.equal(users, USERS)


def test_items_alone_are_enough(tmp_path: Path) -> None:
    assert list(tables_in(saved(tmp_path, {"item_emb.weight": ITEMS}))) == ["items"]


@pytest.mark.parametrize("zipped", [True, False])
def test_nothing_of_a_checkpoint_is_run(tmp_path: Path, zipped: bool) -> None:
    trap = tmp_path / "trap"
    path = saved(tmp_path, {**of(ITEMS), "more": Touch(trap)}, _use_new_zipfile_serialization=zipped)
    with pytest.raises(InvalidInput, match=r"'model\.pt' holds more than plain tensors\. Nothing of it was run"):
        read_checkpoint(path)
    assert not trap.exists()


def test_a_bare_pickle_is_refused_unrun(tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    (tmp_path / "model.pt").write_bytes(pickle.dumps(Touch(trap), protocol=2))
    with pytest.raises(InvalidInput, match="holds more than plain tensors"):
        tables_in(tmp_path / "model.pt")
    assert not trap.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"weight": ITEMS}, r"has no tables by a known name\. Got \['weight'\]\. Allowed: embedding_item\.weight and"),
        ([ITEMS], r"has no tables by a known name"),
        (of(ITEMS.long()), r"'embedding_item\.weight' in 'model\.pt' is no table of floats"),
        (of("text"), r"is no table of floats"),
        (of(ITEMS.to_sparse()), r"is no table of floats"),
        (of(ITEMS, USERS[0]), r"'embedding_user\.weight' .* is no whole table .*Got \(3,\)"),
        (of(torch.zeros(1).expand(10**6, 10**6)), r"is no whole table .*Got \(1000000, 1000000\)"),
        (of(torch.zeros(9, 9, device="meta")), r"is no whole table"),
    ],
)
def test_what_is_no_table_is_refused(tmp_path: Path, content: object, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        tables_in(saved(tmp_path, content))


def test_what_unpacks_to_more_than_its_file_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, of(torch.zeros(1000, 100)))
    with zipfile.ZipFile(path) as plain, zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as packed:
        for name in plain.namelist():
            packed.writestr(name, plain.read(name))
    assert (tmp_path / "bomb.pt").stat().st_size < path.stat().st_size / 10
    with pytest.raises(InvalidInput, match="unpacks to more than its own size"):
        tables_in(tmp_path / "bomb.pt")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut", b"\x80\x02.", b"no checkpoint at all"])
def test_damaged_files_are_refused_in_one_sentence(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.pt").write_bytes(content)
    with pytest.raises(InvalidInput, match=r"^'model\.pt' (is damaged|holds more|has no tables)") as caught:
        read_checkpoint(tmp_path / "model.pt")
    assert "weights_only" not in str(caught.value)


def test_files_that_are_too_slow_or_too_large_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path, of(ITEMS))
    with pytest.raises(InvalidInput, match=r"could not be read within 0\.01 s"):
        read_checkpoint(path, timeout_s=0.01)
    monkeypatch.setattr(torch_checkpoint, "LARGEST", 10)
    with pytest.raises(InvalidInput, match=r"is too large\. Got '[\d,]+ bytes'\. Allowed: up to 10"):
        read_checkpoint(path)


def test_the_limits_of_the_child_hold(tmp_path: Path) -> None:
    """More memory than the file allows cannot be had."""
    code = (
        "from rediffuse.data.importers.child import limit; import torch; limit(1 << 30, 60, 1000)\n"
        "try: torch.zeros(1 << 29)\n"
        "except RuntimeError: print('refused')"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.stdout == "refused\n", ended


def test_no_other_file_unpickles() -> None:
    source = Path(torch_checkpoint.__file__).parents[2]
    able = re.compile(r"torch\.load\(|pickle\.loads?\(|Unpickler\(|joblib|allow_pickle=True|weights_only=False")
    found = [path.name for path in source.rglob("*.py") if able.search(path.read_text(encoding="utf-8"))]
    assert found == ["torch_checkpoint.py"]
