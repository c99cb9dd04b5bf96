"""What every Gaussian diffusion over users shares: its settings and its training objective; how it answers is `answering`.

| part | where |
|---|---|
| forward process, schedule, prediction | `models/chain.py`, `noise/` |
| weighted error at drawn levels | `Objective.loss` |
| what steers it | `GaussianConfig.make_conditioner`, `denoisers/conditioning.py` |
"""

from collections.abc import Mapping
from typing import NamedTuple, Self

import torch
from pydantic import model_validator
from torch import Tensor

from rediffuse.denoisers.conditioning import HISTORY, Conditioner, sizes_of
from rediffuse.models.chain import FREE, ChainConfig, StartName
from rediffuse.networks.dropout import drop
from rediffuse.noise.predictions import PREDICTIONS, target
from rediffuse.noise.process import add_noise, at_level
from rediffuse.protocols import Denoiser
from rediffuse.training.levels import LEVELS, UniformLevels, loss_weights
from rediffuse.training.moments import MomentConfig
from rediffuse.types import Condition


class GaussianConfig(ChainConfig, MomentConfig):
    """What a Gaussian diffusion over users is, its x_0 their row or what they take next."""

    @model_validator(mode="after")
    def _known_history(self) -> Self:
        if self.target == "next" and (HISTORY not in self.condition or self.start not in FREE):
            raise ValueError("target = 'next' needs the condition history, and start = 'origin' or 'pure_noise'")
        return self

    @property
    def starts(self) -> tuple[StartName, ...]:
        """Where a reverse process may begin."""
        return FREE if self.target == "next" else super().starts

    def make_conditioner(self, sizes: Mapping[str, int], generator: torch.Generator | None) -> Conditioner | None:
        """What turns the conditions into tokens, its first weights drawn; None where there is none.

        Args: sizes: as `Conditioner`'s.
        """
        if not sizes:
            return None
        return Conditioner(sizes, self.condition_width, history_length=self.history_length, generator=generator)

    def sizes_in(self, state: Mapping[str, Tensor], n_items: int) -> dict[str, int]:
        """What `make_conditioner` was given. Args: state: of a network, by its own names."""
        return sizes_of(part_of(state, "conditioner."), self.condition, n_items=n_items)


class Drawn(NamedTuple):
    """A noised batch."""

    x_t: Tensor
    """(B, D)."""
    t: Tensor
    """(B,) int64."""
    eps: Tensor
    """(B, D)."""
    p: Tensor
    """(B,) by which a loss is divided for how its level was drawn."""


class Objective:
    """The training loss. What is known of the losses at each level is in `levels`, which belongs into a checkpoint."""

    def __init__(self, config: ChainConfig, device: torch.device | str) -> None:
        """Args: config: schedule, weights and how levels are drawn."""
        self.config, self.schedule = config, config.noise_schedule()
        weights = loss_weights(self.schedule, config.loss_weight, prediction=config.prediction)
        self.weights = weights.to(device)
        self.levels: UniformLevels = LEVELS[config.level_choice](config.levels).to(device)

    def draw(self, x0: Tensor, generator: torch.Generator) -> Drawn:
        """Noise a batch at drawn levels. Args: x0: (B, D)."""
        t, p = self.levels.draw(len(x0), generator)
        if not self.schedule.noisy:
            return Drawn(x0, t, torch.zeros_like(x0), p)
        eps = torch.empty_like(x0).normal_(generator=generator)
        return Drawn(add_noise(x0, t, eps, self.schedule), t, eps, p)

    def loss(
        self,
        network: Denoiser,
        x0: Tensor,
        cond: Condition | None,
        generator: torch.Generator,
        *,
        wanted: Tensor | None = None,
        drawn: Drawn | None = None,
    ) -> tuple[dict[str, Tensor], Tensor]:
        """w_t mean_i (prediction - target)_i^2 / p_t.

        Args: network: answers as `prediction` says.   x0: (B, D), what is noised.
            wanted: (B, D), what the estimate of x_0 is compared with; None: x_0 itself.
            drawn: x_0 noised already; None: it is drawn here.
        Returns: loss, mse and level, (B,) each; and the estimate of x_0, (B, D).
        """
        x_t, t, _, p = self.draw(x0, generator) if drawn is None else drawn
        answer = network(drop(x_t, self.config.dropout, generator), t, cond).to(x0.dtype)
        estimate, wanted = answer, x0 if wanted is None else wanted
        if self.config.prediction != "x0":
            alpha, sigma = (at_level(table, t, x_t) for table in (self.schedule.alpha, self.schedule.sigma))
            estimate = PREDICTIONS[self.config.prediction].to_x0(x_t, answer, alpha, sigma)
            wanted = target(self.config.prediction, x_t, wanted, t, self.schedule)
        mse = (answer - wanted).square().mean(1).to(torch.float64)
        loss = self.weights[t] * mse
        self.levels.record(t, loss)
        return {"loss": loss / p, "mse": mse, "level": t}, estimate


def part_of(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors of one part of a network, by its own names."""
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
