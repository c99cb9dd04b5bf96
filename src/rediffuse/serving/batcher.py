"""Questions that arrive one by one, answered together: a bounded queue before a few workers.

Who would wait longer than it can is told so at the door, at once; who waits is served in the order of arrival; what is
too late is never computed. Knows neither models nor HTTP: it batches calls of a function.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, TypeVar

from rediffuse.errors import InvalidConfig, RediffuseError, say

AskT = TypeVar("AskT")
AnswerT = TypeVar("AnswerT")
MARGIN = 0.5
"""Share of its deadline that an ask may be expected to wait: an estimate at the edge would be late half of the time, and
under a flood batches take longer than they did."""


class Overloaded(RediffuseError):  # noqa: N818  # named for what the caller sees
    """There is no room now."""

    def __init__(self, message: str, retry_after_s: float) -> None:
        """Args: retry_after_s: when there should be room."""
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Closing(Overloaded):
    """The service stops; another one may answer."""


class DeadlinePassed(RediffuseError):  # noqa: N818
    """An answer would have come too late."""


class Pace:
    """Seconds that a batch of n takes: fixed + n each, fitted to the batches of late.

    Least squares with exponentially fading weights. While all batches were alike their mean is the estimate for any n.
    """

    def __init__(self, fade: float = 0.9, leap: float = 3.0) -> None:
        """Args: fade: weight of a batch when the next one is known.   leap: times the estimate that a batch counts, at most."""
        self._fade, self._leap = fade, leap
        self._sums = (0.0,) * 5

    def learn(self, n: int, seconds: float) -> None:
        """One more batch; a stall does not pass for the pace, a pace that lasts is followed in leaps."""
        counted = min(seconds, self._leap * self.seconds(n)) if self.seconds(n) else seconds
        new = (1.0, n, counted, n * n, n * counted)
        self._sums = tuple(self._fade * old + value for old, value in zip(self._sums, new, strict=True))

    def seconds(self, n: int) -> float:
        """Estimate for a batch of n; 0 before the first was seen."""
        weight, *sums = self._sums
        if not weight:
            return 0.0
        mean_n, mean_s, mean_nn, mean_ns = (value / weight for value in sums)
        spread = mean_nn - mean_n**2
        each = max((mean_ns - mean_n * mean_s) / spread, 0.0) if spread > 1e-3 * mean_n**2 else 0.0
        return max(mean_s + each * (n - mean_n), 0.0)


@dataclass(eq=False)
class _Waiting(Generic[AskT, AnswerT]):
    ask: AskT
    came: float
    until: float
    done: asyncio.Future[AnswerT]


class Batcher(Generic[AskT, AnswerT]):
    """Calls `run` with as many asks as wait, in workers of its own; use it from one event loop.

    `run` returns one answer for each ask in their order; an answer that is an exception is raised to its asker alone. All
    times are those of the loop's clock.
    """

    def __init__(
        self,
        run: Callable[[Sequence[AskT]], Sequence[AnswerT | Exception]],
        *,
        largest: int = 64,
        wait_ms: float = 2.0,
        queue: int = 1024,
        workers: int = 1,
        executor: Executor | None = None,
    ) -> None:
        """Workers start with the first ask.

        Args: largest: asks of a batch, at most.   wait_ms: how long the first of a batch waits for others when there is
                nothing else to do.   queue: asks that may wait.   workers: batches at a time.
            executor: where `run` is called; None: threads of the batcher's own.
        Raises: InvalidConfig when a bound is below 1, or the wait below 0.
        """
        if min(largest, queue, workers) < 1 or wait_ms < 0:
            got = {"largest": largest, "queue": queue, "workers": workers, "wait_ms": wait_ms}
            raise InvalidConfig(say("A batcher needs room for one ask at least", got=got))
        self._run, self._largest, self._wait_s, self._limit, self._workers = run, largest, wait_ms / 1e3, queue, workers
        self._executor = ThreadPoolExecutor(workers, "answering") if executor is None else executor
        self._own = executor is None
        self._queue = deque[_Waiting[AskT, AnswerT]]()
        self._arrived = asyncio.Event()
        self._full = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._running = dict[int, tuple[float, int]]()
        self._closing = False
        self.pace = Pace()

    @property
    def depth(self) -> int:
        """How many wait; not those that are being answered."""
        return len(self._queue)

    @property
    def wait_s(self) -> float:
        """Estimated seconds until an ask that comes now would be answered."""
        whole, rest = divmod(len(self._queue) + 1, self._largest)
        ahead = whole * self.pace.seconds(self._largest) + (self.pace.seconds(rest) if rest else 0.0)
        now = asyncio.get_running_loop().time()
        under_way = sum(max(self.pace.seconds(n) - (now - began), 0.0) for began, n in self._running.values())
        return (ahead + under_way) / self._workers

    def check_room(self, deadline_s: float) -> None:
        """Refuse who could not be answered in time. Raises: Overloaded; Closing, one of its kind."""
        if self._closing:
            raise Closing(say("The service is stopping", remedy="Ask another one"), 1.0)
        # An idle batcher takes any ask: otherwise one slow batch could shut the door for ever.
        if not self._queue and not self._running:
            return
        wait_s = self.wait_s
        if len(self._queue) >= self._limit or wait_s > MARGIN * deadline_s:
            raise Overloaded(
                say("Too many ask at once", remedy="Ask again later"), max(wait_s - MARGIN * deadline_s, 0.05)
            )

    async def ask(self, ask: AskT, deadline_s: float) -> AnswerT:
        """The answer to one ask.

        Args: deadline_s: seconds from now after which nobody wants it.
        Raises: Overloaded at once when there is no room, or the wait would be too long; DeadlinePassed; whatever `run`
            says of this ask.
        """
        self.check_room(deadline_s)
        loop = asyncio.get_running_loop()
        now = loop.time()
        if not self._tasks:
            self._tasks = [asyncio.create_task(self._work(number)) for number in range(self._workers)]
        waiting = _Waiting[AskT, AnswerT](ask, now, now + deadline_s, loop.create_future())
        self._queue.append(waiting)
        self._arrived.set()
        if len(self._queue) >= self._largest:
            self._full.set()
        try:
            async with asyncio.timeout_at(waiting.until):
                return await waiting.done
        except TimeoutError:
            if waiting.done.done() and not waiting.done.cancelled():
                return waiting.done.result()  # it came in the same turn of the loop, or the error is of `run`
            raise DeadlinePassed(say(f"No answer within {deadline_s:g} s", remedy="Ask again later")) from None

    async def close(self) -> None:
        """Take no more asks, answer those that wait, end the workers."""
        self._closing = True
        self._arrived.set()
        self._full.set()
        if self._tasks:
            await asyncio.gather(*self._tasks)
        if self._own:
            self._executor.shutdown(wait=True)

    async def _work(self, number: int) -> None:
        """Batch after batch, until closed and empty."""
        loop = asyncio.get_running_loop()
        while batch := await self._next():
            began = loop.time()
            self._running[number] = began, len(batch)
            try:
                asks = [waiting.ask for waiting in batch]
                answers = await loop.run_in_executor(self._executor, self._called, asks)
            except Exception as error:  # noqa: BLE001  # it is handed to those who asked
                answers = [error] * len(batch)
            finally:
                del self._running[number]
            self.pace.learn(len(batch), loop.time() - began)
            for waiting, answer in zip(batch, answers, strict=True):
                if waiting.done.done():
                    continue
                if isinstance(answer, Exception):
                    waiting.done.set_exception(answer)
                else:
                    waiting.done.set_result(answer)

    def _called(self, asks: Sequence[AskT]) -> Sequence[AnswerT | Exception]:
        """In a worker: what `run` says. Raises: RuntimeError when it says more or less than it was asked."""
        answers = self._run(asks)
        if len(answers) != len(asks):
            raise RuntimeError(f"{len(asks)} asks got {len(answers)} answers")
        return answers

    async def _next(self) -> list[_Waiting[AskT, AnswerT]]:
        """The oldest asks that still want an answer, `largest` at most; none when closed and empty."""
        loop = asyncio.get_running_loop()
        while True:
            while not self._queue:
                if self._closing:
                    return []
                self._arrived.clear()
                await self._arrived.wait()
            left_s = self._queue[0].came + self._wait_s - loop.time()
            if left_s > 0 and len(self._queue) < self._largest and not self._closing:
                self._full.clear()
                with suppress(TimeoutError):  # nobody else came
                    async with asyncio.timeout(left_s):
                        await self._full.wait()
            now = loop.time()
            batch = list[_Waiting[AskT, AnswerT]]()
            while self._queue and len(batch) < self._largest:
                waiting = self._queue.popleft()
                if waiting.until > now and not waiting.done.done():
                    batch.append(waiting)
            if batch:
                return batch
