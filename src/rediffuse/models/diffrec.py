"""DiffRec: denoise a user's interaction row. T-DiffRec is the same under recency weights.

| equation of the paper | here |
|---|---|
| forward process, eq. 2-3 | `noise/process.py::add_noise` |
| variance schedule, eq. 4 | `noise/schedules.py::linear_variance` |
| posterior, eq. 7-8 and 10 | `noise/process.py::posterior_weights` |
| loss and its weights, eq. 11-13 | `RowTraining.loss`, `training/levels.py::loss_weights` |
| importance sampling of levels, eq. 14 | `training/levels.py::ImportanceLevels` |
| inference, section 3.3, algorithm 2 | `models/answering.py::Plan.descend`: `samplers/starts.py`, `samplers/ancestral.py` |
| network, section 3.2 | `denoisers/mlp.py::MLPDenoiser` |
| time-aware weights, section 3.6 | `data/weighting.py::weigh` with recency = "linear" |

Wang, Xu, Feng, Lin, He, Chua 2023, "Diffusion Recommender Model". The reverse chain runs in hidden space
(`denoisers/collapsed.py`), which changes no score beyond rounding.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, Literal, Self

import torch
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn

from rediffuse.config import FrozenConfig
from rediffuse.denoisers.collapsed import collapse
from rediffuse.denoisers.dense import Dense
from rediffuse.denoisers.mlp import MLPDenoiser
from rediffuse.denoisers.transformer import TransformerDenoiser
from rediffuse.models.answering import Answered, Answering, Chain
from rediffuse.models.gaussian import GaussianConfig, Objective
from rediffuse.noise.predictions import as_denoiser
from rediffuse.protocols import FitContext, FitData, Range, Tunable
from rediffuse.spaces.item_vectors import clusters, item_vectors
from rediffuse.spaces.latent import joined_groups
from rediffuse.training.loop import TrainingConfig, learn, take_over
from rediffuse.training.moments import Moments, drawn, examples, sizes_for
from rediffuse.training.rows import generators, shuffled
from rediffuse.types import SparseRows

Network = MLPDenoiser | TransformerDenoiser


class DiffRecConfig(GaussianConfig):
    """What a DiffRec is."""

    denoiser: Literal["mlp", "transformer"] = "mlp"
    """The network."""
    hidden: tuple[PositiveInt, ...] = Field(default=(600, 200, 600), min_length=1)
    """mlp: widths of the hidden layers; the authors' dims [200, 600] read (600, 200, 600) here."""
    time_width: int = Field(default=10, ge=2)
    """mlp: width of the time embedding."""
    tokens: PositiveInt = 4
    """transformer: groups of items, each a token of the state; found by k-means on vectors of the items."""
    token_width: PositiveInt = 64
    """transformer: width of a token."""
    layers: PositiveInt = 2
    """transformer: number of blocks."""
    heads: PositiveInt = 4
    """transformer: attention heads of a block."""

    @model_validator(mode="after")
    def _heads_fit(self) -> Self:
        if self.token_width % self.heads:
            raise ValueError(f"token_width = {self.token_width} must be a multiple of heads = {self.heads}")
        return self


NEXT: Mapping[str, object] = {
    "condition": ["history"],
    "target": "next",
    "start": "origin",
    "schedule": "cosine",
    "level_choice": "uniform",
    "loss_weight": "none",
    "condition_width": 256,
    "condition_drop": 0.2,
    "draws_start": "pure_noise",
    "draws_temperature": 3.0,
    "patience": 40,
    "average": 0.999,
}
"""What the presets share whose x_0 is what comes next."""
SEASON_SEEN: Mapping[str, object] = {"condition": ["season"], "patience": 40, "average": 0.99}
SEASONAL: Mapping[str, object] = {"condition": ["history", "season"], "condition_width": 64, "horizon": 20}


