"""What can be watched: counters for Prometheus, and one JSON object a line on standard error.

Neither holds an id of a user, a key or a body. Of an error the lines tell its kind and where it was raised, not its
words: those may hold what was sent.
"""

import json
import logging
import re
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rediffuse.serving.engine import Answered
from rediffuse.serving.names import names

log = logging.getLogger("rediffuse.serving")
_REQUEST_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_BUCKETS_S = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 10)


class Metrics:
    """Counters of one service."""

    def __init__(self) -> None:
        """All at zero."""
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "rediffuse_requests", "Requests answered.", ("method", "route", "status"), registry=self.registry
        )
        self.seconds = Histogram(
            "rediffuse_request_seconds",
            "Time to the end of an answer.",
            ("route",),
            registry=self.registry,
            buckets=_BUCKETS_S,
        )
        self.lists = Counter(
            "rediffuse_lists",
            "Lists by the model, and why they were less.",
            ("version", "fallback", "degraded"),
            registry=self.registry,
        )
        self.events = Counter("rediffuse_events", "Events by what became of them.", ("status",), registry=self.registry)

    def watch(self, name: str, text: str, read: Callable[[], float]) -> None:
        """Show what a function says whenever the metrics are read."""
        Gauge(f"rediffuse_{name}", text, registry=self.registry).set_function(read)

    def turned_away(self, path: str, status: int) -> None:
        """Count a question there was no room for."""
        self.requests.labels("POST", path, str(status)).inc()

    def listed(self, answered: Answered) -> None:
        """Count a list."""
        self.lists.labels(answered.version, answered.fallback or "", answered.degraded or "").inc()

    def told(self, said: Mapping[str, Any]) -> None:
        """Count what became of events. Args: said: as the answer tells it."""
        for name in ("stored", "known", "refused"):
            self.events.labels(name).inc(said[name])

    def text(self) -> bytes:
        """In the text format of Prometheus."""
        return generate_latest(self.registry)


class Observed:
    """ASGI middleware: a request has an id, is counted and logged by the template of its route, never by its path."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics, problem: Callable[[Exception], ASGIApp]) -> None:
        """Args: metrics: what counts.   problem: the answer of an error that nobody foresaw."""
        self.app, self.metrics, self.problem, self.fresh = app, metrics, problem, names()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on and note how it ended."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status, started = time.perf_counter(), 500, False
        told = Headers(scope=scope).get("x-request-id", "")
        request_id = told if _REQUEST_ID.fullmatch(told) else self.fresh()

        async def sending(message: Message) -> None:
            nonlocal status, started
            if message["type"] == "http.response.start":
                status, started = message["status"], True
                MutableHeaders(scope=message)["X-Request-Id"] = request_id
            await send(message)

        try:
            await self.app(scope, receive, sending)
        except Exception as error:
            if not started:  # here and not outside of all middleware: it has an id and the shape of its route
                await self.problem(error)(scope, receive, sending)
            raise
        finally:
            taken = time.perf_counter() - began
            route = getattr(scope.get("route"), "path", "none")
            self.metrics.requests.labels(_method(scope["method"]), route, str(status)).inc()
            self.metrics.seconds.labels(route).observe(taken)
            key = scope.get("state", {}).get("key")
            tell(
                "request",
                request_id=request_id,
                method=_method(scope["method"]),
                route=route,
                status=status,
                ms=round(1000 * taken, 3),
                key=None if key is None else key.name,
            )


def tell(event: str, **fields: Any) -> None:
    """Log a line of facts."""
    if log.isEnabledFor(logging.INFO):
        log.info(event, extra={"fields": fields})


class JsonLines(logging.Formatter):
    """A record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Its time, level, name and words, its fields, and where an error was raised."""
        line: dict[str, Any] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
        }
        fields: Mapping[str, Any] = getattr(record, "fields", {})
        line.update(fields)
        if record.exc_info and record.exc_info[0] is not None:
            line["error"] = record.exc_info[0].__name__
            frames = traceback.extract_tb(record.exc_info[2])
            line["raised"] = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
        return json.dumps(line, default=str)


def log_json(level: int = logging.INFO) -> None:
    """Send all that is logged to standard error, one JSON object a line."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=level, handlers=[handler], force=True)


def _method(name: str) -> str:
    """Its name; what nobody knows must not make a new counter each."""
    return name if name in {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"} else "OTHER"
