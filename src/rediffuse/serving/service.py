"""The service without HTTP: a question becomes a list, events become history, a person is forgotten.

Joins the store, the batcher and the versions of the model. Time and fresh ids are arguments.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from rediffuse.errors import InvalidInput, RediffuseError, StorageError
from rediffuse.serving.batcher import Batcher
from rediffuse.serving.engine import Answered, Ask
from rediffuse.serving.ladder import Ladder, Rung
from rediffuse.serving.names import names
from rediffuse.serving.past import Known, Seen, joined, nothing
from rediffuse.serving.settings import Settings
from rediffuse.serving.shelf import Shelf
from rediffuse.serving.store import Appended, Event, Item, Receipt, Store, anonymous_subject
from rediffuse.serving.telemetry import tell
from rediffuse.serving.versions import Listed, Version, Versions

_SEEN_AGAIN_S = 0.01
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Clock:
    """Where times and fresh names come from."""

    now_us: Callable[[], int] = lambda: time.time_ns() // 1000
    """UTC microseconds."""
    seconds: Callable[[], float] = time.monotonic
    """Only grow."""
    fresh: Callable[[], str] = field(default_factory=names)
    """A name that nobody has, 32 letters; it is no secret."""


@dataclass(frozen=True)
class Wanted:
    """An ask that waits."""

    ask: Ask
    subject: str | None
    """Whose stored events are its history; None: it has all that it is to have."""
    exclude: Sequence[str] | None
    """Items besides those that the model leaves out by itself."""


@dataclass(frozen=True)
class Given:
    """An answer with what was asked in the end, and its own name."""

    recommendation_id: str
    ask: Ask
    answered: Answered
    stale: bool
    seconds: float


class Service:
    """What a shop's backend speaks to; use it from one event loop."""

    def __init__(
        self,
        store: Store,
        versions: Versions,
        settings: Settings,
        *,
        past: Callable[[str], list[Known]] = nothing,
        ladder: Ladder | None = None,
        clock: Clock = Clock(),
    ) -> None:
        """Args: versions: with a model promoted.   past: what is known of a user from before the store."""
        self.store, self.versions, self.settings, self.clock = store, versions, settings, clock
        self.past, self.ladder = past, ladder or Ladder()
        self.shelf = Shelf(store, clock.seconds)
        self._rung = Rung.WHOLE
        self.batcher: Batcher[Wanted, tuple[Ask, Answered]] = Batcher(
            self._answers,
            largest=settings.largest_batch,
            wait_ms=settings.batch_wait_ms,
            queue=settings.queue,
            workers=settings.workers,
        )

    def check_room(self) -> None:
        """Refuse a question that could not be answered in time, whatever it is. Raises: Overloaded."""
        self.batcher.check_room(self.settings.deadline_ms / 1000)

    async def recommend(
        self,
        ask: Ask,
        *,
        anonymous: str | None = None,
        exclude: Sequence[str] | None = None,
        min_seq: int | None = None,
        deadline_s: float | None = None,
    ) -> Given:
        """A list. Without a posted history that of the user, else of the visitor, is read from the store, now.

        Args: exclude: items besides those that the model leaves out by itself.   min_seq: what must be seen of the store.
            deadline_s: at most that of the settings.
        Raises: Overloaded, DeadlinePassed; StorageError; whatever is wrong with the ask.
        """
        began, most = self.clock.seconds(), self.settings.deadline_ms / 1000
        until = began + min(deadline_s or most, most)
        stale = min_seq is not None and not await self._seen(min_seq, (began + until) / 2)
        subject = ask.user if anonymous is None or ask.user is not None else anonymous_subject(anonymous)
        self._rung = self.ladder.choose(self.batcher.wait_s)
        wanted = Wanted(ask, subject if ask.history is None else None, exclude)
        ask, answered = await self.batcher.ask(wanted, until - self.clock.seconds())
        given = Given(self.clock.fresh(), ask, answered, stale, self.clock.seconds() - began)
        tell(
            "recommendation",
            recommendation_id=given.recommendation_id,
            model=answered.sha256,
            policy=answered.policy,
            fallback=answered.fallback,
            degraded=answered.degraded,
            items=[place.item_id for place in answered.items],
            propensities=[round(value, 9) for value in answered.propensities],
        )
        return given

    async def record(self, events: Sequence[Event]) -> Appended:
        """Keep events; they are on disk when this returns. A visitor who came as a user is that user from then on.

        Raises: StorageError, and then nothing was promised; StoreBusy when too many wait for the disk.
        """
        kept = await asyncio.wrap_future(self.store.submit(events))
        logins = {(e.anonymous, e.user) for e in events if e.anonymous is not None and e.user is not None}
        for anonymous, user in logins:
            await asyncio.to_thread(self._login, anonymous, user)
        return kept

    async def put_items(self, items: Sequence[Item]) -> int:
        """Keep what is said of items; the next list knows it. Returns: the seq. Raises: StorageError."""
        seq = await asyncio.to_thread(self.store.put_items, items)
        await asyncio.to_thread(self.shelf.refresh)
        return seq

    async def erase(self, user: str) -> Receipt:
        """Forget a person. Raises: StorageError."""
        return await asyncio.to_thread(self.store.erase, user)

    def models(self) -> list[Listed]:
        """Versions that answer or could."""
        return self.versions.list()

    async def promote(self, name: str) -> Version:
        """Let a model of the folder answer. Raises: ArtifactError or InvalidInput, and the one before goes on."""
        return await self._change(lambda: self.versions.promote(name))

    async def rollback(self) -> Version:
        """Let the model before this one answer again. Raises: as `promote`."""
        return await self._change(self.versions.rollback)

    async def ready(self) -> dict[str, bool]:
        """What must work for answers: a model, and the store."""
        return {"model": self._works(self._held), "store": await asyncio.to_thread(self._works, self.store.state)}

    async def close(self) -> None:
        """Answer who waits, finish what is being written, let go of everything."""
        await self.batcher.close()
        await asyncio.to_thread(self.store.close)

    async def _change(self, change: Callable[[], Version]) -> Version:
        found = await asyncio.to_thread(change)
        self.shelf.forget_models()
        return found

    def _answers(self, wanted: Sequence[Wanted]) -> list[tuple[Ask, Answered] | RediffuseError]:
        """In a worker: all of a batch by the version of this moment, after the histories of this moment."""
        self.shelf.look()
        with self.versions.current() as version:
            repeats = bool(version.engine.model.folder.protocol.get("repeats"))
            asks = [self._complete(one, repeats=repeats) for one in wanted]
            whole = [ask for ask in asks if isinstance(ask, Ask)]
            answers = iter(self.shelf.answer(version.engine, whole, self._rung))
        return [_with(ask, next(answers)) if isinstance(ask, Ask) else ask for ask in asks]

    def _complete(self, wanted: Wanted, *, repeats: bool) -> Ask | RediffuseError:
        """The ask with the history of its subject; what went wrong when the store could not be read."""
        ask = wanted.ask
        if wanted.subject is not None:
            try:
                found = self._history(wanted.subject)
            except RediffuseError as error:
                return error
            times = tuple(at for _, at in found if at is not None)
            ask = replace(
                ask,
                history=tuple(item for item, _ in found),
                times_us=times if len(times) == len(found) else None,
                user=wanted.subject,
            )
        if ask.user is not None and self._may_be_erased(ask.user):
            ask = replace(ask, user=None)  # a model may hold a vector of them until the next training
        if wanted.exclude is not None:
            ask = replace(ask, exclude=(*wanted.exclude, *(() if repeats else ask.told)))
        return ask

    def _history(self, subject: str) -> list[Seen]:
        most = self.settings.history
        owner = self.store.owner(subject)
        before = self.past(owner)
        before = [] if before and self.store.erased(owner) else before
        return joined(before, self.store.history(owner, most), self.clock.now_us(), most)

    def _may_be_erased(self, user: str) -> bool:
        try:
            return self.store.erased(user)
        except StorageError:
            return True

    async def _seen(self, seq: int, until: float) -> bool:
        """Whether the store is as far; waits for it as long as there is time."""
        while (await asyncio.to_thread(self.store.state)).seq < seq:
            if self.clock.seconds() + _SEEN_AGAIN_S >= until:
                return False
            await asyncio.sleep(_SEEN_AGAIN_S)
        return True

    def _held(self) -> None:
        with self.versions.current():
            pass

    def _works(self, check: Callable[[], object]) -> bool:
        try:
            check()
        except RediffuseError as error:
            _log.warning("not ready: %s", type(error).__name__)
            return False
        return True

    def _login(self, anonymous: str, user: str) -> None:
        """Record whose a visitor is. Where it is another's already it stays that: a device may be shared."""
        if self.store.owner(anonymous_subject(anonymous)) == user:
            return
        try:
            self.store.alias(anonymous, user)
        except InvalidInput:
            _log.warning("an alias was refused")


def _with(ask: Ask, answer: Answered | RediffuseError) -> tuple[Ask, Answered] | RediffuseError:
    return answer if isinstance(answer, RediffuseError) else (ask, answer)
