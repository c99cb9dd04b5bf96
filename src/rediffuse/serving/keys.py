"""Keys of the service: 32 random bytes each, of which a file keeps the SHA-256, enough for what cannot be guessed."""

import hashlib
import hmac
import json
import logging
import os
import re
import secrets
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from rediffuse.errors import InvalidInput, RediffuseError, say, unknown
from rediffuse.files import new_file, read_json

Right = Literal["read", "write", "admin"]
RIGHTS: tuple[Right, ...] = get_args(Right)
FORMAT_VERSION = 1
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_LOOK_AGAIN_S = 1.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Key:
    """A client and what it may do: read (recommendations), write (events, items), admin (models, erasure)."""

    name: str
    sha256: str
    rights: frozenset[Right]


OPEN = Key("local", "", frozenset(RIGHTS))
"""Who asks where no keys are asked for."""


def read_keys(path: Path) -> tuple[Key, ...]:
    """The keys of a file, none where there is no file yet. Raises: ArtifactError or InvalidInput when it is another kind."""
    if not path.exists():
        return ()
    facts = read_json(path)
    try:
        keys = tuple(Key(k["name"], k["sha256"], _rights(k["scopes"])) for k in facts["keys"])
    except (KeyError, TypeError):
        keys = None
    if keys is None or facts.get("format_version") != FORMAT_VERSION:
        raise InvalidInput(say(f"{str(path)!r} is no file of keys", remedy="Make it with `rediffuse keys`"))
    return keys


def write_keys(path: Path, keys: Iterable[Key]) -> None:
    """Publish a file of keys. A new one only its owner reads; one that is there keeps its owner, group and mode.

    Raises: StorageError, also where we may not give the file to whom it belongs.
    """
    listed = [{"name": k.name, "sha256": k.sha256, "scopes": sorted(k.rights)} for k in keys]
    with new_file(path) as temporary:
        temporary.chmod(0o600)
        temporary.write_text(json.dumps({"format_version": FORMAT_VERSION, "keys": listed}, indent=1) + "\n", "utf-8")
        if path.exists():
            before, now = path.stat(), temporary.stat()
            if (before.st_uid, before.st_gid) != (now.st_uid, now.st_gid):
                os.chown(temporary, before.st_uid, before.st_gid)
            temporary.chmod(stat.S_IMODE(before.st_mode))


def add_key(path: Path, name: str, rights: Iterable[str]) -> str:
    """Make a key; nothing but this answer ever holds it. Raises: InvalidInput for a bad name, one in use, or no right."""
    keys, wanted = read_keys(path), _rights(rights)
    if not _NAME.fullmatch(name):
        raise InvalidInput(say("A name of a key is short and plain", got=name, allowed="a-z, 0-9, _ and -, up to 64"))
    if any(key.name == name for key in keys):
        raise InvalidInput(say(f"There is a key {name!r}", remedy="Remove it first or take another name"))
    if not wanted:
        raise InvalidInput(say("A key needs a scope", allowed=RIGHTS))
    secret = "rd_" + secrets.token_urlsafe(32)
    write_keys(path, [*keys, Key(name, _digest(secret), wanted)])
    return secret


def remove_key(path: Path, name: str) -> None:
    """Take a key out; a running service forgets it within a second. Raises: InvalidInput when there is none."""
    keys = read_keys(path)
    if all(key.name != name for key in keys):
        raise InvalidInput(unknown("key", name, [key.name for key in keys]))
    write_keys(path, [key for key in keys if key.name != name])


@dataclass
class KeyRing:
    """The keys of a file as it stands.

    A file that is gone, or says something else than keys, opens nothing, at once. One that cannot be read (closed to the
    service, a broken disk) says nothing: the keys known last go on, for a slip with its rights must not lock a shop out,
    and the log is warned. A key that was taken out meanwhile goes on too; who wants all shut removes the file. A service
    that has read no keys yet knows none.
    """

    path: Path
    clock: Callable[[], float]
    """Seconds that only grow."""
    _keys: tuple[Key, ...] = ()
    _stamp: tuple[int, ...] = ()
    _looked: float = float("-inf")
    _warned: bool = False

    def find(self, secret: str) -> Key | None:
        """The key that this is the secret of. Every key is compared, each in constant time."""
        digest, found = _digest(secret), None
        for key in self._current():
            if hmac.compare_digest(key.sha256, digest):
                found = key
        return found

    def _current(self) -> tuple[Key, ...]:
        now = self.clock()
        if now - self._looked >= _LOOK_AGAIN_S:
            self._looked = now
            try:
                found = self.path.stat()
                stamp = (found.st_ctime_ns, found.st_size, found.st_ino)
                if stamp != self._stamp:
                    self._keys, self._stamp, self._warned = read_keys(self.path), stamp, False
            except (FileNotFoundError, NotADirectoryError, RediffuseError):
                self._keys, self._stamp, self._warned = (), (), False
            except OSError as error:
                self._warn(error)
        return self._keys

    def _warn(self, error: OSError) -> None:
        """Once, until the file is read again."""
        if not self._warned:
            self._warned = True
            _log.warning(
                say(
                    f"The keys in {str(self.path)!r} cannot be read; those known last go on, also those taken out since",
                    got=error.strerror,
                    remedy="Let the user of the service read the file",
                )
            )


def _rights(names: Iterable[str]) -> frozenset[Right]:
    known: dict[str, Right] = {right: right for right in RIGHTS}
    for name in names:
        if name not in known:
            raise InvalidInput(unknown("scope", name, RIGHTS))
    return frozenset(known[name] for name in names)


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
