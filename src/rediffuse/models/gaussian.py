"""What every Gaussian diffusion over users shares: its settings, its training objective, its way back.

| part | where |
|---|---|
| forward process, schedule, prediction | `GaussianConfig.noise_schedule`, `noise/` |
| weighted error at drawn levels | `Objective.loss` |
| how a question's options and the settings decide a reverse process | `planned` |
| reverse process, one or many draws at once | `Plan.descend`, `samplers/` |
| points of all draws -> one list | `grounded`, `samplers/draws.py` |
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, Protocol, Self, cast

import torch
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor

from rediffuse.denoisers.conditioning import HISTORY
from rediffuse.errors import InvalidConfig, UnsupportedOption, refuse_options, say, unknown
from rediffuse.grounding.topk import TopK
from rediffuse.noise.predictions import target
from rediffuse.noise.process import add_noise
from rediffuse.noise.schedules import SCHEDULES, NoiseSchedule
from rediffuse.protocols import Denoiser, Noise, OnStep, Sampler
from rediffuse.random import PhiloxNoise
from rediffuse.samplers import SAMPLERS, STARTS, evenly
from rediffuse.samplers.draws import CELLS, fanned, numbers, told
from rediffuse.samplers.guidance import guided
from rediffuse.samplers.starts import thinned_history
from rediffuse.training.corruption import drop
from rediffuse.training.levels import LEVELS, UniformLevels, loss_weights
from rediffuse.training.moments import MomentConfig
from rediffuse.types import Condition, Options, Query, Ranking, SparseRows

THINNED = "thinned_history"
StartName = Literal["history", "noised_history", "pure_noise", "origin", "thinned_history"]
NOISED = ("noised_history", "pure_noise")
"""Starts that hold noise."""
MOST_DRAWS = 1024


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
        Returns: loss, mse and level, (B,) each; and what the network answered, (B, D).
        """
        t, p = self.levels.draw(len(x0), generator)
        x_t = x0
        if self.schedule.noisy:
            x_t = add_noise(x0, t, torch.empty_like(x0).normal_(generator=generator), self.schedule)
        answer = network(drop(x_t, self.config.dropout, generator), t, cond).to(x0.dtype)
        wanted = x0 if wanted is None else wanted
        if self.config.prediction != "x0":
            wanted = target(self.config.prediction, x_t, wanted, t, self.schedule)
        mse = (answer - wanted).square().mean(1).to(torch.float64)
        loss = self.weights[t] * mse
        self.levels.record(t, loss)
        return {"loss": loss / p, "mse": mse, "level": t}, answer


class Chain(Protocol):
    """A denoiser in the form in which a reverse process runs: `denoisers/collapsed.py`, `denoisers/dense.py`."""

    def lift(self, x: SparseRows | Tensor) -> Tensor: ...
    def inner(self, u: Tensor, t: Tensor, cond: Condition | None = None) -> Tensor: ...
    def points(self, u: Tensor, t: Tensor, cond: Condition | None = None) -> Tensor: ...
    def score(self, points: Tensor, items: Tensor | None = None) -> Tensor: ...
    def noise(self, source: Noise) -> Noise: ...


@dataclass(frozen=True)
class Plan:
    """A reverse process with every choice made."""

    config: GaussianConfig
    schedule: NoiseSchedule
    levels: Tensor
    """(N+1,) int64, falling to 0."""
    start: str
    sampler: Sampler
    fresh: bool
    """Whether noise is drawn on the way."""
    options: Options
    thinning: float
    """Share of a history that `thinned_history` leaves out."""

    @property
    def last(self) -> int:
        """The level of the last answer."""
        return int(self.levels[-2])

    def source(self, query: Query, seed: int) -> PhiloxNoise:
        """Draws of each query and draw, (B S) rows."""
        draws = self.options.draws
        return PhiloxNoise(seed, fanned(query.key, draws), numbers(len(query), draws, query.key.device))

    def descend(
        self,
        chain: Chain,
        rows: SparseRows | Tensor,
        cond: Condition | None,
        source: Noise,
        on_step: OnStep | None = None,
    ) -> tuple[Tensor, Denoiser, Condition | None]:
        """Run the chain down to its last noisy level.

        Args: rows: x_0 of the history, (B S, ..), as the chain lifts it.   cond: of B S subjects.
        Returns: the state (B S, H), what gives the points of an answer from it, guided, and the conditions.
        """
        warmth = self.options.temperature * (self.config.draws_temperature if self.options.draws > 1 else 1.0)
        noise = chain.noise(lambda t, like: warmth * source(t, like))
        u = chain.lift(rows)
        if self.start != THINNED:
            u = STARTS[self.start](u, int(self.levels[0]), self.schedule, noise)
        u = self.sampler(
            self._guided(chain.inner),
            u,
            self.levels[:-1],
            self.schedule,
            cond=cond,
            noise=noise if self.fresh else None,
            on_step=on_step,
        )
        return u, self._guided(chain.points), cond

    def _guided(self, denoise: Denoiser) -> Denoiser:
        high = self.config.guidance_high or self.config.levels
        scale = self.options.guidance_scale
        return guided(denoise, self.config.condition, scale, levels=(self.config.guidance_low, high))

    def thin(self, rows: SparseRows, source: Noise) -> SparseRows:
        """What a draw is given of the history. Args: rows: (B S, I)."""
        return thinned_history(rows, self.thinning, source) if self.start == THINNED else rows


