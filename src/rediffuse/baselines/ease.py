"""EASE: a linear item-item model with a zero diagonal, in closed form.

| equation | here |
|---|---|
| G = X^T X + lambda I, P = G^-1 | `EASE.fit` |
| B_ij = -P_ij / P_jj, B_jj = 0 (eq. 8) | `EASE.fit` |
| scores = x B (eq. 1) | `EASE.recommend` |

B is fitted on binary rows; recency weights enter the row that is scored.
Reference: Steck 2019, "Embarrassingly shallow autoencoders for sparse data".
"""

from collections.abc import Mapping
from typing import ClassVar, Self

import numpy as np
import torch
from pydantic import PositiveFloat
from torch import Tensor

from rediffuse.baselines.rows import binary_matrix
from rediffuse.config import FrozenConfig
from rediffuse.data.weighting import RecencyConfig, weigh
from rediffuse.errors import refuse_options
from rediffuse.grounding.topk import top_k
from rediffuse.protocols import FitContext, FitData, Range, Tunable
from rediffuse.types import Options, Query, Ranking


class EASEConfig(RecencyConfig):
    """Settings of EASE."""

    regularization: PositiveFloat = 500.0
    """lambda: larger shrinks more."""


class EASE:
    """score = x B with B (I, I).

    Limits: I^2 memory and I^3 time once, in float64: three I x I matrices at a time.
    """

    Config: ClassVar[type[FrozenConfig]] = EASEConfig
    Training: ClassVar[type[FrozenConfig]] = FrozenConfig
    presets: ClassVar[Mapping[str, Mapping[str, object]]] = {
        # Chosen on the selection part of the embedded world.
        "atelier": {"regularization": 1000.0},
        "atelier-recent": {"regularization": 1000.0, "recency": "exponential", "half_life": 50.0},
        "ml-1m-clean": {"regularization": 1000.0},
        "ml-1m-clean-linear": {"regularization": 2000.0, "recency": "linear", "weight_min": 0.01},
        "ml-1m-clean-exponential": {"regularization": 1000.0, "recency": "exponential", "half_life": 5.0},
    }

    controls: ClassVar[frozenset[str]] = frozenset()
    tunable: ClassVar[Mapping[str, Tunable]] = {"regularization": Range(10.0, 5000.0, log=True)}

    def __init__(self, config: EASEConfig, weight: Tensor) -> None:
        """Args: weight: B, (I, I) float32."""
        self.config, self.weight = config, weight

    @classmethod
    def fit(cls, config: FrozenConfig, training: FrozenConfig, data: FitData, context: FitContext) -> Self:
        """Solve for B. Raises: InvalidInput when recency is asked of data without order."""
        del training
        assert isinstance(config, EASEConfig)
        config.check_order(data.order)
        x = binary_matrix(data)
        gram = (x.T @ x).toarray()
        gram[np.diag_indices_from(gram)] += config.regularization
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(torch.from_numpy(gram))).numpy()
        weight = inverse / -np.diag(inverse)
        np.fill_diagonal(weight, 0.0)
        # The inverse comes in column order; rows are what a history sums up.
        return cls(
            config, torch.from_numpy(np.ascontiguousarray(weight, dtype=context.run.precision)).to(context.run.device)
        )

    @property
    def n_items(self) -> int:
        """Size of the catalog, I."""
        return self.weight.shape[0]

    def recommend(self, query: Query, k: int, *, options: Options = Options(), seed: int = 0) -> Ranking:
        """As `Recommender.recommend`."""
        del seed
        refuse_options("ease", options.asked())
        query = query.to(self.weight.device)
        rows = weigh(query.history, self.config, self.n_items, query.at_us)
        return top_k(rows.project(self.weight), k, seen=query.exclude, candidates=query.candidates).cpu()

    def state(self) -> dict[str, Tensor]:
        """Weight (I, I)."""
        return {"weight": self.weight}

    @classmethod
    def restore(cls, config: FrozenConfig, state: Mapping[str, Tensor], device: str) -> Self:
        """Rebuild from `state`."""
        assert isinstance(config, EASEConfig)
        weight = state["weight"]
        return cls(config, weight.view(len(weight), len(weight)).to(device))
