"""The lists of a phase, with all that is known beforehand of each place, and what came of it."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import special

from rediffuse.evaluation.accuracy import METRICS, hits, ties_against_us
from rediffuse.evaluation.calibration import Values
from rediffuse.evaluation.consumption import known_of, own
from rediffuse.evaluation.evaluate import Task
from rediffuse.evaluation.study import Examined
from rediffuse.grounding.steady import BLOCK, ask
from rediffuse.types import Query, Ragged, Ranking

PLACES, JUDGED = 20, 10
"""Places whose probability is told, and those that the risk of a list is read on."""


@dataclass(frozen=True)
class Answers:
    """U lists of K places."""

    users: NDArray[np.int64]
    """(U,) numbers of the users."""
    half: NDArray[np.bool_]
    """(U,) which half of the users, by the stable hash of the external id."""
    there: NDArray[np.bool_]
    """(U, K) where an item stands."""
    taken: Values
    """(U, K) 1 where the item was taken in the period, else 0."""
    risk: Values
    """(U,) 1 - ndcg@10."""
    features: Mapping[str, Values]
    """What a calibrator may know of a place, (U, K) each."""
    popularity: Mapping[str, Values]
    """What popularity alone knows of the same places, (U, K) each."""
    signals: Mapping[str, Values]
    """How unsure a list is, (U,) each: what is higher is less sure."""

    @classmethod
    def of(cls, examined: Examined, task: Task, counts: Values) -> "Answers":
        """Ask for every user of the task. Args: counts: (I,) users per item in the data learned from."""
        k = min(PLACES, len(counts))
        parts = [
            ask(examined.model, task.query.select(rows), rows % BLOCK, k, options=examined.options, seed=examined.seed)
            for rows in torch.arange(len(task.query)).split(BLOCK)
        ]
        return cls.judged(Ranking.joined(parts), task.query, task.relevant, counts)

    @classmethod
    def judged(cls, ranking: Ranking, query: Query, relevant: Ragged, counts: Values) -> "Answers":
        """Of given lists. Args: ranking: (U, K).   relevant: U rows.   counts: (I,)."""
        items, there = ranking.items.numpy(), ranking.items.numpy() >= 0
        settled = ties_against_us(ranking, relevant)
        length = query.history.lengths.numpy().astype(np.float64)
        known = np.log1p(np.where(there, counts[items], 0.0))
        draws = _of_draws(ranking)
        told = {
            **known_of(ranking, query.history, torch.from_numpy(counts)),
            "score": _score(ranking, own(ranking).numpy()),
            **draws,
        }
        features = {name: np.broadcast_to(values, items.shape) for name, values in told.items()}
        top = there[:, :JUDGED]
        signals = {
            "history length": -length,
            "score margin": -_margin(features["score"][:, :JUDGED], top),
            "popularity of the list": -_mean(known[:, :JUDGED], top),
            **{f"draws: {name}": _mean(values[:, :JUDGED], top) for name, values in _doubts(draws).items()},
        }
        return cls(
            users=query.user.numpy(),
            half=query.key.numpy() % 2 == 0,
            there=there,
            taken=hits(ranking, relevant, items.shape[1]).numpy().astype(np.float64),
            risk=1 - METRICS["ndcg"](settled, relevant, JUDGED).numpy(),
            features=features,
            popularity={"popularity": known, "rank": np.log(_places(items, query, counts))},
            signals=signals,
        )

    def __len__(self) -> int:
        """Number of lists, U."""
        return len(self.users)


def _score(ranking: Ranking, there: NDArray[np.bool_]) -> Values:
    """The method's own scores; those of a fallback are of another kind, so the mean of all others stands for them."""
    scores = ranking.scores.numpy().astype(np.float64)
    return np.where(there, scores, scores[there].mean() if there.any() else 0.0)


def _of_draws(ranking: Ranking) -> dict[str, Values]:
    """Spread and probability of being in the top K, (U, K), where there are draws; fallback lists get the means."""
    drawn = ranking.probability if ranking.probability_of == "top_k" else None
    tables = {"spread": ranking.spread, "top-K probability": drawn}
    found = {name: table.numpy().astype(np.float64) for name, table in tables.items() if table is not None}
    return {name: _filled(values) for name, values in found.items()}


def _filled(values: Values) -> Values:
    """The mean of what is known where nothing is."""
    known = values[np.isfinite(values)]
    return np.where(np.isfinite(values), values, known.mean() if len(known) else 0.0)


def _doubts(draws: Mapping[str, Values]) -> dict[str, Values]:
    """What draws say of how sure a place is, (U, K) each."""
    out = {name: values for name, values in draws.items() if name == "spread"}
    if "top-K probability" in draws:
        p = draws["top-K probability"]
        out["entropy"] = special.entr(p) + special.entr(1 - p)
    return out


def _margin(scores: Values, there: NDArray[np.bool_]) -> Values:
    """First score less the last of the places there, (U,)."""
    last = np.maximum(there.sum(axis=1) - 1, 0)
    return scores[:, 0] - np.take_along_axis(scores, last[:, None], axis=1)[:, 0]


def _mean(values: Values, there: NDArray[np.bool_]) -> Values:
    return np.where(there, values, 0.0).sum(axis=1) / np.maximum(there.sum(axis=1), 1)


def _places(items: NDArray[np.int64], query: Query, counts: Values) -> Values:
    """The place of each item in the popularity list of its user, from 1, (U, K)."""
    place = np.empty(len(counts), np.int64)
    place[np.argsort(-counts, kind="stable")] = np.arange(len(counts))
    hidden = Ragged.empty(len(query)) if query.exclude is None else query.exclude
    gone = [np.unique(place[row]) for row in hidden.to_lists()]
    found = place[items]
    before = np.stack([np.searchsorted(out, row) for out, row in zip(gone, found, strict=True)])
    return (found - before + 1).astype(np.float64)
