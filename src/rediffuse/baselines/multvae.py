"""Mult-VAE: a variational auto-encoder of a user's row with a multinomial likelihood.

| equation | here |
|---|---|
| z ~ N(0, I), pi = softmax(f(z)), x ~ Mult(N, pi) (eq. 1) | `RowVAE.decode` |
| log p(x given z) = sum x_i log pi_i (eq. 2) | `_RowTraining.loss` |
| q(z given x) = N(mu(x), diag sigma^2(x)) (eq. 5) | `RowVAE.encode` |
| loss = -E_q log p(x given z) + beta KL(q, p) (eq. 7) | `_RowTraining.loss` |
| beta rises from 0 to a cap (section 2.2.2) | `training/annealing.py::Ramp` |
| scores = f(mu(x)) (section 2.4) | `MultVAE.recommend` |

Reference: Liang, Krishnan, Hoffman, Jebara 2018, "Variational autoencoders for collaborative filtering".
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import ClassVar, Self

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from rediffuse.config import FrozenConfig
from rediffuse.data.weighting import RecencyConfig, weigh
from rediffuse.errors import refuse_options
from rediffuse.grounding.topk import TopK
from rediffuse.networks.dropout import drop
from rediffuse.protocols import FitContext, FitData, Range, Tunable
from rediffuse.training.annealing import Ramp
from rediffuse.training.loop import TrainingConfig, learn, take_over
from rediffuse.training.rows import generators, known_rows, shuffled
from rediffuse.types import Options, Query, Ranking, SparseRows


class MultVAEConfig(RecencyConfig):
    """What a Mult-VAE is."""

    hidden: tuple[PositiveInt, ...] = Field(default=(600,), min_length=1)
    """Widths of the encoder's hidden layers; the decoder has them in reverse."""
    latent: PositiveInt = 200
    """Width of z."""
    dropout: float = Field(default=0.5, ge=0, lt=1)
    """Share of the row set to 0 in training."""
    beta: float = Field(default=0.2, ge=0)
    """The cap of the weight of the KL term; 0 is no variational term."""
    annealing_steps: int = Field(default=2000, ge=0)
    """Training steps in which that weight rises from 0 to its cap; 0 begins at the cap."""


