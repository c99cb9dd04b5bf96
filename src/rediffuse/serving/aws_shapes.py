"""What crosses HTTP in the shapes of AWS Personalize: its requests, its answers and its errors.

Names and limits are those of the service models that its clients are made from (personalize-runtime, personalize-events).
"""

import json
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import ConfigDict, Field, JsonValue, StringConstraints
from pydantic.alias_generators import to_camel
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rediffuse.serving.problems import documented
from rediffuse.serving.schemas import LONGEST_LIST, WHOLE, Answer, Body, Text, User, Word

USUAL = 25
"""Places of a list where nothing is said of its length."""
PREFIX = "/aws"
"""Where these routes begin: /events alone would be one of two services'."""
_OTHERS = "InvalidInputException"
_TYPES = {
    401: "AccessDeniedException",
    403: "AccessDeniedException",
    404: "ResourceNotFoundException",
    429: "ThrottlingException",
    500: "InternalServerException",
    503: "ServiceUnavailableException",
}
"""Status -> the exception that a client raises."""

Arn = Annotated[str, StringConstraints(max_length=256, pattern=r"^arn:([a-z\d-]+):personalize:.*:.*:.+$")]
Name = Annotated[str, StringConstraints(min_length=1, max_length=256, pattern=r"^[^\x00-\x1f\x7f-\x9f]+$")]
Values = Annotated[dict[Word, Text], Field(max_length=25)]
Context = Annotated[dict[Word, Text], Field(max_length=150)]


class Theirs(Body):
    """Base of requests: names are theirs on the wire, ours in the code."""

    model_config = ConfigDict(alias_generator=to_camel)


class Ours(Answer):
    """Base of answers, likewise."""

    model_config = ConfigDict(alias_generator=to_camel, validate_by_name=True)


class _Asked(Theirs):
    """What both questions may hold."""

    campaign_arn: Arn | None = None
    """Any: the model of the moment answers."""
    context: Context = Field(default_factory=dict[str, str])
    """An empty value tells nothing."""
    filter_arn: Arn | None = None
    """`..:filter/where`, the one there is: `filterValues` are attributes and the values that items may have."""
    filter_values: Values = Field(default_factory=dict[str, str])

    @property
    def moment(self) -> dict[str, str]:
        """What is known of it."""
        return {name: word for name, word in self.context.items() if word}


class GetRecommendations(_Asked):
    """Whom to recommend to, or beside which item."""

    recommender_arn: Arn | None = None
    user_id: User | None = None
    """A user; else the session of a visitor."""
    item_id: Word | None = None
    num_results: Annotated[int, Field(ge=0, le=LONGEST_LIST), WHOLE] = 0
    """0: `USUAL`."""


class GetPersonalizedRanking(_Asked):
    """Items to bring into a user's order."""

    user_id: User
    input_list: Annotated[list[Word], Field(min_length=1, max_length=LONGEST_LIST)]


class Attribution(Theirs):
    """Where a customer came from."""

    event_attribution_source: Text


class OneEvent(Theirs):
    """Something that happened between a user and an item."""

    event_type: Name
    """Purchase, View, AddToCart and the like; or a plain word of the shop's own."""
    sent_at: Annotated[float, Field(ge=0, lt=253_402_300_800)]
    """Epoch seconds."""
    event_id: Name | None = None
    event_value: float | None = None
    item_id: Word | None = None
    properties: JsonValue = None
    """A JSON object, or its text."""
    recommendation_id: Annotated[str, StringConstraints(min_length=1, max_length=40)] | None = None
    impression: Annotated[list[Word], Field(min_length=1, max_length=25)] | None = None
    """Items that were shown."""
    metric_attribution: Attribution | None = None


class PutEvents(Theirs):
    """Events of one session."""

    tracking_id: Name
    """Any."""
    user_id: User | None = None
    """Absent: a visitor, known by the session."""
    session_id: Word
    event_list: Annotated[list[OneEvent], Field(min_length=1, max_length=10)]


class Predicted(Ours):
    """One place of a list; an item that has no place in the order has no score."""

    item_id: str
    score: float | None = None
    reason: list[str] | None = None
    """Why the list is not the user's own."""


class Recommended(Ours):
    """A list."""

    item_list: list[Predicted]
    recommendation_id: str


class Ranked(Ours):
    """The items that were given, in their order."""

    personalized_ranking: list[Predicted]
    recommendation_id: str


class Refusal(Answer):
    """The shape of every error."""

    type: str = Field(alias="__type")
    message: str


def refusals(*more: int) -> dict[int | str, dict[str, Any]]:
    """What OpenAPI says of the errors of a route: as `documented`, in this shape."""
    at_the_door = 431  # before it is known what is asked for
    return {
        status: told if status == at_the_door else {**told, "model": Refusal}
        for status, told in documented(*more).items()
    }


class Errors:
    """ASGI middleware: errors of these routes, whoever found them, in the shape that their clients raise."""

    def __init__(self, app: ASGIApp) -> None:
        """Args: app: answers errors in the shape of `problems.py`."""
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on what is no error."""
        if scope["type"] != "http" or not scope["path"].startswith(f"{PREFIX}/"):
            await self.app(scope, receive, send)
            return
        start: Message = {}
        body = b""

        async def sending(message: Message) -> None:
            nonlocal start, body
            if message["type"] == "http.response.start" and message["status"] >= 400:
                start = message
            elif not start:
                await send(message)
            else:
                body += message.get("body", b"")
                if not message.get("more_body", False):
                    await _refusal(start, body)(scope, receive, send)

        await self.app(scope, receive, sending)


def _refusal(start: Message, body: bytes) -> JSONResponse:
    kind = _TYPES.get(start["status"], _OTHERS)
    headers: Mapping[str, str] = {name.decode(): value.decode() for name, value in start["headers"]}
    kept = {name: value for name, value in headers.items() if name not in ("content-length", "content-type")}
    message = json.loads(body)["error"]["message"]
    return JSONResponse({"__type": kind, "message": message}, start["status"], {**kept, "x-amzn-ErrorType": kind})
