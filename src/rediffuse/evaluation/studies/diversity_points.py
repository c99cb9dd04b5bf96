"""The lists of a model at eleven settings of the diversity knob, with each re-ranker that the data and the model allow."""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from scipy import sparse

from rediffuse.data.weighting import RecencyConfig, weigh
from rediffuse.errors import InvalidConfig, UnsupportedOption
from rediffuse.evaluation.beyond_accuracy import coverage, gini, intra_list_distance
from rediffuse.evaluation.calibration import Values
from rediffuse.evaluation.evaluate import Task, evaluate
from rediffuse.evaluation.protocol import Protocol
from rediffuse.evaluation.statistics import Interval, bootstrap, paired
from rediffuse.evaluation.study import Examined
from rediffuse.grounding.diverse import Diverse
from rediffuse.grounding.rerank import RERANKERS
from rediffuse.protocols import FitData, Recommender
from rediffuse.spaces.item_vectors import item_vectors
from rediffuse.types import Options, Query, Ranking

SETTINGS = tuple(step / 10 for step in range(11))
WIDTH = 256
"""Directions of the item vectors."""


@dataclass(frozen=True)
class Point:
    """The lists of one setting, on one part."""

    diversity: float
    ndcg: Interval
    kept: Interval
    """Ndcg over that of the plain lists, less and more by the 95 % interval of the paired difference."""
    ild: Interval
    gain: Interval
    """Likewise how much intra-list distance rises, as a share."""
    coverage: float
    gini: float


@dataclass(frozen=True)
class Series:
    """One re-ranker over one model, along the knob."""

    model: str
    reranker: str
    selection: Sequence[Point]
    report: Sequence[Point]

    @property
    def never_falls(self) -> bool:
        """Whether the mean distance rises or stays from each setting to the next, on both parts."""
        return all(
            after.ild.mean >= before.ild.mean
            for points in (self.selection, self.report)
            for before, after in itertools.pairwise(points)
        )


@dataclass(frozen=True)
class _Remembered:
    """Asks a model for each shortlist once."""

    model: Recommender
    told: dict[tuple[bytes, int, str, int], Ranking]

    def recommend(self, query: Query, k: int, *, options: Options = Options(), seed: int = 0) -> Ranking:
        """As `Recommender.recommend`, of the users of one task."""
        key = query.user.numpy().tobytes(), k, repr(options), seed
        if key not in self.told:
            self.told[key] = self.model.recommend(query, k, options=options, seed=seed)
        return self.told[key]


def series_of(
    examined: Examined, protocol: Protocol, data: FitData, name: str, model: Recommender, options: Options
) -> Iterator[Series]:
    """A series for each re-ranker that has what it needs."""
    found = examined.background.categories
    known: Any = None if found is None else torch.from_numpy(found.T.toarray())  # the stubs know no toarray
    vectors = item_vectors(data.history, data.n_items, min(WIDTH, data.n_items - 1))
    parts = [(task, _Remembered(model, {})) for task in (examined.selection, examined.task)]
    probe = examined.task.query.select(torch.arange(1))
    for reranker, entry in RERANKERS.items():
        if entry.needs == "categories" and known is None:
            continue
        if entry.needs == "draws" and not _draws(model, probe, options):
            continue
        measured_on = [
            _points(Diverse(asked, vectors, known, reranker), task, protocol, data, options, examined.seed)
            for task, asked in parts
        ]
        yield Series(name, reranker, *measured_on)


def _draws(model: Recommender, query: Query, options: Options) -> bool:
    """Whether the model can answer from a draw."""
    try:
        Diverse(model, reranker="merged", draws=1).recommend(query, 1, options=replace(options, diversity=1.0))
    except (UnsupportedOption, InvalidConfig):
        return False
    return True


def _points(model: Diverse, task: Task, protocol: Protocol, data: FitData, options: Options, seed: int) -> list[Point]:
    """Every setting, from plain lists on."""
    rows = weigh(data.history, RecencyConfig(), data.n_items)
    entries = np.ones(len(rows.items), np.float32), rows.items.numpy(), rows.indptr.numpy()
    columns, (k,) = sparse.csr_matrix(entries, shape=(len(rows), data.n_items)), protocol.ks
    plain: tuple[Values, Values] | None = None
    out: list[Point] = []
    for diversity in SETTINGS:
        scores = evaluate(model, task, protocol, options=replace(options, diversity=diversity), seed=seed)
        values = scores.of(protocol.select_by), intra_list_distance(scores.lists, columns, (k,))[0]
        plain = plain or values
        (ndcg, kept), (ild, share) = (_against(one, other) for one, other in zip(values, plain, strict=True))
        gain = Interval(share.mean - 1, share.low - 1, share.high - 1)
        spread = coverage(scores.lists, data.n_items), gini(scores.lists, data.n_items)
        out.append(Point(diversity, ndcg, kept, ild, gain, *spread))
    return out


def _against(values: Values, plain: Values) -> tuple[Interval, Interval]:
    """The mean, and its share of the plain mean with the interval of the paired difference. Args: values, plain: (U,)."""
    mean, difference = float(np.nanmean(plain)), paired(values, plain)[0]
    ends = (difference.mean, difference.low, difference.high)
    share = Interval(*(1 + end / mean if mean > 0 else math.nan for end in ends))
    return bootstrap(values[:, None])[0], share
