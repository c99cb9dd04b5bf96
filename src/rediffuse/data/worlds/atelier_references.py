"""Two yardsticks for a method on Atelier: who knows the truth, and who has drawn from the events all that is in them.

Both rank by the probability that the user has an event on the item within a window (`atelier_latents.chance`), the best
order for the expected number of hits; users with much to find weigh as much as others in recall, so there it is nearly
the best. No method that sees the events alone can be expected to pass the ceiling; the oracle shows what luck leaves.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from rediffuse.data.dataset import Dataset
from rediffuse.data.worlds.atelier import World, regenerate
from rediffuse.data.worlds.atelier_config import END_US, START_US
from rediffuse.data.worlds.atelier_filter import Posterior, infer
from rediffuse.data.worlds.atelier_latents import Laws, Window, chance, true_cloud
from rediffuse.data.worlds.atelier_seen import seen_of, span_of
from rediffuse.errors import InvalidInput, UnsupportedOption, refuse_options, say
from rediffuse.protocols import Recommender
from rediffuse.types import Assortment, Options, Query, Ragged, Ranking, history_key

PARTICLES = 64
MOST_ITEMS = 20_000


class Reference(NamedTuple):
    """A yardstick, with what to say of it."""

    name: str
    meaning: str
    make: Callable[[int], Recommender]
    """The recommender for a replicate, 0 .. replicates - 1."""
    replicates: int
    """1 where the answer is exact; else the metric's Monte-Carlo standard error is the standard deviation over so many."""


def references(
    dataset: Dataset, start_us: int, end_us: int, *, seed: int = 1, particles: int = PARTICLES
) -> list[Reference]:
    """The yardsticks for a dataset made from this world.

    Args: start_us, end_us: the part that is reported; histories must hold every event before its start.
    Raises: InvalidInput when the dataset is of no such world, or its world is drawn otherwise by this version.
    """
    world = regenerate(dataset.facts)
    known = (list(dataset.users.items.ids), list(dataset.catalog.items.ids))
    if known != (world.users["user"].to_list(), world.items["item"].to_list()):
        raise InvalidInput(
            say("Users or items are not those of the world in its recipe", remedy="Import the world anew")
        )
    window = (start_us, end_us)

    def ceiling(replicate: int) -> Recommender:
        return Ceiling(world, window, particles, seed + replicate)

    def oracle(replicate: int) -> Recommender:
        del replicate
        return Oracle(world, window)

    return [
        Reference(
            "ceiling",
            "The best order that the events of a user allow to someone who knows the laws of this world, but no user.",
            ceiling,
            4,
        ),
        Reference(
            "oracle",
            "The order by the true probabilities, from which the events were drawn: what is missing to 1 is chance.",
            oracle,
            1,
        ),
    ]


def window_of(dataset: Dataset, part: str) -> tuple[int, int]:
    """From the first event of a part to the first of the next one, or to the end of the world: UTC microseconds.

    Raises: InvalidInput when the data is not split or not by time, so that the parts overlap.
    """
    split = dataset.split
    if split is None:
        raise InvalidInput(say(f"Dataset {dataset.name!r} is not split yet", remedy="Split it by global-time"))
    time_us, place = dataset.events.frame["time_us"].to_numpy(), split.place(part)
    own, before, after = (time_us[where] for where in (split.part == place, split.part < place, split.part > place))
    start, end = int(own.min()), int(after.min()) if len(after) else END_US
    if (len(before) and before.max() > start) or own.max() > end:
        raise InvalidInput(say("The ceiling needs parts that follow each other in time", remedy="Split by global-time"))
    return start, end


@dataclass(frozen=True)
class Oracle:
    """Ranks by the truth: the latents of every user, and the trend as it came to be."""

    world: World
    window_us: tuple[int, int]

    def __post_init__(self) -> None:
        """Refuse a window that is none."""
        _check_window(self.window_us)

    def recommend(self, query: Query, k: int, *, options: Options = Options(), seed: int = 0) -> Ranking:
        """As `Recommender.recommend`; for users of this world only."""
        del seed
        refuse_options("oracle", options.asked())
        return _ranking([self._chance(user) for user in _users(query, self.world)], query, k, self.world.items.height)

    def _chance(self, user: int) -> Tensor:
        utility = self.world.truth.utility
        return chance(self._laws, true_cloud(utility, user), self._window, span_of(utility.users, user))[0]

    @cached_property
    def _laws(self) -> Laws:
        return Laws.of(self.world.truth.utility, self.world.truth.trend, END_US)

    @cached_property
    def _window(self) -> Window:
        return Window.of(*self.window_us)


