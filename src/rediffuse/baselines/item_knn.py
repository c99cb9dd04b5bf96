"""ItemKNN: score an item by its likeness to what the user has.

| equation | here |
|---|---|
| sim_ij = x_i . x_j / (norm_i norm_j + shrink) | `ItemKNN.fit` |
| only the k largest sim_ij of each item i are kept | `ItemKNN.fit` |
| score_i = sum over the history of sim_ij | `ItemKNN.recommend` |

Reference: Sarwar et al. 2001, "Item-based collaborative filtering recommendation algorithms"; the shrink term is that
of Bell & Koren 2007.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Self, cast

import numpy as np
import torch
from pydantic import Field, PositiveInt
from scipy import sparse
from torch import Tensor

from rediffuse.baselines.rows import event_weights
from rediffuse.config import FrozenConfig
from rediffuse.data.weighting import RecencyConfig, weigh
from rediffuse.errors import refuse_options
from rediffuse.grounding.topk import top_k
from rediffuse.protocols import FitContext, FitData, Range, Tunable
from rediffuse.types import Options, Query, Ranking


class ItemKNNConfig(RecencyConfig):
    """Settings of ItemKNN."""

    neighbors: PositiveInt = 50
    """k: how many items each item is compared with."""
    shrink: float = Field(default=20.0, ge=0)
    """Added to the norms: larger trusts items with few users less."""


class ItemKNN:
    """score = x S with S (I, I) sparse, k entries a column.

    Limits: the likeness of all pairs is computed once, a block of items at a time; k I numbers are kept.
    """

    Config: ClassVar[type[FrozenConfig]] = ItemKNNConfig
    Training: ClassVar[type[FrozenConfig]] = FrozenConfig
    presets: ClassVar[Mapping[str, Mapping[str, object]]] = {"ml-1m-clean": {"neighbors": 100, "shrink": 5.0}}
    controls: ClassVar[Mapping[str, Sequence[str]]] = {}
    tunable: ClassVar[Mapping[str, Tunable]] = {
        "neighbors": Range(5, 500, log=True),
        "shrink": Range(1.0, 500.0, log=True),
    }

    def __init__(self, config: ItemKNNConfig, neighbors: Tensor, likeness: Tensor) -> None:
        """Args: neighbors: (I, k) int64, the items each item is compared with.   likeness: (I, k), 0 where there is none."""
        self.config, self.neighbors, self.likeness = config, neighbors, likeness
        to = np.repeat(np.arange(len(neighbors)), neighbors.shape[1])
        where = (neighbors.numpy().ravel(), to)
        self._likeness = sparse.csr_matrix((likeness.numpy().ravel(), where), shape=(len(neighbors), len(neighbors)))

    @classmethod
    def fit(cls, config: FrozenConfig, training: FrozenConfig, data: FitData, context: FitContext) -> Self:
        """Find each item's neighbours. Raises: InvalidInput when recency is asked of data without order."""
        del training, context
        assert isinstance(config, ItemKNNConfig)
        config.check_order(data.order)
        x = event_weights(data, np.float32)
        norms = np.sqrt(np.asarray(x.multiply(x).sum(axis=0)).ravel())
        k, columns, step = min(config.neighbors, data.n_items), x.T.tocsr(), max(1, _COMPARED // data.n_items)
        found: list[tuple[Tensor, Tensor]] = []
        for start in range(0, data.n_items, step):
            mine = slice(start, min(start + step, data.n_items))
            likeness = (columns[mine] @ x).toarray()
            likeness /= np.maximum(norms[mine, None] * norms + config.shrink, np.finfo(np.float32).tiny)
            likeness[np.arange(len(likeness)), np.arange(mine.start, mine.stop)] = 0.0
            found.append(tuple(torch.from_numpy(likeness).topk(k, dim=1)))  # pyright: ignore[reportArgumentType]
        values, neighbors = (torch.cat(parts) for parts in zip(*found, strict=True))
        return cls(config, neighbors, values)

    @property
    def n_items(self) -> int:
        """Size of the catalog, I."""
        return len(self.neighbors)

    def recommend(self, query: Query, k: int, *, options: Options = Options(), seed: int = 0) -> Ranking:
        """As `Recommender.recommend`."""
        del seed
        refuse_options("item_knn", options.asked())
        rows = weigh(query.history, self.config, self.n_items, query.at_us)
        x = sparse.csr_matrix((rows.values.numpy(), rows.items.numpy(), rows.indptr.numpy()), (len(rows), rows.width))
        scores = torch.from_numpy(cast("sparse.csr_matrix", x @ self._likeness).toarray())
        return top_k(scores, k, seen=query.exclude, candidates=query.candidates)

    def state(self) -> dict[str, Tensor]:
        """Neighbors and likeness, (I, k) each."""
        return {"neighbors": self.neighbors, "likeness": self.likeness}

    @classmethod
    def restore(cls, config: FrozenConfig, state: Mapping[str, Tensor], device: str) -> Self:
        """Rebuild from `state`; it runs on the processor whatever the device."""
        del device
        assert isinstance(config, ItemKNNConfig)
        neighbors, likeness = state["neighbors"], state["likeness"]
        if neighbors.shape != likeness.shape or int(neighbors.max()) >= len(neighbors):
            raise RuntimeError(f"neighbors {tuple(neighbors.shape)} and likeness {tuple(likeness.shape)} do not fit")
        return cls(config, neighbors, likeness)


_COMPARED = 1 << 25
"""Numbers of the block of likeness that is looked at at a time: 128 MiB."""
