"""Published files by https, checked against the checksum beside them, kept in a cache."""

import hashlib
import http.client
import os
import re
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from rediffuse.errors import InvalidInput, say
from rediffuse.files import write_text

Progress = Callable[[int, int | None], None]
"""Told after every piece: bytes so far, bytes in all (None where the server does not say)."""

LARGEST = 4 << 30
"""Bytes; a longer answer is refused."""

_PIECE = 1 << 20
_TIMEOUT_S = 30.0
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def cache_folder() -> Path:
    """Where fetched files are kept: REDIFFUSE_CACHE, else XDG_CACHE_HOME/rediffuse, else ~/.cache/rediffuse."""
    if named := os.environ.get("REDIFFUSE_CACHE"):
        return Path(named)
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path.home() / ".cache") / "rediffuse"


def fetch(url: str, *, folder: Path | None = None, progress: Progress = lambda _done, _total: None) -> Path:
    """The file of an address, from the cache where it lies there whole, else fetched.

    The MD5 that the site publishes at `<url>.md5` is fetched first and kept beside the file; whatever differs from it
    is never used. A file that was put there by hand without checksum is taken as it is. An interrupted fetch leaves
    nothing behind and starts anew.

    Args: folder: the cache; None: `cache_folder()`.   progress: told of the bytes.
    Raises: InvalidInput when the address is neither https nor of this machine, the site cannot be reached or has no
        such file, the answer is cut off, or the checksum differs; the message says what to put where by hand.
    """
    place = (folder or cache_folder()) / urlsplit(url).path.rpartition("/")[2]
    beside = place.with_name(f"{place.name}.md5")
    if place.is_file() and (not beside.is_file() or _md5(place) == _checksum(beside.read_text("utf-8", "replace"))):
        return place
    _check_address(url)
    place.parent.mkdir(parents=True, exist_ok=True)
    by_hand = f"Fetch {url} elsewhere and put it at {place}"
    with _answer(f"{url}.md5", by_hand) as answer:
        text = answer.read(_PIECE).decode("utf-8", "replace")
    expected = _checksum(text)
    if expected is None:
        raise InvalidInput(say(f"{url}.md5 holds no checksum", got=text[:60], remedy=by_hand))
    with tempfile.TemporaryDirectory(dir=place.parent, prefix=f".{place.name}.") as beside_place:
        part = Path(beside_place) / place.name
        with _answer(url, by_hand) as answer, part.open("xb") as file:
            found = _copy(answer, file, url, by_hand, progress)
        if found != expected:
            raise InvalidInput(
                say(f"{url} has another checksum than {url}.md5 says", got=found, allowed=expected, remedy="Try again")
            )
        write_text(beside, f"{expected}  {place.name}\n")
        part.replace(place)
    return place


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows a redirect only to where a fetch may go."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        _check_address(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


@contextmanager
def _answer(url: str, by_hand: str) -> Generator[http.client.HTTPResponse]:
    """An open answer; every failure of the network, also while it is read, becomes one sentence."""
    try:
        with urllib.request.build_opener(_Redirects).open(url, timeout=_TIMEOUT_S) as answer:
            yield answer
    except urllib.error.HTTPError as error:
        error.close()
        raise InvalidInput(say(f"{url} answered {error.code} {error.reason}", remedy=by_hand)) from None
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
        reason = getattr(error, "reason", error)
        raise InvalidInput(say(f"{url} cannot be reached", got=str(reason), remedy=by_hand)) from None


def _copy(answer: http.client.HTTPResponse, file: IO[bytes], url: str, by_hand: str, progress: Progress) -> str:
    """Write an answer to a file. Returns: its MD5."""
    length = answer.headers.get("Content-Length", "")
    total = int(length) if length.isdecimal() else None
    sum_, done = hashlib.md5(usedforsecurity=False), 0
    while piece := answer.read(_PIECE):
        done += len(piece)
        if done > LARGEST:
            raise InvalidInput(say(f"{url} is larger than {LARGEST:,} bytes", remedy=by_hand))
        sum_.update(piece)
        file.write(piece)
        progress(done, total)
    if total is not None and done < total:
        raise InvalidInput(say(f"{url} was cut off after {done:,} of {total:,} bytes", remedy=f"Try again. {by_hand}"))
    file.flush()
    os.fsync(file.fileno())
    return sum_.hexdigest()


def _check_address(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOOPBACK):
        raise InvalidInput(say("Files are fetched by https only", got=url, allowed="https, or http to this machine"))


def _checksum(text: str) -> str | None:
    """The one MD5 in a checksum file, whichever program wrote it; None when there is none or several."""
    found = {word.lower() for word in re.findall(r"\b[0-9a-fA-F]{32}\b", text)}
    return found.pop() if len(found) == 1 else None


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
