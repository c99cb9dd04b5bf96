"""What crosses HTTP: requests that are checked where they enter, and answers.

Ids are the shop's own, up to 256 letters without control characters. Times are UTC microseconds; numbers that read as
seconds or milliseconds are refused. Nothing is converted: "5" is no number.
"""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, StringConstraints

from rediffuse.serving.exploration import LEAST_TEMPERATURE

_OPEN = r"[^\x00-\x1f\x7f-\x9f]"
Word = Annotated[str, StringConstraints(min_length=1, max_length=256, pattern=rf"^{_OPEN}{{1,256}}$")]
"""An id, or a name: no control characters."""
User = Annotated[
    str,
    StringConstraints(
        min_length=1, max_length=256, pattern=rf"^(p|({_OPEN.replace('^', '^p')}|p{_OPEN.replace('^', '^:')}){_OPEN}*)$"
    ),
]
"""An id of a user; `p:` begins what is kept of visitors."""


def _whole(value: object) -> object:
    """JSON knows one kind of number: 5.0 is 5."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


WHOLE = BeforeValidator(_whole)
"""JSON does not tell 70.0 from 70."""
_NOTHING_ELSE: dict[str, JsonValue] = {"additionalProperties": False}
Text = Annotated[str, StringConstraints(max_length=1024, pattern=r"^[^\x00]*$")]
Kind = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,31}$")]
ModelName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
"""Of a folder beside the others; never a path."""
TimeUs = Annotated[int, Field(ge=10**14, lt=253_402_300_800_000_000), WHOLE]
"""1973 .. 9999: what reads as seconds or milliseconds is smaller."""
LARGEST = 2**53 - 1
"""Of whole numbers that every reader of JSON keeps exact."""
Seed = Annotated[int, Field(ge=0, le=LARGEST), WHOLE]
Scale = Annotated[float, Field(ge=-100, le=100)]

MOST_EVENTS, MOST_HISTORY, MOST_ITEMS, LONGEST_LIST, MOST_DRAWS, MOST_STEPS = 10_000, 2_000, 10_000, 500, 64, 1000


class Body(BaseModel):
    """Base of all that is received: exact types, no unknown keys."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class Answer(BaseModel):
    """Base of all that is sent."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)


class Seen(Body):
    """An item of a posted history, and when it was."""

    item: Word
    time_us: TimeUs


class Explore(Body):
    """A list that is drawn instead of ranked, with the probability of what was drawn."""

    temperature: float = Field(default=0.2, ge=LEAST_TEMPERATURE, le=100)
    """Towards 0 the order of the scores; large: any order alike."""
    seed: Seed | None = None
    """Another one draws another list; absent: a new list each time."""


class Question(Body):
    """Whom to recommend to, what, and how.

    A posted history stands for the stored one of the user. Without a user, a history and an item the list is what is
    popular, and says so.
    """

    user: User | None = None
    """Who asks; the events stored of them are the history."""
    anonymous: Word | None = None
    """A visitor who is not known by name yet; events stored of them are the history."""
    history: Annotated[list[Word | Seen], Field(max_length=MOST_HISTORY)] | None = None
    """Items, oldest first, with their times or without."""
    item: Word | None = None
    """The item that is looked at."""
    k: Annotated[int, Field(ge=1, le=LONGEST_LIST), WHOLE] = 10
    where: Annotated[list[Text], Field(max_length=32)] = []
    """Conditions on attributes of the items that hold together: "category=shoes|boots", "price<=50"."""
    one_per: Word | None = None
    """An attribute of which the list holds each value once: one variant of a product."""
    exclude: Annotated[list[Word], Field(max_length=MOST_ITEMS)] | None = None
    """Items that must not be returned, besides those of the history where the model does not repeat."""
    candidates: Annotated[list[Word], Field(max_length=MOST_ITEMS)] | None = None
    """The only items that may be returned."""
    context: Annotated[dict[Word, Word], Field(max_length=32, json_schema_extra=_NOTHING_ELSE)] = {}
    """What is known of the moment, by the names of the model's conditions: {"season": "winter"}."""
    guidance_scale: Scale | Annotated[dict[Word, Scale], Field(max_length=32, json_schema_extra=_NOTHING_ELSE)] = 1.0
    """How far to lean towards the conditions, all or by name; 1: not at all."""
    diversity: float = Field(default=0.0, ge=0, le=1)
    """0: the plain ranking .. 1: as unlike each other as can be."""
    draws: Annotated[int, Field(ge=1, le=MOST_DRAWS), WHOLE] = 1
    """Reverse chains; from 2 on each place tells its uncertainty."""
    steps: Annotated[int, Field(ge=1, le=MOST_STEPS), WHOLE] | None = None
    """Reverse steps; absent: as the model was configured."""
    temperature: float = Field(default=1.0, ge=0, le=10)
    """Factor on the noise of every draw."""
    seed: Seed = 0
    explore: Explore | None = None
    reasons: bool = False
    """Whether places tell which items of the history they are like."""
    min_seq: Annotated[int, Field(ge=0, le=LARGEST), WHOLE] | None = None
    """The `seq` of an answer of /v1/events that must be seen; else `stale` is said."""
    deadline_ms: Annotated[float, Field(ge=100, le=60_000)] | None = None
    """Time the answer may take, at most that of the service."""


