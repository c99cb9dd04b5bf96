"""EASE: a linear item-item model with a zero diagonal, in closed form.

| equation | here |
|---|---|
| G = X^T X + lambda I, P = G^-1 | `EASE.fit`, `inverse.py::invert` |
| B_ij = -P_ij / P_jj, B_jj = 0 (eq. 8) | `EASE.fit` |
| scores = x B (eq. 1) | `EASE.recommend` |

B is fitted on rows without recency, which enters the row that is scored.
Reference: Steck 2019, "Embarrassingly shallow autoencoders for sparse data".
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Self

import numpy as np
import torch
from pydantic import PositiveFloat
from torch import Tensor

from rediffuse.baselines.inverse import invert
from rediffuse.baselines.rows import event_weights
from rediffuse.config import FrozenConfig, RunConfig
from rediffuse.data.weighting import RecencyConfig, weigh
from rediffuse.errors import InvalidInput, refuse_options, say
from rediffuse.grounding.topk import top_k
from rediffuse.protocols import FitContext, FitData, Range, Tunable
from rediffuse.types import Options, Query, Ranking


class EASEConfig(RecencyConfig):
    """Settings of EASE."""

    regularization: PositiveFloat = 500.0
    """lambda: larger shrinks more."""


class EASE:
    """score = x B with B (I, I).

    Limits: I^3 multiply-adds once, on the device, and one I x I matrix: everything happens in its memory. Up to 20,000
    items it is solved in float64 (and then rounded, which takes half of it once more), beyond in the run's precision.
    """

    Config: ClassVar[type[FrozenConfig]] = EASEConfig
    Training: ClassVar[type[FrozenConfig]] = FrozenConfig
    presets: ClassVar[Mapping[str, Mapping[str, object]]] = {
        "linear": {"recency": "linear", "weight_min": 0.01},
        "exponential": {"recency": "exponential", "half_life": 5.0},
        # Chosen on the selection part of the embedded world.
        "atelier": {"regularization": 1000.0},
        "atelier-recent": {"regularization": 1000.0, "recency": "exponential", "half_life": 50.0},
        "ml-1m-clean": {"regularization": 1000.0},
        "ml-1m-clean-linear": {"regularization": 2000.0, "recency": "linear", "weight_min": 0.01},
        "ml-1m-clean-exponential": {"regularization": 1000.0, "recency": "exponential", "half_life": 5.0},
    }

    controls: ClassVar[Mapping[str, Sequence[str]]] = {}
    tunable: ClassVar[Mapping[str, Tunable]] = {"regularization": Range(10.0, 5000.0, log=True)}

    def __init__(self, config: EASEConfig, weight: Tensor) -> None:
        """Args: weight: B, (I, I) float32."""
        self.config, self.weight = config, weight

    @classmethod
    def fit(cls, config: FrozenConfig, training: FrozenConfig, data: FitData, context: FitContext) -> Self:
        """Solve for B.

        Raises: InvalidInput when recency is asked of data without order, the matrix does not fit into memory, or lambda is
            too small for the precision.
        """
        del training
        assert isinstance(config, EASEConfig)
        config.check_order(data.order)
        weight = _gram(data, _solved_in(data.n_items, context.run), context.run.device)
        weight.diagonal().add_(config.regularization)
        invert(weight)
        # The inverse is symmetric, so its rows can be divided as its columns should be: rows are what a history sums up.
        weight /= -weight.diagonal().clone()
        weight.fill_diagonal_(0)
        return cls(config, weight.to(getattr(torch, context.run.dtype)))

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


_DOUBLE_UP_TO = 20_000
_COUNTED = 1 << 23
"""Numbers of the block of G that is counted at a time: 32 MiB."""


def _solved_in(n_items: int, run: RunConfig) -> torch.dtype:
    """Doubles where they fit into 3.2 GB; plain counts are exact in either format up to 16.7 million users an item."""
    return getattr(torch, "float64" if n_items <= _DOUBLE_UP_TO else run.dtype)


def _gram(data: FitData, dtype: torch.dtype, device: str) -> Tensor:
    """X^T X, (I, I), counted on the processor a block of rows at a time."""
    try:
        gram = torch.empty(data.n_items, data.n_items, dtype=dtype, device=device)
    except RuntimeError:
        size = f"{data.n_items**2 * dtype.itemsize / 1e9:,.1f} GB"
        raise InvalidInput(
            say(f"The matrix of ease for {data.n_items:,} items takes {size} on {device}", remedy="Use item_knn or als")
        ) from None
    x = event_weights(data, np.float32)
    columns, step = x.T.tocsr(), max(1, _COUNTED // data.n_items)
    for start in range(0, data.n_items, step):
        gram[start : start + step] = torch.from_numpy((columns[start : start + step] @ x).toarray())
    return gram
