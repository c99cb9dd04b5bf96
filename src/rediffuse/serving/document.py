"""The OpenAPI document, and what of it is written by hand."""

from typing import Any

from fastapi import APIRouter, Depends, FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse, Response

from rediffuse.serving.schemas import MOST_EVENTS, EventBody
from rediffuse.serving.security import STREAM, needs

_ONE = {"$ref": "#/components/schemas/EventBody"}
_MANY = {
    "type": "array",
    "maxItems": MOST_EVENTS,
    "items": {
        "anyOf": [_ONE, {"description": "Anything else is refused with status 422, and costs the others nothing."}]
    },
}
EVENTS = {
    "required": True,
    "content": {
        "application/json": {"schema": {"anyOf": [_ONE, _MANY]}},
        STREAM: {"schema": {"type": "string", "description": "One event a line."}},
    },
}
"""The body of `POST /v1/events`, which is read as it comes."""


def describing(app: FastAPI, *, locked: bool) -> APIRouter:
    """The OpenAPI document. Args: locked: whether keys are asked for."""
    router = APIRouter()

    def described() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = get_openapi(
                title=app.title, version=app.version, routes=app.routes, summary="Events in, recommendations out."
            )
            event = EventBody.model_json_schema(ref_template="#/components/schemas/{model}")
            document["components"]["schemas"]["EventBody"] = event
            if locked:
                document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
                for path, operations in document["paths"].items():
                    for operation in operations.values():
                        operation["security"] = [] if path.startswith("/health/") else [{"key": []}]
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = described

    @router.get("/openapi.json", dependencies=[Depends(needs("read"))], include_in_schema=False)
    async def document() -> Response:
        return JSONResponse(app.openapi())

    return router
