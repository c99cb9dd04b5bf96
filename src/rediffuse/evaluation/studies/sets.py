"""Sets of items that hold a user's next item as often as promised, and how large they have to be.

Split conformal: on the users of one half, the score of the item each took next, among all items that may be
recommended; a set for a user of the other half holds all items that score no lower than all but a share alpha of those.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations_with_replacement

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rediffuse.evaluation.calibration import Features, Logistic, Values, conformal_threshold
from rediffuse.evaluation.evaluate import Task
from rediffuse.evaluation.protocol import Phase
from rediffuse.evaluation.slices import bands
from rediffuse.evaluation.study import Examined
from rediffuse.grounding.steady import BLOCK, ask
from rediffuse.types import Ragged

LEVELS = (0.9, 0.8, 0.95)
"""Coverage asked for; what else is told is told at the first."""
OTHERS = 50
"""Items of each user that were not taken next, drawn to fit a score."""
_CELLS = 1 << 22
"""Numbers held at a time, at most, in each table of users x items."""
Score = Callable[[Features], Values]
"""Features of places of a ranking -> what may be compared across users, higher is better."""


@dataclass(frozen=True)
class Sets:
    """What the sets of the report part held; columns are `LEVELS`."""

    kind: str
    """The score that was taken: of those tried, the one with the smallest median set on the selection part."""
    tried: Mapping[str, float]
    """Score -> median size there; empty where the model has learned from that part, and the rank is taken unasked."""
    covered: NDArray[np.bool_]
    """(U, 3) whether the next item was in the set."""
    size: NDArray[np.int64]
    """(U, 3) items of the set."""
    banded: "tuple[NDArray[np.bool_], NDArray[np.int64]]"
    """(U,) covered and size at the first level with a threshold for each band of history lengths (Mondrian)."""
    shifted: NDArray[np.bool_] | None
    """(U,) covered at the first level with the threshold of the selection part."""


@dataclass(frozen=True)
class _Seen:
    """What one pass over whole rankings has kept."""

    found: NDArray[np.bool_]
    """(U,) whether the next item was ranked at all."""
    next: Mapping[str, Values]
    """Features of the next item, (U,) each."""
    others: Mapping[str, Values]
    """Features of items drawn at random, (U * OTHERS,) each."""
    weight: Values
    """(U * OTHERS,) how many items each of these stands for."""

    def scores(self, score: Score) -> Values:
        """(U,) of the next items; -inf where one was not ranked."""
        return np.where(self.found, score(self.next), -np.inf)

    def fit(self) -> Score:
        """Which items are taken next, from all features, their squares and their products.

        The penalty is small because the mean loss is: of a whole catalog one item is next.
        """
        columns = {name: np.concatenate((self.next[name], self.others[name])) for name in self.next}
        taken = np.r_[self.found.astype(np.float64), np.zeros(len(self.weight))]
        times = np.r_[self.found.astype(np.float64), self.weight]
        fitted = Logistic.fit(_products(columns), taken, times=times, penalty=1e-8)
        return lambda features: fitted.linear(_products(features))


def sets(examined: Examined, counts: Values, half: NDArray[np.bool_]) -> Sets:
    """Conformal sets of the report part, each half of the users calibrated on the other.

    Args: counts: (I,) users per item in the data learned from.   half: (U,) of the users of the report part.
    Limits: up to four passes in which the model ranks all items; holds (BLOCK, I) of them at a time. Draws are left out.
    """
    if examined.options.draws > 1:
        plain = replace(examined.options, draws=1, start=None, temperature=1.0)
        examined = replace(examined, options=plain)
    scores: dict[str, Score] = {"rank": lambda f: -f["rank"], "standardised score": lambda f: f["score"]}
    tried, before = dict[str, float](), None
    if apart(examined):
        before = _look(examined, examined.selection, examined.protocol.selection, counts)
        scores["fitted"] = before.fit()
        cuts = {name: conformal_threshold(before.scores(score), 1 - LEVELS[0]) for name, score in scores.items()}
        asked = len(examined.selection.query)
        wanted = [(score, np.full((asked, 1), cuts[name])) for name, score in scores.items()]
        sizes = _sizes(examined, examined.selection, counts, wanted)
        tried = {name: float(np.median(size)) for name, size in zip(scores, sizes, strict=True)}
    kind = min(tried, key=lambda name: tried[name]) if tried else "rank"
    score = scores[kind]
    own = _look(examined, examined.task, examined.protocol.report, counts).scores(score)
    cuts = np.stack([_crossed(own, half, 1 - level) for level in LEVELS] + [_by_band(examined, own, half)], axis=1)
    size, covered = _sizes(examined, examined.task, counts, [(score, cuts)])[0], own[:, None] >= cuts
    n = len(LEVELS)
    shifted = None if before is None else own >= conformal_threshold(before.scores(score), 1 - LEVELS[0])
    return Sets(kind, tried, covered[:, :n], size[:, :n], (covered[:, n], size[:, n]), shifted)


def apart(examined: Examined) -> bool:
    """Whether the selection part has users and the model has not learned from it: then it says what settings are worth."""
    return examined.protocol.selection.relevant not in examined.protocol.refit and len(examined.selection.query) > 0


def next_items(examined: Examined, task: Task, phase: Phase) -> Tensor:
    """The first relevant item of each user in the order of the events, (U,) int64."""
    events, width = examined.dataset.history(phase.relevant).select(task.query.user), len(examined.dataset.catalog)
    events = Ragged(events.indptr, events.items)
    wanted = task.relevant.rows * width + task.relevant.items
    kept = events.keep(torch.isin(events.rows * width + events.items, wanted))
    return kept.items[kept.indptr[:-1]]


def _crossed(own: Values, half: NDArray[np.bool_], alpha: float) -> Values:
    """(U,) the threshold of the other half for each user."""
    of = {side: conformal_threshold(own[half == side], alpha) for side in (True, False)}
    return np.where(half, of[False], of[True])


def _by_band(examined: Examined, own: Values, half: NDArray[np.bool_]) -> Values:
    """(U,) the threshold of the users of the other half in the same band of history lengths."""
    band, out = bands(examined.task), np.empty(len(own))
    for one in np.unique(band):
        there = band == one
        out[there] = _crossed(own[there], half[there], 1 - LEVELS[0])
    return out


def _look(examined: Examined, task: Task, phase: Phase, counts: Values) -> _Seen:
    """One pass that keeps the features of next items and of some others."""
    rng = np.random.default_rng(examined.seed)
    target, parts = next_items(examined, task, phase).numpy(), list[tuple[Values, Features, Features, Values]]()
    for rows, items, features in _rankings(examined, task, counts):
        is_next = items == target[rows][:, None]
        there = (items >= 0).sum(axis=1)
        drawn = (rng.random((len(rows), OTHERS)) * there[:, None]).astype(np.int64)
        weight = np.where(np.take_along_axis(is_next, drawn, axis=1), 0.0, there[:, None] / OTHERS)
        place = is_next.argmax(axis=1)[:, None]
        full = {name: np.broadcast_to(column, items.shape) for name, column in features.items()}
        at, others = (
            {name: np.take_along_axis(column, where, axis=1).ravel() for name, column in full.items()}
            for where in (place, drawn)
        )
        parts.append((is_next.any(axis=1), at, others, weight.ravel()))
    found, at, others, weight = zip(*parts, strict=True)
    return _Seen(np.concatenate(found), _stacked(at), _stacked(others), np.concatenate(weight))


def _stacked(parts: tuple[Features, ...]) -> dict[str, Values]:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _sizes(
    examined: Examined, task: Task, counts: Values, wanted: Sequence[tuple[Score, Values]]
) -> list[NDArray[np.int64]]:
    """How many items score at least each threshold, by user, (U, m) each. Args: wanted: scores with thresholds (U, m)."""
    out = [np.zeros(cuts.shape, np.int64) for _, cuts in wanted]
    for rows, items, features in _rankings(examined, task, counts):
        for (score, cuts), size in zip(wanted, out, strict=True):
            values = np.where(items >= 0, score(features), -np.inf)
            for column in range(cuts.shape[1]):
                size[rows, column] = ((values >= cuts[rows, column, None]) & (items >= 0)).sum(axis=1)
    return out


def _rankings(
    examined: Examined, task: Task, counts: Values
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], Features]]:
    """Some users at a time: their places, all items best first (b, I), and features that broadcast to that."""
    n_items, model, known = len(counts), examined.model, np.log1p(counts)
    for block in torch.arange(len(task.query)).split(BLOCK):
        query = task.query.select(block)
        ranking = ask(model, query, block % BLOCK, n_items, options=examined.options, seed=examined.seed)
        for rows in torch.arange(len(block)).split(max(1, _CELLS // n_items)):
            items, scores = ranking.items[rows].numpy(), ranking.scores[rows].numpy().astype(np.float64)
            length = query.history.lengths[rows].numpy()
            yield block[rows].numpy(), items, _features(items, scores, length, known)


def _features(items: NDArray[np.int64], scores: Values, length: NDArray[np.int64], known: Values) -> Features:
    """What makes places of different users comparable. Args: items, scores: (b, I).   length: (b,).   known: (I,)."""
    there = items >= 0
    n = np.maximum(there.sum(axis=1, keepdims=True), 1)
    scores = np.where(there, scores, 0.0)
    mean = scores.sum(axis=1, keepdims=True) / n
    scale = np.sqrt((np.where(there, scores - mean, 0.0) ** 2).sum(axis=1, keepdims=True) / n)
    rank = np.arange(1.0, items.shape[1] + 1)[None]
    return {
        "score": (scores - mean) / np.maximum(scale, 1e-12),
        "rank": np.log(rank),
        "share": rank / n,
        "popularity": known[items],
        "history length": np.log1p(length.astype(np.float64))[:, None],
    }


def _products(features: Features) -> Features:
    """The features, their squares and the products of each two."""
    pairs = combinations_with_replacement(features.items(), 2)
    return {**features, **{f"{one} x {other}": first * second for (one, first), (other, second) in pairs}}
