"""From a shortlist to a list of unlike items: one greedy rule, one knob, several ideas of what is new.

    next = argmax over what is left of (1 - d) relevance_i + d novelty_i(chosen so far),   d = diversity in [0, 1]

| re-ranker | novelty_i | reference |
|---|---|---|
| mmr | - the greatest similarity to a chosen item | Carbonell & Goldstein 1998 |
| dpp | log of the share of i that the chosen do not span | Chen, Zhang & Zhou 2018, algorithm 1 |
| max_sum | sum of 1 - similarity to the chosen, on the scale of the gain that the next place has | Borodin et al. 2012 |
| calibrated | - KL from the categories of the history to those of the list with i | Steck 2018, eq. 2-6 |
| merged | chance that a draw which no chosen item serves is served by i | Santos et al. 2010 (xQuAD), eq. 3 |

Relevance is the score of the model, laid between 1 for the first and 0 for the last of the user's shortlist, so that one
setting means the same for every user and every model. d = 0 is the order of the shortlist itself. The novelty of an item
never depends on k: a longer list begins with the shorter one.
"""

import math
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from rediffuse.errors import InvalidInput, say

Novelty = Generator[Tensor, Tensor, None]
"""Yields (B, N), what each item of the shortlist would add; is sent (B,), the place in the shortlist that was chosen."""

BALANCED_AT = 10
"""Length of the list in which max_sum weighs the whole gain of ndcg against the whole mean distance."""
_OWN = 1e-6
"""Least share of an item that no other item has: keeps the kernel of dpp regular, and its logarithm finite."""
_SMOOTH = 0.01
"""How much of the history is mixed into the list before they are compared: Steck's alpha."""


@dataclass(frozen=True)
class Shortlist:
    """The best N items for each of B subjects, best first, and what is known of them."""

    relevance: Tensor
    """(B, N) float32, 1 best .. 0 last; -inf where padded, which is at the end."""
    similarity: Tensor | None = None
    """(B, N, N), of each pair, 1 at most."""
    categories: Tensor | None = None
    """(B, N, C), shares that sum up to 1; all 0 where unknown."""
    wanted: Tensor | None = None
    """(B, C), shares of the categories in the history, likewise."""
    draws: Tensor | None = None
    """(S, B, N), chance that the item serves the subject if draw s is how things are."""

    def alike(self, chosen: Tensor) -> Tensor:
        """The similarity of each item to the chosen one, (B, N). Args: chosen: (B,) places."""
        assert self.similarity is not None
        return _at(self.similarity, chosen)


def relevance(scores: Tensor) -> Tensor:
    """Scores laid between 1 for the best and 0 for the last of each row; 1 where all are alike.

    Args: scores: (B, N), -inf where padded.
    Returns: (B, N) float32, -inf where padded.
    """
    there = scores > -torch.inf
    values = scores.to(torch.float64)
    high = values.amax(1, keepdim=True)
    low = values.masked_fill(~there, torch.inf).amin(1, keepdim=True)
    found = torch.where(high > low, (values - low) / (high - low), 1.0)
    return found.to(torch.float32).masked_fill(~there, -torch.inf)


def rerank(shortlist: Shortlist, k: int, diversity: float, reranker: str = "max_sum") -> Tensor:
    """The first k places of the new order, as places in the shortlist.

    Args: diversity: d, 0 .. 1.   reranker: a name of RERANKERS.
    Returns: (B, min(k, N)) int64; a row that has run out of items goes on with its padded places.
    Raises: InvalidInput when diversity lies outside 0 .. 1.
    Limits: a step for each place, of B N additions; dpp adds B N times the places before.
    """
    check(diversity)
    batch, width = shortlist.relevance.shape
    free = shortlist.relevance > -torch.inf
    worth = shortlist.relevance.masked_fill(~free, 0) * (1 - diversity)
    novelty = RERANKERS[reranker].novelty(shortlist)
    added, places = next(novelty), torch.empty((batch, min(k, width)), dtype=torch.int64)
    for place in range(places.shape[1]):
        best = (worth + diversity * added).masked_fill(~free, -torch.inf).argmax(1)
        chosen = torch.where(free.any(1), best, place)
        places[:, place] = chosen
        free.scatter_(1, chosen.unsqueeze(1), value=False)
        added = novelty.send(chosen)
    return places


def check(diversity: float) -> None:
    """Refuse a setting of the knob that there is not. Raises: InvalidInput."""
    if not 0 <= diversity <= 1:
        raise InvalidInput(
            say("diversity out of range", got=diversity, allowed="0..1", remedy="0 is the plain ranking")
        )


