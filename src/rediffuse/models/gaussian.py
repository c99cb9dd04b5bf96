"""What every Gaussian diffusion over users shares: its settings and its training objective; how it answers is `answering`.

| part | where |
|---|---|
| forward process, schedule, prediction | `GaussianConfig.noise_schedule`, `noise/` |
| weighted error at drawn levels | `Objective.loss` |
| what steers it | `GaussianConfig.make_conditioner`, `denoisers/conditioning.py` |
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, Literal, Self, cast

import torch
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor

from rediffuse.denoisers.conditioning import HISTORY, Conditioner, sizes_of
from rediffuse.networks.dropout import drop
from rediffuse.noise.predictions import PREDICTIONS, target
from rediffuse.noise.process import add_noise, at_level
from rediffuse.noise.schedules import SCHEDULES, NoiseSchedule
from rediffuse.protocols import Denoiser, Sampler
from rediffuse.samplers import SAMPLERS, evenly
from rediffuse.training.levels import LEVELS, UniformLevels, loss_weights
from rediffuse.training.moments import MomentConfig
from rediffuse.types import Condition

StartName = Literal["history", "noised_history", "pure_noise", "origin", "thinned_history"]


class GaussianConfig(MomentConfig):
    """What a Gaussian diffusion is, whatever its x_0."""

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
    prediction: Literal["x0", "eps", "v"] = "x0"
    """What the network answers; eps and v go by way of the whole catalog in every step."""
    dropout: float = Field(default=0.5, ge=0, lt=1)
    """Share of x_t set to 0 in training."""
    level_choice: Literal["uniform", "importance"] = "importance"
    """How training levels are drawn."""
    loss_weight: Literal["elbo", "min_snr", "none"] = "elbo"
    """How an error weighs at its level."""
    sampler: Literal["ancestral", "ddim", "heun", "dpmpp"] = "ancestral"
    """The reverse process."""
    eta: float = Field(default=0.0, ge=0, le=1)
    """ddim and dpmpp: how much of the fresh noise of the ancestral process they draw."""
    spacing: Literal["trailing", "leading", "linspace"] = "trailing"
    """Which levels fewer steps than levels visit."""
    sampling_noise: bool = False
    """Whether the sampler draws fresh noise; false walks the means, as every released run. Several draws always do."""
    start: StartName = "history"
    """Where the reverse process begins."""
    draws_start: StartName | None = "thinned_history"
    """Where it begins when several draws are asked for; none: where an ordinary answer does. pure_noise instead of what
    target = 'next' cannot use."""
    draws_temperature: float = Field(default=1.0, ge=0)
    """Factor on the noise of several draws, on top of `Options.temperature`: where draws carry information."""
    steps: PositiveInt | None = None
    """Reverse steps; none runs all levels. `Options.steps` overrides it without retraining."""
    guidance_low: PositiveInt = 1
    """The lowest level at which guidance acts."""
    guidance_high: PositiveInt | None = None
    """The highest; none: all levels above."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        schedule = self.noise_schedule()
        evenly(self.levels, self.steps, spacing=self.spacing)
        able = self.sampler == "ancestral" or (self.sampler in ("ddim", "dpmpp") and self.eta > 0)
        if self.sampling_noise and not able:
            raise ValueError(
                f"sampling_noise goes with sampler = 'ancestral', or ddim and dpmpp with eta > 0; sampler is {self.sampler!r}"
            )
        if self.eta and self.sampler not in ("ddim", "dpmpp"):
            raise ValueError(f"eta goes with sampler = 'ddim' or 'dpmpp'; sampler is {self.sampler!r}")
        if self.prediction != "x0" and not schedule.noisy:
            raise ValueError(f"prediction = {self.prediction!r} needs noise; noise_scale is 0")
        if len(set(self.condition)) < len(self.condition):
            raise ValueError(f"a condition stands twice: {', '.join(self.condition)}")
        if not self.guidance_low <= (self.guidance_high or self.levels) <= self.levels:
            high = self.guidance_high
            raise ValueError(
                f"guidance_low = {self.guidance_low} .. guidance_high = {high} is no part of 1..{self.levels}"
            )
        if self.target == "next" and (HISTORY not in self.condition or self.start not in ("origin", "pure_noise")):
            raise ValueError("target = 'next' needs the condition history, and start = 'origin' or 'pure_noise'")
        return self

    def noise_schedule(self) -> NoiseSchedule:
        """The two tables these settings stand for."""
        ramp = {"scale": self.noise_scale, "low": self.noise_min, "high": self.noise_max}
        more = {"first_beta": self.first_beta or None} if self.schedule == "linear_variance" else {}
        return SCHEDULES[self.schedule](self.levels, **ramp, **more)

    def make_sampler(self) -> tuple[Sampler, bool]:
        """The reverse process, and whether it can draw fresh noise."""
        sampler: Sampler = SAMPLERS[self.sampler]
        if self.sampler in ("ddim", "dpmpp"):
            return cast("Sampler", partial(cast("Any", sampler), eta=self.eta)), self.eta > 0
        return sampler, self.sampler == "ancestral"

    def make_conditioner(self, sizes: Mapping[str, int], generator: torch.Generator | None) -> Conditioner | None:
        """What turns the conditions into tokens, its first weights drawn; None where there is none.

        Args: sizes: as `Conditioner`'s.
        """
        if not sizes:
            return None
        return Conditioner(sizes, self.condition_width, history_length=self.history_length, generator=generator)

    def sizes_in(self, state: Mapping[str, Tensor], n_items: int) -> dict[str, int]:
        """What `make_conditioner` was given. Args: state: of a network, by its own names."""
        return sizes_of(part_of(state, "conditioner."), self.condition, n_items=n_items)


