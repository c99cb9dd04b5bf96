"""Blocked exact top-k: scores of a block of items at a time, never users x items."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from rediffuse.errors import InvalidInput, say
from rediffuse.types import Ragged, Ranking

NEVER = float("-inf")


@dataclass(frozen=True)
class TopK:
    """A `Grounding` by scores: the k best items of the whole catalog."""

    score: Callable[[Tensor, Tensor | None], Tensor]
    """(points (B, H), items (n,) or None for all) -> (B, n)."""
    n_items: int
    block: int = 1 << 17
    """Items scored at a time; one block holds (B, block) scores."""

    def __call__(
        self, points: Tensor, k: int, *, seen: Ragged | None = None, candidates: Ragged | None = None
    ) -> Ranking:
        """The k best for each row, best first.

        Args: points: (B, H).   seen: items left out.   candidates: the only items allowed.
        Returns: lists of width k, -1 padded where fewer are allowed.
        Raises: InvalidInput when k < 1 or a score is not a number.
        """
        if k < 1:
            raise InvalidInput(say("k must be at least 1", got=k, remedy="Use k=10 for an ordinary list"))
        best: tuple[Tensor, Tensor] | None = None
        for start in range(0, self.n_items, self.block):
            stop = min(start + self.block, self.n_items)
            whole = stop - start == self.n_items
            scores = self.score(points, None if whole else torch.arange(start, stop, device=points.device))
            _forbid(scores, seen, candidates, start)
            values, index = scores.topk(min(k, stop - start), dim=1)
            index += start
            if best is not None:
                values, index = torch.cat((best[0], values), 1), torch.cat((best[1], index), 1)
                values, order = values.topk(min(k, values.shape[1]), dim=1)
                index = index.gather(1, order)
            best = values, index
        assert best is not None
        return _padded(best[0], best[1], k)


def top_k(scores: Tensor, k: int, *, seen: Ragged | None = None, candidates: Ragged | None = None) -> Ranking:
    """The k best of given scores, which are changed in place. Args: scores: (B, I). Returns: lists of width k."""
    width = scores.shape[1]
    return TopK(lambda points, _: points, width, block=width)(scores, k, seen=seen, candidates=candidates)


def _forbid(scores: Tensor, seen: Ragged | None, candidates: Ragged | None, start: int) -> None:
    """Set what may not be returned to -inf, in place; `scores` holds the items from `start` on."""
    if bool(torch.isnan(scores).any()):
        raise InvalidInput(say("A score is not a number", remedy="Train the model anew with a lower learning_rate"))
    width = scores.shape[1]
    if candidates is not None:
        allowed = torch.zeros_like(scores, dtype=torch.bool)
        rows, columns = _inside(candidates, start, width)
        allowed[rows, columns] = True
        scores.masked_fill_(~allowed, NEVER)
    if seen is not None:
        rows, columns = _inside(seen, start, width)
        scores[rows, columns] = NEVER


def _inside(lists: Ragged, start: int, width: int) -> tuple[Tensor, Tensor]:
    columns = lists.items - start
    inside = (columns >= 0) & (columns < width) & (lists.items >= 0)
    return lists.rows[inside], columns[inside]


def _padded(values: Tensor, index: Tensor, k: int) -> Ranking:
    index = torch.where(values == NEVER, -1, index)
    missing = k - values.shape[1]
    if missing > 0:
        values = torch.nn.functional.pad(values, (0, missing), value=NEVER)
        index = torch.nn.functional.pad(index, (0, missing), value=-1)
    return Ranking(index, values.to(torch.float32))
