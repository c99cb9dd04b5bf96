"""Batches under a clock that jumps: nothing here waits, but for the tests with real threads."""

import asyncio
import selectors
import statistics
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import Executor, Future
from typing import Any, TypeVar

import pytest

from rediffuse.errors import InvalidConfig, InvalidInput
from rediffuse.serving.batcher import Batcher, Closing, DeadlinePassed, Overloaded, Pace

T = TypeVar("T")


class Jumping(asyncio.SelectorEventLoop):
    """A loop whose clock goes to the next timer instead of waiting for it."""

    def __init__(self) -> None:
        self.now = 0.0
        loop = self

        class Selector(selectors.SelectSelector):
            def select(self, timeout: float | None = None) -> Any:
                loop.now += timeout or 0.0
                return super().select(0 if timeout is not None else None)

        super().__init__(Selector())

    def time(self) -> float:
        return self.now


class Slow(Executor):
    """Calls at once and hands out the result when its time on the loop's clock is over; so many at a time."""

    def __init__(self, loop: Jumping, seconds: Callable[[int], float]) -> None:
        self.loop, self.seconds = loop, seconds
        self.batches: list[tuple[float, list[Any]]] = []

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        future = Future[Any]()
        (asks,) = args
        self.batches.append((self.loop.time(), list(asks)))

        def finish() -> None:
            try:
                future.set_result(fn(*args))
            except Exception as error:  # noqa: BLE001  # as executors do
                future.set_exception(error)

        self.loop.call_later(self.seconds(len(asks)), finish)
        return future


def played(story: Callable[[Jumping], Coroutine[Any, Any, T]]) -> T:
    loop = Jumping()
    try:
        return loop.run_until_complete(story(loop))
    finally:
        loop.close()


async def outcome(ask: Awaitable[T]) -> T | Exception:
    try:
        return await ask
    except Exception as error:  # noqa: BLE001  # the test looks at it
        return error


def doubled(asks: Sequence[int]) -> list[int | Exception]:
    return [2 * ask for ask in asks]


def test_those_who_wait_are_answered_together_in_order() -> None:
    async def story(loop: Jumping) -> None:
        slow = Slow(loop, lambda n: 0.01)
        batcher = Batcher[int, int](doubled, largest=4, wait_ms=2, executor=slow)
        assert await asyncio.gather(*(batcher.ask(n, 1.0) for n in range(10))) == [2 * n for n in range(10)]
        assert [asks for _, asks in slow.batches] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
        assert slow.batches[0][0] == 0  # a full batch waits for nobody
        await batcher.ask(5, 1.0)
        began = loop.time()
        assert await batcher.ask(6, 1.0) == 12
        assert loop.time() - began == pytest.approx(0.012)  # alone it waits 2 ms for others
        await batcher.close()

    played(story)


def test_a_door_is_shut_by_count_and_by_wait() -> None:
    async def story(loop: Jumping) -> None:
        slow = Slow(loop, lambda n: 0.1)
        batcher = Batcher[int, int](doubled, largest=1, queue=3, executor=slow)
        await batcher.ask(0, 1.0)  # now the pace is known
        first = asyncio.create_task(batcher.ask(1, 1.0))
        await asyncio.sleep(0.01)
        assert (batcher.depth, batcher.wait_s) == (0, pytest.approx(0.19, abs=0.01))
        with pytest.raises(Overloaded, match="Too many ask at once") as told:
            await batcher.ask(2, 0.2)
        assert told.value.retry_after_s > 0
        waiting = [asyncio.create_task(batcher.ask(n, 9.0)) for n in (3, 4, 5)]
        await asyncio.sleep(0)
        began = loop.time()
        with pytest.raises(Overloaded):
            await batcher.ask(6, 9.0)
        assert loop.time() == began
        assert await asyncio.gather(first, *waiting) == [2, 6, 8, 10]
        await batcher.close()

    played(story)


def test_what_is_too_late_or_given_up_is_never_computed() -> None:
    async def story(loop: Jumping) -> None:
        slow = Slow(loop, lambda n: 0.5)
        batcher = Batcher[int, int](doubled, largest=1, executor=slow)
        first = asyncio.create_task(outcome(batcher.ask(0, 0.3)))  # nothing known: it is let in, and is late
        await asyncio.sleep(0.01)
        late = asyncio.create_task(outcome(batcher.ask(1, 0.2)))
        gone = asyncio.create_task(batcher.ask(2, 9.0))
        kept = asyncio.create_task(batcher.ask(3, 9.0))
        await asyncio.sleep(0.1)
        gone.cancel()
        assert isinstance(await late, DeadlinePassed)
        assert loop.time() == pytest.approx(0.21, abs=0.01)
        assert isinstance(await first, DeadlinePassed)
        assert await kept == 6
        assert [asks for _, asks in slow.batches] == [[0], [3]]
        await batcher.close()

    played(story)