def planned(name: str, config: GaussianConfig, options: Options, thinning: float | None = None) -> Plan:
    """Decide how a question is answered.

    Args: name: of the method, for messages.   thinning: share of the history that training left out; None: its dropout.
    Raises: InvalidConfig for an unknown start or impossible steps; UnsupportedOption where an option has no effect.
    """
    thinning = config.dropout if thinning is None else thinning
    if not 1 <= options.draws <= MOST_DRAWS:
        raise InvalidConfig(say(f"draws must be 1..{MOST_DRAWS}", got=options.draws, remedy="32 is an ordinary number"))
    if not 0 <= options.temperature < math.inf:
        raise InvalidConfig(say("temperature must be 0 or more", got=options.temperature, remedy="1 is as configured"))
    schedule = config.noise_schedule()
    many = options.draws > 1
    start = options.start or (config.draws_start if many and config.draws_start else config.start)
    if options.start == "" or start not in (*STARTS, THINNED):
        raise InvalidConfig(unknown("start", options.start or start, (*STARTS, THINNED)))
    if config.target == "next" and start not in ("origin", "pure_noise"):
        if options.start:
            raise UnsupportedOption(say(f"{name} with target = 'next' begins at origin or pure_noise", got=start))
        start = "pure_noise"
    levels = evenly(config.levels, config.steps if options.steps is None else options.steps, spacing=config.spacing)
    sampler, stochastic = config.make_sampler()
    noisy_walk = schedule.noisy and stochastic and len(levels) > 2
    fresh = noisy_walk and (config.sampling_noise or many)
    warm = fresh or (schedule.noisy and start in NOISED)
    thins = start == THINNED and thinning > 0
    if start == THINNED == options.start and not thins:
        raise UnsupportedOption(
            say(f"{name} cannot use 'start' = {start!r}: its training left nothing out of a history")
        )
    if many and not (warm or thins):
        starts = [*(NOISED if schedule.noisy else ()), *([THINNED] if thinning > 0 else ())]
        remedy = f"Set start to one of {', '.join(starts)}" if starts else "Leave draws out"
        raise UnsupportedOption(say(f"{name} cannot use 'draws' from start {start!r}: nothing is drawn", remedy=remedy))
    able = ["steps", "start", "draws"]
    able += ["temperature"] if warm else []
    able += ["guidance_scale"] if _guidable(config, levels) else []
    refuse_options(name, options.asked(), able)
    return Plan(config, schedule, levels, start, sampler, fresh, options, thinning)


def _guidable(config: GaussianConfig, levels: Tensor) -> bool:
    """Whether guidance can act: the nulls were trained, and a level that is visited lies in its interval."""
    inside = (levels >= config.guidance_low) & (levels <= (config.guidance_high or config.levels))
    return bool(config.condition) and config.condition_drop > 0 and bool(inside.any())


def in_blocks(query: Query, draws: int, width: int, answer: Callable[[Query], Ranking]) -> Ranking:
    """Answer a few subjects at a time where all their draws together are too many numbers. Args: width: of a state."""
    size = max(1, CELLS // (draws * max(width, 1)))
    if len(query) <= size:
        return answer(query)
    parts = [answer(query.select(rows)) for rows in torch.arange(len(query), device=query.key.device).split(size)]
    return Ranking.joined(parts)


def grounded(
    points: Tensor,
    score: Callable[[Tensor, Tensor | None], Tensor],
    n_items: int,
    query: Query,
    k: int,
    draws: int,
) -> Ranking:
    """The k best by the mean over draws; with several draws, how they spread and how often an item is in a draw's top k.

    Args: points: (B S, H'), what an affine head reads.   score: that head.
    """
    top = TopK(score, n_items)
    if draws == 1:
        return top(points, k, seen=query.exclude, candidates=query.candidates).cpu()
    each = points.unflatten(0, (len(query), draws))
    ranking = top(each.mean(1), k, seen=query.exclude, candidates=query.candidates)
    everyone = query.fanned(draws)
    lists = top(points, k, seen=everyone.exclude, candidates=everyone.candidates).items
    return told(ranking, each, score, lists.unflatten(0, (len(query), draws)), n_items).cpu()
