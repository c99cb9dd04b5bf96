"""Popularity: the items that most users have taken, for everybody the same."""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Self

from torch import Tensor

from rediffuse.config import FrozenConfig
from rediffuse.errors import refuse_options
from rediffuse.grounding.topk import top_k
from rediffuse.protocols import FitContext, FitData, Tunable
from rediffuse.types import Options, Query, Ranking


class PopularityConfig(FrozenConfig):
    """Popularity has no settings."""


class Popularity:
    """score_i = number of users with item i in the data it was fitted on."""

    Config: ClassVar[type[FrozenConfig]] = PopularityConfig
    Training: ClassVar[type[FrozenConfig]] = FrozenConfig
    presets: ClassVar[Mapping[str, Mapping[str, object]]] = {}
    controls: ClassVar[Mapping[str, Sequence[str]]] = {}
    tunable: ClassVar[Mapping[str, Tunable]] = {}

    def __init__(self, counts: Tensor) -> None:
        """Args: counts: (I,) float32."""
        self.counts = counts

    @classmethod
    def fit(cls, config: FrozenConfig, training: FrozenConfig, data: FitData, context: FitContext) -> Self:
        """Count distinct users per item."""
        del config, training
        return cls(data.users_per_item().to(context.run.device))

    @property
    def n_items(self) -> int:
        """Size of the catalog, I."""
        return self.counts.numel()

    def recommend(self, query: Query, k: int, *, options: Options = Options(), seed: int = 0) -> Ranking:
        """As `Recommender.recommend`."""
        del seed
        refuse_options("popularity", options.asked())
        query = query.to(self.counts.device)
        scores = self.counts.expand(len(query), -1).clone()
        return top_k(scores, k, seen=query.exclude, candidates=query.candidates).cpu()

    def state(self) -> dict[str, Tensor]:
        """Counts (I,)."""
        return {"counts": self.counts}

    @classmethod
    def restore(cls, config: FrozenConfig, state: Mapping[str, Tensor], device: str) -> Self:
        """Rebuild from `state`."""
        del config
        return cls(state["counts"].to(device))
