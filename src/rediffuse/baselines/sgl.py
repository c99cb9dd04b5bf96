"""SGL: a LightGCN whose vectors agree between two thinned copies of its graph.

| equation | here |
|---|---|
| each edge dropped with probability rho, two views an epoch (eq. 8, edge dropout) | `SGLTraining.batches` |
| -log e^{cos(z'_u, z''_u)/tau} / sum_v e^{cos(z'_u, z''_v)/tau} (eq. 10) | `contrast` |
| L = L_main + lambda_1 (L_users + L_items) + lambda_2 squares (eq. 11) | `SGLTraining.loss` |

Reference: Wu et al. 2021, "Self-supervised graph learning for recommendation".
"""

from collections.abc import Iterator, Mapping
from typing import ClassVar

import torch
from pydantic import Field, PositiveFloat
from torch import Tensor, nn
from torch.nn.functional import embedding, normalize

from rediffuse.baselines.factors import FactorMethod, FactorsConfig, Network, PairTraining
from rediffuse.baselines.lightgcn import GraphNetwork, LightGCN, LightGCNConfig
from rediffuse.config import FrozenConfig, RunConfig
from rediffuse.networks.graph import BipartiteGraph
from rediffuse.protocols import Range, Trainable, Tunable
from rediffuse.types import Ragged


class SGLConfig(LightGCNConfig):
    """What an SGL is."""

    edge_dropout: float = Field(default=0.1, ge=0, lt=1)
    """rho: share of the edges that a view leaves out, drawn anew for each epoch."""
    contrast_weight: float = Field(default=0.1, ge=0)
    """lambda_1: how much the agreement of the views counts."""
    contrast_temperature: PositiveFloat = 0.2
    """tau of the agreement."""


class SGLTraining:
    """A `Trainable` around that of the pairs: what it adds is the agreement of two views."""

    def __init__(self, network: GraphNetwork, config: SGLConfig, batch_size: int) -> None:
        """Args: batch_size: pairs per step."""
        self.config, self.network = config, network
        self.inner = PairTraining(network, batch_size)
        self.module: nn.Module = network
        self.views: tuple[BipartiteGraph, ...] = ()

    def batches(self, generator: torch.Generator) -> Iterator[Tensor]:
        """Draw the views, then the order of the pairs, (B,) int64."""
        self.views = tuple(self.network.graph_of(self._thinned(generator)) for _ in range(2))
        yield from self.inner.batches(generator)

    def loss(self, batch: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """The loss of the pairs and the agreement. Args: batch: (B,) int64. Returns: (B,) each."""
        values, pairs = self.inner.loss(batch, generator), self.inner.pairs
        network = self.network
        one, other = (view.mean(network.users, network.items, network.layers) for view in self.views)
        sides = zip(one, other, (pairs.users[batch], pairs.items[batch]), strict=True)
        users, items = (contrast(*side, self.config.contrast_temperature) for side in sides)
        apart = users + items
        return {**values, "loss": values["loss"] + self.config.contrast_weight * apart, "contrast": apart}

    def _thinned(self, generator: torch.Generator) -> Ragged:
        met = self.network.met
        draw = torch.rand(met.items.shape, generator=generator, device=met.items.device)
        return met.keep(draw >= self.config.edge_dropout)


def contrast(one: Tensor, other: Tensor, rows: Tensor, temperature: float) -> Tensor:
    """InfoNCE: a row tells its own copy from those of the other rows of the batch.

    Args: one, other: the same rows in two views, (N, D).   rows: (B,) int64, each of the batch, some perhaps twice.
    Returns: (B,).
    """
    there, place = torch.unique(rows, return_inverse=True)
    a, b = (normalize(embedding(there, view)) for view in (one, other))
    logits = a @ b.t() / temperature
    return torch.index_select(logits.logsumexp(1) - logits.diagonal(), 0, place)


class SGL(FactorMethod):
    """Answers as LightGCN does; only the training differs."""

    name = "sgl"
    Config: ClassVar[type[FrozenConfig]] = SGLConfig
    tunable: ClassVar[Mapping[str, Tunable]] = {
        **LightGCN.tunable,
        "edge_dropout": Range(0.05, 0.5),
        "contrast_weight": Range(0.005, 1.0, log=True),
        "contrast_temperature": Range(0.1, 1.0, log=True),
    }

    @classmethod
    def network(cls, config: FactorsConfig, met: Ragged, n_items: int, run: RunConfig) -> Network:
        """With first vectors. Args: met: U rows of distinct items.   n_items: I."""
        return LightGCN.network(config, met, n_items, run)

    @classmethod
    def trainable(cls, network: Network, batch_size: int) -> Trainable[Tensor]:
        """The ranking loss and the agreement of the views."""
        assert isinstance(network, GraphNetwork)
        assert isinstance(network.config, SGLConfig)
        return SGLTraining(network, network.config, batch_size)
