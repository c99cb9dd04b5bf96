"""Foreign files read by a process of its own, with limits on its memory and time.

    parent   starts the child, waits at most its time, reads the dataset folder or table of items that it wrote
    child    limits itself, imports, writes to a folder that only the parent knows

Whatever a file does to the process that reads it, the parent gets a dataset or one sentence, and nothing half-read.
"""

import ctypes
import json
import logging
import os
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from rediffuse.data.dataset import Dataset
from rediffuse.data.importers.tolerance import SHARE, tolerating
from rediffuse.data.rules import EventRules
from rediffuse.errors import InvalidInput, RediffuseError, refuse_options, say

TIMEOUT_S = 900.0
SPARE_MB = 3072
"""Memory that a child may use besides TIMES times the bytes that it reads."""
TIMES = 12
_PACKED = 10  # what text unpacks to
REFUSED = 3
"""Exit code of a child that says why."""
STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""What nobody sends a child because of what it reads: somebody stops a service, or logs off."""

_TABLE, _FOLDER, _TOLD = "items.parquet", "data", "told.json"
_log = logging.getLogger(__name__)
_PATHS = ("items", "users", "feed")
_PDEATHSIG = 1  # linux/prctl.h
_COMMAND = (sys.executable, "-s", "-P", "-m", "rediffuse.data.importers.child")
_REMEDY = "It is damaged, or needs more memory than a file of its size may: check it, or part it into smaller files"


def read(
    source: Path,
    form: str = "auto",
    *,
    feed: Path | None = None,
    feed_format: str = "auto",
    bad_rows: float = SHARE,
    timeout_s: float = TIMEOUT_S,
    spare_mb: int = SPARE_MB,
    **options: Any,
) -> Dataset:
    """`importers.read` in a child: a dataset from events, joined with a feed where there is one.

    Args: bad_rows: share of rows that may be left out because they cannot stand; a warning tells of them.
        timeout_s: after which it is ended.   spare_mb: memory besides TIMES times the files; options: of the importer.
    Raises: InvalidInput as the importer does, or when the child was ended by a limit or by what it read.
    """
    asked = {"form": form, "feed": feed, "feed_format": feed_format, "options": options, "bad_rows": bad_rows}
    return _done("read", source, feed, asked, timeout_s, spare_mb).events()


def products(
    source: Path,
    form: str = "auto",
    *,
    bad_rows: float = SHARE,
    timeout_s: float = TIMEOUT_S,
    spare_mb: int = SPARE_MB,
) -> pl.DataFrame:
    """`importers.products` in a child: the table of items of a feed. Args, Raises: as `read`."""
    return _done("products", source, None, {"form": form, "bad_rows": bad_rows}, timeout_s, spare_mb).items()


def either(
    source: Path,
    form: str = "auto",
    *,
    bad_rows: float = SHARE,
    timeout_s: float = TIMEOUT_S,
    spare_mb: int = SPARE_MB,
    work: Path | None = None,
    started: Callable[["subprocess.Popen[bytes]"], object] = lambda _: None,
    **options: Any,
) -> "Found":
    """What a file of a shop holds, products or events, found out in a child.

    Args: work: folder for what lies between child and parent; None: one of the system's.   started: is told of the child.
        options: of the importer of events.
    Raises: as `read`, also for what is no file of a shop; UnsupportedOption; Stopped.
    """
    asked = {"form": form, "options": options, "bad_rows": bad_rows}
    return _done("either", source, None, asked, timeout_s, spare_mb, work, started)


class Stopped(InvalidInput):  # named for what happened
    """Somebody stopped the child; the file may be as good as any."""


@dataclass(frozen=True)
class Found:
    """What a child read."""

    form: str
    left_out: int
    """Rows that could not stand."""
    first: tuple[str, ...]
    """What was wrong with the first of them."""
    data: Dataset | pl.DataFrame
    """Events, or a table of items."""

    def events(self) -> Dataset:
        """The events. Raises: TypeError where it holds items."""
        if not isinstance(self.data, Dataset):
            raise TypeError(self.form)
        return self.data

    def items(self) -> pl.DataFrame:
        """The table of items. Raises: TypeError where it holds events."""
        if isinstance(self.data, Dataset):
            raise TypeError(self.form)
        return self.data


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


def _done(
    what: str,
    source: Path,
    feed: Path | None,
    asked: Mapping[str, Any],
    timeout_s: float,
    spare_mb: int,
    work: Path | None = None,
    started: Callable[["subprocess.Popen[bytes]"], object] = lambda _: None,
) -> Found:
    """What a child reads. Args: what: read, products or either."""
    with tempfile.TemporaryDirectory(dir=work) as name:
        folder = Path(name)
        _run(source, feed, folder, {"what": what, "source": source, **asked}, timeout_s, spare_mb, started)
        told = json.loads((folder / _TOLD).read_text("utf-8"))
        table = folder / _TABLE
        data = pl.read_parquet(table, glob=False) if table.exists() else Dataset.read(folder / _FOLDER)
        found = Found(told["form"], told["left_out"], tuple(told["first"]), data)
    if found.left_out:
        _log.warning("%d rows of %r were left out; the first: %s", found.left_out, source.name, found.first[0])
    return found


def _run(
    source: Path,
    feed: Path | None,
    folder: Path,
    asked: Mapping[str, Any],
    timeout_s: float,
    spare_mb: int,
    started: Callable[["subprocess.Popen[bytes]"], object],
) -> None:
    """Have a child do what is asked. Raises: RediffuseError in the child's words, or about how it ended."""
    size = sum(_size(path) for path in (source, feed) if path is not None)
    memory = (spare_mb << 20) + TIMES * size
    limits = {"folder": folder, "memory": memory, "time_s": timeout_s * 2, "written": memory, "parent": os.getpid()}
    shown = source.name if feed is None else f"{source.name} with {feed.name}"
    pipe = subprocess.PIPE
    # In a session of its own: what stops its parent does not look as if the file had ended it.
    with subprocess.Popen(_COMMAND, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True) as process:  # noqa: S603  # our own interpreter and module, no shell
        started(process)
        try:
            said, wrong = process.communicate(json.dumps({**asked, **limits}, default=_plain).encode(), timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            remedy = "Part it into smaller files"
            raise InvalidInput(say(f"{shown!r} could not be read within {timeout_s:g} s", remedy=remedy)) from None
        except BaseException:
            process.kill()
            raise
    if process.returncode == REFUSED:
        told = json.loads(said)
        kinds = {kind.__name__: kind for kind in RediffuseError.__subclasses__()}
        raise kinds.get(told["kind"], InvalidInput)(told["message"])
    if process.returncode:
        kind = Stopped if -process.returncode in STOPS else InvalidInput
        how = _ending(process.returncode, wrong)
        raise kind(say(f"{shown!r} ended the process that read it", got=how, remedy=_REMEDY))


def _ending(code: int, wrong: bytes) -> str:
    """How a child ended, in a few words. Args: wrong: what it wrote of errors."""
    if code < 0:
        return signal.Signals(-code).name
    lines = wrong.decode(errors="replace").strip().splitlines()
    return lines[-1][:200] if lines else f"exit code {code}"


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
    _end_with(job["parent"])
    limit(job["memory"], job["time_s"], job["written"])
    try:
        with tolerating(job["bad_rows"]) as left:
            form = importers.shop_format(source, job["form"]) if job["what"] == "either" else job["form"]
            if job["what"] == "products" or (job["what"] == "either" and importers.holds_products(source, form)):
                importers.products(source, form).write_parquet(folder / _TABLE)
            else:
                _events(source, form, job).write(folder / _FOLDER)
        told = {"form": form, "left_out": left.left_out, "first": left.first}
        (folder / _TOLD).write_text(json.dumps(told), "utf-8")
    except RediffuseError as error:
        json.dump({"kind": type(error).__name__, "message": str(error)}, sys.stdout)
        sys.exit(REFUSED)
    except MemoryError:
        message = say(f"{source.name!r} needs more memory than a file of its size may", remedy=_REMEDY)
        json.dump({"kind": "InvalidInput", "message": message}, sys.stdout)
        sys.exit(REFUSED)


def _end_with(parent: int) -> None:
    """Let this process end with the one that started it, whatever ends that."""
    ctypes.CDLL(None, use_errno=True).prctl(_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before it was asked for
        os.kill(os.getpid(), signal.SIGKILL)


def _events(source: Path, form: str, job: Mapping[str, Any]) -> Dataset:
    from rediffuse.data import importers

    options: dict[str, Any] = {key: Path(value) if key in _PATHS else value for key, value in job["options"].items()}
    if "rules" in options:
        options["rules"] = EventRules.make(options["rules"])
    if job["what"] == "either":
        refuse_options(f"The format {form}", options, importers.options_of(form))
        return importers.read(source, form, **options)
    feed = None if job["feed"] is None else Path(job["feed"])
    return importers.read(source, form, feed=feed, feed_format=job["feed_format"], **options)


if __name__ == "__main__":
    _child(json.load(sys.stdin))
