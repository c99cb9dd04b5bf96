"""The view of the running service: traffic, times, queue, models, and how fresh the data is."""

import asyncio
from dataclasses import dataclass

from fastapi import APIRouter, Depends, Request
from fastapi.responses import RedirectResponse, Response
from starlette.exceptions import HTTPException

from rediffuse.errors import RediffuseError
from rediffuse.serving.pages.entry import fields_of
from rediffuse.serving.pages.render import PageRoute, page
from rediffuse.serving.pages.watch import QUANTILES, Sight, Watch
from rediffuse.serving.security import needs
from rediffuse.serving.service import Service
from rediffuse.serving.store import StoreState
from rediffuse.serving.telemetry import Metrics
from rediffuse.serving.versions import NAME, Listed

_LATEST = 100
"""Changes of the store that are searched for the newest event."""
_WIDE, _HIGH = 240.0, 48.0
"""Size of the drawn curve."""
_read, _admin = needs("read"), needs("admin")


@dataclass(frozen=True)
class Model:
    """What answers."""

    name: str
    version: str
    method: str
    items: int
    loaded: str
    until: str
    """How old the newest event is that it was trained on."""


@dataclass(frozen=True)
class Figures:
    """All that is shown of a moment."""

    sight: Sight
    depth: int
    wait_ms: float
    rung: str
    state: StoreState
    newest: str
    """How old the newest event of the store is."""
    model: Model
    ready: bool

    @property
    def curve(self) -> str:
        """The requests a second as points of a line; empty before there are two."""
        values = self.sight.curve
        top = max((*values, 1.0))
        if len(values) < 2:
            return ""
        step = _WIDE / (len(values) - 1)
        return " ".join(f"{n * step:.1f},{_HIGH - 2 - (_HIGH - 4) * v / top:.1f}" for n, v in enumerate(values))


def ops(service: Service, metrics: Metrics) -> APIRouter:
    """The routes of the view."""
    router = APIRouter(prefix="/ops", route_class=PageRoute, include_in_schema=False)
    watch = Watch(metrics, service.clock.seconds)

    async def figures() -> Figures:
        state = await asyncio.to_thread(service.store.state)
        latest = await asyncio.to_thread(service.store.since, max(state.seq - _LATEST, 0), _LATEST)
        newest = max((event.time_us for _, event in latest), default=None)
        now_us, checks = service.clock.now_us(), await service.ready()
        with service.versions.current() as version:
            model, until = version.engine.model, version.engine.model.folder.data.get("until_us")
            shown = Model(
                version.name,
                version.engine.version,
                model.method,
                len(model.items),
                age(now_us - version.loaded_us),
                age(None if until is None else now_us - until),
            )
        return Figures(
            watch.look(),
            service.batcher.depth,
            1000 * service.batcher.wait_s,
            service.ladder.rung.label,
            state,
            age(None if newest is None else now_us - newest),
            shown,
            all(checks.values()),
        )

    async def render(request: Request, status: int = 200, said: str = "", wrong: str = "") -> Response:
        admin = "admin" in request.state.key.rights
        models: list[Listed] = await asyncio.to_thread(service.models) if admin else []
        return page(
            request,
            "ops.html",
            status,
            figures=await figures(),
            quantiles=QUANTILES,
            models=models,
            admin=admin,
            live=request.query_params.get("live") != "off",
            said=said,
            wrong=wrong,
        )

    @router.get("", dependencies=[Depends(_read)])
    async def whole(request: Request) -> Response:
        return await render(request)

    @router.get("/live", dependencies=[Depends(_read)])
    async def live(request: Request) -> Response:
        """What changes by itself."""
        return page(request, "_live.html", figures=await figures(), quantiles=QUANTILES, live=True)

    @router.get("/models")
    async def again() -> Response:
        """Where a form was sent to is no page."""
        return RedirectResponse("/ops", 303)

    @router.post("/models", dependencies=[Depends(_admin)])
    async def change(request: Request) -> Response:
        """Another model answers, or the one before; where it is not sound, the one that answers stays."""
        fields = await fields_of(request)
        name = fields.get("promote")
        if name is None and "rollback" not in fields:
            raise HTTPException(422, "The form names no model to promote, and no rollback.")
        if name is not None and not NAME.fullmatch(name):
            raise HTTPException(422, "No name of a model: small letters, digits, _ and -.")
        try:
            found = await (service.rollback() if name is None else service.promote(name))
        except RediffuseError as error:
            return await render(request, 409, wrong=str(error))
        return await render(request, said=f"{found.name} answers now.")

    return router


def age(us: int | None) -> str:
    """A length of time in words, in its largest unit. Args: us: microseconds; None: not known."""
    if us is None:
        return "not known"
    seconds = max(us, 0) / 1e6
    for unit, length in (("days", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
