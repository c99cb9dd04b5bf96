"""What the parts promise each other. Shapes as in `types`."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol, Self, TypeVar, runtime_checkable

import torch
from torch import Tensor

from rediffuse.config import FrozenConfig, RunConfig
from rediffuse.types import Candidates, Condition, Options, Query, Ragged, Ranking, SparseRows

BatchT = TypeVar("BatchT")
BatchT_contra = TypeVar("BatchT_contra", contravariant=True)


class Schedule(Protocol):
    """Two tables over the levels 0 (clean) .. T: x_t = alpha[t] x_0 + sigma[t] eps."""

    @property
    def alpha(self) -> Tensor: ...
    @property
    def sigma(self) -> Tensor: ...


class Denoiser(Protocol):
    """E[x_0 | x_t, cond]."""

    def __call__(self, x_t: Tensor, t: Tensor, cond: Condition | None = None, /) -> Tensor:
        """x_t: (B, *D), t: (B,) int64 in 1..T. Returns: (B, *D)."""
        ...


class LiftedDenoiser(Denoiser, Protocol):
    """head(core(lift(x_t), t, cond)) with lift and head linear; what `collapse` needs."""

    def lift(self, x: SparseRows | Tensor) -> Tensor:
        """(B, I) -> (B, H), linear without a constant term."""
        ...

    def core(self, u: Tensor, t: Tensor, cond: Condition | None = None) -> Tensor:
        """(B, H) -> (B, H')."""
        ...

    def head(self, h: Tensor, items: Tensor | None = None) -> Tensor:
        """(B, H') -> (B, I), affine; with items (n,) or (B, n) only those, (B, n)."""
        ...

    def ends(self) -> tuple[Tensor, Tensor, Tensor]:
        """The matrices of lift, W^T (I, H), and of head, V (I, H') and b (I,)."""
        ...


class Noise(Protocol):
    """Standard normal draws, a function of (seed, key, draw, t) only."""

    def __call__(self, t: int, like: Tensor) -> Tensor:
        """t: level the draw belongs to. Returns: values shaped as `like`, (B, *D)."""
        ...


OnStep = Callable[[int, Tensor, Tensor], None]
"""Called once a step, after the estimate at x_t, with (t, x_t, estimate of x_0)."""


class Sampler(Protocol):
    """Walks down `levels`; the state at the last level is returned (x_0 when that is 0)."""

    def __call__(
        self,
        denoise: Denoiser,
        x: Tensor,
        levels: Tensor,
        schedule: Schedule,
        *,
        cond: Condition | None = None,
        noise: Noise | None,
        on_step: OnStep | None = None,
    ) -> Tensor:
        """x: state at levels[0], (B, *D).   levels: (N+1,) int64, strictly falling.   noise: None walks the means."""
        ...


class Space(Protocol[BatchT_contra]):
    """Where x_0 lives: events <-> points."""

    def encode(self, batch: BatchT_contra) -> Tensor: ...
    def decode(self, x0: Tensor, items: Tensor | None = None) -> Tensor: ...


class Grounding(Protocol):
    """Points -> items of the catalog."""

    def __call__(
        self, points: Tensor, k: int, *, seen: Ragged | None = None, candidates: Candidates | None = None
    ) -> Ranking: ...


class Recommender(Protocol):
    """Answers queries: all that evaluation and serving know of a model."""

    def recommend(self, query: Query, k: int, *, options: Options = Options(), seed: int = 0) -> Ranking:
        """The k best items for each subject; -1 pads where fewer may be returned.

        Raises: UnsupportedOption when the method cannot honour an option.
        """
        ...


@runtime_checkable
class Stepwise(Protocol):
    """A recommender whose answer is made in steps that can be counted and watched."""

    @property
    def steps(self) -> int:
        """Reverse steps of an ordinary answer."""
        ...

    def walk(self, query: Query, k: int, *, options: Options = Options(), seed: int = 0) -> list[tuple[int, Ranking]]:
        """What each level would answer: (t, ranking of the estimate of x_0 at t), noisiest level first."""
        ...


@dataclass(frozen=True)
class Context:
    """What is known, by one name, of the moment of each event, or of each user."""

    per: Literal["event", "user"]
    values: Tensor
    """(n,) along the events or (U,) along the users: int64 codes, -1 unknown; or float32 shares of a cycle, NaN unknown."""
    names: tuple[str, ...] = ()
    """Of the codes; empty for a share of a cycle."""


@dataclass(frozen=True)
class FitData:
    """What a method learns from."""

    history: Ragged
    """U rows: the events of the parts to learn from, oldest first."""
    n_items: int
    order: Literal["time", "sequence", "none"]
    """How far the order of events is known."""
    contexts: Mapping[str, Context] = field(default_factory=dict[str, Context])
    """What the settings name as conditions, besides the history."""
    keys: Tensor | None = None
    """(U,) int64, stable hash of each external user id, as `Query.key` has it; None: users have no names."""
    item_keys: Tensor | None = None
    """(I,) int64, the same of each external item id; None: items have no names."""

    def users_per_item(self) -> Tensor:
        """How many users have each item, (I,) float32."""
        pairs = torch.unique(self.history.rows * self.n_items + self.history.items)
        return torch.bincount(pairs % self.n_items, minlength=self.n_items).to(torch.float32)


@dataclass(frozen=True)
class Range:
    """The values a tuner may try for one setting, both ends included."""

    low: float
    high: float
    log: bool = False
    """Tried evenly in the logarithm."""

    @property
    def whole(self) -> bool:
        """Whether only whole numbers are tried: both ends are `int`."""
        return isinstance(self.low, int) and isinstance(self.high, int)


Tunable = Range | tuple[Any, ...]
"""A range, or the values themselves."""


@dataclass(frozen=True)
class Progress:
    """One report of a running training."""

    epoch: int
    """Passes over the data that are complete."""
    epochs: int
    loss: float
    """Mean over the examples of the last epoch, or of the running one so far."""
    seconds: float
    """Since the training began, interruptions left out."""
    validation: float | None = None
    best: bool = False
    examples: int = 0
    """Of the running epoch, when it is not complete yet."""
    rate: float = 0.0
    """Examples a second."""

    @property
    def partial(self) -> bool:
        """Whether this is a sign of life from inside an epoch."""
        return self.examples > 0


@dataclass(frozen=True)
class FitContext:
    """What a method is handed besides its data: how to validate, to run, to report, where to keep checkpoints."""

    run: RunConfig
    validate: Callable[[Recommender], float] | None = None
    """The selection metric of a candidate model; None when there is no selection part."""
    report: Callable[[Progress], None] = lambda _: None
    """Called after every epoch, now and then inside one, and again for the epochs of an earlier process."""
    checkpoint: "CheckpointStore | None" = None
    initial: Mapping[str, Tensor] | None = None
    """`state` of an earlier model to go on from, its items the first of this catalog; closed forms need none."""
    part: "Callable[[str, Mapping[str, object]], Method] | None" = None
    """"NAME" or "NAME:PRESET" and settings -> another registered method fitted on the same data and validated alike."""


class CheckpointStore(Protocol):
    """Keeps the one newest state of a training run."""

    def due(self) -> bool:
        """Whether so much time has passed that a state should be kept, also inside an epoch."""
        ...

    def save(self, tensors: Mapping[str, Tensor], state: Mapping[str, object]) -> None: ...
    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None: ...


class Method(Recommender, Protocol):
    """A fitted recommender whose class is what the registry lists."""

    Config: ClassVar[type[FrozenConfig]]
    Training: ClassVar[type[FrozenConfig]]
    presets: ClassVar[Mapping[str, Mapping[str, object]]]
    """Preset name -> values for keys of Config and Training."""
    controls: ClassVar[Mapping[str, Sequence[str]]]
    """The presets that are controls of the method, not the method -> the keys that make them so, which no tuner varies."""
    tunable: ClassVar[Mapping[str, Tunable]]
    """What `compare --trials` may vary: key of Config or Training -> values."""

    @property
    def n_items(self) -> int:
        """Size of the catalog it ranks, I."""
        ...

    @classmethod
    def fit(cls, config: FrozenConfig, training: FrozenConfig, data: FitData, context: FitContext) -> Self:
        """Learn from data. Raises: InvalidInput when the data lacks what the method needs (order, time)."""
        ...

    def state(self) -> dict[str, Tensor]:
        """All that was learned, by name."""
        ...

    @classmethod
    def restore(cls, config: FrozenConfig, state: Mapping[str, Tensor], device: str) -> Self:
        """Rebuild from `state`. Raises: KeyError or RuntimeError when a tensor is missing or misshapen."""
        ...


SettingsOf = Callable[[str, Mapping[str, object]], Mapping[str, object]]
"""(NAME or NAME:PRESET, settings) -> all settings of that method, ready for JSON."""
PartRestorer = Callable[[str, Mapping[str, object], Mapping[str, Tensor], str], Method]
"""(NAME or NAME:PRESET, all its settings, its `state`, device) -> that method, rebuilt."""


@runtime_checkable
class Composed(Protocol):
    """A method that answers with others: fitted through `FitContext.part`, saved with their settings and tensors."""

    @classmethod
    def complete(cls, config: FrozenConfig, settings_of: SettingsOf) -> FrozenConfig:
        """The settings with those of every part written out under `settings`, by label."""
        ...

    def settled(self) -> FrozenConfig:
        """The settings with what was chosen on the selection part: what a refit begins with, and what is saved."""
        ...

    @classmethod
    def restore(
        cls, config: FrozenConfig, state: Mapping[str, Tensor], device: str, part: PartRestorer | None = None
    ) -> Method:
        """As `Method.restore`; `part` rebuilds the parts."""
        ...


@runtime_checkable
class Embeds(Protocol):
    """A method whose scores are inner products of tables: what another method can be built over."""

    def embeddings(self) -> "Tables":
        """The tables as they score, propagated and all."""
        ...


class Tables(Protocol):
    """Vectors of items and, where they were learned, of users: `spaces/embeddings.py`."""

    @property
    def items(self) -> Tensor: ...
    @property
    def users(self) -> Tensor | None: ...
    @property
    def keys(self) -> Tensor | None: ...


class Metric(Protocol):
    """A pure function of lists and truth."""

    def __call__(self, ranking: Ranking, relevant: Ragged, k: int) -> Tensor:
        """Returns: (B,) float64, NaN where undefined."""
        ...


class Trainable(Protocol[BatchT]):
    """What the training loop drives."""

    @property
    def module(self) -> torch.nn.Module:
        """Holds the parameters, and as buffers every other state that training changes."""
        ...

    def batches(self, generator: torch.Generator) -> Iterator[BatchT]:
        """One epoch, in steps; all draws are made before the first. A resumed epoch skips steps, so let `loss` do the work."""
        ...

    def loss(self, batch: BatchT, generator: torch.Generator) -> Mapping[str, Tensor]:
        """Per-example values by name, (B,) each; "loss" is the one that is minimised in the mean, "level" the noise level."""
        ...
