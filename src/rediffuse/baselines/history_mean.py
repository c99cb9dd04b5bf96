"""The mean of a history's item vectors, with nothing learned beside the table: the floor under a diffusion over tables.

| equation | here |
|---|---|
| score_i = e_i . mean_j e_j over the history | `HistoryMean.recommend` |

Reference: the control of Zhao et al. 2024 (DDRM), whose reverse process begins at this mean.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Self

from torch import Tensor

from rediffuse.config import FrozenConfig
from rediffuse.data.weighting import RecencyConfig, weigh
from rediffuse.errors import refuse_options
from rediffuse.grounding.topk import TopK
from rediffuse.protocols import FitContext, FitData, Tunable
from rediffuse.spaces.embeddings import Embeddings
from rediffuse.spaces.tables import TablesConfig, frozen_tables, mean_of, tables_in, tensors_of
from rediffuse.types import Options, Query, Ranking


class HistoryMeanConfig(TablesConfig, RecencyConfig):
    """Settings of history_mean."""


class NoTraining(FrozenConfig):
    """Nothing is learned but the backbone, which has settings of its own."""


class HistoryMean:
    """score_i = e_i . weighted mean of the history's vectors; a new user is a posted history. Limits: I D numbers."""

    Config: ClassVar[type[FrozenConfig]] = HistoryMeanConfig
    Training: ClassVar[type[FrozenConfig]] = NoTraining
    presets: ClassVar[Mapping[str, Mapping[str, object]]] = {}
    controls: ClassVar[Mapping[str, Sequence[str]]] = {}
    tunable: ClassVar[Mapping[str, Tunable]] = {}

    def __init__(self, config: HistoryMeanConfig, tables: Embeddings) -> None:
        """Args: tables: only those of the items are used."""
        self.config, self.tables = config, Embeddings(tables.items)

    @classmethod
    def fit(cls, config: FrozenConfig, training: FrozenConfig, data: FitData, context: FitContext) -> Self:
        """Take the table. Raises: as `frozen_tables`; InvalidInput when recency is asked of data without order."""
        assert isinstance(config, HistoryMeanConfig)
        del training
        config.check_order(data.order)
        return cls(config, frozen_tables(config, data, context))

    @property
    def n_items(self) -> int:
        """Size of the catalog, I."""
        return len(self.tables.items)

    def embeddings(self) -> Embeddings:
        """The table."""
        return self.tables

    def recommend(self, query: Query, k: int, *, options: Options = Options(), seed: int = 0) -> Ranking:
        """As `Recommender.recommend`."""
        del seed
        refuse_options("history_mean", options.asked())
        query = query.to(self.tables.items.device)
        points = mean_of(weigh(query.history, self.config, self.n_items, query.at_us), self.tables.items)
        grounding = TopK(self.tables.score, self.n_items)
        return grounding(points, k, seen=query.exclude, candidates=query.candidates).cpu()

    def state(self) -> dict[str, Tensor]:
        """The table of items, (I, D)."""
        return tensors_of(self.tables)

    @classmethod
    def restore(cls, config: FrozenConfig, state: Mapping[str, Tensor], device: str) -> Self:
        """Rebuild from `state`."""
        assert isinstance(config, HistoryMeanConfig)
        return cls(config, tables_in(state, device))
