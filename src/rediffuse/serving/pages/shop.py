"""The storefront: be anybody, look at things, and see what the list makes of it.

What happens goes through the ingest of the API, and lists come from its service, so this is what a shop would get.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import RedirectResponse, Response
from pydantic import Field
from starlette.exceptions import HTTPException

from rediffuse.errors import UnsupportedOption
from rediffuse.serving.engine import Ask, Place
from rediffuse.serving.ingest import INVALID, Ingest
from rediffuse.serving.pages.entry import fields_of
from rediffuse.serving.pages.goods import Card, Goods, Window
from rediffuse.serving.pages.render import PageRoute
from rediffuse.serving.pages.render import page as rendered
from rediffuse.serving.past import Past
from rediffuse.serving.schemas import MOST_DRAWS, Body, User, Word
from rediffuse.serving.security import needs
from rediffuse.serving.service import Given, Service
from rediffuse.serving.telemetry import Metrics
from rediffuse.types import Options

K, RECENT, SOME_USERS = 8, 6, 50
_read, _write = needs("read"), needs("write")
ACTS = {"view": "Viewed", "cart": "Put into the basket:"}
"""What can be done with an item -> how it is told."""
ELSEWHERE = "0"
"""In place of a rank: the item was not found in the list."""
WHY_LESS = {"one_draw": "one draw only", "classic": "a quicker model", "popular": "what is popular"}
"""Rung of `ladder.py` -> what answered instead of the whole method."""


class Person(Body):
    """Who one is in the shop, and how lists are asked for."""

    user: User | None = None
    anonymous: Word | None = None
    draws: int = Field(default=1, ge=1, le=MOST_DRAWS)

    @property
    def name(self) -> str:
        """For the eye."""
        return self.user if self.user is not None else f"visitor {str(self.anonymous)[:6]}"

    @property
    def link(self) -> str:
        """The shop as this person."""
        given = {"user": self.user, "visitor": self.anonymous, "draws": None if self.draws == 1 else self.draws}
        return "/shop?" + urlencode({name: value for name, value in given.items() if value is not None})


@dataclass(frozen=True)
class Search:
    """What is looked for among all items."""

    words: str = ""
    category: str = ""
    page: int = 1


@dataclass(frozen=True)
class Shown:
    """A card in the list, and why it is there."""

    card: Card
    rank: int
    moved: int | None
    """Places that it rose; None: it was not in the list before."""
    place: Place
    because: tuple[Card, ...]

    @property
    def chance(self) -> str:
        """Its probability, in percent; empty where none is known."""
        if self.place.p is None:
            return ""
        return f"{100 * self.place.p:.0f} %" if self.place.p >= 0.1 else f"{100 * self.place.p:.1f} %"


@dataclass(frozen=True)
class Feed:
    """The list of a person."""

    given: Given
    shown: tuple[Shown, ...]
    recent: tuple[Card, ...]
    """What the list rests on, newest first."""
    notes: tuple[str, ...]

    @property
    def widest(self) -> float:
        """The largest uncertainty in the list."""
        return max((shown.place.spread or 0.0 for shown in self.shown), default=0.0)


@dataclass(frozen=True)
class Lists:
    """Asks for the list of a person, as the API does."""

    service: Service
    metrics: Metrics

    async def feed(self, person: Person, goods: Goods, before: Given | None = None, min_seq: int | None = None) -> Feed:
        """Args: before: the list that it is compared with.   min_seq: what it must know of."""
        notes = list[str]()
        try:
            given = await self._asked(person, person.draws, min_seq)
        except UnsupportedOption:
            given = await self._asked(person, 1, min_seq)
            notes.append("This model does not draw, so it tells no uncertainty.")
        return Feed(given, tuple(_shown(given, before, goods)), _recent(given, goods), (*notes, *_notes(given)))

    async def _asked(self, person: Person, draws: int, min_seq: int | None) -> Given:
        ask = Ask(user=person.user, k=K, reasons=True, options=Options(draws=draws))
        given = await self.service.recommend(ask, anonymous=person.anonymous, min_seq=min_seq)
        self.metrics.listed(given.answered)
        return given


def shop(service: Service, metrics: Metrics) -> APIRouter:
    """The routes of the storefront."""
    router = APIRouter(route_class=PageRoute, include_in_schema=False)
    window, lists = Window(service), Lists(service, metrics)
    users = service.past.dataset.users.items.ids[:SOME_USERS] if isinstance(service.past, Past) else ()

    def render(
        request: Request,
        person: Person,
        goods: Goods,
        feed: Feed,
        search: Search = Search(),
        said: str = "",
        wrong: str = "",
    ) -> Response:
        rights = request.state.key.rights
        return rendered(
            request,
            "shop.html",
            person=person,
            feed=feed,
            search=search,
            categories=goods.categories,
            found=goods.find(search.words, search.category, search.page),
            users=users if "admin" in rights else (),
            fresh=service.clock.fresh(),
            may_act="write" in rights,
            said=said,
            wrong=wrong,
        )

    @router.get("/")
    async def root() -> Response:
        return RedirectResponse("/shop", 303)

    @router.get("/shop", dependencies=[Depends(_read)])
    async def storefront(
        request: Request,
        user: str = "",
        visitor: str = "",
        draws: int = 1,
        words: Annotated[str, Query(max_length=200)] = "",
        category: Annotated[str, Query(max_length=200)] = "",
        page: Annotated[int, Query(ge=1, le=10**6)] = 1,
    ) -> Response:
        if not (user or visitor):
            person = Person(anonymous=service.clock.fresh()[:16], draws=draws)
            return RedirectResponse(person.link, 303)
        person = _person(user, visitor, draws)
        if user and visitor:
            return RedirectResponse(person.link, 303)
        goods = await asyncio.to_thread(window.goods)
        return render(request, person, goods, await lists.feed(person, goods), Search(words, category, page))

    @router.get("/shop/acts")
    async def again() -> Response:
        """Where a form was sent to is no page."""
        return RedirectResponse("/shop", 303)

    @router.post("/shop/acts", dependencies=[Depends(_read), Depends(_write)])
    async def act(request: Request) -> Response:
        """Something is done with an item; the event's id stands in the form, so a form sent twice counts once."""
        fields = await fields_of(request)
        person = _person(fields.get("user", ""), fields.get("visitor", ""), _whole(fields.get("draws", "1")))
        kind = next((name for name in ACTS if name in fields), None)
        if kind is None:
            raise HTTPException(422, f"The form names nothing that is done: {', '.join(ACTS)}.")
        body = _event(person, kind, fields)
        goods = await asyncio.to_thread(window.goods)
        before = await lists.feed(person, goods)
        took = Ingest(service)
        await took.take([body])
        told = took.answer()
        metrics.told(told)
        if told["refused"]:
            why = told["events"][0]
            if why["status"] == INVALID:
                raise HTTPException(422, why["message"])
            return render(request, person, goods, before, wrong=why["message"])
        after = await lists.feed(person, goods, before.given, told["seq"])
        said = f"{ACTS[kind]} {goods.card(body['item']).title}. {_changes(after)}"
        return render(request, person, goods, after, said=said)

    return router


