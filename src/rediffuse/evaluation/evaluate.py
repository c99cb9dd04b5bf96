"""Ask a recommender a phase of a protocol, user by user, and score its lists."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rediffuse.data.context import moments
from rediffuse.data.dataset import Dataset
from rediffuse.evaluation.accuracy import METRICS, ties_against_us
from rediffuse.evaluation.protocol import Phase, Protocol
from rediffuse.evaluation.statistics import Interval, bootstrap
from rediffuse.grounding.steady import BLOCK, ask
from rediffuse.protocols import Recommender
from rediffuse.random import stable_key
from rediffuse.types import Options, Query, Ragged, Ranking, offsets

SPARE = 16
"""Places asked for beyond the longest list, so that ties at its end can be settled."""


@dataclass(frozen=True)
class Task:
    """A phase made ready: what is asked of each user, and what they really took."""

    query: Query
    relevant: Ragged
    """Per query; items of the mask are no answer and do not count."""
    undefined: int
    """Users left out because nothing is relevant."""

    @classmethod
    def of(cls, dataset: Dataset, phase: Phase) -> "Task":
        """Collect the users with something to find, in the order of their numbers."""
        mask = dataset.history(*phase.mask) if phase.mask else Ragged.empty(len(dataset.users))
        relevant = _distinct(dataset.history(phase.relevant), len(dataset.catalog), mask)
        users = relevant.lengths.nonzero().squeeze(1)
        ids = dataset.users.items.ids
        at_us, context = moments(dataset, users, dataset.history(phase.relevant).select(users))
        history = dataset.history(*phase.history).select(users) if phase.history else Ragged.empty(len(users))
        query = Query(
            user=users,
            history=history,
            key=torch.tensor([stable_key(ids[user]) for user in users.tolist()], dtype=torch.int64),
            at_us=at_us,
            context=context,
            exclude=mask.select(users),
        )
        return cls(query, relevant.select(users), len(dataset.users) - len(users))


@dataclass(frozen=True)
class Scores:
    """A recommender's metrics and lists, user by user."""

    names: tuple[str, ...]
    """recall@10, .."""
    values: NDArray[np.float64]
    """(U, len(names))."""
    lists: NDArray[np.int32] = field(default_factory=lambda: np.empty((0, 0), np.int32))
    """(U, max K) items, best first, after ties were settled; -1 padded. All else is computed from them."""
    fallback: NDArray[np.int8] = field(default_factory=lambda: np.empty(0, np.int8))
    """(U,) a `Fallback` code: why a list is not the method's own."""

    @classmethod
    def over_seeds(cls, scores: Sequence["Scores"]) -> "Scores":
        """The mean of each user's metrics over trainings of several seeds, with the lists of the last one."""
        return replace(scores[-1], values=np.mean([one.values for one in scores], axis=0))

    def of(self, name: str) -> NDArray[np.float64]:
        """(U,) values of one metric."""
        return self.values[:, self.names.index(name)]

    def mean(self, name: str) -> float:
        """Mean over users; NaN when there is none."""
        return float(np.nanmean(self.of(name))) if len(self.values) else float("nan")

    @cached_property
    def intervals(self) -> dict[str, Interval]:
        """Mean and 95 % interval of every metric."""
        return dict(zip(self.names, bootstrap(self.values), strict=True))


def evaluate(
    model: Recommender,
    task: Task,
    protocol: Protocol,
    *,
    options: Options = Options(),
    seed: int = 0,
    batch_size: int = BLOCK,
) -> Scores:
    """Rank the catalog for every user of the task and score the lists.

    Args: batch_size: users at a time, BLOCK at most; fewer take longer. It changes no list and no figure, to the last
        bit: the model is always asked in the one shape, and every user has a place in it (`grounding.steady`).
    """
    parts = [
        _score(model, task, rows, protocol, options, seed)
        for rows in torch.arange(len(task.query)).split(min(batch_size, BLOCK))
    ]
    if not parts:
        return Scores(protocol.names, np.empty((0, len(protocol.names))), np.empty((0, max(protocol.ks)), np.int32))
    values, lists, fallback = (torch.cat(columns).numpy() for columns in zip(*parts, strict=True))
    return Scores(protocol.names, values, lists, fallback)


def _score(
    model: Recommender, task: Task, rows: Tensor, protocol: Protocol, options: Options, seed: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Values, lists and fallback codes of some users, as `Scores` holds them. Args: rows: (b,) int64."""
    relevant = task.relevant.select(rows)
    ranking = _settled(model, task.query.select(rows), relevant, rows % BLOCK, max(protocol.ks), options, seed)
    columns = [METRICS[metric](ranking, relevant, k) for metric in protocol.metrics for k in protocol.ks]
    assert ranking.fallback is not None
    values = torch.stack([column.to(torch.float64) for column in columns], dim=1)
    return values, ranking.items.to(torch.int32), ranking.fallback.to(torch.int8)


def _settled(
    model: Recommender, query: Query, relevant: Ragged, places: Tensor, k: int, options: Options, seed: int
) -> Ranking:
    """Lists of k with ties against us; asks deeper for users whose tie runs on beyond the end of a list."""
    depth, rows = k + SPARE, torch.arange(len(query))
    items, scores = torch.empty((len(query), k), dtype=torch.int64), torch.empty((len(query), k))
    fallback = torch.zeros(len(query), dtype=torch.int64)
    while len(rows):
        ranking = ask(model, query.select(rows), places[rows], depth, options=options, seed=seed)
        settled = ties_against_us(ranking, relevant.select(rows))
        items[rows], scores[rows] = settled.items[:, :k], settled.scores[:, :k]
        if ranking.fallback is not None:
            fallback[rows] = ranking.fallback
        tied = (ranking.scores[:, -1] == ranking.scores[:, k - 1]) & (ranking.items[:, -1] >= 0)
        rows, depth = rows[tied], depth * 4
    return Ranking(items, scores, fallback=fallback)


def _distinct(lists: Ragged, width: int, without: Ragged) -> Ragged:
    """Each item once per row, and none of `without`."""
    place = torch.unique(lists.rows * width + lists.items)
    place = place[~torch.isin(place, without.rows * width + without.items)]
    lengths = torch.bincount(place // width, minlength=len(lists))
    return Ragged(offsets(lengths), place % width)