class DiffRec(Answered):
    """Scores of all items for a user are the last x_0 estimate of a reverse chain started at their row.

    A new user is a posted history; nothing is stored per user. Scores are unbounded reals, no probabilities.
    Limits: parameters grow with 2 I H; one batch of rows (B, I) is dense in training, never all users.
    """

    Config: ClassVar[type[FrozenConfig]] = DiffRecConfig
    Training: ClassVar[type[FrozenConfig]] = TrainingConfig
    presets: ClassVar[Mapping[str, Mapping[str, object]]] = {
        name: {
            "learning_rate": rate,
            "hidden": hidden,
            "levels": levels,
            "noise_scale": scale,
            "noise_min": low,
            "noise_max": high,
            **more,
        }
        # The authors' settings, their table in the released scripts; batch 400 and no weight decay throughout.
        for name, rate, hidden, levels, scale, low, high, more in (
            ("ml-1m-clean", 1e-3, (600, 200, 600), 40, 0.005, 0.005, 0.01, {}),
            ("ml-1m-noisy", 1e-3, (600, 200, 600), 5, 0.5, 0.001, 0.01, {}),
            ("yelp-clean", 1e-5, (1000,), 5, 0.01, 0.001, 0.01, {}),
            ("yelp-noisy", 1e-5, (1000,), 5, 0.001, 0.0005, 0.01, {}),
            ("amazon-book-clean", 5e-5, (1000,), 5, 1e-4, 5e-4, 5e-3, {}),
            ("amazon-book-noisy", 5e-5, (1000,), 10, 0.005, 1e-4, 5e-4, {}),
            # Chosen on the selection part of the embedded world.
            ("atelier", 1e-3, (300, 100, 300), 5, 0.1, 0.001, 0.01, {"patience": 25}),
            # Controls: the same networks without any noise and in one pass, plain denoising auto-encoders.
            ("atelier-no-noise", 1e-3, (300, 100, 300), 1, 0.0, 0.001, 0.01, {"patience": 25}),
            ("ml-1m-clean-no-noise", 1e-3, (600, 200, 600), 1, 0.0, 0.005, 0.01, {}),
            # The row as it is seen from a season.
            ("atelier-season", 1e-3, (300, 100, 300), 5, 0.1, 0.001, 0.01, SEASON_SEEN),
            ("atelier-season-no-noise", 1e-3, (300, 100, 300), 1, 0.0, 0.001, 0.01, SEASON_SEEN),
            # The next events given the history: chosen on the selection parts, as docs/cards/diffrec.md tells.
            ("ml-1m-clean-next", 1e-3, (600, 200, 600), 10, 1.0, 0.0, 1.0, {**NEXT, "horizon": 5}),
            ("atelier-next", 1e-3, (300, 100, 300), 10, 1.0, 0.0, 1.0, {**NEXT, **SEASONAL}),
            ("t-yelp-clean", 1e-5, (1000,), 5, 0.005, 0.001, 0.01, {"recency": "linear", "weight_min": 0.5}),
            ("t-amazon-book-clean", 1e-5, (1000,), 10, 5e-4, 0.001, 0.005, {"recency": "linear", "weight_min": 0.1}),
        )
    }

    controls: ClassVar[Mapping[str, Sequence[str]]] = dict.fromkeys(
        ("atelier-no-noise", "atelier-season-no-noise", "ml-1m-clean-no-noise"), ("levels", "noise_scale")
    )
    tunable: ClassVar[Mapping[str, Tunable]] = {
        "learning_rate": Range(1e-4, 3e-3, log=True),
        "levels": (5, 10, 40, 100),
        "noise_scale": Range(1e-4, 0.5, log=True),
        "dropout": Range(0.1, 0.8),
        "hidden": ((300, 100, 300), (600, 200, 600), (1000,)),
    }

    def __init__(self, config: DiffRecConfig, denoiser: Network) -> None:
        """Collapse a trained denoiser; later changes of its weights are not seen."""
        self.config, self.denoiser = config, denoiser
        if config.prediction == "x0":
            self.chain: Chain = collapse(denoiser)
        else:
            self.chain = Dense(as_denoiser(denoiser, config.prediction, config.noise_schedule()))
        self.answering = Answering("diffrec", config, self.chain, denoiser.lift_weight)

    @classmethod
    def fit(cls, config: FrozenConfig, training: FrozenConfig, data: FitData, context: FitContext) -> Self:
        """Train on rows of the given events.

        Raises: InvalidInput when recency or a condition is asked of data without order; TrainingDiverged.
        """
        assert isinstance(config, DiffRecConfig)
        assert isinstance(training, TrainingConfig)
        first, generator = generators(context.run)
        sizes = sizes_for(config.condition, data)
        groups = None
        if config.denoiser == "transformer":
            groups = _groups(config, data, context)
        denoiser = network_of(config, data.n_items, sizes, groups, first)
        if context.initial is not None:
            take_over(denoiser, context.initial)
        denoiser.to(context.run.device, getattr(torch, context.run.dtype))
        task = RowTraining(config, denoiser, examples(data, config, context.run), training.batch_size)
        learn(task, training, generator, context, lambda: cls(config, denoiser))
        return cls(config, denoiser)

    def state(self) -> dict[str, Tensor]:
        """The network's weights by name."""
        return {name: tensor.detach() for name, tensor in self.denoiser.state_dict().items()}

    @classmethod
    def restore(cls, config: FrozenConfig, state: Mapping[str, Tensor], device: str) -> Self:
        """Rebuild from `state`."""
        assert isinstance(config, DiffRecConfig)
        lift = state["lift_weight"]
        groups = state["groups"] if config.denoiser == "transformer" else None
        denoiser = network_of(config, len(lift), config.sizes_in(state, len(lift)), groups, None)
        denoiser.to(device, lift.dtype).load_state_dict(dict(state))
        return cls(config, denoiser.eval())


