"""The model that answers, and how another takes its place: load, verify, warm up, swap one reference, drain, free.

A candidate that is altered, incomplete, of another format, not finite or that answers wrongly is refused, and the model
before it goes on. A third model is not loaded while requests still hold one that was replaced: there are two at most.
"""

import ctypes
import re
import sys
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from rediffuse.errors import ArtifactError, InvalidInput, RediffuseError, say
from rediffuse.facade import Model
from rediffuse.files import MANIFEST, sha256
from rediffuse.registry import load
from rediffuse.serving.canaries import warm_up
from rediffuse.serving.engine import Engine
from rediffuse.serving.gate import Gate

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
State = Literal["current", "candidate", "draining", "on_disk"]


class NoModel(RediffuseError):  # noqa: N818
    """Nothing was promoted yet."""


@dataclass(eq=False)
class Version:
    """One loaded model. It lives while it is current, a candidate, or held."""

    name: str
    """Of its folder."""
    path: Path
    sha256: str
    """Of its manifest, which holds those of all its files."""
    _engine: Engine | None
    loaded_us: int
    holders: int = 0
    retired: bool = False
    drained: threading.Event = field(default_factory=threading.Event)

    @property
    def engine(self) -> Engine:
        """Answers. Raises: NoModel once it was freed."""
        if self._engine is None:
            raise NoModel(say(f"Version {self.name!r} was freed", remedy="Hold a version while you use it"))
        return self._engine

    def free(self) -> None:
        """Let go of the model."""
        self._engine = None
        self.drained.set()


@dataclass(frozen=True)
class Listed:
    """What is known of a version without loading it."""

    name: str
    state: State
    sha256: str
    loaded_us: int | None = None
    """When it was loaded, UTC microseconds; None where it is not."""


