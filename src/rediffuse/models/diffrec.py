"""DiffRec: denoise a user's interaction row. T-DiffRec is the same under recency weights.

| equation of the paper | here |
|---|---|
| forward process, eq. 2-3 | `noise/process.py::add_noise` |
| variance schedule, eq. 4 | `noise/schedules.py::linear_variance` |
| posterior, eq. 7-8 and 10 | `noise/process.py::posterior_weights` |
| loss and its weights, eq. 11-13 | `RowTraining.loss`, `training/levels.py::loss_weights` |
| importance sampling of levels, eq. 14 | `training/levels.py::ImportanceLevels` |
| inference, section 3.3, algorithm 2 | `DiffRec.recommend`: `samplers/starts.py`, `samplers/ancestral.py` |
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
from rediffuse.data.weighting import RecencyConfig, weigh
from rediffuse.denoisers.collapsed import collapse
from rediffuse.denoisers.mlp import MLPDenoiser
from rediffuse.errors import InvalidConfig, refuse_options, unknown
from rediffuse.grounding.topk import TopK
from rediffuse.noise.process import add_noise
from rediffuse.noise.schedules import SCHEDULES, NoiseSchedule
from rediffuse.protocols import FitContext, FitData, OnStep, Range, Tunable
from rediffuse.random import PhiloxNoise
from rediffuse.samplers import SAMPLERS, STARTS, evenly
from rediffuse.training.corruption import drop
from rediffuse.training.levels import LEVELS, UniformLevels, loss_weights
from rediffuse.training.loop import TrainingConfig, learn, take_over
from rediffuse.training.rows import generators, known_rows, shuffled
from rediffuse.types import Options, Query, Ranking, SparseRows


class DiffRecConfig(RecencyConfig):
    """What a DiffRec is."""

    hidden: tuple[PositiveInt, ...] = Field(default=(600, 200, 600), min_length=1)
    """Widths of the hidden layers; the authors' dims [200, 600] read (600, 200, 600) here."""
    time_width: int = Field(default=10, ge=2)
    """Width of the time embedding."""
    levels: PositiveInt = 5
    """T, the number of noise levels."""
    schedule: Literal["linear", "linear_variance", "cosine", "binomial"] = "linear_variance"
    """How noise grows with the level."""
    noise_scale: float = Field(default=0.01, ge=0)
    """Factor on the noise of the two linear schedules; 0 is no noise at all."""
    noise_min: float = Field(default=0.001, ge=0)
    """Where the linear ramp begins."""
    noise_max: float = Field(default=0.01, gt=0)
    """Where the linear ramp ends."""
    first_beta: float = Field(default=1e-5, ge=0, lt=1)
    """Replaces beta_1 of linear_variance, as in the authors' code; 0 leaves the prescribed variances."""
    dropout: float = Field(default=0.5, ge=0, lt=1)
    """Share of x_t set to 0 in training."""
    level_choice: Literal["uniform", "importance"] = "importance"
    """How training levels are drawn."""
    loss_weight: Literal["elbo", "min_snr", "none"] = "elbo"
    """How an error weighs at its level."""
    sampler: Literal["ancestral", "ddim"] = "ancestral"
    """The reverse process."""
    sampling_noise: bool = False
    """Whether the ancestral sampler draws fresh noise; false walks the means, as every released run."""
    start: Literal["history", "noised_history", "pure_noise"] = "history"
    """Where the reverse process begins."""
    steps: PositiveInt | None = None
    """Reverse steps; none runs all levels. `Options.steps` overrides it without retraining."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        self.noise_schedule()
        evenly(self.levels, self.steps)
        if self.sampling_noise and self.sampler != "ancestral":
            raise ValueError(f"sampling_noise goes with sampler = 'ancestral'; sampler is {self.sampler!r}")
        return self

    def noise_schedule(self) -> NoiseSchedule:
        """The two tables these settings stand for."""
        ramp = {"scale": self.noise_scale, "low": self.noise_min, "high": self.noise_max}
        more = {"first_beta": self.first_beta or None} if self.schedule == "linear_variance" else {}
        return SCHEDULES[self.schedule](self.levels, **ramp, **more)


class DiffRec:
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
            ("t-yelp-clean", 1e-5, (1000,), 5, 0.005, 0.001, 0.01, {"recency": "linear", "weight_min": 0.5}),
            ("t-amazon-book-clean", 1e-5, (1000,), 10, 5e-4, 0.001, 0.005, {"recency": "linear", "weight_min": 0.1}),
        )
    }

    controls: ClassVar[Mapping[str, Sequence[str]]] = dict.fromkeys(
        ("atelier-no-noise", "ml-1m-clean-no-noise"), ("levels", "noise_scale")
    )
    tunable: ClassVar[Mapping[str, Tunable]] = {
        "learning_rate": Range(1e-4, 3e-3, log=True),
        "levels": (5, 10, 40, 100),
        "noise_scale": Range(1e-4, 0.5, log=True),
        "dropout": Range(0.1, 0.8),
        "hidden": ((300, 100, 300), (600, 200, 600), (1000,)),
    }

    def __init__(self, config: DiffRecConfig, denoiser: MLPDenoiser) -> None:
        """Collapse a trained denoiser; later changes of its weights are not seen."""
        self.config, self.denoiser = config, denoiser
        self.schedule = config.noise_schedule()
        self.collapsed = collapse(denoiser)

    @classmethod
    def fit(cls, config: FrozenConfig, training: FrozenConfig, data: FitData, context: FitContext) -> Self:
        """Train on rows of the given events.

        Raises: InvalidInput when recency is asked of data without order; TrainingDiverged.
        """
        assert isinstance(config, DiffRecConfig)
        assert isinstance(training, TrainingConfig)
        rows = known_rows(data, config, context.run)
        first, generator = generators(context.run)
        denoiser = MLPDenoiser(data.n_items, config.hidden, time_width=config.time_width, generator=first)
        if context.initial is not None:
            take_over(denoiser, context.initial)
        task = RowTraining(config, denoiser.to(rows.device, rows.values.dtype), rows, training.batch_size)
        learn(task, training, generator, context, lambda: cls(config, denoiser))
        return cls(config, denoiser)

    @property
    def n_items(self) -> int:
        """Size of the catalog, I."""
        return self.denoiser.lift_weight.shape[0]

    @property
    def steps(self) -> int:
        """Reverse steps of an ordinary answer."""
        return self.config.steps or self.config.levels

    def recommend(self, query: Query, k: int, *, options: Options = Options(), seed: int = 0) -> Ranking:
        """As `Recommender.recommend`; honours steps, start and, where noise is drawn, temperature."""
        with torch.inference_mode():
            u, t, query = self._descend(query, options, seed)
            return self._ground(u, t, query, k)

    def walk(self, query: Query, k: int, *, options: Options = Options(), seed: int = 0) -> list[tuple[int, Ranking]]:
        """As `Stepwise.walk`."""
        states: list[tuple[int, Tensor]] = []
        with torch.inference_mode():
            u, t, query = self._descend(query, options, seed, lambda t, u, _: states.append((t, u.clone())))
            return [(level, self._ground(state, level, query, k)) for level, state in [*states, (t, u)]]

    def _descend(
        self, query: Query, options: Options, seed: int, on_step: OnStep | None = None
    ) -> tuple[Tensor, int, Query]:
        """Run the chain in hidden space down to its last noisy level. Returns: u (B, H), that level, the query."""
        config, weight = self.config, self.denoiser.lift_weight
        start = config.start if options.start is None else options.start
        if start not in STARTS:
            raise InvalidConfig(unknown("start", start, STARTS))
        levels = evenly(config.levels, config.steps if options.steps is None else options.steps)
        fresh = config.sampling_noise and len(levels) > 2
        draws_noise = self.schedule.noisy and (fresh or start != "history")
        refuse_options("diffrec", options.asked(), ("steps", "start", *(["temperature"] if draws_noise else [])))
        query = query.to(weight.device)
        rows = weigh(query.history, config, self.n_items, query.at_us).to(weight.device, weight.dtype)
        draws = PhiloxNoise(seed, query.key)
        noise = self.collapsed.noise(lambda t, like: options.temperature * draws(t, like))
        u = STARTS[start](self.collapsed.lift(rows), int(levels[0]), self.schedule, noise)
        u = SAMPLERS[config.sampler](
            self.collapsed.inner,
            u,
            levels[:-1],
            self.schedule,
            noise=noise if config.sampling_noise else None,
            on_step=on_step,
        )
        return u, int(levels[-2]), query

    def _ground(self, u: Tensor, t: int, query: Query, k: int) -> Ranking:
        """The items that the estimate of x_0 at level t ranks highest. Args: u: (B, H)."""
        h = self.denoiser.core(u, torch.full((u.shape[0],), t, device=u.device))
        top = TopK(self.denoiser.head, self.n_items)
        return top(h, k, seen=query.exclude, candidates=query.candidates).cpu()

    def state(self) -> dict[str, Tensor]:
        """The network's weights by name."""
        return {name: tensor.detach() for name, tensor in self.denoiser.state_dict().items()}

    @classmethod
    def restore(cls, config: FrozenConfig, state: Mapping[str, Tensor], device: str) -> Self:
        """Rebuild from `state`."""
        assert isinstance(config, DiffRecConfig)
        lift = state["lift_weight"]
        denoiser = MLPDenoiser(lift.shape[0], config.hidden, time_width=config.time_width)
        denoiser.to(device, lift.dtype).load_state_dict(dict(state))
        return cls(config, denoiser.eval())


