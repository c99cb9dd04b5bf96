"""A service in a process of its own, and a driver that costs little: HTTP/1.1 over connections that stay open."""

import asyncio
import json
import math
import os
import random
import re
import resource
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter, deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Iterable
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
RECOMMEND, EVENTS, LINES = "/v1/recommendations", "/v1/events", "application/x-ndjson"
READY_S, PATIENCE_S, REST_S = 60.0, 10.0, 3.0
FREE = {"REDIFFUSE_SERVE_REQUESTS_PER_S": "1000000", "REDIFFUSE_SERVE_BURST": "1000000"}
"""Settings under which the service itself is the limit, not the rate of a key."""


@dataclass(frozen=True)
class Site:
    """A running service."""

    process: subprocess.Popen[str]
    port: int
    ready_s: float
    """From the start of the process to the first 200 of /health/ready."""

    @property
    def rss_mb(self) -> float:
        """Megabytes that the process holds now (Linux)."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text("ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6

    @property
    def cpu_s(self) -> float:
        """Seconds of processor that it has used (Linux)."""
        parts = Path(f"/proc/{self.process.pid}/stat").read_text("ascii").rpartition(")")[2].split()
        return (int(parts[11]) + int(parts[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def serving(model: Path, folder: Path, *options: str, **environ: str) -> Generator[Site]:
    """Start `rediffuse serve` on a model with a store in `folder`, one thread of torch, and stop it as a system does."""
    began = time.perf_counter()
    command = [
        sys.executable,
        "-m",
        "rediffuse.cli.main",
        "serve",
        str(model),
        "--port",
        "0",
        "--threads",
        "1",
        *options,
    ]
    store = {"REDIFFUSE_SERVE_STORE": str(folder / "events.sqlite"), "OMP_NUM_THREADS": "1"}
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=log, text=True, env={**os.environ, **FREE, **store, **environ}
        ) as process,
    ):
        try:
            assert process.stdout is not None
            said = process.stdout.readline()
            found = re.search(r"http://127.0.0.1:(\d+)", said)
            assert found, said + (folder / "log").read_text()
            asyncio.run(_until_ready(int(found[1])))
            yield Site(process, int(found[1]), time.perf_counter() - began)
            process.send_signal(signal.SIGTERM)
            process.wait(60)
        finally:
            process.kill()


async def _until_ready(port: int) -> None:
    async with asyncio.timeout(READY_S):
        while True:
            try:
                async with connected(port) as client:
                    if (await client.call("GET", "/health/ready"))[0] == 200:
                        return
            except OSError:
                pass  # it does not listen yet
            await asyncio.sleep(0.02)


Done = Callable[[int, bytes], None]
"""Is told status and body of an answer; status 0: the connection ended before it."""


class Client(asyncio.Protocol):
    """One connection, one request at a time; cheaper than streams, so that the driver leaves the cores to the service."""

    def __init__(self) -> None:
        """Not connected yet."""
        self.used, self._done, self._seen = time.perf_counter(), None, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """As asyncio calls it."""
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """As asyncio calls it."""
        self._seen += data
        head, found, body = self._seen.partition(b"\r\n\r\n")
        if not found:
            return
        length = re.search(rb"content-length: (\d+)", head)
        assert length is not None, head
        if len(body) >= int(length[1]):
            self._seen = b""
            self._tell(int(head[9:12]), body)

    def connection_lost(self, exc: Exception | None) -> None:
        """As asyncio calls it."""
        del exc
        self._tell(0, b"")

    def _tell(self, status: int, body: bytes) -> None:
        done, self._done, self.used = self._done, None, time.perf_counter()
        if done is not None:
            done(status, body)

    def send(self, request: bytes, done: Done) -> None:
        """Send one; `done` is called once."""
        self._done = done
        if self.transport.is_closing():
            self._tell(0, b"")
        else:
            self.transport.write(request)  # pyright: ignore[reportAttributeAccessIssue]  # of a socket, which writes

    async def call(
        self, method: str, path: str, body: bytes = b"", kind: str = "application/json"
    ) -> tuple[int, bytes]:
        """Status and body of an answer. Raises: EOFError when the connection ends before it."""
        answer = asyncio.get_running_loop().create_future()
        self.send(written(method, path, body, kind), lambda status, body: answer.set_result((status, body)))
        status, body = await answer
        if not status:
            raise EOFError
        return status, body


def written(method: str, path: str, body: bytes, kind: str = "application/json") -> bytes:
    """A request as bytes."""
    head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n"
    return (head + (f"Content-Type: {kind}\r\n" if body else "") + "\r\n").encode() + body


async def connect(port: int) -> Client:
    """Another connection. Raises: OSError where nobody listens."""
    return (await asyncio.get_running_loop().create_connection(Client, "127.0.0.1", port))[1]


@asynccontextmanager
async def connected(port: int) -> AsyncGenerator[Client]:
    """A connection that ends with the block."""
    client = await connect(port)
    try:
        yield client
    finally:
        client.transport.close()


@dataclass
class Course:
    """What became of requests."""

    statuses: Counter[int] = field(default_factory=Counter[int])
    seconds: dict[int, list[float]] = field(default_factory=dict[int, list[float]])
    """Status -> how long each answer took, from when it was due."""
    lasted_s: float = 0.0

    def note(self, status: int, seconds: float) -> None:
        """One more; status 0: no answer."""
        self.statuses[status] += 1
        self.seconds.setdefault(status, []).append(seconds)

    def percentile_ms(self, percent: int, *statuses: int) -> float:
        """Of the times of answers with these statuses, NaN where there were less than two."""
        times = [s for status in statuses for s in self.seconds.get(status, ())]
        return 1e3 * statistics.quantiles(times, n=100)[percent - 1] if len(times) > 1 else float("nan")

    @property
    def answered_per_s(self) -> float:
        """Answers that were lists."""
        return self.statuses[200] / self.lasted_s

    def told(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "statuses": {str(status): count for status, count in sorted(self.statuses.items())},
            "answered_per_s": round(self.answered_per_s, 1),
            "p50_ms": round(self.percentile_ms(50, 200), 2),
            "p99_ms": round(self.percentile_ms(99, 200), 2),
        }


Make = Callable[[int], bytes]
Look = Callable[[int, int, bytes], None]
"""Is told the number of a request, the status and the body of its answer."""


async def closed(
    port: int,
    path: str,
    bodies: Iterable[bytes],
    *,
    connections: int,
    seconds: float = math.inf,
    kind: str = "application/json",
) -> Course:
    """Each connection sends the next request when its last was answered, until the time or the requests are spent."""
    course, rest = Course(), iter(bodies)
    began = time.perf_counter()

    async def one() -> None:
        async with connected(port) as client:
            for body in rest:
                at = time.perf_counter()
                course.note((await client.call("POST", path, body, kind))[0], time.perf_counter() - at)
                if at - began > seconds:
                    return

    await asyncio.gather(*(one() for _ in range(connections)))
    course.lasted_s = time.perf_counter() - began
    return course


async def opened(
    port: int,
    path: str,
    make: Make,
    *,
    per_s: float,
    connections: int,
    seconds: float = math.inf,
    until: Callable[[], bool] = lambda: False,
    look: Look | None = None,
    seed: int = 0,
    most: int = 1024,
) -> Course:
    """Requests come at random moments whether or not the former are answered; each counts from when it was due.

    Args: connections: how many stand ready; what finds none free opens one more.   until: says when to end before the time.
        most: connections at once; what finds so many busy waits, and its time runs.
    """
    course, draw = Course(), random.Random(seed)
    free, waiting, queue = list[Client](), dict[Client, float](), deque[tuple[int, float]]()

    def begin(client: Client, number: int, due: float) -> None:
        def done(status: int, body: bytes) -> None:
            del waiting[client]
            course.note(status, time.perf_counter() - due)
            if status and look is not None:
                look(number, status, body)
            if status and queue:
                begin(client, *queue.popleft())
            elif status:
                free.append(client)

        waiting[client] = time.perf_counter()
        client.send(written("POST", path, make(number)), done)

    def patient() -> None:
        for client in [client for client, since in waiting.items() if time.perf_counter() - since > PATIENCE_S]:
            client.transport.abort()  # pyright: ignore[reportAttributeAccessIssue]  # of a socket

    async def another(number: int, due: float) -> None:
        try:
            begin(await connect(port), number, due)
        except OSError:
            course.note(0, time.perf_counter() - due)

    free.extend(await asyncio.gather(*(connect(port) for _ in range(connections))))
    began = due = time.perf_counter()
    opening = set[asyncio.Task[None]]()
    number = 0
    while due - began < seconds and not until():
        due += draw.expovariate(per_s)
        if (early := due - time.perf_counter()) > 0 or number % 64 == 0:
            await asyncio.sleep(max(early, 0))  # at times also when late: answers must be read
        if number % 1024 == 0:
            patient()
        if (client := _rested(free)) is not None:
            begin(client, number, due)
        elif len(waiting) + len(opening) >= most:
            queue.append((number, due))
        else:
            opening.add(task := asyncio.create_task(another(number, due)))
            task.add_done_callback(opening.discard)
        number += 1
    while opening or waiting or queue:
        await asyncio.sleep(0.01)
        patient()
    course.lasted_s = time.perf_counter() - began
    for client in free:
        client.transport.close()
    return course


def _rested(free: list[Client]) -> Client | None:
    """One that stands ready; those that the service may be closing, as it does after 5 s without a request, are left."""
    while free:
        client = free.pop()
        if time.perf_counter() - client.used < REST_S and not client.transport.is_closing():
            return client
        client.transport.close()
    return None


def run(story: Coroutine[Any, Any, T]) -> T:
    """Run on the quickest loop that is there, with as many connections as the system allows."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    try:
        import uvloop
    except ImportError:
        return asyncio.run(story)
    return uvloop.run(story)


def question(**asked: object) -> bytes:
    """The body of a request."""
    return json.dumps(asked).encode()
