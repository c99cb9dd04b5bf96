"""One writer, many who wait: what is handed over while one commit is on its way to disk shares the next.

A commit costs a wait for the disk whatever it holds, so the more who wait, the less each costs. Nobody's future is
done before the commit that holds their job is.
"""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from rediffuse.errors import RediffuseError, StorageError, say
from rediffuse.serving.store.types import StoreBusy

R = TypeVar("R")
Row = tuple[Any, ...]


class Session(Protocol):
    """A connection inside a transaction; `?` marks a value in a statement."""

    def run(self, sql: str, values: Row = ()) -> list[Row]:
        """Run a statement. Returns: its rows."""
        ...

    def many(self, sql: str, rows: Sequence[Row]) -> int:
        """Run a statement for each row of values. Returns: how many rows of the table changed."""
        ...


@dataclass(frozen=True)
class _Job:
    work: Callable[[Session], Any]
    size: int
    after: Callable[[], None] | None
    future: Future[Any]


class GroupCommit:
    """A thread that runs jobs in order, many a transaction.

    A job that refuses (raises a RediffuseError) does so before it changes anything: the others of its transaction go
    on. Any other error undoes the transaction, and all who waited for it are told.
    """

    def __init__(
        self,
        transaction: Callable[[], AbstractContextManager[Session]],
        *,
        name: str,
        largest: int = 5000,
        wait_ms: float = 0.0,
        backlog: int = 100_000,
        stops: Callable[[Exception], bool] = lambda _: False,
    ) -> None:
        """Start the thread.

        Args: transaction: opens one; leaving the block well is the commit, which returns when it is on disk.
            largest: events after which a group is full (one job may hold more).
            wait_ms: how long a group that is not full waits for company; 0: whoever came during the last commit is it.
            backlog: waiting events from which on no job is taken; the last one taken may go beyond it, so that a
                job of any size gets in, and what waits holds less than `backlog` and one job.
            stops: whether nothing may be written after an error.
        """
        self._transaction, self._name, self._stops = transaction, name, stops
        self._largest, self._wait_s, self._backlog = largest, wait_ms / 1000, backlog
        self._jobs: deque[_Job] = deque()
        self._size = 0
        self._changed = threading.Condition()
        self._closed = False
        self._failure: str | None = None
        self._thread = threading.Thread(target=self._serve, name="event store writer", daemon=True)
        self._thread.start()

    def submit(
        self, work: Callable[[Session], R], *, size: int = 1, after: Callable[[], None] | None = None
    ) -> Future[R]:
        """Hand a job over.

        Args: size: its events.
            after: run once it is committed, before its future is done; the others of its group do not wait for it,
                and its error is the job's alone.

        Raises: StoreBusy; StorageError when the writer is closed or has stopped.
        """
        future: Future[R] = Future()
        with self._changed:
            if self._failure is not None:
                raise self._stopped()
            if self._closed:
                raise StorageError(say(f"The event store {self._name} is closed"))
            if self._size >= self._backlog:
                raise StoreBusy(
                    say("Too many events wait for the disk", got=self._size, remedy="Send them again a little later")
                )
            self._jobs.append(_Job(work, size, after, future))
            self._size += size
            self._changed.notify_all()
        return future

    def close(self) -> None:
        """Finish what was handed over, end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    def _serve(self) -> None:
        while group := self._gather():
            self._commit(group)

    def _gather(self) -> list[_Job]:
        """The next group; empty when there will be none."""
        with self._changed:
            self._changed.wait_for(lambda: self._jobs or self._closed)
            if self._wait_s:
                self._changed.wait_for(lambda: self._size >= self._largest or self._closed, self._wait_s)
            group: list[_Job] = []
            size = 0
            while self._jobs and (not group or size + self._jobs[0].size <= self._largest):
                group.append(self._jobs.popleft())
                size += group[-1].size
            self._size -= size
            return group

    def _commit(self, group: list[_Job]) -> None:
        try:
            if self._failure is not None:
                raise self._stopped()  # noqa: TRY301  # those who had queued before the failure hear of it too
            with self._transaction() as session:
                done = [(job, _attempt(job, session)) for job in group]
        except Exception as error:  # noqa: BLE001  # whoever waits must hear, whatever it was
            told = self._told(error)
            for job in group:
                _settle(job.future, told)
            return
        for job, outcome in done:
            if job.after is None or isinstance(outcome, RediffuseError):
                _settle(job.future, outcome)
        for job, outcome in done:
            if job.after is not None and not isinstance(outcome, RediffuseError):
                _settle(job.future, self._finish(job.after, outcome))

    def _finish(self, after: Callable[[], None], outcome: Any) -> Any:
        """What a job that is on disk is told in the end."""
        try:
            if self._failure is not None:
                raise self._stopped()  # noqa: TRY301  # after another's
            after()
        except Exception as error:  # noqa: BLE001
            return self._told(error)
        return outcome

    def _told(self, error: Exception) -> StorageError:
        """What those who waited hear of an error, after which perhaps nothing more may be written."""
        if self._stops(error):
            self._failure = str(error)
        return error if isinstance(error, StorageError) else self._failed(error)

    def _failed(self, error: Exception) -> StorageError:
        told = StorageError(
            say(
                f"The event store {self._name} could not write",
                got=f"{type(error).__name__}: {error}",
                remedy="None of it was acknowledged; send it again, nothing is counted twice",
            )
        )
        told.__cause__ = error
        return told

    def _stopped(self) -> StorageError:
        return StorageError(
            say(
                f"The event store {self._name} stopped writing after an error of the disk",
                got=self._failure,
                remedy="Look after the disk and start the service again; everything acknowledged is kept",
            )
        )


def _attempt(job: _Job, session: Session) -> Any:
    try:
        return job.work(session)
    except RediffuseError as refusal:
        return refusal


def _settle(future: Future[Any], outcome: Any) -> None:
    if not future.set_running_or_notify_cancel():
        return
    if isinstance(outcome, BaseException):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)
