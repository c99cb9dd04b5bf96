"""Who may do what, how often, and how much they may send.

Every request but those to `/health/` passes the `Guard` before anything of its body is read.
"""

import asyncio
import math
import re
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rediffuse.serving.keys import OPEN, Key, KeyRing, Right
from rediffuse.serving.settings import Settings, is_loopback

STREAM = "application/x-ndjson"
Refused = Callable[[HTTPException], ASGIApp]


@dataclass
class Buckets:
    """A token bucket for each name: `rate` tokens a second, `burst` at most."""

    rate: float
    burst: float
    clock: Callable[[], float]
    _left: MutableMapping[str, tuple[float, float]] = field(default_factory=dict[str, tuple[float, float]])

    def take(self, name: str) -> float:
        """Take a token; 0 when there was one, else the seconds until there is."""
        now = self.clock()
        left, since = self._left.get(name, (self.burst, now))
        left = min(self.burst, left + (now - since) * self.rate)
        wait = 0.0 if left >= 1 else (1 - left) / self.rate
        self._left[name] = (left if wait else left - 1, now)
        return wait


def bearer(headers: Headers) -> str:
    """The secret that a program sends."""
    scheme, _, secret = headers.get("authorization", "").partition(" ")
    return secret.strip() if scheme.lower() == "bearer" else ""


@dataclass(frozen=True)
class Entrance:
    """How some of the paths are entered."""

    paths: re.Pattern[str]
    """Matches them whole."""
    refused: Refused
    """The answer to who is not let in."""
    secret: Callable[[Headers], str] = bearer
    """The secret that a request carries, empty where it has none."""
    kind: str = "application/json"
    """The media type of bodies."""
    keyless: bool = False
    """Whether nobody is asked for a key."""
    most: int | None = None
    """Bytes of a body that may take its time; None: as the settings say."""


class Guard:
    """ASGI middleware: asks for the key, counts requests, and bounds what is read of a body."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        settings: Settings,
        keys: KeyRing | None,
        clock: Callable[[], float],
        problem: Refused,
        entrances: Sequence[Entrance] = (),
    ) -> None:
        """Args: keys: None: nobody is asked, and only who speaks to this machine by its own name is served.

        entrances: of paths that are entered in another way than the API.
        """
        self.app, self.settings, self.keys = app, settings, keys
        self.entrances = (*entrances, Entrance(re.compile(".*", re.DOTALL), problem))
        self.buckets = Buckets(settings.requests_per_s, settings.burst, clock)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer why not."""
        if scope["type"] != "http" or scope["path"].startswith("/health/"):
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        way = next(way for way in self.entrances if way.paths.fullmatch(scope["path"]))
        try:
            scope.setdefault("state", {})["key"] = self._who(headers, way)
            receive = self._bounded(scope, headers, receive, way)
        except HTTPException as refused:
            await way.refused(refused)(scope, receive, send)
            return
        await self.app(scope, receive, send)

    def _who(self, headers: Headers, way: Entrance) -> Key | None:
        if self.keys is None:
            _refuse_strangers(headers)
            return OPEN
        if way.keyless:
            return None
        secret = way.secret(headers)
        key = self.keys.find(secret) if secret else None
        if key is None:
            raise HTTPException(401, "A key is needed: Authorization: Bearer KEY.", {"WWW-Authenticate": "Bearer"})
        if wait := self.buckets.take(key.name):
            raise HTTPException(429, "Too many requests with this key.", {"Retry-After": str(math.ceil(wait))})
        return key

    def _bounded(self, scope: Scope, headers: Headers, receive: Receive, way: Entrance) -> Receive:
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        stream = kind == STREAM and scope["path"] == "/v1/events"
        most = way.most or (self.settings.stream_bytes if stream else self.settings.body_bytes)
        told = headers.get("content-length", "0")
        if headers.get("content-encoding", "identity").lower() != "identity":
            raise HTTPException(415, "Bodies are read as they are: leave Content-Encoding out.")
        if not told.isdecimal():
            raise HTTPException(400, "Content-Length is no number.")
        if (int(told) or "transfer-encoding" in headers) and not (stream or kind == way.kind):
            raise HTTPException(415, f"A body is {way.kind}, or {STREAM} for the events of the API.")
        if int(told) > most:
            raise HTTPException(413, f"The body is larger than {most} bytes.", {"Connection": "close"})
        return bounded(receive, most, None if stream or way.most else self.settings.body_timeout_s)


def bounded(receive: Receive, most: int, timeout_s: float | None) -> Receive:
    """The same messages, up to so many bytes of body and as long as they keep coming.

    Args: timeout_s: until the body is whole; None: the client may take its time.
    Raises: HTTPException 413 or 408, from what reads.
    """
    seen, whole = 0, False
    until = None if timeout_s is None else asyncio.get_running_loop().time() + timeout_s

    async def reading() -> Message:
        nonlocal seen, whole
        if whole:
            return await receive()
        try:
            async with asyncio.timeout_at(until):
                message = await receive()
        except TimeoutError:
            raise HTTPException(408, "The body did not come in time.", {"Connection": "close"}) from None
        seen += len(message.get("body", b""))
        whole = not message.get("more_body", False)
        if seen > most:
            raise HTTPException(413, f"The body is larger than {most} bytes.", {"Connection": "close"})
        return message

    return reading


def needs(right: Right) -> Callable[[Any], Awaitable[None]]:
    """A dependency of a route: the key must have this right."""
    from fastapi import Request

    async def check(request: Request) -> None:
        if right not in request.state.key.rights:
            raise HTTPException(403, f"This key may not do that: it needs the scope {right}.")

    check.__annotations__["request"] = Request
    return check


def _refuse_strangers(headers: Headers) -> None:
    """Pages of other sites must not reach an open service through the browser of who runs it.

    A name that was made to point here is no name of this machine; a request that another site's page sends says so.
    """
    host = headers.get("host", "")
    if not is_loopback(re.sub(r":\d*$", "", host)):
        raise HTTPException(403, "Without keys the service answers to 127.0.0.1, [::1] and localhost only.")
    origin = headers.get("origin")
    if origin is not None and origin.partition("://")[2] != host:
        raise HTTPException(403, "Without keys the service answers no page of another site.")
