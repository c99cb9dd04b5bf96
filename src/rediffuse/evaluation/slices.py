"""For whom a method works, and on which items: the selection metric on parts of the users and of the items."""

from collections.abc import Iterator
from itertools import zip_longest

import numpy as np
import torch
from numpy.typing import NDArray

from rediffuse.evaluation.accuracy import METRICS, of_lists
from rediffuse.evaluation.beyond_accuracy import SHELVES, shelves
from rediffuse.evaluation.evaluate import Scores, Task
from rediffuse.evaluation.report import Slice
from rediffuse.evaluation.statistics import bootstrap
from rediffuse.protocols import FitData
from rediffuse.types import Fallback

BANDS = (0, 1, 5, 10, 20, 50, 100)
"""Where each band of history lengths begins."""
LABELS = tuple(
    f"{low} events" if low == 0 else f"{low}-{high - 1} events" if high else f"{low}+ events"
    for low, high in zip_longest(BANDS, BANDS[1:])
)
"""What each band is called."""


def slices(scores: Scores, task: Task, data: FitData, metric: str) -> list[Slice]:
    """The metric on each part that has users with something to find; means with 95 % bootstrap intervals.

    - history length: users by the number of events that a method saw of them.
    - popularity: all users; only relevant items of that shelf of the catalog count, as if there were no others.
    - answer: where some lists are a fallback, users by where theirs came from.

    Args: data: what the methods learned from.   metric: `recall@20`, one of `scores`.
    """
    parts = [*_by_history(scores, task, metric), *_by_popularity(scores, task, data, metric)]
    parts += _by_answer(scores, metric)
    return [_slice(by, label, values) for by, label, values in parts if not np.isnan(values).all()]


Part = tuple[str, str, NDArray[np.float64]]
"""What parts, which part, its users' values."""


def bands(task: Task) -> NDArray[np.int64]:
    """(U,) which of `BANDS` the history length of each user lies in."""
    return np.searchsorted(BANDS, task.query.history.lengths.numpy(), side="right") - 1


def _by_history(scores: Scores, task: Task, metric: str) -> Iterator[Part]:
    band = bands(task)
    for place, label in enumerate(LABELS):
        yield "history length", label, scores.of(metric)[band == place]


def _by_popularity(scores: Scores, task: Task, data: FitData, metric: str) -> Iterator[Part]:
    name, _, k = metric.partition("@")
    ranking, shelf = of_lists(scores.lists), torch.from_numpy(shelves(data))[task.relevant.items]
    for place, label in enumerate(SHELVES):
        yield "popularity", label, METRICS[name](ranking, task.relevant.keep(shelf == place), int(k)).numpy()


def _by_answer(scores: Scores, metric: str) -> Iterator[Part]:
    if not scores.fallback.any():
        return
    for code in Fallback:
        label = f"fallback: {code.name.lower().replace('_', ' ')}" if code else "the method's own"
        yield "answer", label, scores.of(metric)[scores.fallback == code]


def _slice(by: str, label: str, values: NDArray[np.float64]) -> Slice:
    return Slice(by, label, int((~np.isnan(values)).sum()), bootstrap(values[:, None])[0])
