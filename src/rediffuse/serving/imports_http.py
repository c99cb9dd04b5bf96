"""Imports over HTTP: a file as the body of a request, its report as the answer."""

import re
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query, Request
from fastapi import Path as InPath
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from starlette.exceptions import HTTPException

from rediffuse.data.importers.products import Level
from rediffuse.data.importers.times import TimeUnit
from rediffuse.errors import say
from rediffuse.serving.imports import BAD_ROWS, Import, Imports, Reading, State
from rediffuse.serving.problems import documented, refused
from rediffuse.serving.schemas import Answer
from rediffuse.serving.security import Entrance, needs

PATH, KIND = "/v1/imports", "application/octet-stream"
_FILE = {"content": {KIND: {"schema": {"type": "string", "format": "binary"}}}, "required": True}
_PAIR = re.compile(r"([^=]{1,256})=([^=]{1,256})")

Format = Literal["auto", "merchant", "ga4", "shopify", "retail_v2", "personalize", "segment", "table"]
Pairs = Annotated[list[Annotated[str, StringConstraints(max_length=513)]], Field(max_length=64)]


class HowToRead(BaseModel):
    """What the query may say of a file."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    form: Format = Field(default="auto", alias="format")
    level: Level | None = None
    """What the model recommends."""
    time_unit: TimeUnit | None = None
    """Of times that are numbers."""
    columns: Pairs | None = Field(default=None, alias="map")
    """`ours=theirs` each."""
    event_type: Pairs | None = None
    """`ours=theirs` each."""
    bad_rows: float = Field(default=BAD_ROWS, ge=0, le=1)
    """Share of rows that may be left out because they cannot stand."""
    wait_s: float = Field(default=20.0, ge=0, le=60)
    """Seconds that the answer may wait for the end."""


class ImportSaid(Answer):
    """What became of a file."""

    id: str
    state: State
    """waiting, running, done; or failed, and then nothing of it was kept."""
    holds: Literal["products", "events"] | None
    form: str | None
    """Its format."""
    rows: int
    """Events or products that were read."""
    kept: int
    known: int
    """Of those that were kept, the events that were there already."""
    unknown_items: int
    """Events or products whose item the model of now does not know."""
    left_out: dict[str, int]
    """Reason -> rows."""
    first: list[str]
    """The first rows that could not stand."""
    seq: int | None
    """Place in the store up to which all of it is."""
    message: str | None
    """Why it failed, or what it waits for."""


def entrance(most: int) -> Entrance:
    """How files come in. Args: most: bytes of one."""
    return Entrance(re.compile(re.escape(PATH)), refused, kind=KIND, most=most)


def importing(imports: Imports) -> APIRouter:
    """Imports and their reports."""
    router = APIRouter(tags=["imports"], dependencies=[Depends(needs("admin"))])
    waits = {202: {"model": ImportSaid, "description": "Not done yet: `GET /v1/imports/{id}` tells when it is."}}

    @router.post(
        PATH,
        response_model=ImportSaid,
        responses=documented(400, 408, 413, 415) | waits,
        openapi_extra={"requestBody": _FILE},
    )
    async def take(request: Request, how: Annotated[HowToRead, Query()]) -> Response:
        """Take in a feed of products or a log of events, as `rediffuse import` reads them: all of it or nothing."""
        given = {"time_unit": how.time_unit, "columns": _pairs(how.columns), "event_types": _pairs(how.event_type)}
        options = {name: value for name, value in given.items() if value}
        found = await imports.take(request.stream(), Reading(how.form, how.level, options, how.bad_rows))
        await imports.finish(found.id, how.wait_s)
        if found.state == "failed":
            raise HTTPException(422, str(found.message))
        return _said(found, 200 if found.state == "done" else 202)

    @router.get(f"{PATH}/{{name}}", response_model=ImportSaid, responses=documented(404))
    async def tell(name: Annotated[str, InPath(pattern=r"^[0-9a-f]{32}$")]) -> Response:
        """What became of a file that took long; the newest are remembered until the service ends."""
        found = imports.find(name)
        if found is None:
            raise HTTPException(404, say("There is no import of this name, or not any more", got=name))
        return _said(found, 200)

    return router


def _said(found: Import, status: int) -> Response:
    headers = {"Location": f"{PATH}/{found.id}"}
    return Response(ImportSaid(**asdict(found)).model_dump_json(), status, headers, "application/json")


def _pairs(texts: Sequence[str] | None) -> dict[str, str]:
    """`ours=theirs` each. Raises: HTTPException 422."""
    found = {text: _PAIR.fullmatch(text) for text in texts or ()}
    for text, pair in found.items():
        if pair is None:
            raise HTTPException(
                422, say("A pair is written name=name", got=text, remedy="For example: map=user=customer")
            )
    return {pair[1]: pair[2] for pair in found.values() if pair}