def test_errors_reach_those_who_asked() -> None:
    def run(asks: Sequence[int]) -> list[int | Exception]:
        if 13 in asks:
            raise ZeroDivisionError("all")
        if 7 in asks:
            return [1, 2, 3]
        return [InvalidInput("odd") if ask % 2 else TimeoutError("own") if ask == 4 else ask for ask in asks]

    async def story(loop: Jumping) -> None:
        batcher = Batcher[int, int](run, executor=Slow(loop, lambda n: 0.1))
        found = await asyncio.gather(*(outcome(batcher.ask(n, 1.0)) for n in (1, 2, 4)))
        assert [type(one) for one in found] == [InvalidInput, int, TimeoutError]
        found = await asyncio.gather(*(outcome(batcher.ask(n, 1.0)) for n in (13, 2)))
        assert [type(one) for one in found] == [ZeroDivisionError, ZeroDivisionError]
        with pytest.raises(RuntimeError, match="1 asks got 3 answers"):
            await batcher.ask(7, 1.0)
        assert await batcher.ask(2, 1.0) == 2
        await batcher.close()

    played(story)


def test_closing_answers_those_who_wait_and_takes_no_more() -> None:
    async def story(loop: Jumping) -> None:
        batcher = Batcher[int, int](doubled, largest=2, executor=Slow(loop, lambda n: 0.1))
        waiting = [asyncio.create_task(batcher.ask(n, 9.0)) for n in range(5)]
        await asyncio.sleep(0.01)
        closing = asyncio.create_task(batcher.close())
        await asyncio.sleep(0)
        with pytest.raises(Closing, match="stopping"):
            await batcher.ask(9, 9.0)
        await closing
        assert [task.result() for task in waiting] == [0, 2, 4, 6, 8]
        await Batcher[int, int](doubled).close()  # never used

    played(story)


@pytest.mark.parametrize("workers", [1, 2])
def test_overload_tenfold(workers: int) -> None:
    """Open loop, 10 x capacity for 8 s: refusals at once, accepted within the deadline, goodput above 80 %."""
    largest, deadline_s, lasts_s = 8, 0.5, 8.0
    capacity = workers * largest / (0.02 + 0.002 * largest)

    async def story(loop: Jumping) -> tuple[list[float], list[float], float, float]:
        slow = Slow(loop, lambda n: 0.02 + 0.002 * n)
        batcher = Batcher[int, int](doubled, largest=largest, queue=10_000, workers=workers, executor=slow)
        done, refused, late = list[float](), list[float](), list[float]()

        async def one(n: int) -> None:
            began = loop.time()
            try:
                assert await batcher.ask(n, deadline_s) == 2 * n
                done.append(loop.time() - began)
            except Overloaded:
                refused.append(loop.time() - began)
            except DeadlinePassed:
                late.append(loop.time() - began)

        tasks = list[asyncio.Task[None]]()
        while loop.time() < lasts_s:
            tasks.append(asyncio.create_task(one(len(tasks))))
            await asyncio.sleep(1 / (10 * capacity))
        await asyncio.gather(*tasks)
        assert len(done) + len(refused) + len(late) == len(tasks)
        assert len(late) < 0.01 * len(done)
        began = loop.time()
        await batcher.ask(0, deadline_s)
        after = loop.time() - began
        await batcher.close()
        return done, refused, len(done) / lasts_s, after

    done, refused, goodput, after = played(story)
    assert max(refused) == 0
    assert max(done) <= deadline_s
    assert goodput >= 0.95 * capacity
    assert statistics.median(done) > 0.1  # the queue is used, not shut
    assert after < 0.05


def test_one_stall_does_not_shut_the_door() -> None:
    async def story(loop: Jumping) -> None:
        seconds = [0.01] * 20 + [30.0] + [0.01] * 100
        slow = Slow(loop, lambda n: seconds[len(slow.batches) - 1])
        batcher = Batcher[int, int](doubled, largest=4, executor=slow)
        for n in range(20):
            await batcher.ask(n, 1.0)
        with pytest.raises(DeadlinePassed):
            await batcher.ask(0, 1.0)
        await asyncio.sleep(40)
        found = await asyncio.gather(*(outcome(batcher.ask(n, 1.0)) for n in range(40)))
        assert not [one for one in found if isinstance(one, Exception)]
        await batcher.close()

    played(story)


def test_the_pace_is_that_of_the_batches() -> None:
    pace = Pace()
    assert pace.seconds(8) == 0
    pace.learn(1, 0.03)
    assert pace.seconds(8) == pytest.approx(0.03)
    for n in (1, 4, 8, 16, 2, 8) * 5:
        pace.learn(n, 0.02 + 0.001 * n)
    assert [pace.seconds(n) for n in (1, 8, 64)] == pytest.approx([0.021, 0.028, 0.084], rel=0.1)
    for _ in range(60):
        pace.learn(8, 0.2)
    assert pace.seconds(8) == pytest.approx(0.2, rel=0.05)


def test_threads_answer_while_the_loop_goes_on() -> None:
    names = set[str]()

    def run(asks: Sequence[int]) -> list[int | Exception]:
        names.add(threading.current_thread().name)
        time.sleep(0.02)
        return doubled(asks)

    async def story() -> None:
        batcher = Batcher[int, int](run, largest=8, workers=2)
        ticks = 0
        waiting = asyncio.gather(*(batcher.ask(n, 5.0) for n in range(64)))
        while not waiting.done():
            await asyncio.sleep(0.002)
            ticks += 1
        assert await waiting == [2 * n for n in range(64)]
        assert ticks > 5
        await batcher.close()

    asyncio.run(story())
    assert names == {"answering_0", "answering_1"}


def test_bounds_must_leave_room() -> None:
    for wrong in ({"largest": 0}, {"queue": 0}, {"workers": 0}, {"wait_ms": -1.0}):
        with pytest.raises(InvalidConfig, match="room for one ask"):
            Batcher[int, int](doubled, **wrong)
