"""All pages: signing in and out, files, the shop, the view of the service."""

from typing import Literal

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response

from rediffuse.serving.keys import KeyRing
from rediffuse.serving.pages.entry import COOKIE, FORM, KEYLESS, LOCKED, fields_of, place_after, secret_of
from rediffuse.serving.pages.ops import ops
from rediffuse.serving.pages.render import PageRoute, page, static, turned_away
from rediffuse.serving.pages.shop import shop
from rediffuse.serving.security import Entrance
from rediffuse.serving.service import Service
from rediffuse.serving.telemetry import Metrics

ENTRANCES = (
    Entrance(LOCKED, turned_away, secret=secret_of, kind=FORM),
    Entrance(KEYLESS, turned_away, kind=FORM, keyless=True),
)
"""How pages are entered."""


def pages(service: Service, metrics: Metrics, keys: KeyRing | None) -> APIRouter:
    """Every page. Args: keys: as of `create_app`."""
    router = APIRouter(include_in_schema=False)
    for part in (entering(keys), shop(service, metrics), ops(service, metrics)):
        router.include_router(part)
    return router


def entering(keys: KeyRing | None) -> APIRouter:
    """Signing in and out, and the files that pages need."""
    router = APIRouter(prefix="/pages", route_class=PageRoute, include_in_schema=False)

    @router.get("/sign-in")
    async def ask(request: Request) -> Response:
        return page(request, "sign_in.html", wanted="/shop", message="")

    @router.post("/sign-in")
    async def sign_in(request: Request) -> Response:
        fields = await fields_of(request, signed=False)
        secret, wanted = fields.get("key", "").strip(), place_after(fields.get("wanted", ""))
        if keys is not None and keys.find(secret) is None:
            message = "This is no key of the service. Keys are made with: rediffuse keys add NAME --scope read,write"
            return page(request, "sign_in.html", 401, wanted=wanted, message=message)
        answer = RedirectResponse(wanted, 303)
        if keys is not None:
            answer.set_cookie(COOKIE, secret, httponly=True, samesite=STRICT, secure=request.url.scheme == "https")
        return answer

    @router.post("/sign-out")
    async def sign_out(request: Request) -> Response:
        await fields_of(request)
        answer = RedirectResponse("/pages/sign-in", 303)
        answer.delete_cookie(COOKIE, httponly=True, samesite=STRICT)
        return answer

    @router.get("/static/{name}")
    async def file(name: str) -> Response:
        return static(name)

    return router


STRICT: Literal["strict"] = "strict"
"""Of the cookie: no other site's page or link brings it along."""
