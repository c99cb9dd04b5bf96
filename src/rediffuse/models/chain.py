"""Settings of a reverse chain, whatever its x_0 is: what `noise/`, `samplers/` and guidance are told."""

from functools import partial
from typing import Any, Literal, Self, cast, get_args

from pydantic import Field, PositiveInt, model_validator

from rediffuse.noise.schedules import SCHEDULES, NoiseSchedule
from rediffuse.protocols import Sampler
from rediffuse.samplers import SAMPLERS, evenly
from rediffuse.training.moments import SteerConfig

StartName = Literal["history", "noised_history", "pure_noise", "origin", "thinned_history"]
ScheduleName = Literal[
    "linear", "linear_variance", "cosine", "binomial", "sqrt", "exponential", "truncated_linear", "clipped_cosine"
]
FREE: tuple[StartName, ...] = ("origin", "pure_noise")
"""Starts that hold nothing of the history."""


class ChainConfig(SteerConfig):
    """What a Gaussian diffusion is, whatever its x_0: levels and noise, the reverse process, guidance."""

    levels: PositiveInt = 5
    """T, the number of noise levels."""
    schedule: ScheduleName = "linear_variance"
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
    guidance_scale: float = 1.0
    """Scale of an ordinary answer; what a question asks for multiplies it, and 1 is none."""
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
        if self.guidance_scale != 1 and not (self.condition and self.condition_drop > 0):
            raise ValueError(f"guidance_scale = {self.guidance_scale} needs a condition, and condition_drop > 0")
        if len(set(self.condition)) < len(self.condition):
            raise ValueError(f"a condition stands twice: {', '.join(self.condition)}")
        if not self.guidance_low <= (self.guidance_high or self.levels) <= self.levels:
            high = self.guidance_high
            raise ValueError(
                f"guidance_low = {self.guidance_low} .. guidance_high = {high} is no part of 1..{self.levels}"
            )
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

    @property
    def starts(self) -> tuple[StartName, ...]:
        """Where a reverse process may begin."""
        return get_args(StartName)
