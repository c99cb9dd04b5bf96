"""Blocked exact top-k: scores of a block of items at a time, never users x items."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from rediffuse.errors import InvalidInput, say
from rediffuse.types import Assortment, Candidates, Ragged, Ranking

NEVER = float("-inf")


@dataclass(frozen=True)
class TopK:
    """A `Grounding` by scores: the k best items of the whole catalog, or of what is offered of it."""

    score: Callable[[Tensor, Tensor | None], Tensor]
    """(points (B, H), items (n,) or None for all) -> (B, n)."""
    n_items: int
    block: int = 1 << 17
    """Items scored at a time; one block holds (B, block) scores."""

    def __call__(
        self, points: Tensor, k: int, *, seen: Ragged | None = None, candidates: Candidates | None = None
    ) -> Ranking:
        """The k best for each row, best first; what an assortment leaves out for all is not even scored.

        Args: points: (B, H).   seen: items left out.   candidates: the only items allowed.
        Returns: lists of width k, -1 padded where fewer are allowed.
        Raises: InvalidInput when k < 1, a score is not a number, or an assortment is of another catalog.
        """
        check_length(k)
        offered = Assortment.of(candidates).to(points.device)
        values = points.new_zeros(len(points), 0)
        index = torch.zeros_like(values, dtype=torch.int64)
        for items in offered.numbers(self.n_items).to(points.device).split(self.block):
            if not len(items):
                continue
            scores = self.score(points, None if len(items) == self.n_items else items)
            _forbid(scores, items, seen, offered.lists)
            found = best(scores, items, k, offered.groups)
            if values.shape[1]:
                values, index = torch.cat((values, found[0]), 1), torch.cat((index, found[1]), 1)
                found = best(values, index, k, offered.groups)
            values, index = found
        return padded(values, index, k)


def top_k(scores: Tensor, k: int, *, seen: Ragged | None = None, candidates: Candidates | None = None) -> Ranking:
    """The k best of given scores, which are changed in place. Args: scores: (B, I). Returns: lists of width k."""
    width = scores.shape[1]
    given = TopK(lambda points, items: points if items is None else points[:, items], width, block=width)
    return given(scores, k, seen=seen, candidates=candidates)


def check_length(k: int) -> None:
    """Refuse a list without places. Raises: InvalidInput."""
    if k < 1:
        raise InvalidInput(say("k must be at least 1", got=k, remedy="Use k=10 for an ordinary list"))


def best(scores: Tensor, items: Tensor, k: int, groups: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The k best, best first; of each group its best item alone.

    Groups are looked for among ever more of the best items, until every row has k of them or is at its end.

    Args: scores: (B, n), -inf where forbidden.   items: their numbers, (n,) or (B, n).   groups: (I,) int64.
    Returns: values and numbers, (B, min(k, n)).
    """
    width, numbers = scores.shape[1], items.expand_as(scores)
    depth = min(k if groups is None else 2 * k, width)
    while True:
        values, at = scores.topk(depth, dim=1)
        index = numbers.gather(1, at)
        if groups is None:
            return values, index
        alone = values.masked_fill(_repeated(groups[index]), NEVER)
        if depth == width or bool((((alone > NEVER).sum(1) >= k) | (values[:, -1] == NEVER)).all()):
            break
        depth = min(4 * depth, width)
    values, order = alone.sort(dim=1, descending=True, stable=True)
    return values[:, :k], index.gather(1, order)[:, :k]


def padded(values: Tensor, index: Tensor, k: int) -> Ranking:
    """Lists of width k, -1 where a value is -inf or missing. Args: values, index: (B, n), n <= k, best first."""
    index = torch.where(values == NEVER, -1, index)
    missing = k - values.shape[1]
    if missing > 0:
        values = torch.nn.functional.pad(values, (0, missing), value=NEVER)
        index = torch.nn.functional.pad(index, (0, missing), value=-1)
    return Ranking(index, values.to(torch.float32))


def _repeated(groups: Tensor) -> Tensor:
    """Where a group stands that stood in its row before, (B, n) bool. Args: groups: (B, n)."""
    ordered, at = groups.sort(dim=1, stable=True)
    again = torch.zeros_like(ordered, dtype=torch.bool)
    again[:, 1:] = ordered[:, 1:] == ordered[:, :-1]
    return torch.zeros_like(again).scatter(1, at, again)


def _forbid(scores: Tensor, items: Tensor, seen: Ragged | None, candidates: Ragged | None) -> None:
    """Set what may not be returned to -inf, in place. Args: scores: (B, n) of these items.   items: (n,), rising."""
    # A maximum is NaN where anything is, and takes a tenth of the time of a mask.
    if scores.numel() and bool(torch.isnan(scores.amax())):
        raise InvalidInput(say("A score is not a number", remedy="Train the model anew with a lower learning_rate"))
    if candidates is not None:
        allowed = torch.zeros_like(scores, dtype=torch.bool)
        rows, columns = _inside(candidates, items)
        allowed[rows, columns] = True
        scores.masked_fill_(~allowed, NEVER)
    if seen is not None:
        rows, columns = _inside(seen, items)
        scores[rows, columns] = NEVER


def _inside(lists: Ragged, items: Tensor) -> tuple[Tensor, Tensor]:
    """Row and column of the entries that stand among rising numbers."""
    columns = torch.searchsorted(items, lists.items).clamp(max=len(items) - 1)
    inside = items[columns] == lists.items
    return lists.rows[inside], columns[inside]
