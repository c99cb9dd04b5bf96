"""Ask a recommender a phase of a protocol, user by user, and score its lists."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rediffuse.data.dataset import Dataset
from rediffuse.evaluation.accuracy import METRICS, ties_against_us
from rediffuse.evaluation.protocol import Phase, Protocol
from rediffuse.evaluation.statistics import Interval, bootstrap
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
        history = dataset.history(*phase.history).select(users) if phase.history else Ragged.empty(len(users))
        query = Query(
            user=users,
            history=history,
            key=torch.tensor([stable_key(ids[user]) for user in users.tolist()], dtype=torch.int64),
            exclude=mask.select(users),
        )
        return cls(query, relevant.select(users), len(dataset.users) - len(users))


@dataclass(frozen=True)
class Scores:
    """A recommender's metrics, user by user."""

    names: tuple[str, ...]
    """recall@10, .."""
    values: NDArray[np.float64]
    """(U, len(names))."""

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
    batch_size: int = 512,
) -> Scores:
    """Rank the catalog for every user of the task and score the lists.

    Args: batch_size: users at a time; changes memory and speed, no figure.
    """
    parts: list[Tensor] = []
    for rows in torch.arange(len(task.query)).split(batch_size):
        relevant = task.relevant.select(rows)
        ranking = _settled(model, task.query.select(rows), relevant, max(protocol.ks), options, seed)
        columns = [METRICS[metric](ranking, relevant, k) for metric in protocol.metrics for k in protocol.ks]
        parts.append(torch.stack([column.to(torch.float64) for column in columns], dim=1))
    values = torch.cat(parts).numpy() if parts else np.empty((0, len(protocol.names)))
    return Scores(protocol.names, values)


def _settled(model: Recommender, query: Query, relevant: Ragged, k: int, options: Options, seed: int) -> Ranking:
    """Lists of at least k with ties against us; asks deeper while a tie runs on beyond the end of a list."""
    depth = k + SPARE
    while True:
        ranking = model.recommend(query, depth, options=options, seed=seed)
        tied = (ranking.scores[:, -1] == ranking.scores[:, k - 1]) & (ranking.items[:, -1] >= 0)
        if not bool(tied.any()):
            return ties_against_us(ranking, relevant).top(k)
        depth *= 4


def _distinct(lists: Ragged, width: int, without: Ragged) -> Ragged:
    """Each item once per row, and none of `without`."""
    place = torch.unique(lists.rows * width + lists.items)
    place = place[~torch.isin(place, without.rows * width + without.items)]
    lengths = torch.bincount(place // width, minlength=len(lists))
    return Ragged(offsets(lengths), place % width)
