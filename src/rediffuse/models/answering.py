"""How a trained Gaussian diffusion answers: from a question's options to a plan, down the chain, to one list.

| part | where |
|---|---|
| how a question's options and the settings decide a reverse process | `planned` |
| reverse process, one or many draws at once | `Plan.descend`, `samplers/` |
| points of all draws -> one list | `grounded`, `samplers/draws.py` |
| all of it, in blocks, and what each level would answer | `Answering` |
| what methods have of it | `Answered` |
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from rediffuse.data.weighting import RecencyConfig, weigh
from rediffuse.denoisers.dense import Dense
from rediffuse.errors import InvalidConfig, UnsupportedOption, refuse_options, say, unknown
from rediffuse.grounding.topk import TopK
from rediffuse.models.chain import ChainConfig
from rediffuse.noise.schedules import NoiseSchedule
from rediffuse.protocols import Denoiser, Noise, OnStep, Sampler
from rediffuse.random import PhiloxNoise
from rediffuse.samplers import STARTS, evenly
from rediffuse.samplers.draws import CELLS, fanned, numbers, told
from rediffuse.samplers.guidance import guided
from rediffuse.samplers.starts import thinned_history
from rediffuse.training.moments import condition_of
from rediffuse.types import Condition, Options, Query, Ranking, SparseRows

THINNED = "thinned_history"
NOISED = ("noised_history", "pure_noise")
"""Starts that hold noise."""
MOST_DRAWS = 1024


class Chain(Protocol):
    """A denoiser in the form in which a reverse process runs: `denoisers/collapsed.py`, `denoisers/dense.py`."""

    def lift(self, x: SparseRows) -> Tensor: ...
    def inner(self, u: Tensor, t: Tensor, cond: Condition | None = None) -> Tensor: ...
    def points(self, u: Tensor, t: Tensor, cond: Condition | None = None) -> Tensor: ...
    def score(self, points: Tensor, items: Tensor | None = None) -> Tensor: ...
    def noise(self, source: Noise) -> Noise: ...


@dataclass(frozen=True)
class Plan:
    """A reverse process with every choice made."""

    config: ChainConfig
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

    def begin(self, chain: Chain, rows: SparseRows, source: Noise) -> tuple[Tensor, Noise]:
        """The state at the first level, (B S, H), and where noise comes from. Args: as `descend`."""
        warmth = self.options.temperature * (self.config.draws_temperature if self.options.draws > 1 else 1.0)
        noise = chain.noise(lambda t, like: warmth * source(t, like))
        u = chain.lift(self.thin(rows, source))
        if self.start in STARTS:
            u = STARTS[self.start](u, int(self.levels[0]), self.schedule, noise)
        return u, noise

    def descend(
        self, chain: Chain, rows: SparseRows, cond: Condition | None, source: Noise, on_step: OnStep | None = None
    ) -> Tensor:
        """Run the chain down to its last noisy level.

        Args: rows: x_0 of the history, (B S, I).   cond: of B S subjects.   source: of the rows.
        Returns: the state, (B S, H).
        """
        u, noise = self.begin(chain, rows, source)
        fresh = noise if self.fresh else None
        denoise, levels = self.guided(chain.inner), self.levels[:-1]
        return self.sampler(denoise, u, levels, self.schedule, cond=cond, noise=fresh, on_step=on_step)

    @property
    def scale(self) -> float | dict[str, float]:
        """Of the guidance: what was asked for times what is configured."""
        scale, own = self.options.guidance_scale, self.config.guidance_scale
        if not isinstance(scale, Mapping):
            return own * scale
        return {**scale, **{name: own * scale.get(name, 1.0) for name in self.config.condition}}

    def guided(self, denoise: Denoiser) -> Denoiser:
        """The same, leaning towards its conditions as far as was asked."""
        high = self.config.guidance_high or self.config.levels
        return guided(denoise, self.config.condition, self.scale, levels=(self.config.guidance_low, high))

    def thin(self, rows: SparseRows, source: Noise) -> SparseRows:
        """What a draw is given of the history. Args: rows: (B S, I)."""
        return thinned_history(rows, self.thinning, source) if self.start == THINNED else rows


def planned(name: str, config: ChainConfig, options: Options, thinning: float | None = None) -> Plan:
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
    if start not in config.starts:
        if options.start:
            raise UnsupportedOption(
                say(f"{name} cannot use 'start': it begins at {' or '.join(config.starts)}", got=start)
            )
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


def _guidable(config: ChainConfig, levels: Tensor) -> bool:
    """Whether guidance can act: the nulls were trained, and a level that is visited lies in its interval."""
    inside = (levels >= config.guidance_low) & (levels <= (config.guidance_high or config.levels))
    return bool(config.condition) and config.condition_drop > 0 and bool(inside.any())


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


@dataclass(frozen=True)
class Answering:
    """A trained chain as a `Recommender` and `Stepwise`, whatever its x_0 is."""

    name: str
    """Of the method, for messages."""
    config: ChainConfig
    chain: Chain
    weight: Tensor
    """(I, H), any of the network: queries go to its device, rows take its number format."""
    thinning: float | None = None
    """As in `planned`."""
    known: Callable[[Query], Condition | None] | None = None
    """What a query, on the chain's device, tells of the conditions; None: `condition_of` as the settings name them."""
    whole: "Callable[[Plan, Tensor, Condition | None, Noise], Tensor | None] | None" = None
    """(plan, first state (B S, H), conditions, noise) -> the points of the last level at once; None: step by step."""

    def recommend(self, query: Query, k: int, *, options: Options = Options(), seed: int = 0) -> Ranking:
        """As `Recommender.recommend`; honours steps, start, with conditions guidance_scale, and where noise is drawn

        draws and temperature.
        """
        return self._answered(query, k, options, seed, watched=False)[-1][1]

    def walk(self, query: Query, k: int, *, options: Options = Options(), seed: int = 0) -> list[tuple[int, Ranking]]:
        """As `Stepwise.walk`. Limits: a level is ranked as it is visited, so no state outlives its step."""
        return self._answered(query, k, options, seed, watched=True)

    def asked(self, plan: Plan, query: Query, seed: int) -> tuple[SparseRows, Condition | None, Noise]:
        """What a chain is given: rows (B S, I), conditions of B S subjects, and the source of their draws."""
        recency = self.config if isinstance(self.config, RecencyConfig) else RecencyConfig()
        rows = weigh(query.history, recency, len(self.weight), query.at_us)
        rows = rows.to(self.weight.device, self.weight.dtype)
        if self.known is None:
            cond = condition_of(self.config.condition, query, self.config.history_length)
        else:
            cond = self.known(query)
        if plan.options.draws > 1:
            each = fanned(torch.arange(len(query), device=self.weight.device), plan.options.draws)
            rows, cond = rows.select(each), None if cond is None else cond.select(each)
        return rows, cond, plan.source(query, seed)

    def _answered(
        self, query: Query, k: int, options: Options, seed: int, *, watched: bool
    ) -> list[tuple[int, Ranking]]:
        """The lists of the last level, preceded by those of the others where it is watched; a few subjects at a time."""
        plan = planned(self.name, self.config, options, self.thinning)
        with torch.inference_mode():
            parts = [self._levels(plan, some, k, seed, watched=watched) for some in self._blocks(query, options.draws)]
        return [(level[0][0], Ranking.joined([lists for _, lists in level])) for level in zip(*parts, strict=True)]

    def _blocks(self, query: Query, draws: int) -> Sequence[Query]:
        """As many subjects at a time as all their draws together are no more than CELLS numbers."""
        width = len(self.weight) if draws > 1 or isinstance(self.chain, Dense) else 1
        size, query = max(1, CELLS // (draws * max(width, 1))), query.to(self.weight.device)
        if len(query) <= size:
            return [query]
        return [query.select(rows) for rows in torch.arange(len(query), device=query.key.device).split(size)]

    def _levels(self, plan: Plan, query: Query, k: int, seed: int, *, watched: bool) -> list[tuple[int, Ranking]]:
        rows, cond, source = self.asked(plan, query, seed)
        points, found = plan.guided(self.chain.points), dict[int, Ranking]()

        def ground(t: int, u: Tensor, _: Tensor | None = None) -> None:
            at = torch.full((len(u),), t, device=u.device)
            answer = points(u, at, cond)
            # Of two looks at a level the later one stays.
            found[t] = grounded(answer, self.chain.score, len(self.weight), query, k, plan.options.draws)

        if not watched and self.whole is not None:
            u, noise = plan.begin(self.chain, rows, source)
            end = self.whole(plan, u, cond, noise)
            if end is not None:
                return [(plan.last, grounded(end, self.chain.score, len(self.weight), query, k, plan.options.draws))]
        u = plan.descend(self.chain, rows, cond, source, on_step=ground if watched else None)
        ground(plan.last, u)
        return list(found.items())


class Answered:
    """What a method whose `answering` is its trained chain has of `Method` and `Stepwise` for nothing."""

    answering: Answering

    @property
    def n_items(self) -> int:
        """Size of the catalog, I."""
        return len(self.answering.weight)

    @property
    def steps(self) -> int:
        """Reverse steps of an ordinary answer."""
        return self.answering.config.steps or self.answering.config.levels

    def recommend(self, query: Query, k: int, *, options: Options = Options(), seed: int = 0) -> Ranking:
        """As `Answering.recommend`."""
        return self.answering.recommend(query, k, options=options, seed=seed)

    def walk(self, query: Query, k: int, *, options: Options = Options(), seed: int = 0) -> list[tuple[int, Ranking]]:
        """As `Answering.walk`."""
        return self.answering.walk(query, k, options=options, seed=seed)