class RowVAE(nn.Module):
    """x -> tanh layers -> (mu, log sigma^2);  z -> tanh layers -> logits of all items."""

    def __init__(
        self, width: int, hidden: tuple[int, ...], latent: int, *, generator: torch.Generator | None = None
    ) -> None:
        """Draw the weights: W ~ N(0, 2 / (fan_in + fan_out)), b ~ N(0, .001^2). Args: width: I."""
        super().__init__()
        self.lift_weight = nn.Parameter(torch.empty(width, hidden[0]))
        self.lift_bias = nn.Parameter(torch.empty(hidden[0]))
        self.encoder = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise((*hidden, 2 * latent)))
        self.decoder = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise((latent, *reversed(hidden))))
        self.out = nn.Linear(hidden[0], width)
        for weight in self.parameters():
            if weight.dim() == 2:
                nn.init.xavier_normal_(weight, generator=generator)
            else:
                nn.init.normal_(weight, std=0.001, generator=generator)

    def encode(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Args: u: W x / |x|, (B, H). Returns: mu and log sigma^2, (B, latent) each."""
        h = u + self.lift_bias
        for layer in self.encoder:
            h = layer(torch.tanh(h))
        mu, log_variance = h.chunk(2, dim=1)
        return mu, log_variance

    def decode(self, z: Tensor) -> Tensor:
        """All layers but the last. Args: z: (B, latent). Returns: (B, H)."""
        for layer in self.decoder:
            z = torch.tanh(layer(z))
        return z

    def head(self, h: Tensor, items: Tensor | None = None) -> Tensor:
        """Logits. Args: h: (B, H).   items: (n,) to score alone. Returns: (B, I) or (B, n)."""
        weight, bias = self.out.weight, self.out.bias
        return nn.functional.linear(h, weight, bias) if items is None else h @ weight[items].t() + bias[items]


class MultVAE:
    """score = logits of the multinomial at the mean of q(z given the row): no draws in an answer.

    A new user is a posted history; nothing is stored per user. Scores are logits, no probabilities.
    Limits: parameters grow with 2 I H; one batch of rows (B, I) is dense in training, never all users.
    """

    Config: ClassVar[type[FrozenConfig]] = MultVAEConfig
    Training: ClassVar[type[FrozenConfig]] = TrainingConfig
    presets: ClassVar[Mapping[str, Mapping[str, object]]] = {"ml-1m-clean": {"batch_size": 500}}
    controls: ClassVar[Mapping[str, Sequence[str]]] = {}
    tunable: ClassVar[Mapping[str, Tunable]] = {
        "learning_rate": Range(1e-4, 3e-3, log=True),
        "dropout": Range(0.3, 0.8),
        "beta": Range(0.05, 1.0, log=True),
        "hidden": ((300,), (600,), (1000,)),
        "latent": Range(50, 400, log=True),
    }

    def __init__(self, config: MultVAEConfig, network: RowVAE) -> None:
        """Wrap a trained network."""
        self.config, self.network = config, network

    @classmethod
    def fit(cls, config: FrozenConfig, training: FrozenConfig, data: FitData, context: FitContext) -> Self:
        """Train on rows of the given events.

        Raises: InvalidInput when recency is asked of data without order; TrainingDiverged.
        """
        assert isinstance(config, MultVAEConfig)
        assert isinstance(training, TrainingConfig)
        rows = known_rows(data, config, context.run)
        first, generator = generators(context.run)
        network = RowVAE(data.n_items, config.hidden, config.latent, generator=first)
        if context.initial is not None:
            take_over(network, context.initial)
        model = cls(config, network.to(rows.device, rows.values.dtype))
        learn(_RowTraining(config, network, rows, training.batch_size), training, generator, context, lambda: model)
        return model

    @property
    def n_items(self) -> int:
        """Size of the catalog, I."""
        return self.network.lift_weight.shape[0]

    def recommend(self, query: Query, k: int, *, options: Options = Options(), seed: int = 0) -> Ranking:
        """As `Recommender.recommend`."""
        del seed
        refuse_options("multvae", options.asked())
        weight = self.network.lift_weight
        query = query.to(weight.device)
        rows = weigh(query.history, self.config, self.n_items, query.at_us).to(weight.device, weight.dtype)
        with torch.inference_mode():
            mu, _ = self.network.encode(unit(rows).project(weight))
            top = TopK(self.network.head, self.n_items)
            return top(self.network.decode(mu), k, seen=query.exclude, candidates=query.candidates).cpu()

    def state(self) -> dict[str, Tensor]:
        """The network's weights by name."""
        return {name: tensor.detach() for name, tensor in self.network.state_dict().items()}

    @classmethod
    def restore(cls, config: FrozenConfig, state: Mapping[str, Tensor], device: str) -> Self:
        """Rebuild from `state`."""
        assert isinstance(config, MultVAEConfig)
        lift = state["lift_weight"]
        network = RowVAE(lift.shape[0], config.hidden, config.latent).to(device, lift.dtype)
        network.load_state_dict(dict(state))
        return cls(config, network.eval())


class _RowTraining:
    """The `Trainable`: reconstruct rows from what dropout left of them, by way of a drawn z."""

    def __init__(self, config: MultVAEConfig, network: RowVAE, rows: SparseRows, batch_size: int) -> None:
        self.config, self.network, self.rows, self.batch_size = config, network, rows, batch_size
        self.annealing = Ramp(0, config.beta, config.annealing_steps).to(rows.device)
        self.module = nn.ModuleDict({"network": network, "annealing": self.annealing})

    def batches(self, generator: torch.Generator) -> Iterator[Tensor]:
        """The numbers of all rows once, in a new order, (B,) int64."""
        return shuffled(self.rows, self.batch_size, generator)

    def loss(self, batch: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """-sum x_i log pi_i + beta KL. Args: batch: (B,) int64. Returns: loss, error and divergence, (B,) each."""
        rows = self.rows.select(batch)
        x0 = drop(unit(rows).dense(), self.config.dropout, generator)
        mu, log_variance = (part.to(x0.dtype) for part in self.network.encode(x0 @ self.network.lift_weight))
        z = mu + torch.exp(log_variance / 2) * torch.empty_like(mu).normal_(generator=generator)
        logits = self.network.head(self.network.decode(z))
        error = -(rows.dense() * logits.log_softmax(dim=1)).sum(1)
        divergence = (mu.square() + log_variance.exp() - 1 - log_variance).sum(1) / 2
        return {"loss": error + self.annealing.next() * divergence, "error": error, "divergence": divergence}


def unit(rows: SparseRows) -> SparseRows:
    """Each row divided by its length, x / |x|; an empty one, or one whose weights are all 0, stays as it is."""
    row = torch.repeat_interleave(torch.arange(len(rows), device=rows.device), rows.lengths)
    square = rows.values.new_zeros(len(rows)).index_add_(0, row, rows.values.square())
    tiny = torch.finfo(square.dtype).tiny
    return SparseRows(rows.indptr, rows.items, rows.values / square.clamp(min=tiny).sqrt()[row], rows.width)