class Versions:
    """Holds the current version; one administrator's step at a time, any number of readers."""

    def __init__(
        self,
        folder: Path | None = None,
        device: str = "auto",
        *,
        drain_s: float = 30.0,
        now_s: Callable[[], float] = time.time,
        classic: Model | None = None,
        gate: Gate | None = None,
    ) -> None:
        """Nothing is loaded yet.

        Args: folder: where `promote` looks for a model of a name; None: only what was loaded can be promoted.
            drain_s: how long a step waits for requests of a version that was replaced.   now_s: the clock.
            classic: as of `Engine`, for all versions.   gate: what a model must have reached to follow another; going back
                to one that answered needs no more.
        """
        self._folder, self._device, self._drain_s, self._now_s, self._classic = folder, device, drain_s, now_s, classic
        self._gate = gate
        self._turn, self._lock = threading.RLock(), threading.Lock()
        self._current: Version | None = None
        self._candidate: Version | None = None
        self._draining: list[Version] = []
        self._before: list[tuple[Path, str]] = []

    def load(self, path: Path) -> Version:
        """Verify a model folder and warm it up; it becomes the candidate, and the candidate before it is let go.

        Raises: ArtifactError naming what is wrong with it; InvalidInput for a name that is none, and where requests hold
            a replaced version for longer than `drain_s`.
        """
        if not NAME.fullmatch(path.name):
            raise InvalidInput(
                say("No name of a version", got=path.name, allowed="small letters, digits, _ and -, 64 at most")
            )
        with self._turn:
            if not self._drained():
                held = [version.name for version in self._draining]
                raise InvalidInput(
                    say(
                        "Requests still hold a version that was replaced",
                        got=held,
                        remedy="Try again when they have ended",
                    )
                )
            self._candidate = None
            found = self._made(path.absolute())
            self._candidate = found
            return found

    def promote(self, name: str) -> Version:
        """Let a version answer from now on: the candidate of that name, else the model of that name in the folder.

        The model that answers already is not loaded again, and none is put before it: to say it twice is no error.

        Returns when the version before it is freed, or `drain_s` later.

        Raises: as `load`, and InvalidInput where the gate is shut; the current version then goes on.
        """
        with self._turn:
            found = self._candidate if self._candidate and self._candidate.name == name else None
            path, now = self._place(name).absolute() if found is None else found.path, self._current
            content = _content(path) if found is None else found.sha256
            if now is not None and (now.path, now.sha256) == (path, content):
                self._candidate = None if found is not None else self._candidate
                return now
            found = found or self.load(path)
            if self._gate is not None and now is not None:
                try:
                    self._gate.check(found.engine.model.folder, now.engine.model.folder)
                except InvalidInput:
                    self._candidate = None
                    raise
            return self._swap(found, remember=True)

    def rollback(self) -> Version:
        """Let the version before the current one answer again, after the same checks.

        Raises: InvalidInput when there is none, ArtifactError when it is no longer what it was.
        """
        with self._turn:
            if not self._before:
                raise InvalidInput(say("There is no version before this one", remedy="Promote one by its name"))
            path, known = self._before[-1]
            found = self.load(path)
            if found.sha256 != known:
                self._candidate = None
                raise ArtifactError(
                    say(f"{path.name!r} is no longer the model that answered", remedy="Promote it by name")
                )
            self._before.pop()
            return self._swap(found, remember=False)

    @contextmanager
    def current(self) -> Generator[Version]:
        """The version that answers now, which stays until the block ends. Raises: NoModel before the first `promote`."""
        with self._lock:
            version = self._current
            if version is None:
                raise NoModel(say("No model is loaded", remedy="Promote one"))
            version.holders += 1
        try:
            yield version
        finally:
            with self._lock:
                version.holders -= 1
                last = version.retired and not version.holders
            if last:
                version.free()

    def list(self) -> list[Listed]:
        """Loaded versions, then those that could be, by name."""
        with self._lock:
            loaded: dict[State, Sequence[Version | None]] = {
                "current": [self._current],
                "candidate": [self._candidate],
                "draining": self._draining,
            }
            rows = [
                Listed(version.name, state, version.sha256, version.loaded_us)
                for state, versions in loaded.items()
                for version in versions
                if version is not None and not version.drained.is_set()
            ]
        shown = {(row.name, row.sha256) for row in rows}
        for name, path in sorted(self._places().items()):
            if (content := _content(path)) is not None:
                row = Listed(name, "on_disk", content)
                rows += [] if (row.name, row.sha256) in shown else [row]
        return rows

    def _place(self, name: str) -> Path:
        """Where the model of a name is. Raises: InvalidInput when there is none; a name never leads out of the folder."""
        places = self._places()
        if name not in places:
            raise InvalidInput(say("There is no version of this name", got=name, remedy="Take one of those listed"))
        return places[name]

    def _places(self) -> dict[str, Path]:
        """What in the folder may be a version, by name; links are not followed."""
        found = self._folder.iterdir() if self._folder is not None and self._folder.is_dir() else ()
        return {path.name: path for path in found if NAME.fullmatch(path.name) and not path.is_symlink()}

    def _made(self, path: Path) -> Version:
        """Load, verify, warm up."""
        found = _content(path)
        if found is None:
            raise ArtifactError(
                say(f"{str(path)!r} is no model folder", remedy="Name one that has a manifest we may read")
            )
        try:
            model = load(path, device=self._device)
            warm_up(model)
        except ArtifactError:
            raise
        except Exception as error:
            raise ArtifactError(
                say(
                    f"{str(path)!r} cannot be used",
                    got=f"{type(error).__name__}: {error}",
                    remedy="Train the model anew",
                )
            ) from error
        if _content(path) != found:
            raise ArtifactError(say(f"{str(path)!r} changed while it was read", remedy="Load it again"))
        engine = Engine(model, path.name, found[:12], found, self._classic)
        return Version(path.name, path, found, engine, int(self._now_s() * 1e6))

    def _swap(self, found: Version, *, remember: bool) -> Version:
        """One reference; then what was there drains."""
        with self._lock:
            old, self._current, self._candidate = self._current, found, None
            if old is not None and old is not found:
                old.retired = True
                self._draining.append(old)
                if not old.holders:
                    old.free()
        if old is not None and remember:
            self._before.append((old.path, old.sha256))
        self._drained()
        return found

    def _drained(self) -> bool:
        """Wait until versions that were replaced are freed, and give their memory back to the system."""
        if not self._draining:
            return True
        until = time.monotonic() + self._drain_s
        held = [v for v in self._draining if not v.drained.wait(max(until - time.monotonic(), 0))]
        with self._lock:
            self._draining = held
        give_back()
        return not held


def _content(folder: Path) -> str | None:
    """The SHA-256 of a folder's manifest; None where it has none that we may read."""
    try:
        return sha256(folder / MANIFEST) if (folder / MANIFEST).is_file() else None
    except PermissionError:
        return None


def give_back() -> None:
    """Return freed memory to the system, where its allocator can (glibc): otherwise a swap leaves holes that add up."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
