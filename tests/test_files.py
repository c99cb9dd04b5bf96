"""Files and folders are whole or not there."""

import json
import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rediffuse import files
from rediffuse.errors import ArtifactError, InvalidInput
from rediffuse.files import MANIFEST, new_folder, read_json, recover, sha256, verify, write_json, write_text


def make(folder: Path, text: str = "one", *, replace: bool = False) -> Path:
    with new_folder(folder, replace=replace) as place:
        (place / "sub").mkdir()
        (place / "a.txt").write_text(text)
        (place / "sub" / "b.txt").write_text("two")
    return folder


class Cut(BaseException):
    """A stop that is no Exception, as Ctrl-C is."""


def test_sha256_is_the_known_one(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc")
    assert sha256(tmp_path / "x").startswith("ba7816bf8f01cfea")


def test_text_is_published_with_its_folder_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "note.txt"
    write_text(path, "é\n")
    write_text(path, "ü\n")
    assert path.read_text(encoding="utf-8") == "ü\n"
    assert [p.name for p in path.parent.iterdir()] == ["note.txt"]


def test_a_failed_write_keeps_the_old_text(tmp_path: Path) -> None:
    path = tmp_path / "note.txt"
    write_text(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "\ud800")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["note.txt"]


def test_json_keeps_order_and_precision_and_refuses_nan(tmp_path: Path) -> None:
    value = {"z": 0.1 + 0.2, "a": ["é", None, 2**63]}
    write_json(tmp_path / "v.json", value)
    again = read_json(tmp_path / "v.json")
    assert again == value
    assert list(again) == ["z", "a"]
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "v.json", {"x": float("nan")})
    assert read_json(tmp_path / "v.json") == value


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "has no v.json"),
        (b"{", "is not JSON"),
        (b"\xff", "is not JSON"),
        (b"[1]", r"must hold an object\. Got 'list'"),
    ],
)
def test_what_is_no_json_object_is_refused(tmp_path: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / "v.json").write_bytes(content)
    with pytest.raises(ArtifactError, match=message):
        read_json(tmp_path / "v.json")


def test_a_new_folder_is_whole_readable_and_listed(tmp_path: Path) -> None:
    folder = make(tmp_path / "in" / "f")
    assert set(verify(folder)) == {"a.txt", "sub/b.txt"}
    assert verify(folder)["a.txt"] == sha256(folder / "a.txt")
    assert [p.name for p in folder.parent.iterdir()] == ["f"]
    assert folder.stat().st_mode & 0o500 == 0o500


@pytest.mark.parametrize("error", [RuntimeError, Cut])
def test_nothing_is_left_when_the_block_raises(tmp_path: Path, error: type[BaseException]) -> None:
    def fail() -> None:
        with new_folder(tmp_path / "f") as place:
            (place / "a.txt").write_text("one")
            raise error

    with pytest.raises(error):
        fail()
    assert not list(tmp_path.iterdir())


def test_what_exists_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "file").write_text("x")
    for name, replace in (("mine", False), ("mine", True), ("file", True)):
        with pytest.raises(InvalidInput, match="exists already"), new_folder(tmp_path / name, replace=replace):
            pass
    make(tmp_path / "ours")
    with pytest.raises(InvalidInput, match="exists already"):
        make(tmp_path / "ours")


def test_replace_puts_the_new_in_the_place_of_the_old(tmp_path: Path) -> None:
    make(tmp_path / "f", "old")
    make(tmp_path / "f", "new", replace=True)
    assert (tmp_path / "f" / "a.txt").read_text() == "new"
    verify(tmp_path / "f")
    assert [p.name for p in tmp_path.iterdir()] == ["f"]
    make(tmp_path / "g", replace=True)
    assert verify(tmp_path / "g")


def test_replace_keeps_the_old_when_the_block_raises(tmp_path: Path) -> None:
    make(tmp_path / "f", "old")
    with pytest.raises(RuntimeError), new_folder(tmp_path / "f", replace=True):
        raise RuntimeError
    assert (tmp_path / "f" / "a.txt").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


