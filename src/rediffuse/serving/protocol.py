"""Between the socket and the application: how long a head may be, how long it may take, and how many may speak at once.

A head is the request line and the headers; all of it comes before any key is asked for.
"""

import asyncio
from collections.abc import Mapping
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from rediffuse.serving.problems import problem
from rediffuse.serving.settings import Settings

BACKLOG = 2048
"""Connections that may wait to be taken."""
MOST_HEADERS = 256


class TooLong(Exception):  # noqa: N818  # named for what it says
    """The head of a request is refused."""


class Bounded(HttpToolsProtocol):
    """A connection within the bounds of the settings.

    The timer runs only where a connection waits for what does not come at once: most requests start none.
    """

    chosen = Settings()
    held = 0
    """Bytes that came since the last of a body: of a head, or of trailers."""
    heading = True
    """Whether the head of a request is still to come."""
    until: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Take a connection, or say that there are too many."""
        super().connection_made(transport)
        if len(self.connections) > self.chosen.connections:
            self._refuse(503, "There are too many connections.", {"Retry-After": "1"})
        else:
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is waited for."""
        self._rest()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read on; give up what has no end."""
        self.held += len(data)
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self.held > self.chosen.head_bytes or len(self.headers or ()) > MOST_HEADERS:
            self._refuse_head()
        elif self.until is None and (self.heading or self.cycle.response_complete):
            self._wait()

    def on_message_begin(self) -> None:
        """A head begins."""
        self.heading = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """A head is whole; what came with it in one piece is told from its body only now. Raises: TooLong."""
        self.heading = False
        self._rest()
        if len(self.headers) > MOST_HEADERS or (self.held > self.chosen.head_bytes and self._too_long()):
            self._refuse_head()
            raise TooLong
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Bodies are bounded by the `Guard`."""
        self.held = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The next head begins at nothing."""
        self.held = 0
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """What was refused is not refused again."""
        if not self.transport.is_closing():
            super().send_400_response(msg)

    def _too_long(self) -> bool:
        return len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > self.chosen.head_bytes

    def _refuse_head(self) -> None:
        most = f"{self.chosen.head_bytes} bytes and {MOST_HEADERS} headers"
        self._refuse(431, f"The request line and the headers are too long: they may have {most}.")

    def _refuse(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        """Close, with an answer unless another one is under way."""
        if self.cycle is None or self.cycle.response_complete:  # pyright: ignore[reportUnnecessaryComparison]
            answer = problem(status, message, {"Connection": "close", **(headers or {})})
            lines = [b"%s: %s\r\n" % pair for pair in answer.raw_headers]
            self.transport.write(b"".join([STATUS_LINE[status], *lines, b"\r\n", bytes(answer.body)]))
        self.transport.close()

    def _wait(self) -> None:
        self.until = self.loop.call_later(self.chosen.head_timeout_s, self.transport.close)

    def _rest(self) -> None:
        if self.until is not None:
            self.until.cancel()
            self.until = None


def served(app: Any, settings: Settings) -> uvicorn.Config:
    """How an application is served. Args: app: of ASGI."""
    return uvicorn.Config(
        app,
        http=type("Chosen", (Bounded,), {"chosen": settings}),
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        forwarded_allow_ips=settings.proxies,
        timeout_graceful_shutdown=settings.stop_s,
        backlog=BACKLOG,
    )
