"""How likely each item of a list is to be taken: a calibrator of the selection part, and who tells it with every answer.

    p_ui = P(u takes i within the window | score_ui, place of i in the list, popularity of i, length of u's history)

The window is as long as the selection part, and u somebody who takes anything new in it: nobody else is in that part.
Limits: it drifts. For EASE on ml-1m_clean the expected calibration error over 20 places is .006 on other users of the
same period, which is what chance alone would give, and .025 on the later part, whose window is longer.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from rediffuse.evaluation.accuracy import hits
from rediffuse.evaluation.calibration import Calibrator, Values
from rediffuse.evaluation.evaluate import Task
from rediffuse.grounding.steady import BLOCK, ask
from rediffuse.protocols import Recommender
from rediffuse.types import Fallback, Options, Query, Ragged, Ranking

PLACES = 100
"""Places that it is fitted on; none is told beyond."""
USERS = 10_000
"""Users that it is fitted on, at most."""
KNOWN = ("score", "rank", "popularity", "history length")
"""The names of `known_of`."""
FEWEST = 50
"""Items taken, at least; with fewer nothing is told."""


@dataclass(frozen=True)
class Calibrated:
    """A recommender that says in `Ranking.probability` how likely each place is to be taken.

    Only for what it was fitted on: the method's own answer under plain options, out of the whole catalog, to `PLACES`
    places. Elsewhere the answer is handed on as it is, with the probabilities of its draws where it has any.
    Limits: an item that the protocol hides (most hide what was seen) was never looked at; nothing is known of it.
    """

    model: Recommender
    """Says in `Ranking.fallback` which answers are not its own."""
    calibrator: Calibrator
    """From the features of `known_of`."""
    popularity: Tensor
    """(I,) float32, users per item in the data the model was fitted on."""

    def recommend(self, query: Query, k: int, *, options: Options = Options(), seed: int = 0) -> Ranking:
        """As `Recommender.recommend`; NaN where nothing is known: fallback, padding and places from `PLACES` on."""
        ranking = self.model.recommend(query, k, options=options, seed=seed)
        if options != Options() or query.candidates is not None:
            return ranking
        first = ranking.top(PLACES)
        p = torch.from_numpy(self.calibrator(known_of(first, query.history, self.popularity)))
        probability = torch.full_like(ranking.scores, math.nan)
        probability[:, :PLACES] = torch.where(own(first), p.to(torch.float32), math.nan)
        return replace(ranking, probability=probability, probability_of="consumption")


def fit_calibrator(model: Recommender, task: Task, popularity: Tensor, *, seed: int = 0) -> Calibrator | None:
    """What the first places of the lists were worth on a part; None where fewer than `FEWEST` items were taken.

    Args: model: says which answers are not its own; those are left out.   popularity: (I,), as for `Calibrated`.
    Limits: one more pass over the part, of every n-th user where there are more than `USERS`.
    """
    if task.relevant.items.numel() < FEWEST:
        return None
    columns: list[dict[str, Values]] = []
    taken: list[Values] = []
    rows = torch.arange(len(task.query))[:: max(1, math.ceil(len(task.query) / USERS))]
    for block in rows.split(BLOCK):
        query = task.query.select(block)
        ranking = ask(model, query, torch.arange(len(block)), min(PLACES, len(popularity)), seed=seed)
        there = own(ranking).numpy()
        known = known_of(ranking, query.history, popularity)
        columns.append({name: np.broadcast_to(values, there.shape)[there] for name, values in known.items()})
        taken.append(hits(ranking, task.relevant.select(block), PLACES).numpy()[there].astype(np.float64))
    if sum(float(part.sum()) for part in taken) < FEWEST:
        return None
    features = {name: np.concatenate([part[name] for part in columns]) for name in columns[0]}
    return Calibrator.fit(features, np.concatenate(taken))


def own(ranking: Ranking) -> Tensor:
    """Where an item of the method itself stands, (B, K) bool."""
    return (ranking.items >= 0) & (ranking.reasons == Fallback.NONE).unsqueeze(1)


def known_of(ranking: Ranking, history: Ragged, popularity: Tensor) -> dict[str, Values]:
    """What is known of a place when the answer is given; the columns broadcast to (B, K).

        score,   log place (from 1),   log ((1 + users of the item) / users of all items),   log (1 + |history|)

    Args: popularity: (I,) users per item. Returns: 0 for a score where no item stands.
    """
    items, scores = ranking.items.numpy(), ranking.scores.numpy().astype(np.float64)
    counts = popularity.numpy().astype(np.float64)
    share = np.log1p(counts) - np.log(max(counts.sum(), 1.0))
    return {
        "score": np.where(items >= 0, scores, 0.0),
        "rank": np.log(np.arange(1.0, items.shape[1] + 1))[None],
        "popularity": share[items],
        "history length": np.log1p(history.lengths.numpy().astype(np.float64))[:, None],
    }
