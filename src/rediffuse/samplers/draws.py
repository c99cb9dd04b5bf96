"""What several reverse chains of one query say together: their mean, how far they spread, how often an item is on top.

mean_i = head(mean_s h_s)_i   (the head is affine)      spread_i = std_s head(h_s)_i
probability_i = share of the draws whose own list of K holds item i
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from rediffuse.types import Ranking

CELLS = 1 << 25
"""Scores held at a time, at most."""


def fanned(values: Tensor, draws: int) -> Tensor:
    """Each row as often as there are draws, its copies side by side, (B, ..) -> (B S, ..)."""
    return values.repeat_interleave(draws, dim=0)


def numbers(batch: int, draws: int, device: torch.device | str = "cpu") -> Tensor:
    """Which draw each row of a fanned batch is, (B S,) int64."""
    return torch.arange(draws, device=device).repeat(batch)


def told(
    ranking: Ranking,
    points: Tensor,
    score: Callable[[Tensor, Tensor | None], Tensor],
    lists: Tensor,
    n_items: int,
) -> Ranking:
    """A ranking of means with the spread of each score and how often each item stands in a draw's own list.

    Args: ranking: (B, K).   points: (B, S, H'), what the head reads in each draw.   score: the head, for the points of a
            draw and items (B, n).   lists: (B, S, K) the items of each draw's own list, -1 padded.
    Returns: the ranking with `spread` and `probability`, of "top_k".
    Limits: B I counts, in blocks of CELLS.
    """
    batch, draws, _ = points.shape
    items = ranking.items.clamp(min=0)
    scores = score(points.flatten(0, 1), fanned(items, draws)).unflatten(0, (batch, draws)).to(torch.float64)
    # Written out: Tensor.std warns of an empty batch.
    spread = ((scores - scores.mean(1, keepdim=True)).square().sum(1) / max(draws - 1, 1)).sqrt()
    share = torch.empty_like(spread)
    for rows in torch.arange(batch, device=items.device).split(max(1, CELLS // max(n_items, 1))):
        flat = lists[rows].flatten(1)
        counts = torch.zeros(len(rows), n_items + 1, dtype=torch.int32, device=flat.device)
        counts.scatter_add_(1, torch.where(flat < 0, n_items, flat), torch.ones_like(flat, dtype=torch.int32))
        share[rows] = counts.gather(1, items[rows]).to(share.dtype) / draws
    there = ranking.items >= 0
    return replace(
        ranking,
        spread=torch.where(there, spread, 0).to(torch.float32),
        probability=torch.where(there, share, 0).to(torch.float32),
        probability_of="top_k",
    )
