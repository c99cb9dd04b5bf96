"""What reaches the service before any key is asked for: heads without end, connections without a word, too many of them."""

import json
import socket
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from rediffuse.serving.protocol import MOST_HEADERS, Bounded
from tests.serving.shop import Shop, built, listening

HEAD_BYTES, HEAD_S, MOST = 8192, 0.5, 20
SCOPES = {"shop": "read,write"}
START = b"GET /health/live HTTP/1.1\r\nHost: x\r\n"
Open = Callable[[], socket.socket]


@pytest.fixture(scope="module")
def shop(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Shop:
    bounds: dict[str, Any] = {
        "head_bytes": HEAD_BYTES,
        "head_timeout_s": HEAD_S,
        "connections": MOST,
        "body_timeout_s": 60.0,
    }
    return built(models, tmp_path_factory.mktemp("bounded"), scopes=SCOPES, proxies="127.0.0.2, 10.0.0.0/8", **bounds)


@pytest.fixture(scope="module")
def home(shop: Shop) -> Generator[str]:
    with listening(shop) as address:
        yield address


@pytest.fixture
def opening(home: str) -> Generator[Open]:
    """Opens connections, and closes them in the end."""
    place = urlsplit(home)
    with ExitStack() as stack:
        yield lambda: stack.enter_context(socket.create_connection((place.hostname, place.port), timeout=5))
    assert has_room(home)


def has_room(home: str) -> bool:
    """Whether there is room soon: the service hears a moment later that a connection was closed."""
    for _ in range(100):
        with suppress(httpx.TransportError):  # closed before the question was written
            if httpx.get(f"{home}/health/live").status_code == 200:
                return True
        time.sleep(0.02)
    return False


def heard(line: socket.socket) -> bytes:
    """All until the other side closes."""
    out = b""
    try:
        while piece := line.recv(65536):
            out += piece
    except ConnectionResetError:  # closed with something unread
        return out
    return out


def one(line: socket.socket) -> bytes:
    """A whole answer, of a connection that may stay."""

    def more() -> bytes:
        piece = line.recv(65536)
        assert piece, "closed before the end of the answer"
        return piece

    out = more()
    while b"\r\n\r\n" not in out:
        out += more()
    head, _, body = out.partition(b"\r\n\r\n")
    (length,) = (int(row.partition(b":")[2]) for row in head.split(b"\r\n") if row.startswith(b"content-length:"))
    while len(body) < length:
        body += more()
    return head + body


def kind(answer: bytes) -> tuple[int, str]:
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)["error"]["kind"]


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(START + b"x: " + b"a" * (HEAD_BYTES - len(START)), id="a header without end"),
        pytest.param(b"GET /" + b"a" * HEAD_BYTES, id="a target without end"),
        pytest.param(START + b"x: " + b"a" * HEAD_BYTES + b"\r\n\r\n", id="a whole head"),
        pytest.param(START + b"a:\r\n" * (MOST_HEADERS + 1), id="many small headers"),
        pytest.param(START + b"a:\r\n" * MOST_HEADERS + b"\r\n", id="many small headers, whole"),
        pytest.param(b"\r\n" * HEAD_BYTES, id="nothing but ends of lines"),
    ],
)
def test_a_head_without_end_is_refused(opening: Open, sent: bytes) -> None:
    line = opening()
    line.sendall(sent)
    answer = heard(line)
    assert kind(answer) == (431, "too_large")
    assert answer.count(b"HTTP/1.1") == 1
    assert b"connection: close" in answer


