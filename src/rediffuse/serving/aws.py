"""The runtime of AWS Personalize, as far as shops call it, on our engine and store: `docs/aws.md` tells how.

POST /aws/recommendations        GetRecommendations
POST /aws/personalize-ranking    GetPersonalizedRanking
POST /aws/events                 PutEvents
"""

import asyncio
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace

from fastapi import APIRouter, Depends
from fastapi.responses import Response
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from rediffuse.data.importers.personalize import kind_of
from rediffuse.errors import InvalidInput, say
from rediffuse.serving.aws_shapes import (
    PREFIX,
    USUAL,
    GetPersonalizedRanking,
    GetRecommendations,
    OneEvent,
    Predicted,
    PutEvents,
    Ranked,
    Recommended,
    refusals,
)
from rediffuse.serving.engine import Ask
from rediffuse.serving.problems import invalid
from rediffuse.serving.security import needs
from rediffuse.serving.service import Clock, Given, Service
from rediffuse.serving.store import Event, anonymous_subject
from rediffuse.serving.telemetry import Metrics

_BODY = (400, 404, 408, 413, 415)
_FILTER = re.compile(r".*:filter/where")
_PLAIN = re.compile(r"[a-z][a-z0-9_-]{0,31}")
_VALUE = re.compile(r'"([^"]*)"|([^",\s]+)')


def speaking(service: Service, metrics: Metrics) -> APIRouter:
    """The routes."""
    router = APIRouter(prefix=PREFIX, tags=["AWS Personalize"])
    reads, writes = [Depends(needs("read"))], [Depends(needs("write"))]

    async def answered(ask: Ask) -> Given:
        anonymous = None
        if ask.user is not None and await asyncio.to_thread(_is_visitor, service, ask.user):
            ask, anonymous = replace(ask, user=None), ask.user
        given = await service.recommend(ask, anonymous=anonymous)
        metrics.listed(given.answered)
        return given

    @router.post("/recommendations", dependencies=reads, response_model=Recommended, responses=refusals(409, *_BODY))
    async def recommendations(asked: GetRecommendations) -> Response:
        """GetRecommendations: the best items for a user, or beside an item."""
        where = conditions(asked.filter_arn, asked.filter_values)
        ask = Ask(
            user=asked.user_id, item=asked.item_id, k=asked.num_results or USUAL, where=where, context=asked.moment
        )
        given = await answered(ask)
        return _json(Recommended(item_list=_places(given), recommendation_id=given.recommendation_id))

    @router.post("/personalize-ranking", dependencies=reads, response_model=Ranked, responses=refusals(409, *_BODY))
    async def ranking(asked: GetPersonalizedRanking) -> Response:
        """GetPersonalizedRanking: given items in a user's order, those that have no place in it at the end."""
        items = tuple(dict.fromkeys(asked.input_list))
        where = conditions(asked.filter_arn, asked.filter_values)
        ask = Ask(user=asked.user_id, k=len(items), where=where, context=asked.moment, candidates=items, exclude=())
        given = await answered(ask)
        placed = {place.item_id for place in given.answered.items}
        rest = [Predicted(item_id=item) for item in items if item not in placed]
        return _json(Ranked(personalized_ranking=[*_places(given), *rest], recommendation_id=given.recommendation_id))

    @router.post("/events", dependencies=writes, response_class=Response, responses=refusals(*_BODY))
    async def events(put: PutEvents) -> Response:
        """PutEvents: all of them are on disk when the answer comes, or none is kept."""
        with invalid():
            told = list(events_of(put, service.clock))
        kept = await service.record(told)
        stored, refused = sum(kept.accepted), sum(kept.refused)
        metrics.told({"stored": stored, "known": len(told) - stored - refused, "refused": refused})
        if refused:
            raise HTTPException(422, "The user of these events was erased.")
        return Response()

    return router


def conditions(arn: str | None, values: Mapping[str, str]) -> tuple[str, ...]:
    """The conditions that a filter stands for: values of attributes, quoted and parted by commas as clients write them.

    Raises: HTTPException 404 for a filter that there is not.
    """
    if arn is None:
        return ()
    if not _FILTER.fullmatch(arn):
        remedy = "Name it, and give attributes and their values as filterValues"
        raise HTTPException(404, say("There is one filter", got=arn, allowed="arn:..:filter/where", remedy=remedy))
    return tuple(
        f"{name}={'|'.join(quoted or bare for quoted, bare in _VALUE.findall(text))}" for name, text in values.items()
    )


def events_of(put: PutEvents, clock: Clock) -> Iterator[Event]:
    """Our events of theirs: what was shown beside an event is one of its own for each item.

    Raises: InvalidInput for what is no event.
    """
    for one in put.event_list:
        properties = _properties(one)
        event_id, item = one.event_id or clock.fresh(), one.item_id or properties.pop("itemId", None)
        if item is None and not one.impression:
            raise InvalidInput(say("An event needs an item", got=one.event_type, remedy="Give itemId or impression"))
        context = dict(properties)
        if one.recommendation_id is not None:
            context["recommendation_id"] = one.recommendation_id
        if one.metric_attribution is not None:
            context["source"] = one.metric_attribution.event_attribution_source
        seen = [] if item is None else [(event_id, item, _kind(one.event_type), one.event_value, context)]
        for place, shown in enumerate(one.impression or ()):
            name = hashlib.blake2b(f"{event_id}\x1f{place}".encode(), digest_size=16).hexdigest()
            seen.append((name, shown, "impression", None, {**context, "list_position": str(place)}))
        for name, thing, kind, value, moment in seen:
            yield Event(
                event_id=name,
                item=thing,
                kind=kind,
                time_us=round(one.sent_at * 1_000_000),
                user=put.user_id,
                anonymous=put.session_id,
                session=put.session_id,
                value=value,
                context=moment,
            )


def _kind(word: str) -> str:
    """Ours for theirs. Raises: InvalidInput where it is none and no plain word either."""
    kind = kind_of(word) or word.lower()
    if not _PLAIN.fullmatch(kind):
        raise InvalidInput(say("eventType is no plain word", got=word, allowed="a-z, 0-9, _ and -, up to 32"))
    return kind


def _properties(one: OneEvent) -> dict[str, str]:
    """Properties as text. Raises: InvalidInput when they are no object."""
    given = one.properties
    try:
        told = json.loads(given) if isinstance(given, str) else given
    except (ValueError, RecursionError):
        told = given
    if told is None:
        return {}
    if not isinstance(told, dict):
        raise InvalidInput(say("properties must be a JSON object", got=str(given)[:80]))
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in told.items()}


def _is_visitor(service: Service, name: str) -> bool:
    """Whether a name that no user has is a session's: clients ask for visitors by it."""
    store = service.store
    if store.history(name, 1) or service.past(name):
        return False
    subject = anonymous_subject(name)
    return store.owner(subject) != subject or bool(store.history(subject, 1))


def _places(given: Given) -> list[Predicted]:
    answer = given.answered
    reason = [why for why in (answer.fallback, answer.degraded) if why is not None] or None
    return [Predicted(item_id=place.item_id, score=place.score, reason=reason) for place in answer.items]


def _json(said: BaseModel) -> Response:
    return Response(said.model_dump_json(exclude_none=True, by_alias=True), media_type="application/json")
