"""Ranking metrics as research scripts compute them: one user at a time, with a set of relevant items."""

import math
from collections.abc import Sequence
from collections.abc import Set as AbstractSet

CUTOFFS = (10, 20, 50, 100)
METRICS = ("recall", "ndcg", "precision", "mrr")


def rank_metrics(ranking: Sequence[int], relevant: AbstractSet[int], cutoffs: Sequence[int]) -> dict[str, float]:
    """Recall, ndcg, precision and mrr of one list at each cut-off K, keyed like "recall@20".

        recall = hits / |R|;   precision = hits / K;   mrr = 1 / rank of the first hit, 0 without one
        ndcg = sum over hits of 1 / log2(rank + 1)  /  the same sum for min(K, |R|) hits at the top

    Args: ranking: item ids, best first.   relevant: R, not empty.
    """
    hit_ranks = [rank for rank, item in enumerate(ranking, start=1) if item in relevant]
    metrics: dict[str, float] = {}
    for k in cutoffs:
        ranks = [rank for rank in hit_ranks if rank <= k]
        gain = sum(1 / math.log2(rank + 1) for rank in ranks)
        ideal = sum(1 / math.log2(rank + 1) for rank in range(1, min(k, len(relevant)) + 1))
        metrics[f"recall@{k}"] = len(ranks) / len(relevant)
        metrics[f"ndcg@{k}"] = gain / ideal
        metrics[f"precision@{k}"] = len(ranks) / k
        metrics[f"mrr@{k}"] = 1 / ranks[0] if ranks else 0.0
    return metrics


def mean_metrics(
    rankings: Sequence[Sequence[int]], relevant: Sequence[AbstractSet[int]], cutoffs: Sequence[int] = CUTOFFS
) -> dict[str, float]:
    """Means over the users who have relevant items; the others are left out, NaN when nobody is left.

    Args: rankings: a list of item ids per user.   relevant: a set of item ids per user, in the same order.
    """
    per_user = [
        rank_metrics(ranking, items, cutoffs) for ranking, items in zip(rankings, relevant, strict=True) if items
    ]
    names = [f"{metric}@{k}" for k in cutoffs for metric in METRICS]
    if not per_user:
        return dict.fromkeys(names, math.nan)
    return {name: math.fsum(metrics[name] for metrics in per_user) / len(per_user) for name in names}
