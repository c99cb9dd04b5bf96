"""One shape for every error, and one table from what went wrong to its status."""

import math
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any, get_args

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from rediffuse.errors import (
    ArtifactError,
    InvalidConfig,
    InvalidInput,
    RediffuseError,
    StorageError,
    UnsupportedOption,
    unknown,
)
from rediffuse.serving.batcher import Closing, DeadlinePassed, Overloaded
from rediffuse.serving.schemas import Problem
from rediffuse.serving.versions import NoModel

KINDS = {
    400: "not_json",
    401: "no_key",
    403: "forbidden",
    404: "not_found",
    405: "no_such_method",
    408: "too_slow",
    409: "not_possible",
    413: "too_large",
    415: "unsupported_media_type",
    422: "invalid",
    429: "too_many",
    431: "too_large",
    500: "internal",
    503: "unavailable",
}
"""Status -> the word that programs can compare."""
MEANINGS = {
    400: "The body is not JSON.",
    401: "There is no key, or not one of ours.",
    403: "The key lacks the scope of this route.",
    404: "There is nothing of this name.",
    405: "The route has no such method; `Allow` names those that it has.",
    408: "The body did not come in time.",
    409: "Understood, but not possible with the model or the state of now.",
    413: "The body is too long.",
    415: "The body is of another type, or compressed.",
    422: "The body or a parameter is not what it should be; the message names it.",
    429: "Too many requests, of this key or at all; `Retry-After` says when to come again.",
    431: "The request line and the headers are too long.",
    503: "No answer in time, or the store or the model is not there; `Retry-After` says when to come again.",
}
# The first that fits, so the narrower kind stands first.
STATUS: Sequence[tuple[type[Exception], int]] = (
    (Closing, 503),
    (Overloaded, 429),
    (DeadlinePassed, 503),
    (NoModel, 503),
    (StorageError, 503),
    (ArtifactError, 409),
    (UnsupportedOption, 409),
    (InvalidConfig, 409),
    (InvalidInput, 409),
)
_SHOWN = 80


def documented(*more: int) -> dict[int | str, dict[str, Any]]:
    """What OpenAPI says of the errors of a route. Args: more: statuses besides those that any route can have."""
    out: dict[int | str, dict[str, Any]] = {}
    for status in sorted({401, 403, 422, 429, 431, 503, *more}):
        out[status] = {"model": Problem, "description": MEANINGS[status]}
        if status in (429, 503):
            retry = {"description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 1}}
            out[status]["headers"] = {"Retry-After": retry}
    return out


def problem(status: int, message: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """The answer of an error."""
    content = {"error": {"kind": KINDS.get(status, "error"), "message": message}}
    return JSONResponse(content, status, dict(headers or {}))


def refused(error: HTTPException) -> JSONResponse:
    """The answer of an error that has its status already."""
    plain = error.detail == HTTPStatus(error.status_code).phrase
    return problem(error.status_code, MEANINGS[error.status_code] if plain else str(error.detail), error.headers)


def failed(error: RediffuseError) -> JSONResponse:
    """The answer of an error of the library."""
    status = next((status for kind, status in STATUS if isinstance(error, kind)), 500)
    wait_s = error.retry_after_s if isinstance(error, Overloaded) else 1.0
    return problem(status, str(error), {"Retry-After": str(max(1, math.ceil(wait_s)))} if status in (429, 503) else {})


@contextmanager
def invalid() -> Generator[None]:
    """What cannot be kept is wrong in itself: status 422."""
    try:
        yield
    except InvalidInput as error:
        raise HTTPException(422, str(error)) from None


def handle_all(app: FastAPI) -> None:
    """Give every error of an application its shape. The words of an unforeseen one stay inside."""
    handlers: dict[type[Exception], Callable[[Request, Any], Response]] = {
        HTTPException: lambda _, error: refused(error),
        RediffuseError: lambda _, error: failed(error),
        RequestValidationError: lambda request, error: problem(*worded(error, _checked_by(request))),
        Exception: lambda _, error: broken(error),
    }
    for kind, answer in handlers.items():

        async def handler(
            request: Request, error: Exception, answer: Callable[[Request, Any], Response] = answer
        ) -> Response:
            return answer(request, error)

        app.add_exception_handler(kind, handler)


def broken(error: Exception) -> JSONResponse:
    """The answer of an unforeseen error."""
    del error
    return problem(500, "Something went wrong here; the log of the service tells where.")


def worded(error: RequestValidationError | ValidationError, body: type[BaseModel] | None = None) -> tuple[int, str]:
    """The status and sentence for what a schema found. Args: body: what was checked; None: nothing that has keys."""
    errors = error.errors()
    # of what a value could be each kind complains; an unknown key tells which one was meant
    first = next((each for each in errors if each["type"] == "extra_forbidden"), errors[0])
    if first["type"] == "json_invalid":
        return 400, f"The body is not JSON: {first.get('ctx', {}).get('error', 'it ends early')}."
    loc = first["loc"]
    if isinstance(error, RequestValidationError):
        loc = loc[1:]  # after whether it is of the body, the path or the query
    where = [str(part) for part in loc]
    if first["type"] == "extra_forbidden":
        return 422, unknown("key", where[-1][:_SHOWN], () if body is None else _keys(body, where[:-1]))
    reason = first["msg"].rstrip(".")
    reason = reason[0].lower() + reason[1:]
    if first["type"] == "missing":
        return 422, f"{'.'.join(where) or 'The body'} is missing: {reason}."
    shown = repr(first["input"])
    shown = shown if len(shown) <= _SHOWN else shown[:_SHOWN] + ".."
    return 422, f"{'.'.join(where) or 'The body'} = {shown} is not possible: {reason}."


def _checked_by(request: Request) -> type[BaseModel] | None:
    """What the route of a request checks its body by, or its query where the body is a file."""
    route = request.scope.get("route")
    if not isinstance(route, APIRoute):
        return None
    fields = route.dependant.query_params if route.body_field is None else [route.body_field]
    return next((kind for field in fields for kind in _models(field.field_info.annotation)), None)


def _keys(body: type[BaseModel], where: Sequence[str]) -> set[str]:
    """The keys that a body may have at a place, as they are sent."""
    here = {body}
    for part in where:
        inside = [f for kind in here for name, f in kind.model_fields.items() if part in (f.alias, name)]
        named = {kind for kind in here if kind.__name__ == part}  # one of several that a value could be
        here = {kind for f in inside for kind in _models(f.annotation)} if inside else named or here
    return {f.alias or name for kind in here for name, f in kind.model_fields.items()}


def _models(annotation: Any) -> set[type[BaseModel]]:
    """Those that a type is made of."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return {annotation}
    return {kind for part in get_args(annotation) for kind in _models(part)}