class Objective:
    """The training loss. What is known of the losses at each level is in `levels`, which belongs into a checkpoint."""

    def __init__(self, config: GaussianConfig, device: torch.device | str) -> None:
        """Args: config: schedule, weights and how levels are drawn."""
        self.config, self.schedule = config, config.noise_schedule()
        weights = loss_weights(self.schedule, config.loss_weight, prediction=config.prediction)
        self.weights = weights.to(device)
        self.levels: UniformLevels = LEVELS[config.level_choice](config.levels).to(device)

    def loss(
        self,
        network: Denoiser,
        x0: Tensor,
        cond: Condition | None,
        generator: torch.Generator,
        *,
        wanted: Tensor | None = None,
    ) -> tuple[dict[str, Tensor], Tensor]:
        """w_t mean_i (prediction - target)_i^2 / p_t.

        Args: network: answers as `prediction` says.   x0: (B, D), what is noised.
            wanted: (B, D), what the estimate of x_0 is compared with; None: x_0 itself.
        Returns: loss, mse and level, (B,) each; and the estimate of x_0, (B, D).
        """
        t, p = self.levels.draw(len(x0), generator)
        x_t = x0
        if self.schedule.noisy:
            x_t = add_noise(x0, t, torch.empty_like(x0).normal_(generator=generator), self.schedule)
        answer = network(drop(x_t, self.config.dropout, generator), t, cond).to(x0.dtype)
        estimate, wanted = answer, x0 if wanted is None else wanted
        if self.config.prediction != "x0":
            alpha, sigma = (at_level(table, t, x_t) for table in (self.schedule.alpha, self.schedule.sigma))
            estimate = PREDICTIONS[self.config.prediction].to_x0(x_t, answer, alpha, sigma)
            wanted = target(self.config.prediction, x_t, wanted, t, self.schedule)
        mse = (answer - wanted).square().mean(1).to(torch.float64)
        loss = self.weights[t] * mse
        self.levels.record(t, loss)
        return {"loss": loss / p, "mse": mse, "level": t}, estimate


def part_of(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors of one part of a network, by its own names."""
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