def test_a_large_body_is_no_large_head(shop: Shop, opening: Open) -> None:
    """Whether it comes with its head or after it; and heads that follow each other are no long one."""
    line, body = opening(), b'{"k": 1}' + b" " * 4 * HEAD_BYTES
    key = shop.secrets["shop"].encode()
    head = b"POST /v1/recommendations HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n" % key
    head += b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
    for pieces in ([head + body], [head, body], [head[:30], head[30:] + body[:9], body[9:]]):
        for piece in pieces:
            line.sendall(piece)
            time.sleep(0.02)
        assert one(line).startswith(b"HTTP/1.1 200")
    for _ in range(3 * HEAD_BYTES // len(START)):
        line.sendall(START + b"\r\n")
        assert one(line).startswith(b"HTTP/1.1 200")


def test_trailers_have_an_end(opening: Open) -> None:
    """They come after the answer, to whom nobody asked for a key."""
    line = opening()
    line.sendall(b"POST /v1/events HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n")
    assert one(line).startswith(b"HTTP/1.1 401")
    line.sendall(b"x: " + b"a" * HEAD_BYTES)
    assert heard(line).startswith(b"HTTP/1.1 431")


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(START, id="half a head"),
        pytest.param(START + b"\r\n" + START, id="half a head after a whole one"),
    ],
)
def test_a_head_that_does_not_come_is_not_waited_for(opening: Open, sent: bytes) -> None:
    line, began = opening(), time.monotonic()
    line.sendall(sent)
    answers = heard(line)
    assert HEAD_S / 2 < time.monotonic() - began < 4  # before what uvicorn waits between requests
    assert answers.count(b"HTTP/1.1 200") == sent.count(b"\r\n\r\n")


def test_an_empty_line_is_no_request(opening: Open) -> None:
    line, began = opening(), time.monotonic()
    line.sendall(START + b"\r\n")
    assert one(line).startswith(b"HTTP/1.1 200")
    line.sendall(b"\r\n")
    assert heard(line) == b""
    assert HEAD_S / 2 < time.monotonic() - began < 4


def test_a_head_that_drips_is_not_waited_for(opening: Open) -> None:
    line, began = opening(), time.monotonic()
    line.sendall(START)
    with suppress(ConnectionError):
        while time.monotonic() - began < 4:
            line.sendall(b"x: y\r\n")
            time.sleep(0.05)
    assert HEAD_S / 2 < time.monotonic() - began < 4


def test_who_rests_between_requests_or_sends_a_body_slowly_is_kept(shop: Shop, opening: Open) -> None:
    line, body = opening(), b'{"k": 1}'
    line.sendall(START + b"\r\n")
    assert one(line).startswith(b"HTTP/1.1 200")
    time.sleep(2 * HEAD_S)
    key = shop.secrets["shop"].encode()
    line.sendall(b"POST /v1/recommendations HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n" % key)
    line.sendall(b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body))
    time.sleep(2 * HEAD_S)
    line.sendall(body)
    assert one(line).startswith(b"HTTP/1.1 200")


def test_there_are_only_so_many_connections(home: str, opening: Open) -> None:
    lines = [opening() for _ in range(MOST)]
    for line in lines:
        line.sendall(START + b"\r\n")
        assert one(line).startswith(b"HTTP/1.1 200")
    answer = heard(opening())
    assert kind(answer) == (503, "unavailable")
    assert b"retry-after: 1" in answer
    lines[0].close()
    assert has_room(home)
    lines[1].sendall(START + b"\r\n")
    assert one(lines[1]).startswith(b"HTTP/1.1 200")


def test_most_requests_start_no_timer(home: str, monkeypatch: pytest.MonkeyPatch) -> None:
    started = list[Bounded]()
    wait = Bounded._wait  # pyright: ignore[reportPrivateUsage]

    def counted(line: Bounded) -> None:
        started.append(line)
        wait(line)

    monkeypatch.setattr(Bounded, "_wait", counted)
    with httpx.Client(base_url=home) as client:
        for _ in range(20):
            assert client.get("/health/live").status_code == 200
    assert len(started) == 1


@pytest.mark.parametrize(("source", "secure"), [("127.0.0.1", False), ("127.0.0.2", True)])
def test_the_cookie_is_secure_behind_a_proxy_that_is_named(shop: Shop, home: str, source: str, secure: bool) -> None:
    with httpx.Client(transport=httpx.HTTPTransport(local_address=source)) as client:
        form = {"key": shop.secrets["shop"], "wanted": "/shop"}
        answer = client.post(f"{home}/pages/sign-in", data=form, headers={"X-Forwarded-Proto": "https"})
    assert answer.status_code == 303
    assert ("; Secure" in answer.headers["set-cookie"]) == secure