class RowTraining:
    """The `Trainable`: noise a batch of rows, drop entries, compare the estimate with the clean rows."""

    def __init__(self, config: DiffRecConfig, denoiser: MLPDenoiser, rows: SparseRows, batch_size: int) -> None:
        self.config, self.rows, self.batch_size, self.denoiser = config, rows, batch_size, denoiser
        self.schedule = config.noise_schedule()
        self.weights = loss_weights(self.schedule, config.loss_weight).to(rows.device)
        self.levels: UniformLevels = LEVELS[config.level_choice](config.levels).to(rows.device)
        self.module = nn.ModuleDict({"denoiser": denoiser, "levels": self.levels})

    def batches(self, generator: torch.Generator) -> Iterator[Tensor]:
        """The numbers of the rows, each once, in a new order, (B,)."""
        return shuffled(self.rows, self.batch_size, generator)

    def loss(self, batch: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """w_t mean_i (x_0 - x0_hat)_i^2 / p_t. Args: batch: row numbers (B,). Returns: loss, mse and level, (B,) each."""
        x0 = self.rows.select(batch).dense()
        t, p = self.levels.draw(len(batch), generator)
        x_t = x0
        if self.schedule.noisy:
            x_t = add_noise(x0, t, torch.empty_like(x0).normal_(generator=generator), self.schedule)
        estimate = self.denoiser(drop(x_t, self.config.dropout, generator), t).to(x0.dtype)
        mse = (estimate - x0).square().mean(1).to(torch.float64)
        loss = self.weights[t] * mse
        self.levels.record(t, loss)
        return {"loss": loss / p, "mse": mse, "level": t}
