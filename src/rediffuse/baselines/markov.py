"""Markov: what follows an item, counted over short distances; the newest items of a history speak loudest.

| equation | here |
|---|---|
| C_ab = sum over pairs, a before b at distance d <= distances, of 1/d; C_ba = `backward` times that | `follows` |
| W_ab = C_ab out(a)^-out_power in(b)^-in_power, out and in the sums of rows and columns, at least 1 | `Markov.fit` |
| score = sum over the newest `history_length` items of decay^k W[item_k, .], k = 0 the newest | `Markov.recommend` |

A first-order chain smoothed in three ways: neighbours beyond the next event, the way back, and several items of the history.
Reference: Rendle, Freudenthaler, Schmidt-Thieme 2010, "Factorizing personalized Markov chains for next-basket
recommendation", section 4 (counted transitions of a chain); distances, powers and decay are ours.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self, cast

import numpy as np
import torch
from pydantic import Field, PositiveInt
from scipy import sparse
from torch import Tensor

from rediffuse.config import FrozenConfig
from rediffuse.errors import refuse_options
from rediffuse.grounding.topk import TopK
from rediffuse.protocols import FitContext, FitData, Range, Tunable
from rediffuse.training.sequences import ordered_history
from rediffuse.types import Options, Query, Ragged, Ranking


class MarkovConfig(FrozenConfig):
    """Settings of Markov."""

    distances: PositiveInt = 3
    """How many events ahead still count as following; at distance d a pair counts 1/d."""
    backward: float = Field(default=0.5, ge=0)
    """What a pair counts the other way round, against 1 in its own order; 0 counts forward alone."""
    out_power: float = Field(default=0.5, ge=0, le=1)
    """How far an item that much follows is held back; at 1 the rows of W sum to one where in_power is 0."""
    in_power: float = Field(default=0.3, ge=0, le=1)
    """How far an item that follows much is held back; larger favours the rare."""
    history_length: PositiveInt = 20
    """How many of the newest events of a history are read."""
    decay: float = Field(default=0.7, gt=0, le=1)
    """Weight of an event against that of the next newer one."""


class Markov:
    """score = x W with x the decayed newest items of the history and W (I, I) sparse.

    A new user is a posted history; nothing is stored per user. What an event weighs (its kind, a rating) does not enter.
    Limits: at most 2 distances numbers of W for each event that is learned from; an answer adds up the rows of
    `history_length` items. It runs on the processor.
    """

    Config: ClassVar[type[FrozenConfig]] = MarkovConfig
    Training: ClassVar[type[FrozenConfig]] = FrozenConfig
    presets: ClassVar[Mapping[str, Mapping[str, object]]] = {}
    controls: ClassVar[Mapping[str, Sequence[str]]] = {}
    tunable: ClassVar[Mapping[str, Tunable]] = {
        "distances": Range(1, 10),
        "backward": Range(0.0, 1.0),
        "out_power": Range(0.0, 1.0),
        "in_power": Range(0.0, 1.0),
        "history_length": Range(1, 50, log=True),
        "decay": Range(0.3, 1.0),
    }

    def __init__(self, config: MarkovConfig, transitions: sparse.csr_matrix) -> None:
        """Args: transitions: W, (I, I)."""
        self.config, self.transitions = config, transitions

    @classmethod
    def fit(cls, config: FrozenConfig, training: FrozenConfig, data: FitData, context: FitContext) -> Self:
        """Count what follows what. Raises: InvalidInput when no order of events is known."""
        del training
        assert isinstance(config, MarkovConfig)
        counts = follows(ordered_history(data, "markov"), data.n_items, config.distances)
        counts = cast("sparse.csr_matrix", counts + config.backward * counts.T).tocsr()
        out, into = (np.maximum(np.asarray(counts.sum(axis=axis)).ravel(), 1.0) for axis in (1, 0))
        scaled = sparse.diags(out**-config.out_power) @ counts @ sparse.diags(into**-config.in_power)
        transitions = cast("sparse.csr_matrix", scaled.tocsr().astype(context.run.dtype))
        transitions.eliminate_zeros()
        transitions.sort_indices()
        return cls(config, transitions)

    @property
    def n_items(self) -> int:
        """Size of the catalog, I."""
        return cast("tuple[int, int]", self.transitions.shape)[0]

    def recommend(self, query: Query, k: int, *, options: Options = Options(), seed: int = 0) -> Ranking:
        """As `Recommender.recommend`."""
        del seed
        refuse_options("markov", options.asked())
        # Sparse as W is: only the scores of one block of items are ever laid out.
        reached = cast("sparse.csr_matrix", self._read(query.history) @ self.transitions).tocsc()

        def score(points: Tensor, items: Tensor | None) -> Tensor:
            del points
            return torch.from_numpy(cast("Any", reached if items is None else reached[:, items.numpy()]).toarray())

        nowhere = torch.zeros(len(query), 0)
        return TopK(score, self.n_items)(nowhere, k, seen=query.exclude, candidates=query.candidates)

    def _read(self, history: Ragged) -> sparse.csr_matrix:
        """decay^k of the newest events, (B, I); an item that stands there twice has both."""
        age = history.lengths[history.rows] - 1 - history.ranks
        read = age < self.config.history_length
        weight = (self.config.decay ** age[read].to(torch.float64)).numpy().astype(self.transitions.dtype)
        where = (history.rows[read].numpy(), history.items[read].numpy())
        return sparse.csr_matrix((weight, where), shape=(len(history), self.n_items))

    def state(self) -> dict[str, Tensor]:
        """W by rows: offsets (I+1,) int64, items (n,) int64, weights (n,)."""
        w = self.transitions
        return {
            "offsets": torch.from_numpy(w.indptr.astype(np.int64)),
            "items": torch.from_numpy(w.indices.astype(np.int64)),
            "weights": torch.from_numpy(w.data),
        }

    @classmethod
    def restore(cls, config: FrozenConfig, state: Mapping[str, Tensor], device: str) -> Self:
        """Rebuild from `state`; it runs on the processor whatever the device."""
        del device
        assert isinstance(config, MarkovConfig)
        indptr, items, weights = (state[name].numpy() for name in ("offsets", "items", "weights"))
        width = len(indptr) - 1
        if not indptr[-1] == len(items) == len(weights) or (len(items) and items.max() >= width):
            raise RuntimeError(f"offsets {indptr.shape}, items {items.shape} and weights {weights.shape} do not fit")
        return cls(config, sparse.csr_matrix((weights, items, indptr), shape=(width, width)))


def follows(history: Ragged, width: int, distances: int) -> sparse.csr_matrix:
    """How often an item follows another in one history, a pair at distance d as 1/d, (I, I) float64.

    Args: history: oldest first.   width: I.   distances: the largest d.
    """
    rows, items = history.rows.numpy(), history.items.numpy()
    counts = sparse.csr_matrix((width, width), dtype=np.float64)
    for d in range(1, distances + 1):
        together = rows[d:] == rows[:-d]
        pairs = (items[:-d][together], items[d:][together])
        counts = counts + sparse.csr_matrix((np.full(len(pairs[0]), 1 / d), pairs), shape=(width, width))
    return counts
