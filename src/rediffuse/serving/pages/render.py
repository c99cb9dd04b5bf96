"""From values to pages: templates, headers that allow nothing from elsewhere, and errors as pages."""

import hashlib
import json
from collections.abc import Callable, Coroutine, Mapping
from importlib.resources import files
from typing import Any

from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, Response
from fastapi.routing import APIRoute
from jinja2 import Environment, PackageLoader, StrictUndefined
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from rediffuse.errors import RediffuseError
from rediffuse.serving.pages.entry import token_of
from rediffuse.serving.problems import failed, problem, refused, worded

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'"
    ),
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}
_KINDS = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
_PLACE = files("rediffuse.serving.pages") / "static"
STATIC = {
    name: ((_PLACE / name).read_bytes(), _KINDS[name.rpartition(".")[2]])
    for name in ("style.css", "pages.js", "htmx.min.js", "icon.svg")
}
"""Name -> content and media type; nothing else is served."""
_MARK = hashlib.sha256(b"".join(content for content, _ in STATIC.values())).hexdigest()[:12]
_PAGES = Environment(
    loader=PackageLoader("rediffuse.serving.pages"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def page(
    request: Request, template: str, status: int = 200, headers: Mapping[str, str] | None = None, **values: Any
) -> Response:
    """A page. Args: values: what its template shows."""
    key = request.state.key if hasattr(request.state, "key") else None
    text = _PAGES.get_template(template).render(
        path=request.url.path,
        key=key,
        token=token_of(request.headers),
        static=_linked,
        **values,
    )
    return HTMLResponse(text, status, {**HEADERS, "Cache-Control": "no-store", **(headers or {})})


def _linked(name: str) -> str:
    """Where a file is; another content has another address, so browsers may keep it."""
    return f"/pages/static/{name}?{_MARK}"


def static(name: str) -> Response:
    """A file that pages need. Raises: HTTPException 404."""
    if name not in STATIC:
        raise HTTPException(404)
    content, kind = STATIC[name]
    return Response(content, 200, {**HEADERS, "Cache-Control": "public, max-age=31536000, immutable"}, kind)


def error_page(request: Request, error: Exception) -> Response:
    """What the API would say of an error, as a page; who has no key is asked for one."""
    answer = _said(error)
    message = json.loads(bytes(answer.body))["error"]["message"]
    kept = {name: value for name, value in answer.headers.items() if name in ("retry-after", "www-authenticate")}
    if answer.status_code == 401:
        # a page that polls is loaded anew, and asks then
        wanted = f"{request.url.path}?{request.url.query}".rstrip("?") if request.method == "GET" else "/shop"
        return page(request, "sign_in.html", 401, {**kept, "HX-Refresh": "true"}, wanted=wanted, message="")
    return page(request, "problem.html", answer.status_code, kept, message=message)


def turned_away(error: HTTPException) -> ASGIApp:
    """As `error_page`, where no route was reached."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        await error_page(Request(scope), error)(scope, receive, send)

    return answer


class PageRoute(APIRoute):
    """A route whose errors are pages."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler, and what it raises as a page."""
        inner = super().get_route_handler()

        async def handler(request: Request) -> Response:
            try:
                return await inner(request)
            except (HTTPException, RediffuseError, RequestValidationError, ValidationError) as error:
                return error_page(request, error)

        return handler


def _said(error: Exception) -> Response:
    """The answer of the API."""
    if isinstance(error, RequestValidationError | ValidationError):
        return problem(*worded(error))
    return failed(error) if isinstance(error, RediffuseError) else refused(error)  # pyright: ignore[reportArgumentType]
