"""Metrics against ir-measures (trec_eval) on random lists without ties.

The definitions coincide but for average precision: trec_eval divides by n, ours by min(k, n), so the two agree
only where at most k items are relevant. Its users without relevant items are absent; ours are NaN.
"""

import warnings

import numpy as np
import pytest
import torch

from rediffuse.evaluation.accuracy import METRICS
from rediffuse.types import Ragged, Ranking

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import ir_measures
    from ir_measures import AP, RR, P, R, Success, nDCG

USERS, ITEMS, K = 60, 80, 30
THEIRS = {"recall": R, "ndcg": nDCG, "precision": P, "mrr": RR, "hit": Success, "map": AP}


@pytest.fixture(scope="module")
def lists() -> tuple[Ranking, list[list[int]]]:
    rng = np.random.default_rng(0)
    items = np.stack([rng.permutation(ITEMS)[:K] for _ in range(USERS)])
    scores = np.sort(rng.random((USERS, K)))[:, ::-1].copy()
    relevant = [rng.permutation(ITEMS)[:n].tolist() for n in rng.integers(1, 25, USERS)]
    return Ranking(torch.from_numpy(items), torch.from_numpy(scores)), relevant


@pytest.mark.parametrize("k", [1, 5, 10, 20, 30])
@pytest.mark.parametrize("metric", METRICS)
def test_agreement(lists: tuple[Ranking, list[list[int]]], metric: str, k: int) -> None:
    ranking, relevant = lists
    qrels = [ir_measures.Qrel(str(u), str(i), 1) for u, items in enumerate(relevant) for i in items]
    run = [
        ir_measures.ScoredDoc(str(u), str(i), s)
        for u, (items, scores) in enumerate(zip(ranking.items.tolist(), ranking.scores.tolist(), strict=True))
        for i, s in zip(items, scores, strict=True)
    ]
    ours = METRICS[metric](ranking, Ragged.of(relevant), k)
    measure = THEIRS[metric] @ k
    theirs = {int(m.query_id): m.value for m in ir_measures.iter_calc([measure], qrels, run)}
    assert len(theirs) == USERS
    compared = 0
    for user in range(USERS):
        expected = theirs[user]
        if metric == "map":
            expected *= len(relevant[user]) / min(k, len(relevant[user]))
        compared += expected > 0
        assert float(ours[user]) == pytest.approx(expected, abs=1e-9), (user, metric, k)
    assert compared >= 5
