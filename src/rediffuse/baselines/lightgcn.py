"""LightGCN: vectors of users and items, spread along the graph of who took what, then averaged.

| equation | here |
|---|---|
| E^{k+1} = D^-1/2 A D^-1/2 E^k (eq. 3, 7) | `networks/graph.py::BipartiteGraph.hop` |
| E = mean of E^0 .. E^K (eq. 4, 8) | `networks/graph.py::BipartiteGraph.mean` |
| score = e_u . e_i (eq. 5) | `spaces/embeddings.py::Embeddings.score` |
| -ln sigmoid(s_ui - s_uj) + lambda squares of E^0 (eq. 15) | `training/pairs.py::bpr`, `baselines/factors.py::PairTraining.loss` |

Reference: He et al. 2020, "LightGCN: simplifying and powering graph convolution network for recommendation"; Wu et al. 2022,
"On the effectiveness of sampled softmax loss for item recommendation".
"""

from collections.abc import Mapping
from typing import ClassVar

from pydantic import PositiveInt
from torch import Tensor

from rediffuse.baselines.factors import AS_PUBLISHED, TUNABLE, FactorMethod, FactorsConfig, Network
from rediffuse.config import FrozenConfig, RunConfig
from rediffuse.networks.graph import BipartiteGraph
from rediffuse.protocols import Range, Tunable
from rediffuse.types import Ragged


class LightGCNConfig(FactorsConfig):
    """What a LightGCN is."""

    layers: PositiveInt = 3
    """K: how far vectors spread."""


class GraphNetwork(Network):
    """First vectors, spread along a graph."""

    def __init__(self, met: Ragged, n_items: int, config: LightGCNConfig, run: RunConfig) -> None:
        """Args: met: U rows of distinct items.   n_items: I."""
        super().__init__(met, n_items, config, run)
        self.layers, self.graph = config.layers, self.graph_of(met)

    def graph_of(self, met: Ragged) -> BipartiteGraph:
        """Over these users and items. Args: met: U rows of distinct items."""
        return BipartiteGraph.of(met, len(self.items), self.users.dtype)

    def vectors(self) -> tuple[Tensor, Tensor]:
        """The mean over the hops, (U, D) and (I, D)."""
        return self.graph.mean(self.users, self.items, self.layers)

    def newcomer(self) -> Tensor:
        """As the graph has it, (I, D)."""
        return self.graph.newcomer(self.users, self.items, self.layers)


class LightGCN(FactorMethod):
    """score = e_u . e_i of vectors averaged over the hops; somebody new joins the graph by their history."""

    name = "lightgcn"
    Config: ClassVar[type[FrozenConfig]] = LightGCNConfig
    presets: ClassVar[Mapping[str, Mapping[str, object]]] = {
        "published": AS_PUBLISHED,
        # Products, not cosines: the part the authors hold back leans to what is popular (docs/cards/lightgcn.md).
        "gowalla": {
            "similarity": "inner",
            "temperature": 1.0,
            "negatives": 8192,
            "penalty": 0.05,
            "batch_size": 8192,
            "learning_rate": 3e-3,
            "average": 0.99,
            "epochs": 80,
            "patience": 15,
        },
        "ml-1m-clean": {
            "negatives": 4096,
            "batch_size": 16384,
            "learning_rate": 5e-3,
            "epochs": 60,
            "patience": 10,
        },
    }
    tunable: ClassVar[Mapping[str, Tunable]] = {**TUNABLE, "layers": Range(1, 4)}

    @classmethod
    def network(cls, config: FactorsConfig, met: Ragged, n_items: int, run: RunConfig) -> Network:
        """With first vectors. Args: met: U rows of distinct items.   n_items: I."""
        assert isinstance(config, LightGCNConfig)
        return GraphNetwork(met, n_items, config, run)
