"""Foreign files read by a process of its own, with limits on its memory and time.

    parent   starts the child, waits at most its time, reads the dataset folder or table of items that it wrote
    child    limits itself, imports, writes to a folder that only the parent knows

Whatever a file does to the process that reads it, the parent gets a dataset or one sentence, and nothing half-read.
"""

import json
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from rediffuse.data.dataset import Dataset
from rediffuse.data.rules import EventRules
from rediffuse.errors import InvalidInput, RediffuseError, say

TIMEOUT_S = 900.0
SPARE_MB = 3072
"""Memory that a child may use besides TIMES times the bytes that it reads."""
TIMES = 12
_PACKED = 10  # what text unpacks to
REFUSED = 3
"""Exit code of a child that says why."""

_TABLE, _FOLDER = "items.parquet", "data"
_PATHS = ("items", "users", "feed")
_COMMAND = (sys.executable, "-s", "-P", "-m", "rediffuse.data.importers.child")
_REMEDY = "It is damaged, or needs more memory than a file of its size may: check it, or part it into smaller files"


def read(
    source: Path,
    form: str = "auto",
    *,
    feed: Path | None = None,
    feed_format: str = "auto",
    timeout_s: float = TIMEOUT_S,
    spare_mb: int = SPARE_MB,
    **options: Any,
) -> Dataset:
    """`importers.read` in a child: a dataset from events, joined with a feed where there is one.

    Args: timeout_s: after which it is ended.   spare_mb: memory besides TIMES times the files; options: of the importer.
    Raises: InvalidInput as the importer does, or when the child was ended by a limit or by what it read.
    """
    asked = {"source": source, "form": form, "feed": feed, "feed_format": feed_format, "options": options}
    with tempfile.TemporaryDirectory() as folder:
        _run(source, feed, Path(folder), asked, timeout_s, spare_mb)
        return Dataset.read(Path(folder) / _FOLDER)


def products(
    source: Path, form: str = "auto", *, timeout_s: float = TIMEOUT_S, spare_mb: int = SPARE_MB
) -> pl.DataFrame:
    """`importers.products` in a child: the table of items of a feed. Args, Raises: as `read`."""
    with tempfile.TemporaryDirectory() as folder:
        _run(source, None, Path(folder), {"source": source, "form": form}, timeout_s, spare_mb)
        return pl.read_parquet(Path(folder) / _TABLE, glob=False)


def limit(memory: int, time_s: float, written: int) -> None:
    """Bound what this process may still use. Args: memory, written: bytes; written of one file."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    for kind, most in (
        (resource.RLIMIT_AS, pages * resource.getpagesize() + memory),  # the libraries are loaded already
        (resource.RLIMIT_CPU, max(int(time_s), 1)),
        (resource.RLIMIT_FSIZE, written),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(kind)[1]
        bound = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (bound, bound))


def _run(
    source: Path, feed: Path | None, folder: Path, asked: Mapping[str, Any], timeout_s: float, spare_mb: int
) -> None:
    """Have a child do what is asked. Raises: RediffuseError in the child's words, or about how it ended."""
    size = sum(_size(path) for path in (source, feed) if path is not None)
    memory = (spare_mb << 20) + TIMES * size
    job = {**asked, "folder": folder, "memory": memory, "time_s": timeout_s * 2, "written": memory}
    shown = source.name if feed is None else f"{source.name} with {feed.name}"
    try:
        ended = subprocess.run(  # noqa: S603  # our own interpreter and module, no shell
            _COMMAND,
            input=json.dumps(job, default=_plain).encode(),
            capture_output=True,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        remedy = "Part it into smaller files"
        raise InvalidInput(say(f"{shown!r} could not be read within {timeout_s:g} s", remedy=remedy)) from None
    if ended.returncode == REFUSED:
        told = json.loads(ended.stdout)
        kinds = {kind.__name__: kind for kind in RediffuseError.__subclasses__()}
        raise kinds.get(told["kind"], InvalidInput)(told["message"])
    if ended.returncode:
        raise InvalidInput(say(f"{shown!r} ended the process that read it", got=_ending(ended), remedy=_REMEDY))


def _ending(ended: "subprocess.CompletedProcess[bytes]") -> str:
    """How a child ended, in a few words."""
    if ended.returncode < 0:
        return signal.Signals(-ended.returncode).name
    lines = ended.stderr.decode(errors="replace").strip().splitlines()
    return lines[-1][:200] if lines else f"exit code {ended.returncode}"


def _size(source: Path) -> int:
    files = source.rglob("*") if source.is_dir() else [source]
    return sum(path.stat().st_size * (_PACKED if path.suffix == ".gz" else 1) for path in files if path.is_file())


def _plain(value: object) -> Any:
    """What JSON has no word for: paths and rules."""
    if isinstance(value, EventRules):
        return value.model_dump(mode="json")
    if isinstance(value, Path):
        return str(value.absolute())
    raise TypeError(type(value).__name__)


def _child(job: Mapping[str, Any]) -> None:
    from rediffuse.data import importers

    folder, source = Path(job["folder"]), Path(job["source"])
    limit(job["memory"], job["time_s"], job["written"])
    try:
        if "options" not in job:
            importers.products(source, job["form"]).write_parquet(folder / _TABLE)
            return
        options: dict[str, Any] = {
            key: Path(value) if key in _PATHS else value for key, value in job["options"].items()
        }
        if "rules" in options:
            options["rules"] = EventRules.make(options["rules"])
        feed = None if job["feed"] is None else Path(job["feed"])
        found = importers.read(source, job["form"], feed=feed, feed_format=job["feed_format"], **options)
        found.write(folder / _FOLDER)
    except RediffuseError as error:
        json.dump({"kind": type(error).__name__, "message": str(error)}, sys.stdout)
        sys.exit(REFUSED)
    except MemoryError:
        message = say(f"{source.name!r} needs more memory than a file of its size may", remedy=_REMEDY)
        json.dump({"kind": "InvalidInput", "message": message}, sys.stdout)
        sys.exit(REFUSED)


if __name__ == "__main__":
    _child(json.load(sys.stdin))
