"""Metrics of a list against what was really taken: pure functions, per user, NaN where nothing was.

R is the set of relevant items of a user, n its size, hits the relevant items among the first k.
"""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rediffuse.protocols import Metric
from rediffuse.types import Ragged, Ranking


def hits(ranking: Ranking, relevant: Ragged, k: int) -> Tensor:
    """Which of the first k places hold a relevant item, (B, min(k, K)) bool."""
    items = ranking.items[:, :k]
    width = int(max(items.max() if items.numel() else 0, relevant.items.max() if relevant.items.numel() else 0))
    rows = torch.arange(len(ranking)).unsqueeze(1)
    found = torch.isin(rows * (width + 1) + items, relevant.rows * (width + 1) + relevant.items)
    return found & (items >= 0)


def recall(ranking: Ranking, relevant: Ragged, k: int) -> Tensor:
    """Hits / n."""
    return hits(ranking, relevant, k).sum(1) / _size(relevant)


def precision(ranking: Ranking, relevant: Ragged, k: int) -> Tensor:
    """Hits / k, also for shorter lists."""
    return hits(ranking, relevant, k).sum(1).to(torch.float64) / k * _defined(relevant)


def hit(ranking: Ranking, relevant: Ragged, k: int) -> Tensor:
    """1 if there is a hit."""
    return hits(ranking, relevant, k).any(1) * _defined(relevant)


def mrr(ranking: Ranking, relevant: Ragged, k: int) -> Tensor:
    """1 / rank of the first hit, 0 without one."""
    found = hits(ranking, relevant, k).to(torch.float64)
    return (found / _ranks(found)).amax(1) * _defined(relevant)


def ndcg(ranking: Ranking, relevant: Ragged, k: int) -> Tensor:
    """Sum over hits of 1 / log2(rank + 1), over the same of the best possible list.

    Reference: Jarvelin & Kekalainen 2002, with binary gains.
    """
    found = hits(ranking, relevant, k).to(torch.float64)
    gain = (found / torch.log2(_ranks(found) + 1)).sum(1)
    best = (1 / torch.log2(torch.arange(2, k + 2, dtype=torch.float64))).cumsum(0)
    size = _size(relevant)
    return gain / torch.where(size.isnan(), size, best[(size.nan_to_num(1).long().clamp(max=k)) - 1])


def average_precision(ranking: Ranking, relevant: Ragged, k: int) -> Tensor:
    """Sum over hits of precision at their rank, over min(k, n)."""
    found = hits(ranking, relevant, k).to(torch.float64)
    return (found * found.cumsum(1) / _ranks(found)).sum(1) / _size(relevant).clamp(max=k)


def of_lists(lists: NDArray[np.int32]) -> Ranking:
    """Bare lists as metrics take them. Args: lists: (U, K), -1 padded."""
    items = torch.from_numpy(lists).to(torch.int64)
    return Ranking(items, torch.zeros(items.shape))


METRICS: Mapping[str, Metric] = {
    "recall": recall,
    "ndcg": ndcg,
    "precision": precision,
    "mrr": mrr,
    "hit": hit,
    "map": average_precision,
}


def ties_against_us(ranking: Ranking, relevant: Ragged) -> Ranking:
    """Put relevant items behind all others of exactly the same score; among equals the lower number goes first."""
    found = hits(ranking, relevant, ranking.items.shape[1])
    order = ranking.items.argsort(dim=1)
    order = order.gather(1, torch.sort(found.gather(1, order).to(torch.int8), dim=1, stable=True).indices)
    last = torch.sort(ranking.scores.gather(1, order), dim=1, descending=True, stable=True).indices
    order = order.gather(1, last)
    return Ranking(ranking.items.gather(1, order), ranking.scores.gather(1, order), fallback=ranking.fallback)


def _size(relevant: Ragged) -> Tensor:
    size = relevant.lengths.to(torch.float64)
    return torch.where(size > 0, size, torch.nan)


def _defined(relevant: Ragged) -> Tensor:
    """1, or NaN where nothing is relevant, (B,)."""
    size = _size(relevant)
    return size / size


def _ranks(found: Tensor) -> Tensor:
    return torch.arange(1, found.shape[1] + 1, dtype=torch.float64)
