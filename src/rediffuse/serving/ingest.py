"""Events as they arrive: one, an array, or a stream of lines; each is judged on its own."""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Any

import pydantic_core
from pydantic import ValidationError
from starlette.exceptions import HTTPException

from rediffuse.errors import InvalidInput
from rediffuse.serving.problems import worded
from rediffuse.serving.schemas import MOST_EVENTS, EventBody
from rediffuse.serving.service import Service
from rediffuse.serving.store import Event

LONGEST_LINE, GROUP, MOST_LINES = 64 * 1024, 1000, 100_000
STORED, KNOWN, INVALID, ERASED = 201, 200, 422, 410
_KIND = {STORED: "stored", KNOWN: "known"}


class Ingest:
    """What became of the events of one request."""

    def __init__(self, service: Service) -> None:
        """Nothing yet."""
        self.service, self.seq, self.said = service, 0, list[dict[str, Any]]()

    async def take(self, bodies: Sequence[object]) -> None:
        """Judge and keep events; an exception among them says why it is none. Raises: StorageError."""
        events, places = list[Event](), list[int]()
        for body in bodies:
            try:
                event = self._event(body)
            except (ValidationError, InvalidInput, ValueError) as error:
                why = worded(error, EventBody)[1] if isinstance(error, ValidationError) else str(error)
                given = body.get("event_id") if isinstance(body, dict) else None
                event_id = given[:256] if isinstance(given, str) else None
                self.said.append({"event_id": event_id, "status": INVALID, "message": why})
                continue
            places.append(len(self.said))
            events.append(event)
            self.said.append({"event_id": event.event_id, "status": STORED})
        if not events:
            return
        kept = await self.service.record(events)
        self.seq = kept.seq
        for place, accepted, erased in zip(places, kept.accepted, kept.refused, strict=True):
            if erased:
                self.said[place] |= {"status": ERASED, "message": "The user of this event was erased."}
            elif not accepted:
                self.said[place]["status"] = KNOWN

    def answer(self) -> dict[str, Any]:
        """All of it, in the order of the request."""
        counts = {"stored": 0, "known": 0, "refused": 0}
        for said in self.said:
            counts[_KIND.get(said["status"], "refused")] += 1
        return {"durable": True, "seq": self.seq, **counts, "events": self.said}

    def _event(self, given: object) -> Event:
        if isinstance(given, Exception):
            raise given
        body = EventBody.model_validate(given)
        return Event(
            event_id=body.event_id or self.service.clock.fresh(),
            item=body.item,
            kind=body.kind,
            time_us=body.time_us or self.service.clock.now_us(),
            user=body.user,
            anonymous=body.anonymous,
            session=body.session,
            value=body.value,
            quantity=body.quantity,
            context=body.context,
        )


def parsed(raw: bytes) -> tuple[list[Any], bool]:
    """The events of a body, and whether it is one alone and no array. Raises: HTTPException 400 or 422."""
    try:
        given = pydantic_core.from_json(raw, allow_inf_nan=False)
    except ValueError as error:
        raise HTTPException(400, f"The body is not JSON: {error}.") from None
    found = given if isinstance(given, list) else [given]
    if len(found) > MOST_EVENTS:
        raise HTTPException(422, f"{len(found)} events are too many: send {MOST_EVENTS} at once, or a stream of lines.")
    return found, not isinstance(given, list)


async def lines(chunks: AsyncIterator[bytes]) -> AsyncGenerator[list[Any]]:
    """The objects of a stream of lines, some at a time; where a line is none, the reason stands in its place.

    Raises: HTTPException 413 when a line, or the stream, has no end; what came before is kept.
    """
    rest, group, seen = b"", list[Any](), 0
    async for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            if len(line) > LONGEST_LINE or seen == MOST_LINES:
                raise HTTPException(413, _too_long(seen))
            if line.strip():
                seen += 1
                group.append(_object(line))
            if len(group) == GROUP:
                yield group
                group = []
        if len(rest) > LONGEST_LINE:
            raise HTTPException(413, _too_long(seen))
    if rest.strip():
        group.append(_object(rest))
    yield group


def _too_long(seen: int) -> str:
    return f"A line may have {LONGEST_LINE} bytes, a stream {MOST_LINES} lines; the first {seen // GROUP * GROUP} were read."


def _object(line: bytes) -> object:
    try:
        return pydantic_core.from_json(line, allow_inf_nan=False)
    except ValueError as error:
        return InvalidInput(f"This line is not JSON: {error}.")
