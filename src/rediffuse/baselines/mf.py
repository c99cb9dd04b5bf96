"""MF: a free vector for each user and each item, learned by ranking.

| equation | here |
|---|---|
| score = x_u . y_i (section 4.3.1) | `spaces/embeddings.py::Embeddings.score` |
| -log sigmoid(s_ui - s_uj) (BPR-Opt, section 4.1) | `training/pairs.py::bpr` |
| lambda squares (section 4.1) | `baselines/factors.py::PairTraining.loss` |

Reference: Rendle et al. 2009, "BPR: Bayesian personalized ranking from implicit feedback"; Wu et al. 2022, "On the
effectiveness of sampled softmax loss for item recommendation".
"""

from typing import ClassVar

from torch import Tensor

from rediffuse.baselines.factors import FactorMethod, FactorsConfig, Network
from rediffuse.config import FrozenConfig, RunConfig
from rediffuse.types import Ragged


class MFNetwork(Network):
    """The first vectors are what scores."""

    def vectors(self) -> tuple[Tensor, Tensor]:
        """As they are, (U, D) and (I, D)."""
        return self.users, self.items

    def newcomer(self) -> Tensor:
        """The item vectors: somebody new is known by their mean direction, (I, D)."""
        return self()[1]


class MF(FactorMethod):
    """score = x_u . y_i; somebody who was not learned from stands in the direction of the mean of their items."""

    name = "mf"
    Config: ClassVar[type[FrozenConfig]] = FactorsConfig

    @classmethod
    def network(cls, config: FactorsConfig, met: Ragged, n_items: int, run: RunConfig) -> Network:
        """With first vectors. Args: met: U rows of distinct items.   n_items: I."""
        return MFNetwork(met, n_items, config, run)