@pytest.mark.parametrize("replace", [True, False])
def test_a_failed_rename_restores_the_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, replace: bool) -> None:
    if replace:
        make(tmp_path / "f", "old")
    rename = Path.rename

    def fail(self: Path, target: Path) -> Path:
        if (self / MANIFEST).is_file() and (self / "a.txt").read_text() == "new":
            raise OSError("disk")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(OSError, match="disk"):
        make(tmp_path / "f", "new", replace=replace)
    assert [p.name for p in tmp_path.iterdir()] == (["f"] if replace else [])
    if replace:
        assert (tmp_path / "f" / "a.txt").read_text() == "old"
        verify(tmp_path / "f")


def test_files_are_synced_before_they_are_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    fsync, swap = os.fsync, files._swap_in
    monkeypatch.setattr(os, "fsync", lambda handle: (calls.append("sync"), fsync(handle)))
    monkeypatch.setattr(files, "_swap_in", lambda *places: (calls.append("swap"), swap(*places)))
    make(tmp_path / "f")
    assert calls.index("swap") >= 3
    assert calls[-1] == "sync"


def test_verify_needs_a_folder_with_a_list(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="There is no folder"):
        verify(tmp_path / "none")
    with pytest.raises(ArtifactError, match=f"has no {MANIFEST}"):
        verify(tmp_path)
    write_json(tmp_path / MANIFEST, {"files": ["a"]})
    with pytest.raises(ArtifactError, match="lists no files"):
        verify(tmp_path)


def test_verify_finds_missing_extra_and_altered_files(tmp_path: Path) -> None:
    folder = make(tmp_path / "f")
    (folder / "sub" / "b.txt").unlink()
    with pytest.raises(ArtifactError, match=r"sub/b\.txt in .* is missing\. Make the folder anew"):
        verify(folder)
    (folder / "sub" / "b.txt").write_text("too")
    with pytest.raises(ArtifactError, match=r"sub/b\.txt in .* differs from its manifest"):
        verify(folder)
    (folder / "sub" / "b.txt").write_text("two")
    verify(folder)
    (folder / "c.txt").touch()
    with pytest.raises(ArtifactError, match=r"c\.txt in .* is not in its manifest"):
        verify(folder)


def test_a_malformed_entry_is_refused_like_an_altered_file(tmp_path: Path) -> None:
    folder = make(tmp_path / "f")
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["files"]["a.txt"] = 3
    (folder / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(ArtifactError, match=r"a\.txt in .* differs"):
        verify(folder)


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_writer_whose_beginning_is_cleared_away_begins_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """It has made its sibling and not locked it yet: whoever clears up holds the lock until the sibling is gone."""
    target, main, opened = tmp_path / "target", threading.current_thread(), os.open
    begun, claimed = threading.Event(), threading.Event()

    def opening(path: Path, *how: int, **more: int | None) -> int:
        if threading.current_thread() is not main and how[0] == os.O_RDONLY and not begun.is_set():
            begun.set()
            claimed.wait(10)
        return opened(path, *how, **more)

    def clearing(path: Path, **_: object) -> None:
        claimed.set()
        ours.append(files.claim(path))  # a lock that could be had now would be lost with the sibling
        removed(path)

    ours, removed = list[int | None](), os.unlink if kind == "file" else shutil.rmtree
    monkeypatch.setattr(os, "open", opening)
    monkeypatch.setattr(*((Path, "unlink") if kind == "file" else (shutil, "rmtree")), clearing)
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(lambda: write_text(target, "whole") if kind == "file" else make(target, "whole"))
        assert begun.wait(10)
        recover(target)
        for handle in filter(None, ours):
            os.close(handle)
        writing.result(10)
    assert ours == [None]
    assert ((target if kind == "file" else target / "a.txt").read_text()) == "whole"
    assert [path.name for path in tmp_path.iterdir()] == ["target"]


def test_what_a_killed_replacement_left_is_cleared_up(tmp_path: Path) -> None:
    """Killed between the two renames: the old folder comes back. Killed before: it stands. Others' files stay."""
    target = tmp_path / "f"
    make(target)
    aside, half = tmp_path / ".f.0123456789ab.old", tmp_path / ".f.0123456789ab"
    half.mkdir()
    (tmp_path / ".f.notes").mkdir()
    (tmp_path / "g").mkdir()
    target.rename(aside)
    recover(target)
    assert set(verify(target)) == {"a.txt", "sub/b.txt"}
    half.mkdir(exist_ok=True)
    aside.mkdir()
    recover(target)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".f.notes", "f", "g"]
    recover(tmp_path / "none" / "f")