def mmr(shortlist: Shortlist) -> Novelty:
    """- max over chosen j of sim(i, j); 0 while nothing is chosen."""
    chosen = yield torch.zeros_like(shortlist.relevance)
    nearest = shortlist.alike(chosen)
    while True:
        chosen = yield -nearest
        nearest = torch.maximum(nearest, shortlist.alike(chosen))


def dpp(shortlist: Shortlist) -> Novelty:
    """By how much i raises log det S of the chosen, S_ij = sim(i, j), S_ii = 1: greedy MAP of the process.

        e_i = (sim(j, i) - <c_j, c_i>) / d_j;   c_i <- [c_i, e_i];   d_i^2 <- d_i^2 - e_i^2;   novelty_i = log d_i^2

    With the kernel L_ij = q_i S_ij q_j, q_i = exp(relevance_i (1 - d) / 2 d), the rule is to take the item that raises
    d log det L most.
    """
    own, rows = torch.ones_like(shortlist.relevance), shortlist.relevance.new_zeros((*shortlist.relevance.shape, 0))
    while True:
        chosen = yield own.log()
        shared = shortlist.alike(chosen) - (rows @ _at(rows, chosen).unsqueeze(2)).squeeze(2)
        row = shared / own.gather(1, chosen.unsqueeze(1)).sqrt()
        rows = torch.cat((rows, row.unsqueeze(2)), dim=2)
        own = (own - row.square()).clamp(min=_OWN)


def max_sum(shortlist: Shortlist) -> Novelty:
    """Sum over chosen j of 1 - sim(i, j), so that the list maximises (1 - d) DCG / IDCG + d times its mean distance.

    A list of BALANCED_AT items has BALANCED_AT (BALANCED_AT - 1) / 2 pairs and the ideal gain IDCG = sum 1 / log2(p + 1);
    the place p = 1, 2, .. that is filled next gives its item the gain 1 / log2(p + 1). Later places, which count little
    for the gain, therefore go to distance first.
    """
    ideal = sum(1 / math.log2(place + 1) for place in range(1, BALANCED_AT + 1))
    scale = 2 * ideal / (BALANCED_AT * (BALANCED_AT - 1))
    total, place = torch.zeros_like(shortlist.relevance), 1
    while True:
        chosen = yield scale * math.log2(place + 1) * total
        total, place = total + 1 - shortlist.alike(chosen), place + 1


def calibrated(shortlist: Shortlist) -> Novelty:
    """- KL(p || (1 - a) q + a p): p of the history, q the mean over the chosen and i, a = 0.01; 0 where p is unknown."""
    assert shortlist.categories is not None
    assert shortlist.wanted is not None
    p, count = shortlist.wanted.unsqueeze(1), 1
    total = torch.zeros_like(p)
    while True:
        q = (1 - _SMOOTH) * (total + shortlist.categories) / count + _SMOOTH * p
        chosen = yield -torch.special.xlogy(p, p / q.clamp(min=torch.finfo(q.dtype).tiny)).sum(2)
        total, count = total + _at(shortlist.categories, chosen).unsqueeze(1), count + 1


def merged(shortlist: Shortlist) -> Novelty:
    """Mean over draws s of P(i | s) prod over chosen j of (1 - P(j | s)): each draw is one way that things may be."""
    assert shortlist.draws is not None
    unserved = torch.ones_like(shortlist.draws[..., :1])
    while True:
        chosen = yield (unserved * shortlist.draws).mean(0)
        served = shortlist.draws.gather(2, chosen.expand(len(shortlist.draws), -1).unsqueeze(2))
        unserved = unserved * (1 - served)


def _at(tables: Tensor, chosen: Tensor) -> Tensor:
    """The row of each subject's table at its chosen place. Args: tables: (B, N, D). Returns: (B, D)."""
    return tables[torch.arange(len(chosen)), chosen]


@dataclass(frozen=True)
class Reranker:
    """One line of the table."""

    novelty: Callable[[Shortlist], Novelty]
    needs: Literal["vectors", "categories", "draws"]
    """What it must know of the items."""


RERANKERS: Mapping[str, Reranker] = {
    "mmr": Reranker(mmr, "vectors"),
    "dpp": Reranker(dpp, "vectors"),
    "max_sum": Reranker(max_sum, "vectors"),
    "calibrated": Reranker(calibrated, "categories"),
    "merged": Reranker(merged, "draws"),
}
"""Name -> re-ranker."""
