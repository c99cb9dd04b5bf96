"""Files that are either whole or not there, and checksums.

A file or folder is written beside its final place, synced, then renamed: a reader never meets half of it. While it
is written its owner holds a lock on it, which the system drops with the owner: what a killed process left behind is
told from what a living one is writing, and goes when the same place is written next.
"""

import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rediffuse.errors import ArtifactError, InvalidInput, StorageError, say

MANIFEST = "manifest.json"


def sha256(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def storage(what: Path) -> Generator[None]:
    """Turn whatever a library says when it cannot write into one sentence.

    Raises: StorageError naming the place and the system's reason.
    """
    try:
        yield
    except StorageError:
        raise
    except (OSError, *_library_errors()) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise StorageError(
            say(
                f"{str(what)!r} could not be written",
                got=reason,
                remedy="Make room or choose another place; nothing half-written was left",
            )
        ) from error


@contextmanager
def new_file(target: Path) -> Generator[Path]:
    """Yield a temporary sibling of `target`; when the block ends well it is synced and becomes `target`, else it vanishes.

    Raises: StorageError when the system refuses.
    """
    target = target.absolute()
    with storage(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        recover(target)
        temporary = _sibling(target)
        try:
            with held(temporary, lambda: temporary.touch(exist_ok=False)) as handle:
                yield temporary
                os.fsync(handle)
            temporary.replace(target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_folder(target.parent)


def write_text(path: Path, text: str) -> None:
    """Publish a text file atomically. Raises: StorageError."""
    with new_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Publish a JSON file atomically; keys keep their order, numbers their full precision.

    Raises: ValueError on NaN or infinity: JSON has neither.
    """
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises: ArtifactError when it is missing or holds none."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ArtifactError(say(f"{str(path.parent)!r} has no {path.name}")) from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ArtifactError(say(f"{str(path)!r} is not JSON", got=str(error))) from None
    if not isinstance(value, dict):
        raise ArtifactError(say(f"{str(path)!r} must hold an object", got=type(value).__name__))
    return value


@contextmanager
def new_folder(target: Path, *, kind: str = "folder", replace: bool = False) -> Generator[Path]:
    """Yield a temporary sibling of `target`; it becomes `target` when the block ends well, else it vanishes.

    A manifest (name, bytes, SHA-256 of every file) is written last, so a folder without one is not whole.

    Args: kind: what the folder is, kept in the manifest.   replace: put it in the place of a folder of the same kind
        that is exactly as it was made; anything else is never touched.
    Raises: InvalidInput when the target exists and may not be replaced; StorageError when the system refuses.
    """
    target = target.absolute()
    with storage(target):
        recover(target)
        if target.exists() and not (replace and _untouched(target, kind)):
            raise InvalidInput(say(f"{str(target)!r} exists already", remedy="Choose another place or remove it first"))
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = _sibling(target)
        try:
            with held(temporary, temporary.mkdir):
                yield temporary
                _write_manifest(temporary, kind)
                _swap_in(temporary, target)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


def verify(folder: Path) -> dict[str, str]:
    """Check every file of a folder against its manifest.

    Returns: name -> SHA-256.
    Raises: ArtifactError naming the first file that is missing, altered or not listed.
    """
    if not folder.is_dir():
        raise ArtifactError(say(f"There is no folder {str(folder)!r}"))
    listed = read_json(folder / MANIFEST).get("files")
    if not isinstance(listed, dict):
        raise ArtifactError(say(f"{MANIFEST} in {str(folder)!r} lists no files"))
    found = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()} - {MANIFEST}
    for name in sorted(found ^ set(listed)):
        problem = "is not in its manifest" if name in found else "is missing"
        raise ArtifactError(say(f"{name} in {str(folder)!r} {problem}", remedy="Make the folder anew"))
    for name, entry in listed.items():
        path = folder / name
        if entry != _entry(path):
            raise ArtifactError(
                say(f"{name} in {str(folder)!r} differs from its manifest", remedy="Make the folder anew")
            )
    return {name: entry["sha256"] for name, entry in listed.items()}


def recover(target: Path) -> None:
    """Clear up after processes that were killed while they wrote or replaced `target`.

    The folder that had stepped aside comes back where the new one never arrived; half-written siblings go. What a
    living process is writing stays.
    """
    ours = re.compile(rf"\.{re.escape(target.name)}\.[0-9a-f]{{12}}(\.old)?")
    if not target.parent.is_dir():
        return
    found = [path for path in target.parent.iterdir() if ours.fullmatch(path.name)]
    for path in sorted(found, reverse=True):  # an .old stands before the folder it made way for
        with _left(path) as left:
            if not left:
                continue
            if path.name.endswith(".old") and not target.exists():
                path.rename(target)
            elif path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink()
            sync_folder(target.parent)


def open_folder(folder: Path, kind: str, version: int, remedy: str) -> dict[str, Any]:
    """Verify a folder of a kind and read its facts, `<kind>.json`.

    Args: version: the format version that can be read.   remedy: how such a folder is made.
    Raises: ArtifactError when it is another kind of folder, incomplete, altered, or of another format.
    """
    if not (folder / f"{kind}.json").is_file():
        raise ArtifactError(say(f"{str(folder)!r} is no {kind} folder", remedy=remedy))
    verify(folder)
    facts = read_json(folder / f"{kind}.json")
    if facts.get("format_version") != version:
        raise ArtifactError(
            say(
                f"{str(folder)!r} has another format version",
                got=facts.get("format_version"),
                allowed=version,
                remedy=remedy,
            )
        )
    return facts


def _sibling(path: Path) -> Path:
    """A name beside `path` that nobody else uses."""
    return path.with_name(f".{path.name}.{secrets.token_hex(6)}")


def _entry(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": sha256(path)}


def _untouched(folder: Path, kind: str) -> bool:
    """Whether a folder is of this kind and holds what its manifest lists, nothing else."""
    try:
        verify(folder)
        return read_json(folder / MANIFEST).get("kind") == kind
    except ArtifactError:
        return False


def _write_manifest(folder: Path, kind: str) -> None:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    for path in files:
        with path.open("rb") as file:
            os.fsync(file.fileno())
    entries = {str(p.relative_to(folder)): _entry(p) for p in files}
    write_json(folder / MANIFEST, {"kind": kind, "files": entries})


def _swap_in(temporary: Path, target: Path) -> None:
    """Rename into place; an old folder steps aside first and comes back if the rename fails."""
    aside = temporary.with_name(f"{temporary.name}.old")
    replaced = target.exists()
    if replaced:
        target.rename(aside)
    try:
        temporary.rename(target)
    except OSError:
        if replaced:
            aside.rename(target)
        raise
    try:
        sync_folder(target.parent)
    finally:
        if replaced:
            shutil.rmtree(aside, ignore_errors=True)


def sync_folder(folder: Path) -> None:
    """Let the names in a folder outlive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def held(path: Path, make: Callable[[], object]) -> Generator[int]:
    """Make a file or folder and keep others from taking it for left behind; the lock goes with it through a rename."""
    while True:
        make()
        try:
            handle = os.open(path, os.O_RDONLY)
        except FileNotFoundError:  # somebody cleared it away before it was opened
            continue
        fcntl.flock(handle, fcntl.LOCK_EX)
        if path.exists():
            break
        os.close(handle)  # or before it was locked
    try:
        yield handle
    finally:
        os.close(handle)


def claim(path: Path) -> int | None:
    """Lock a file or folder that is there, until the handle is closed; None when somebody who lives holds it."""
    handle = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return None
    return handle


@contextmanager
def _left(path: Path) -> Generator[bool]:
    """Whether nobody who lives holds the lock on a sibling; then it is ours until the block ends.

    What stepped aside belongs to the one it made way for, as long as that one is there.
    """
    handle = None
    for place in (path.with_name(path.name.removesuffix(".old")), path):
        try:
            handle = claim(place)
            break
        except FileNotFoundError:
            continue
    try:
        yield handle is not None and path.exists()
    finally:
        if handle is not None:
            os.close(handle)


def _library_errors() -> tuple[type[Exception], ...]:
    """What the libraries we write with raise instead of OSError, of those that are loaded."""
    found = [("polars.exceptions", "PolarsError"), ("safetensors", "SafetensorError"), ("pyarrow", "ArrowException")]
    return tuple(vars(sys.modules[module])[name] for module, name in found if module in sys.modules)
