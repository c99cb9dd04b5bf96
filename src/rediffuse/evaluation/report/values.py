"""What a report is made of: results and what stands beside them, as values that go to JSON and back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rediffuse.errors import InvalidInput, say
from rediffuse.evaluation.report.as_json import to_plain
from rediffuse.evaluation.statistics import Interval

ROLES = ("diffusion", "classic", "control", "method")
ALPHA = 0.05
"""A difference is settled when its interval excludes 0 and its corrected p lies below this."""


@dataclass(frozen=True)
class Slice:
    """The selection metric on a part of the users, or of the items."""

    by: str
    """What parts them: "history length", "popularity"."""
    label: str
    """Which part: "1-5 events", "tail"."""
    users: int
    """Users with something to find there."""
    value: Interval


@dataclass(frozen=True)
class CoursePoint:
    """One epoch of a training."""

    epoch: int
    loss: float
    validation: float | None
    seconds: float
    """Since the training began."""


@dataclass(frozen=True)
class Trial:
    """One setting that was tried on the selection part."""

    settings: Mapping[str, Any]
    value: float | None
    """The selection metric; None where the setting failed."""
    seconds: float


@dataclass(frozen=True)
class Reference:
    """A yardstick that no shop has, such as the Bayes ceiling of a world whose truth is known."""

    name: str
    meaning: str
    """In one sentence: what it knows."""
    metrics: Mapping[str, Interval]
    error: float
    """Monte-Carlo standard error of the selection metric; 0 where it is exact."""
    gaps: Mapping[str, Interval]
    """Method -> reference minus method on the selection metric, paired by user."""


@dataclass(frozen=True)
class Result:
    """What one method reached under one protocol."""

    method: str
    dataset: str
    protocol: Mapping[str, Any]
    users: int
    metrics: Mapping[str, Interval]
    """`recall@20` -> mean over users."""
    seconds: Mapping[str, float]
    """`fit`, `evaluate`, ... -> seconds."""
    peak_rss_mb: float
    undefined: int = 0
    """Users without relevant items: in no mean."""
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    role: str = "method"
    """`diffusion`, `classic`, `control`, or `method` for what is none of them."""
    beyond: Mapping[str, Interval] = field(default_factory=dict[str, Interval])
    """`coverage@20` .. -> value; low = high = mean where it is one number of all lists together."""
    slices: Sequence[Slice] = ()
    course: Sequence[CoursePoint] = ()
    """How the training of the last seed went; empty for what has no epochs."""
    trials: Sequence[Trial] = ()
    """What was tried on the selection part, in order; empty when the settings were given."""

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise InvalidInput(say(f"The role of {self.method!r} is unknown", got=self.role, allowed=ROLES))

    def to_json(self) -> dict[str, Any]:
        """The fixed JSON form of a result; null where undefined."""
        return to_plain(self)


@dataclass(frozen=True)
class Pair:
    """The paired difference a - b per user, with its 95 % interval and Holm-corrected p."""

    a: str
    b: str
    metric: str
    mean: float
    low: float
    high: float
    p_holm: float

    @property
    def sign(self) -> int:
        """1 where a is ahead, -1 where b is, 0 where it is not settled."""
        if not self.p_holm < ALPHA:
            return 0
        return int(self.low > 0) - int(self.high < 0)

    def turned(self) -> "Pair":
        """The same comparison as b - a."""
        return Pair(self.b, self.a, self.metric, -self.mean, -self.high, -self.low, self.p_holm)


@dataclass(frozen=True)
class SweepPoint:
    """A stepwise method at one number of reverse steps, on the same users as the results."""

    method: str
    steps: int
    metric: str
    value: Interval
    ms_per_user: float


@dataclass(frozen=True)
class WalkItem:
    """An item in a list of one level; `taken`: the user really took it next."""

    id: str
    title: str
    score: float
    taken: bool


@dataclass(frozen=True)
class Walk:
    """One user's reverse process as the lists it would give at each level, noisiest first, the answer last."""

    method: str
    user: str
    history: Sequence[str]
    """Titles, oldest first."""
    levels: Sequence[tuple[int, Sequence[WalkItem]]]
