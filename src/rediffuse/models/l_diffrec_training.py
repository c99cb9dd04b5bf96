"""What an L-DiffRec is, how it is trained, and its loss.

    loss = -sum_i x_i log softmax(V z_0_hat + b)_i + beta KL(q(z given x), N(0, 1)) + lambda L_diffusion(z_0),   z_0 ~ q(z given x)

The decoder reads the estimate of z_0, and the diffusion loss flows through its target z_0 into the encoder too.
Reference: Wang et al. 2023 (DiffRec), section 3.5.
"""

from collections.abc import Iterator
from dataclasses import replace

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from rediffuse.denoisers.mlp import MLPDenoiser
from rediffuse.models.gaussian import GaussianConfig, Objective
from rediffuse.networks.dropout import drop
from rediffuse.spaces.latent import LatentRows
from rediffuse.training.annealing import Ramp
from rediffuse.training.loop import TrainingConfig
from rediffuse.training.moments import Moments, drawn
from rediffuse.training.rows import shuffled
from rediffuse.types import SparseRows


class LDiffRecConfig(GaussianConfig):
    """What an L-DiffRec is."""

    first_beta: float = Field(default=0.0, ge=0, lt=1)
    """Replaces beta_1 of linear_variance; 0 leaves the prescribed variances, as in the authors' code for latents."""
    hidden: tuple[PositiveInt, ...] = Field(default=(300,), min_length=1)
    """Widths of the hidden layers of the denoiser."""
    time_width: int = Field(default=10, ge=2)
    """Width of the time embedding."""
    latent: PositiveInt = 300
    """D, the width of z, parted among the clusters by their share of the items."""
    clusters: PositiveInt = 2
    """Groups of alike items with an encoder each, found by k-means on vectors of the items; 1 is a plain auto-encoder."""
    encoder_hidden: tuple[PositiveInt, ...] = ()
    """Widths of the hidden layers of all encoders together, parted like z."""
    row_dropout: float = Field(default=0.1, ge=0, lt=1)
    """Share of the row set to 0 in training; `dropout` is that of z_t."""
    beta: float = Field(default=0.3, ge=0)
    """The cap of the weight of the KL term; 0 is no variational term."""
    annealing_steps: int = Field(default=60, ge=0)
    """Training steps in which that weight rises from 0 to its cap."""
    diffusion_weight: float = Field(default=0.03, ge=0)
    """lambda, the weight of the diffusion loss, at the beginning."""
    diffusion_weight_end: float = Field(default=0.005, ge=0)
    """lambda at the end of its way."""
    diffusion_weight_epochs: int = Field(default=417, ge=0)
    """Epochs in which lambda goes there."""


class LDiffRecTraining(TrainingConfig):
    """How an L-DiffRec is trained. `official` also takes what dropout left of a row as what is to be reconstructed."""

    denoiser_rate: float = Field(default=0.5, gt=0)
    """Learning rate of the denoiser as a factor on `learning_rate`, which is that of the auto-encoder."""


class LatentTraining:
    """The `Trainable`: encode what dropout left of a row, draw z_0, noise it, decode the estimate of it."""

    def __init__(
        self,
        config: LDiffRecConfig,
        training: LDiffRecTraining,
        space: LatentRows,
        denoiser: MLPDenoiser,
        rows: SparseRows | Moments,
    ) -> None:
        """Args: rows: of the users, or what gives their examples."""
        self.config, self.training, self.space, self.denoiser, self.rows = config, training, space, denoiser, rows
        device = space.out.weight.device
        self.objective = Objective(config, device)
        an_epoch = -(-len(rows) // training.batch_size)
        self.beta = Ramp(0, config.beta, config.annealing_steps)
        self.weight = Ramp(
            config.diffusion_weight,
            config.diffusion_weight_end,
            config.diffusion_weight_epochs * an_epoch,
            every=an_epoch if training.official else 1,
        )
        ramps = {"beta": self.beta.to(device), "weight": self.weight.to(device)}
        self.module = nn.ModuleDict({"space": space, "denoiser": denoiser, "levels": self.objective.levels, **ramps})

    def batches(self, generator: torch.Generator) -> Iterator[Tensor]:
        """The numbers of the rows, each once, in a new order, (B,)."""
        return shuffled(self.rows, self.training.batch_size, generator)

    def loss(self, batch: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """As at the head of this file.

        Args: batch: row numbers (B,).
        Returns: loss, the error of the row, the divergence, the diffusion loss, its mse and level, (B,) each.
        """
        row, wanted, cond = drawn(self.rows, batch, generator)
        row, wanted = (rows.to(rows.device, self.space.out.weight.dtype) for rows in (row, wanted))
        left = replace(row, values=drop(row.values, self.config.row_dropout, generator))
        mu, log_variance = (part.to(row.values.dtype) for part in self.space.posterior(left))
        z0 = mu + torch.exp(log_variance / 2) * torch.empty_like(mu).normal_(generator=generator)
        diffusion, z0_hat = self.objective.loss(self.denoiser, z0, cond, generator)
        logits = self.space.decode(z0_hat)
        error = -((left if self.training.official else wanted).dense() * logits.log_softmax(dim=1)).sum(1)
        divergence = (mu.square() + log_variance.exp() - 1 - log_variance).sum(1) / 2
        loss = error + self.beta.next() * divergence + self.weight.next() * diffusion["loss"]
        return {**diffusion, "loss": loss, "error": error, "divergence": divergence, "diffusion": diffusion["loss"]}
