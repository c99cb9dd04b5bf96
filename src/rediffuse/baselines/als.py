"""ALS: factors of users and items by alternating least squares on confidence-weighted preferences.

| equation | here |
|---|---|
| p_ui = 1 where r_ui > 0, c_ui = 1 + alpha r_ui (section 4) | `ALS.fold_in` |
| min sum c_ui (p_ui - x_u . y_i)^2 + lambda (sum x_u^2 + sum y_i^2) (eq. 3) | `_item_factors` |
| x_u = (Y^T Y + Y^T (C_u - 1) Y + lambda)^-1 Y^T C_u p_u (eq. 4) | `ALS.fold_in` |
| scores = x_u . y_i | `ALS.recommend` |

Y is learned from rows without recency by the library `implicit`, three steps of conjugate gradients a row and iteration; recency
weights are the r_ui of the history that is scored, which is solved exactly.
Reference: Hu, Koren, Volinsky 2008, "Collaborative filtering for implicit feedback datasets"; Takacs, Pilaszy, Tikk 2011,
"Applications of the conjugate gradient method for implicit feedback collaborative filtering".
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, ClassVar, Self, cast

import numpy as np
import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor

from rediffuse.baselines.rows import event_weights
from rediffuse.config import FrozenConfig, RunConfig
from rediffuse.data.weighting import RecencyConfig, weigh
from rediffuse.errors import MissingExtra, TrainingDiverged, refuse_options, say
from rediffuse.grounding.topk import TopK
from rediffuse.protocols import FitContext, FitData, Range, Tunable
from rediffuse.spaces.embeddings import Embeddings
from rediffuse.types import Options, Query, Ranking, SparseRows


class ALSConfig(RecencyConfig):
    """Settings of ALS."""

    factors: PositiveInt = 64
    """F: length of a user's and of an item's factors."""
    regularization: PositiveFloat = 50.0
    """lambda: larger shrinks more; the more alpha, the more of it is needed."""
    alpha: PositiveFloat = 5.0
    """How much more an item of the history counts than one that is not there."""


class ALSTraining(FrozenConfig):
    """How the factors are learned."""

    iterations: PositiveInt = 15
    """How often the users' and then the items' factors are solved for; the first are drawn from the seed."""


class ALS:
    """score_i = x_u . y_i with x_u solved from the posted history; nothing is stored per user.

    The same seed gives the same factors whatever the number of threads: each row is solved by one of them.
    Limits: fitting runs on the processor and holds the factors of all users, which are then forgotten; an answer takes |history| F^2 + F^3 / 3 multiply-adds, and F^2 numbers.
    """

    Config: ClassVar[type[FrozenConfig]] = ALSConfig
    Training: ClassVar[type[FrozenConfig]] = ALSTraining
    presets: ClassVar[Mapping[str, Mapping[str, object]]] = {
        "ml-1m-clean": {"factors": 128, "regularization": 100.0, "alpha": 7.0},
        "ml-1m-clean-exponential": {
            "factors": 128,
            "regularization": 100.0,
            "alpha": 7.0,
            "recency": "exponential",
            "half_life": 5.0,
        },
    }
    controls: ClassVar[Mapping[str, Sequence[str]]] = {}
    tunable: ClassVar[Mapping[str, Tunable]] = {
        "factors": Range(16, 256, log=True),
        "regularization": Range(1.0, 300.0, log=True),
        "alpha": Range(1.0, 50.0, log=True),
    }

    def __init__(self, config: ALSConfig, factors: Tensor) -> None:
        """Args: factors: Y, (I, F)."""
        self.config, self.factors = config, factors
        exact = factors.to(torch.float64)
        ridge = config.regularization * torch.eye(factors.shape[1], dtype=torch.float64, device=factors.device)
        self._gram = exact.t() @ exact + ridge

    @classmethod
    def fit(cls, config: FrozenConfig, training: FrozenConfig, data: FitData, context: FitContext) -> Self:
        """Learn Y.

        Raises: InvalidInput when recency is asked of data without order; MissingExtra without `implicit`;
            TrainingDiverged when the factors are not finite.
        """
        assert isinstance(config, ALSConfig)
        assert isinstance(training, ALSTraining)
        config.check_order(data.order)
        factors = _item_factors(config, training, data, context.run)
        if not np.isfinite(factors).all():
            raise TrainingDiverged(say("A factor is not finite", remedy="Raise regularization"))
        return cls(config, torch.from_numpy(factors).to(context.run.device))

    @property
    def n_items(self) -> int:
        """Size of the catalog, I."""
        return self.factors.shape[0]

    def embeddings(self) -> Embeddings:
        """Y alone: no user is stored."""
        return Embeddings(self.factors)

    def recommend(self, query: Query, k: int, *, options: Options = Options(), seed: int = 0) -> Ranking:
        """As `Recommender.recommend`."""
        del seed
        refuse_options("als", options.asked())
        query = query.to(self.factors.device)
        points = self.fold_in(weigh(query.history, self.config, self.n_items, query.at_us))
        grounding = TopK(self._score, self.n_items)
        return grounding(points, k, seen=query.exclude, candidates=query.candidates).cpu()

    def fold_in(self, rows: SparseRows) -> Tensor:
        """The users' factors given their rows, in float64 whatever the precision of Y: eq. 4, user by user.

        Args: rows: r_u, B rows.
        Returns: x_u, (B, F).
        """
        size = max(1, _NUMBERS // self._gram.numel())
        parts = [self._solve(rows.select(some)) for some in torch.arange(len(rows), device=rows.device).split(size)]
        return torch.cat(parts)

    def _solve(self, rows: SparseRows) -> Tensor:
        left = self._gram.repeat(len(rows), 1, 1)
        right = left.new_zeros(left.shape[:2])
        bounds = rows.indptr.tolist()
        for user, (start, stop) in enumerate(pairwise(bounds)):
            y = self.factors[rows.items[start:stop]].to(torch.float64)
            r = rows.values[start:stop].to(torch.float64)
            extra = self.config.alpha * r
            left[user].addmm_((extra[:, None] * y).t(), y)
            right[user] = ((1 + extra) * (r > 0)) @ y
        # G + lambda I is positive definite.
        found = torch.cholesky_solve(right.unsqueeze(2), torch.linalg.cholesky(left))
        return found.squeeze(2).to(self.factors.dtype)

    def _score(self, points: Tensor, items: Tensor | None) -> Tensor:
        rows = self.factors if items is None else self.factors[items]
        return points @ rows.t()

    def state(self) -> dict[str, Tensor]:
        """Factors (I, F)."""
        return {"factors": self.factors}

    @classmethod
    def restore(cls, config: FrozenConfig, state: Mapping[str, Tensor], device: str) -> Self:
        """Rebuild from `state`."""
        assert isinstance(config, ALSConfig)
        factors = state["factors"]
        if factors.shape[1] != config.factors:
            raise RuntimeError(f"factors are {tuple(factors.shape)}, the settings say {config.factors}")
        return cls(config, factors.to(device))


_NUMBERS = 1 << 24
"""Numbers of all the matrices that are solved at a time: 128 MiB."""


def _item_factors(config: ALSConfig, training: ALSTraining, data: FitData, run: RunConfig) -> np.ndarray[Any, Any]:
    """Y, (I, F), learned by `implicit`: eq. 3, users and items in turn."""
    try:
        from implicit.cpu.als import AlternatingLeastSquares
        from threadpoolctl import threadpool_limits
    except ImportError:
        raise MissingExtra(
            say("als needs implicit, which is not installed", remedy='Run: pip install "rediffuse[baselines]"')
        ) from None
    # Threads belong to the rows: those of the matrix library would only stand in their way, and `implicit` warns.
    with threadpool_limits(1, "blas"):
        model = cast("Any", AlternatingLeastSquares)(
            factors=config.factors,
            regularization=config.regularization,
            dtype=np.dtype(run.dtype),
            use_cg=True,
            iterations=training.iterations,
            num_threads=run.threads,
            random_state=run.seed,
        )
        confidence = event_weights(data)
        confidence.data = 1 + config.alpha * confidence.data  # the library reads what is stored as c_ui itself
        model.fit(confidence, show_progress=False)
    return model.item_factors