def _groups(config: DiffRecConfig, data: FitData, context: FitContext) -> Tensor:
    """The token of each item, (I,) int64; with an earlier model, its items stay where they are."""
    vectors = item_vectors(data.history, data.n_items, seed=context.run.seed)
    known = None if context.initial is None else context.initial.get("groups")
    return clusters(vectors, config.tokens) if known is None else joined_groups(known.cpu(), vectors)


def network_of(
    config: DiffRecConfig,
    n_items: int,
    sizes: Mapping[str, int],
    groups: Tensor | None,
    generator: torch.Generator | None,
) -> Network:
    """The network that settings name, its first weights drawn. Args: sizes: as `Conditioner`'s.   groups: (I,)."""
    conditioner = config.make_conditioner(sizes, generator)
    if groups is not None:
        return TransformerDenoiser(
            groups, config.token_width, config.layers, config.heads, conditioner=conditioner, generator=generator
        )
    return MLPDenoiser(
        n_items, config.hidden, time_width=config.time_width, conditioner=conditioner, generator=generator
    )


class RowTraining:
    """The `Trainable`: noise a batch of rows, drop entries, compare the estimate with the clean rows."""

    def __init__(self, config: DiffRecConfig, denoiser: Network, rows: SparseRows | Moments, batch_size: int) -> None:
        """Args: rows: of the users, or what gives their examples."""
        self.config, self.rows, self.batch_size, self.denoiser = config, rows, batch_size, denoiser
        self.objective = Objective(config, denoiser.lift_weight.device)
        self.module = nn.ModuleDict({"denoiser": denoiser, "levels": self.objective.levels})

    def batches(self, generator: torch.Generator) -> Iterator[Tensor]:
        """The numbers of the rows, each once, in a new order, (B,)."""
        return shuffled(self.rows, self.batch_size, generator)

    def loss(self, batch: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """As `Objective.loss`. Args: batch: row numbers (B,). Returns: loss, mse and level, (B,) each."""
        example, dtype = drawn(self.rows, batch, generator), self.denoiser.lift_weight.dtype
        x0, wanted = (rows.dense().to(dtype) for rows in (example.row, example.wanted))
        values, _ = self.objective.loss(self.denoiser, x0, example.cond, generator, wanted=wanted)
        return values
