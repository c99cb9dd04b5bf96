"""Fetching from a server of this machine: what arrives whole is kept, everything else leaves nothing behind."""

import hashlib
import http.server
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rediffuse.data.importers import download
from rediffuse.data.importers.download import cache_folder, fetch
from rediffuse.errors import InvalidInput

DATA = bytes(range(256)) * 9000
MD5 = hashlib.md5(DATA).hexdigest()


class Site:
    """A server, what it holds and what it was asked."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {"/d/a.zip": DATA, "/d/a.zip.md5": f"{MD5}  a.zip\n".encode()}
        self.short: set[str] = set()
        self.moved: dict[str, str] = {}
        self.asked: list[str] = []
        site = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site.asked.append(self.path)
                if self.path in site.moved:
                    self.send_response(302)
                    self.send_header("Location", site.moved[self.path])
                    self.end_headers()
                    return
                data = site.files.get(self.path)
                if data is None:
                    self.send_error(404)
                    return
                self.send_response(200)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data[: len(data) // 2] if self.path in site.short else data)

            def log_message(self, *args: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/d/a.zip"


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("no_proxy", "*")
    made = Site()
    thread = threading.Thread(target=made.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield made
    made.server.shutdown()
    made.server.server_close()
    thread.join()


def refused(message: str) -> Any:
    return pytest.raises(InvalidInput, match=re.escape(message))


def test_a_file_arrives_whole_and_is_fetched_once(site: Site, tmp_path: Path) -> None:
    steps: list[tuple[int, int | None]] = []
    path = fetch(site.url, folder=tmp_path / "cache", progress=lambda done, total: steps.append((done, total)))
    assert path == tmp_path / "cache" / "a.zip"
    assert path.read_bytes() == DATA
    assert steps[-1] == (len(DATA), len(DATA))
    assert [done for done, _ in steps] == sorted({done for done, _ in steps})
    assert fetch(site.url, folder=tmp_path / "cache") == path
    assert site.asked == ["/d/a.zip.md5", "/d/a.zip"]
    assert sorted(p.name for p in path.parent.iterdir()) == ["a.zip", "a.zip.md5"]


@pytest.mark.parametrize("text", [f"MD5 (a.zip) = {MD5}\n", MD5.upper(), f"{MD5} *a.zip\r\n{MD5}  ./a.zip"])
def test_checksum_files_of_other_programs_are_read(site: Site, tmp_path: Path, text: str) -> None:
    site.files["/d/a.zip.md5"] = text.encode()
    assert fetch(site.url, folder=tmp_path).read_bytes() == DATA


def test_a_file_that_changed_in_the_cache_is_fetched_anew(site: Site, tmp_path: Path) -> None:
    fetch(site.url, folder=tmp_path).write_bytes(b"altered")
    assert fetch(site.url, folder=tmp_path).read_bytes() == DATA


def test_a_file_put_there_by_hand_needs_no_network(site: Site, tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"mine")
    assert fetch(site.url, folder=tmp_path).read_bytes() == b"mine"
    assert not site.asked


def test_a_redirect_to_where_a_fetch_may_go_is_followed(site: Site, tmp_path: Path) -> None:
    site.files["/e/b.zip"] = site.files.pop("/d/a.zip")
    site.moved["/d/a.zip"] = "/e/b.zip"
    assert fetch(site.url, folder=tmp_path).read_bytes() == DATA


def wrong_checksum(site: Site) -> None:
    site.files["/d/a.zip"] = DATA[::-1]


def no_checksum(site: Site) -> None:
    site.files["/d/a.zip.md5"] = b"<html>"


def two_checksums(site: Site) -> None:
    site.files["/d/a.zip.md5"] += b"0" * 32


def cut_off(site: Site) -> None:
    site.short.add("/d/a.zip")


def missing(site: Site) -> None:
    del site.files["/d/a.zip"]


def moved_away(site: Site) -> None:
    site.moved["/d/a.zip"] = "ftp://elsewhere/a.zip"


def moved_to_plain_http(site: Site) -> None:
    site.moved["/d/a.zip"] = "http://example.org/a.zip"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (wrong_checksum, f"has another checksum than URL.md5 says. Got '{hashlib.md5(DATA[::-1]).hexdigest()}'"),
        (no_checksum, "URL.md5 holds no checksum. Got '<html>'. Fetch URL elsewhere and put it at PLACE."),
        (two_checksums, "URL.md5 holds no checksum."),
        (cut_off, f"was cut off after {len(DATA) // 2:,} of {len(DATA):,} bytes. Try again. Fetch URL elsewhere"),
        (missing, "URL answered 404 Not Found. Fetch URL elsewhere and put it at PLACE."),
        (moved_away, "Files are fetched by https only. Got 'ftp://elsewhere/a.zip'."),
        (moved_to_plain_http, "Files are fetched by https only. Got 'http://example.org/a.zip'."),
    ],
)
def test_what_fails_leaves_nothing_behind(site: Site, tmp_path: Path, spoil: Any, message: str) -> None:
    spoil(site)
    place = tmp_path / "a.zip"
    with refused(message.replace("URL", site.url).replace("PLACE", str(place))):
        fetch(site.url, folder=tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_interrupted_fetch_leaves_nothing_behind_and_starts_anew(site: Site, tmp_path: Path) -> None:
    def interrupt(_done: int, _total: int | None) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(site.url, folder=tmp_path, progress=interrupt)
    assert not list(tmp_path.iterdir())
    assert fetch(site.url, folder=tmp_path).read_bytes() == DATA


def test_an_answer_beyond_the_bound_is_refused(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "LARGEST", 1000)
    with refused("is larger than 1,000 bytes"):
        fetch(site.url, folder=tmp_path)


def test_without_network_the_message_says_what_to_put_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/a.zip"
        with refused(f"Fetch {url} elsewhere and put it at {tmp_path / 'a.zip'}."):
            fetch(url, folder=tmp_path)


@pytest.mark.parametrize("url", ["http://example.org/a.zip", "file:///etc/passwd", "ftp://example.org/a", "a.zip"])
def test_only_https_is_fetched(url: str, tmp_path: Path) -> None:
    with refused(f"Files are fetched by https only. Got {url!r}."):
        fetch(url, folder=tmp_path)


def test_the_cache_is_where_it_is_said_to_be(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("REDIFFUSE_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_folder() == tmp_path / ".cache" / "rediffuse"
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert cache_folder() == Path("/x/rediffuse")
    monkeypatch.setenv("REDIFFUSE_CACHE", "/y")
    assert cache_folder() == Path("/y")