class ModelSaid(Answer):
    """Which model answered."""

    name: str
    version: str
    sha256: str


class Uncertainty(Answer):
    """Over draws."""

    std: float


class ReasonSaid(Answer):
    """Why an item is there, as far as it can be told."""

    kind: Literal["like", "popular"]
    item: str | None = None
    similarity: float | None = None


class PlaceSaid(Answer):
    """One place of a list."""

    item: str
    rank: int
    """1 is the first."""
    title: str
    score: float
    p: float | None = None
    """The probability of `p_of`."""
    uncertainty: Uncertainty | None = None
    propensity: float
    """Probability of this item at this place under `policy`, given those before it."""
    reasons: list[ReasonSaid] = []


class Recommendation(Answer):
    """A list, and how it came about. What is not known is null."""

    recommendation_id: str
    """Goes into `context.recommendation_id` of the events that follow from the list."""
    model: ModelSaid
    policy: str
    """"deterministic" or "plackett_luce"."""
    seed: int
    explore_seed: int | None = None
    fallback: str | None
    """Why the model could not personalise: "empty_history"; the list is what is popular."""
    degraded: str | None
    """What answered instead of the whole method, when there was no time or it failed: one_draw, classic, popular."""
    stale: bool
    """Whether `min_seq` was not seen in time."""
    unknown: list[str]
    """Ids of the request that the model has never seen; they were left out."""
    history: int
    """Events that the answer rests on."""
    p_of: str | None
    """Of what `p` is the probability: "consumption", "top_k" or nothing."""
    items: list[PlaceSaid]
    latency_ms: float


class EventBody(Body):
    """Something that happened between a user and an item."""

    model_config = ConfigDict(
        json_schema_extra={
            "anyOf": [{"required": [name], "properties": {name: {"type": "string"}}} for name in ("user", "anonymous")],
            "examples": [{"event_id": "e-1", "user": "u-1", "item": "A00042", "kind": "view"}],
        }
    )

    event_id: Word | None = None
    """The same id counts once, however often it is sent; absent: a new one, which the answer tells."""
    item: Word
    kind: Kind = "view"
    """impression, view, click, wishlist, cart, cart_remove, purchase, refund, or a word of the shop's own."""
    time_us: TimeUs | None = None
    """Absent: now."""
    user: User | None = None
    anonymous: Word | None = None
    """With `user`: the visitor is that user from now on, and so are all events of the visitor."""
    session: Word | None = None
    value: float | None = None
    quantity: float = Field(default=1.0, gt=0, le=1e9)
    context: dict[Word, Text] = Field(default_factory=dict, max_length=32, json_schema_extra=_NOTHING_ELSE)
    """Placement, device, recommendation_id, list_position; never ids of people."""


class EventSaid(Answer):
    """What became of one event."""

    event_id: str | None
    status: Literal[201, 200, 422, 410]
    """201 stored; 200 known already; 422 not an event; 410 its user was erased."""
    message: str | None = None


class EventsSaid(Answer):
    """What became of events; those that are stored survive a loss of power."""

    durable: Literal[True] = True
    """Whatever has status 201 or 200 is on disk."""
    seq: int
    """Place in the store up to which all of these are; a question can ask to see it."""
    stored: int
    known: int
    refused: int
    events: list[EventSaid]


class ItemBody(Body):
    """What is known of an item today."""

    group: Word | None = None
    """The product of which it is a variant."""
    available: bool = True
    """What is not to be had is in no list."""
    attributes: Annotated[
        dict[Word, Text | float | Annotated[list[Text], Field(max_length=64)]],
        Field(max_length=128, json_schema_extra=_NOTHING_ELSE),
    ] = {}
    """Name -> word, number or words; conditions can be put on them."""


class ItemWithId(ItemBody):
    """An item of a batch."""

    item: Word


class ItemsBody(Body):
    """A batch of items."""

    items: Annotated[list[ItemWithId], Field(min_length=1, max_length=MOST_ITEMS)]


class ItemsSaid(Answer):
    """Items that are stored."""

    seq: int
    items: int
    durable: Literal[True] = True


class ErasureSaid(Answer):
    """A receipt: who held it can show that the erasure happened, nobody can tell from it whose it was."""

    subject: str
    """Keyed hash of whose it was; the key never leaves the store."""
    at_us: int
    seq: int
    events: int
    """Events that went."""
    aliases: int
    """Visitors' ids that went."""
    sha256: str
    """Of the fields above."""
    durable: Literal[True] = True


class VersionSaid(Answer):
    """A model that answers or could."""

    name: str
    state: Literal["current", "candidate", "draining", "on_disk"]
    sha256: str
    loaded_us: int | None = None


class VersionsSaid(Answer):
    """All of them."""

    models: list[VersionSaid]


class Health(Answer):
    """Whether the process lives, or why it is not ready."""

    status: Literal["ok", "not ready"]
    checks: Mapping[str, bool] = {}


class Fault(Answer):
    """What went wrong."""

    kind: str
    """A word that programs can compare."""
    message: str
    """What was wrong, the value, what is allowed, what to do."""


class Problem(Answer):
    """The shape of every error."""

    error: Fault
