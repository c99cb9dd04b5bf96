"""What to answer when a method has nothing to go on."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rediffuse.grounding.topk import top_k
from rediffuse.protocols import Recommender
from rediffuse.types import Fallback, Options, Query, Ranking


@dataclass(frozen=True)
class WithFallback:
    """A recommender that answers an empty history with what is popular, and says so in `Ranking.fallback`."""

    model: Recommender
    popularity: Tensor
    """(I,) float32, users per item in the data the model was fitted on."""

    def recommend(self, query: Query, k: int, *, options: Options = Options(), seed: int = 0) -> Ranking:
        """As `Recommender.recommend`."""
        ranking = self.model.recommend(query, k, options=options, seed=seed)
        empty = query.history.lengths == 0
        if not bool(empty.any()):
            return ranking
        rows = empty.nonzero().squeeze(1)
        asked = query.select(rows)
        popular = top_k(
            self.popularity.expand(len(rows), -1).clone(), k, seen=asked.exclude, candidates=asked.candidates
        )
        items, scores = ranking.items.clone(), ranking.scores.clone()
        items[rows], scores[rows] = popular.items, popular.scores
        fallback = torch.where(empty, int(Fallback.EMPTY_HISTORY), int(Fallback.NONE))
        # What a method says of its own items does not hold for these rows.
        spread, probability = (_without(table, rows) for table in (ranking.spread, ranking.probability))
        return replace(ranking, items=items, scores=scores, spread=spread, probability=probability, fallback=fallback)


def _without(table: Tensor | None, rows: Tensor) -> Tensor | None:
    return None if table is None else table.index_fill(0, rows, float("nan"))
