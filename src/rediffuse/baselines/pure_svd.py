"""PureSVD: project a user's row on the leading item directions of the data.

| equation | here |
|---|---|
| X ~ U S V^T of rank k | `PureSVD.fit` |
| scores = x V V^T (eq. 3) | `PureSVD.recommend` |

Reference: Cremonesi, Koren, Turrin 2010, "Performance of recommender algorithms on top-N recommendation tasks",
section 3.3.2.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self, cast

import numpy as np
import torch
from pydantic import PositiveInt
from scipy.sparse import linalg
from torch import Tensor

from rediffuse.baselines.rows import event_weights
from rediffuse.config import FrozenConfig
from rediffuse.data.weighting import RecencyConfig, weigh
from rediffuse.errors import InvalidInput, refuse_options, say
from rediffuse.grounding.topk import TopK
from rediffuse.protocols import FitContext, FitData, Range, Tunable
from rediffuse.types import Options, Query, Ranking


class PureSVDConfig(RecencyConfig):
    """Settings of PureSVD."""

    rank: PositiveInt = 24
    """k: how many directions are kept; at most one less than there are users and items."""


class PureSVD:
    """score = (x V) V^T: an inner product with the rows of V."""

    Config: ClassVar[type[FrozenConfig]] = PureSVDConfig
    Training: ClassVar[type[FrozenConfig]] = FrozenConfig
    presets: ClassVar[Mapping[str, Mapping[str, object]]] = {}
    controls: ClassVar[Mapping[str, Sequence[str]]] = {}
    tunable: ClassVar[Mapping[str, Tunable]] = {"rank": Range(8, 512, log=True)}

    def __init__(self, config: PureSVDConfig, directions: Tensor, strengths: Tensor) -> None:
        """Args: directions: V, (I, k).   strengths: the singular values, (k,); they are kept to be looked at."""
        self.config, self.directions, self.strengths = config, directions, strengths

    @classmethod
    def fit(cls, config: FrozenConfig, training: FrozenConfig, data: FitData, context: FitContext) -> Self:
        """Find the directions.

        Raises: InvalidInput when there are too few users or items, or recency is asked of data without order.
        """
        del training
        assert isinstance(config, PureSVDConfig)
        config.check_order(data.order)
        least = min(len(data.history), data.n_items)
        if least < 2:
            raise InvalidInput(say("pure_svd needs at least two users and two items", remedy="Use popularity"))
        # A fixed start makes the iteration repeat itself.
        found = cast("Any", linalg.svds(event_weights(data), k=min(config.rank, least - 1), v0=np.ones(least)))
        # The sign of a direction is arbitrary and has no effect on x V V^T.
        directions = np.ascontiguousarray(found[2].T, dtype=context.run.dtype)
        strengths = torch.from_numpy(found[1].astype(context.run.dtype))
        return cls(config, torch.from_numpy(directions).to(context.run.device), strengths)

    @property
    def n_items(self) -> int:
        """Size of the catalog, I."""
        return self.directions.shape[0]

    def recommend(self, query: Query, k: int, *, options: Options = Options(), seed: int = 0) -> Ranking:
        """As `Recommender.recommend`."""
        del seed
        refuse_options("pure_svd", options.asked())
        query = query.to(self.directions.device)
        rows = weigh(query.history, self.config, self.n_items, query.at_us)
        grounding = TopK(self._score, self.n_items)
        points = rows.project(self.directions)
        return grounding(points, k, seen=query.exclude, candidates=query.candidates).cpu()

    def _score(self, points: Tensor, items: Tensor | None) -> Tensor:
        rows = self.directions if items is None else self.directions[items]
        return points @ rows.t()

    def state(self) -> dict[str, Tensor]:
        """Directions (I, k), strengths (k,)."""
        return {"directions": self.directions, "strengths": self.strengths}

    @classmethod
    def restore(cls, config: FrozenConfig, state: Mapping[str, Tensor], device: str) -> Self:
        """Rebuild from `state`."""
        assert isinstance(config, PureSVDConfig)
        directions, strengths = state["directions"], state["strengths"]
        if directions.shape[1] != len(strengths):
            raise RuntimeError(f"directions are {tuple(directions.shape)}, strengths {tuple(strengths.shape)}")
        return cls(config, directions.to(device), strengths)
