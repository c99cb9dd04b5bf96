"""A recommender whose lists hold unlike items, as much as `Options.diversity` asks for."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rediffuse.errors import InvalidInput, UnsupportedOption, say, unknown
from rediffuse.grounding.rerank import RERANKERS, Shortlist, check, relevance, rerank
from rediffuse.protocols import Recommender
from rediffuse.types import Options, Query, Ragged, Ranking

DRAWN_FROM = ("thinned_history", "noised_history", "pure_noise")
"""Where a draw for `merged` begins, unless the options say it: as Gaussian models draw, else the next that they have."""


@dataclass(frozen=True)
class Diverse:
    """Re-ranks the best items of another recommender; with diversity 0 it hands its answer on unchanged.

    Raises: InvalidInput for a re-ranker that is unknown, or that lacks what it needs to know of the items.
    Limits: items beyond the shortlist keep their place behind it; N^2 similarities are held for each subject.
    """

    model: Recommender
    vectors: Tensor | None = None
    """(I, D) float32 in main memory, of length 1 at most; inner products are similarities."""
    categories: Tensor | None = None
    """(I, C) float32 in main memory, above 0 where item i is of category c."""
    reranker: str = "max_sum"
    """A name of `RERANKERS`; max_sum kept the most accuracy for the distance it gave, on ml-100k."""
    shortlist: int = 100
    """N: how many of the model's best items are re-ranked."""
    draws: int = 16
    """For `merged`: how many lists are merged, unless the options say it."""

    def __post_init__(self) -> None:
        if self.reranker not in RERANKERS:
            raise InvalidInput(unknown("re-ranker", self.reranker, RERANKERS))
        needs = RERANKERS[self.reranker].needs
        if {"vectors": self.vectors, "categories": self.categories, "draws": self.draws}[needs] is None:
            raise InvalidInput(say(f"{self.reranker} needs {needs} of the items", remedy="Give them, or use merged"))

    def recommend(self, query: Query, k: int, *, options: Options = Options(), seed: int = 0) -> Ranking:
        """As `Recommender.recommend`.

        An item keeps the model's score where that falls along the list, else it gets the next one below the score of the
        place before; spread and probability are the item's own. How often draws have an item in their own list is not
        told: they were asked for lists as long as the shortlist.
        """
        check(options.diversity)
        if options.diversity == 0:
            return self.model.recommend(query, k, options=options, seed=seed)
        plain = replace(options, diversity=0.0)
        ranking = self.model.recommend(query, max(k, self.shortlist), options=plain, seed=seed)
        best = ranking.top(self.shortlist)
        places = rerank(self._known(best, query, plain, seed), k, options.diversity, self.reranker)
        behind = torch.arange(self.shortlist, max(k, self.shortlist)).expand(len(query), -1)
        order = torch.cat((places, behind), dim=1)
        if ranking.probability_of == "top_k":
            ranking = replace(ranking, probability=None, probability_of=None)
        return replace(
            ranking,
            items=ranking.items.gather(1, order),
            scores=_falling(ranking.scores.gather(1, order)),
            spread=None if ranking.spread is None else ranking.spread.gather(1, order),
            probability=None if ranking.probability is None else ranking.probability.gather(1, order),
        )

    def _known(self, best: Ranking, query: Query, plain: Options, seed: int) -> Shortlist:
        """The shortlist with what its re-ranker needs to know."""
        worth, needs = relevance(best.scores), RERANKERS[self.reranker].needs
        if needs == "vectors":
            assert self.vectors is not None
            points = self.vectors[best.items]
            return Shortlist(worth, similarity=points @ points.mT)
        if needs == "categories":
            assert self.categories is not None
            shares = self.categories / self.categories.sum(1, keepdim=True).clamp(min=1e-12)
            return Shortlist(worth, categories=shares[best.items], wanted=_wanted(query.history, shares))
        drawn = self._drawn(query, plain, seed)
        return Shortlist(worth, draws=torch.stack([_served(best.items, items) for items in drawn]))

    def _drawn(self, query: Query, plain: Options, seed: int) -> list[Tensor]:
        """The lists of single draws, (B, N) each, from the first start that the model has. Raises: UnsupportedOption."""
        seeds = range(seed + 1, seed + 1 + (plain.draws if plain.draws > 1 else self.draws))
        refused = ""
        for start in DRAWN_FROM if plain.start is None else (plain.start,):
            one = replace(plain, draws=1, start=start)
            try:
                return [self.model.recommend(query, self.shortlist, options=one, seed=each).items for each in seeds]
            except UnsupportedOption as error:
                refused = str(error)
        raise UnsupportedOption(say("merged needs a model that can draw", got=refused, remedy="Take another re-ranker"))


def _wanted(history: Ragged, shares: Tensor) -> Tensor:
    """Shares of the categories in each history, (B, C); 0 where it tells none. Args: shares: (I, C)."""
    known = history.to("cpu").keep(history.items.cpu() >= 0)
    total = torch.zeros(len(known), shares.shape[1]).index_add_(0, known.rows, shares[known.items])
    return total / total.sum(1, keepdim=True).clamp(min=1e-12)


def _served(items: Tensor, drawn: Tensor) -> Tensor:
    """1 / place of each item in a draw's own list, 0 where it is not there. Args: items, drawn: (B, N). Returns: (B, N)."""
    ordered, place = drawn.sort(dim=1)
    at = torch.searchsorted(ordered, items.contiguous()).clamp(max=drawn.shape[1] - 1)
    found = (ordered.gather(1, at) == items) & (items >= 0)
    return found / (1.0 + place.gather(1, at))


def _falling(scores: Tensor) -> Tensor:
    """Scores cut to fall: what would rise becomes the next float below the place before; ties of the model stay ties.

    Args: scores: (B, K) float32, -inf where padded.
    """
    out, below = scores.clone(), torch.tensor(-torch.inf)
    for place in range(1, scores.shape[1]):
        last = out[:, place - 1]
        out[:, place] = torch.where(scores[:, place] > last, torch.nextafter(last, below), scores[:, place])
    return out