def _person(user: str, visitor: str, draws: int) -> Person:
    """Whom the fields name; a user before a visitor. Raises: ValidationError."""
    return Person(user=user or None, anonymous=None if user else visitor or None, draws=draws)


def _event(person: Person, kind: str, fields: Mapping[str, str]) -> dict[str, Any]:
    """What a form says was done, as the body of an event."""
    rank, _, item = fields[kind].partition(" ")
    followed = {"recommendation_id": fields.get("recommendation_id", ""), "list_position": rank}
    return {
        "event_id": fields.get("event_id"),
        "item": item,
        "kind": kind,
        "user": person.user,
        "anonymous": person.anonymous,
        "context": {"placement": "storefront", **({} if rank == ELSEWHERE else followed)},
    }


def _shown(given: Given, before: Given | None, goods: Goods) -> list[Shown]:
    """The list as cards. Args: before: the list that it is compared with; None: nothing has moved."""
    ranks = {place.item_id: place.rank for place in (before or given).answered.items}
    out = list[Shown]()
    for place in given.answered.items:
        was = ranks.get(place.item_id)
        because = goods.cards(reason.item_id for reason in place.reasons if reason.item_id is not None)
        out.append(
            Shown(
                replace(goods.card(place.item_id), title=place.title),
                place.rank,
                None if was is None else was - place.rank,
                place,
                tuple(because),
            )
        )
    return out


def _recent(given: Given, goods: Goods) -> tuple[Card, ...]:
    newest = list(dict.fromkeys(reversed(given.ask.told)))
    return tuple(goods.cards(newest[:RECENT]))


def _notes(given: Given) -> list[str]:
    """What keeps the list from being all that it could be."""
    answered = given.answered
    notes = [f"Not known to the model: {', '.join(answered.unknown)}."] if answered.unknown else []
    if answered.degraded is not None:
        busy = "the service is busy" if answered.because == "overload" else "the model failed"
        notes.append(f"This is {WHY_LESS[answered.degraded]}: {busy}.")
    if given.stale:
        notes.append("The newest event is not in this list yet.")
    return notes


def _changes(feed: Feed) -> str:
    """How many places hold another item than before."""
    changed = sum(shown.moved != 0 for shown in feed.shown)
    return f"{changed} of {len(feed.shown)} recommendations changed." if changed else "The recommendations stay."


def _whole(text: str) -> int:
    if not text.isdecimal():
        raise HTTPException(422, "The number of draws is no number.")
    return int(text[:9])
