"""HTTP around the service: bodies in, answers out; no tensors, and no thought of its own."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi import Path as InPath
from fastapi.params import Depends as Dependency
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel
from starlette.exceptions import HTTPException

import rediffuse
from rediffuse.errors import InvalidInput
from rediffuse.serving import aws, aws_shapes, imports_http
from rediffuse.serving.document import EVENTS, describing
from rediffuse.serving.imports import Imports
from rediffuse.serving.ingest import INVALID, Ingest, lines, parsed
from rediffuse.serving.keys import KeyRing, Right
from rediffuse.serving.pages.routes import ENTRANCES, pages
from rediffuse.serving.problems import broken, documented, failed, handle_all, invalid, refused
from rediffuse.serving.room import Room
from rediffuse.serving.schemas import (
    ErasureSaid,
    EventsSaid,
    Health,
    ItemBody,
    ItemsBody,
    ItemsSaid,
    ModelName,
    Question,
    Recommendation,
    VersionSaid,
    VersionsSaid,
    Word,
)
from rediffuse.serving.security import STREAM, Guard, needs
from rediffuse.serving.service import Service
from rediffuse.serving.telemetry import Metrics, Observed
from rediffuse.serving.translation import ask_of, item_of, recommendation_of

BODY = (400, 408, 413, 415)
"""What can be wrong with any body, besides its content."""
QUESTIONS = frozenset({"/v1/recommendations", "/aws/recommendations", "/aws/personalize-ranking"})
"""Routes that wait for the model."""
_METRICS = {200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "For Prometheus."}}
_PARTLY = {207: {"model": EventsSaid, "description": "Some events were refused; each says why."}}


def create_app(service: Service, keys: KeyRing | None = None) -> FastAPI:
    """The application. Args: keys: None: nobody is asked for one; see `Settings.check_exposure`."""
    metrics = Metrics()
    metrics.watch("queue", "Questions that wait.", lambda: service.batcher.depth)
    chosen = service.settings
    imports = Imports(service, chosen.imports, chosen.import_s)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        imports.resume()
        yield
        await imports.close()
        await service.close()

    # The usual pages that show the document load scripts from elsewhere: none are served.
    app = FastAPI(
        title="rediffuse", version=rediffuse.__version__, lifespan=lifespan, openapi_url=None, redirect_slashes=False
    )
    for router in (asking(service, metrics), telling(service, metrics), running(service, metrics), watching(service)):
        app.include_router(router)
    app.include_router(aws.speaking(service, metrics))
    app.include_router(imports_http.importing(imports))
    app.include_router(pages(service, metrics, keys))
    app.include_router(describing(app, locked=keys is not None))
    handle_all(app)
    app.add_middleware(
        Guard,
        settings=chosen,
        keys=keys,
        clock=service.clock.seconds,
        problem=refused,
        entrances=(*ENTRANCES, imports_http.entrance(chosen.import_bytes)),
    )
    app.add_middleware(Observed, metrics=metrics, problem=broken)
    # Before anything else, the log too: a refusal must cost less than an answer.
    app.add_middleware(Room, paths=QUESTIONS, check=service.check_room, problem=failed, count=metrics.turned_away)
    app.add_middleware(aws_shapes.Errors)
    return app


def asking(service: Service, metrics: Metrics) -> APIRouter:
    """Recommendations."""
    router = APIRouter(tags=["recommendations"], dependencies=[_needs("read")])

    @router.post("/v1/recommendations", response_model=Recommendation, responses=documented(409, *BODY))
    async def recommend(question: Question) -> Response:
        """The k best items for a user, after a posted history, or beside an item."""
        deadline_s = None if question.deadline_ms is None else question.deadline_ms / 1000
        given = await service.recommend(
            ask_of(question, fresh=int(service.clock.fresh()[:13], 16)),
            anonymous=question.anonymous,
            exclude=question.exclude,
            min_seq=question.min_seq,
            deadline_s=deadline_s,
        )
        metrics.listed(given.answered)
        return _json(recommendation_of(given))

    return router


def telling(service: Service, metrics: Metrics) -> APIRouter:
    """Events, items, and the right to be forgotten."""
    router = APIRouter()

    @router.post(
        "/v1/events",
        tags=["events"],
        dependencies=[_needs("write")],
        response_model=EventsSaid,
        responses=documented(*BODY) | _PARTLY,
        openapi_extra={"requestBody": EVENTS},
    )
    async def record(request: Request) -> Response:
        """Keep events: one, an array, or a stream with one a line. Each is judged on its own."""
        took = Ingest(service)
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() == STREAM:
            async for group in lines(request.stream()):
                await took.take(group)
        else:
            given, alone = parsed(await request.body())
            await took.take(given)
            if alone and took.said[0]["status"] == INVALID:
                raise HTTPException(422, took.said[0]["message"])
        said = took.answer()
        metrics.told(said)
        return JSONResponse(said, 207 if said["refused"] else 200)

    @router.put(
        "/v1/items/{item:path}",
        tags=["items"],
        dependencies=[_needs("write")],
        response_model=ItemsSaid,
        responses=documented(404, *BODY),
    )
    async def put_item(item: Annotated[Word, InPath()], body: ItemBody) -> Response:
        """Say what is known of an item today, in place of what was said before."""
        return _json(ItemsSaid(seq=await service.put_items([item_of(item, body)]), items=1))

    @router.post(
        "/v1/items",
        tags=["items"],
        dependencies=[_needs("write")],
        response_model=ItemsSaid,
        responses=documented(*BODY),
    )
    async def put_items(body: ItemsBody) -> Response:
        """As for one, for many: all or none."""
        items = [item_of(each.item, each) for each in body.items]
        return _json(ItemsSaid(seq=await service.put_items(items), items=len(items)))

    @router.delete(
        "/v1/users/{user:path}",
        tags=["users"],
        dependencies=[_needs("admin")],
        response_model=ErasureSaid,
        responses=documented(404),
    )
    async def erase(user: Annotated[Word, InPath()]) -> Response:
        """Forget a user, or with `p:` before the id a visitor: their events are gone and refused from now on."""
        with invalid():
            receipt = await service.erase(user)
        return _json(ErasureSaid(**asdict(receipt), sha256=receipt.sha256))

    return router


def running(service: Service, metrics: Metrics) -> APIRouter:
    """Models, and what can be watched."""
    router = APIRouter()
    admin = [_needs("admin")]

    @router.get("/v1/models", tags=["models"], dependencies=admin, response_model=VersionsSaid, responses=documented())
    async def models() -> Response:
        """Models that answer or could."""
        return _json(VersionsSaid(models=[VersionSaid(**asdict(listed)) for listed in service.models()]))

    @router.post(
        "/v1/models/{name}/promote",
        tags=["models"],
        dependencies=admin,
        response_model=VersionsSaid,
        responses=documented(404, 409),
    )
    async def promote(name: Annotated[ModelName, InPath()]) -> Response:
        """Verify a model, warm it up and let it answer; one that is not sound changes nothing."""
        try:
            await service.promote(name)
        except InvalidInput as error:
            if all(listed.name != name for listed in service.models()):
                raise HTTPException(404, str(error)) from None
            raise
        return await models()

    @router.post(
        "/v1/models/rollback",
        tags=["models"],
        dependencies=admin,
        response_model=VersionsSaid,
        responses=documented(409),
    )
    async def rollback() -> Response:
        """Let the model before this one answer again."""
        await service.rollback()
        return await models()

    @router.get("/metrics", tags=["watching"], dependencies=[_needs("read")], responses=documented() | _METRICS)
    async def read_metrics() -> Response:
        """Counters, for Prometheus."""
        return Response(metrics.text(), media_type="text/plain; version=0.0.4")

    return router


def watching(service: Service) -> APIRouter:
    """Whether it lives; the only routes that nobody needs a key for."""
    router = APIRouter(tags=["watching"])

    @router.get("/health/live", response_model=Health)
    async def live() -> Response:
        """The process answers."""
        return _json(Health(status="ok"))

    @router.get("/health/ready", response_model=Health, responses={503: {"model": Health}})
    async def ready() -> Response:
        """A model is loaded and warm, and the store can be read."""
        checks = await service.ready()
        whole = all(checks.values())
        return _json(Health(status="ok" if whole else "not ready", checks=checks), 200 if whole else 503)

    return router


def _needs(right: Right) -> Dependency:
    return Depends(needs(right))


def _json(said: BaseModel, status: int = 200) -> Response:
    return Response(said.model_dump_json(), status, media_type="application/json")