@dataclass(frozen=True)
class Ceiling:
    """Ranks by the Bayes-optimal probabilities: the laws of the world are known, of a user only what the shop saw.

    Known: attributes and appeal of items, the styles, the laws of all latents, the user's events before the window, age
    band, tier and day of joining, and the trend that the shop showed in the week in which the window begins, which is held.
    Answers are averages over draws from the posterior; see `atelier_filter`. A user's draws depend on (seed, user) alone.
    """

    world: World
    window_us: tuple[int, int]
    particles: int = PARTICLES
    seed: int = 1
    known: dict[tuple[int, int], Tensor] = field(default_factory=dict[tuple[int, int], Tensor], repr=False)
    """(user, key of the history) -> (I,) answers given before."""
    effective: dict[int, float] = field(default_factory=dict[int, float], repr=False)
    """User -> effective sample size of the last answer, 1 .. particles."""

    def __post_init__(self) -> None:
        """Refuse a window that is none, too few particles and a catalog that is too large."""
        _check_window(self.window_us)
        if self.particles < 2:
            raise InvalidInput(say("The ceiling needs at least 2 particles", got=self.particles, remedy="Use 64"))
        if (items := self.world.items.height) > MOST_ITEMS:
            what = "The ceiling sums over the whole catalog for every particle"
            raise InvalidInput(say(what, got=items, allowed=f"up to {MOST_ITEMS} items"))

    def recommend(self, query: Query, k: int, *, options: Options = Options(), seed: int = 0) -> Ranking:
        """As `Recommender.recommend`; for users of this world only. The seed is that of the ceiling."""
        del seed
        refuse_options("ceiling", options.asked())
        asked = list(zip(_users(query, self.world), history_key(query.history).tolist(), strict=True))
        for row, (user, key) in enumerate(asked):
            if (user, key) not in self.known:
                self.known[user, key] = self._chance(query.history, row, user)
        return _ranking([self.known[pair] for pair in asked], query, k, self.world.items.height)

    def posterior(self, history: Ragged, row: int, user: int) -> Posterior:
        """Draws of the latents of a user. Args: row: whose events in `history`."""
        rng = np.random.default_rng([self.seed, user])
        seen = seen_of(self.world.truth.utility.users, user, history, row, self.window_us[0])
        return infer(self._laws, seen, self.particles, rng)

    def _chance(self, history: Ragged, row: int, user: int) -> Tensor:
        found = self.posterior(history, row, user)
        self.effective[user] = found.effective
        span = span_of(self.world.truth.utility.users, user)
        return found.weight @ chance(self._laws, found.cloud, self._window, span)

    @cached_property
    def _laws(self) -> Laws:
        return Laws.of(self.world.truth.utility, self.world.truth.trend, self.window_us[0])

    @cached_property
    def _window(self) -> Window:
        return Window.of(*self.window_us)


def _check_window(window_us: tuple[int, int]) -> None:
    start, end = window_us
    if not START_US <= start < end <= END_US:
        raise InvalidInput(say("The window must lie within the world", got=window_us, allowed=f"{START_US}..{END_US}"))


def _users(query: Query, world: World) -> list[int]:
    users = query.user.tolist()
    if any(not 0 <= user < world.users.height for user in users):
        raise InvalidInput(say("Only users of the world can be asked for", got=min(users), remedy="Query by user"))
    return users


def _ranking(rows: list[Tensor], query: Query, k: int, n_items: int) -> Ranking:
    """The k best, best first; the lower number first among equals. Args: rows: B scores of (I,)."""
    scores = torch.stack(rows) if rows else torch.zeros(0, n_items)
    if isinstance(query.candidates, Assortment):
        raise UnsupportedOption(
            say("A reference takes candidates as lists only", remedy="Give the ids that are allowed")
        )
    if query.candidates is not None:
        allowed = torch.zeros_like(scores, dtype=torch.bool)
        allowed[query.candidates.rows, query.candidates.items] = True
        scores = scores.masked_fill(~allowed, -torch.inf)
    if query.exclude is not None:
        scores = scores.index_put((query.exclude.rows, query.exclude.items), torch.tensor(-torch.inf))
    values, items = scores.sort(dim=1, descending=True, stable=True)
    missing = max(k - scores.shape[1], 0)
    items = torch.nn.functional.pad(items.masked_fill(values == -torch.inf, -1)[:, :k], (0, missing), value=-1)
    return Ranking(items, torch.nn.functional.pad(values[:, :k], (0, missing), value=-torch.inf))
