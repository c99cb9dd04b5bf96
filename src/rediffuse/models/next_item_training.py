"""How a diffusion over next items is trained: noise the vector of the item wanted, estimate it, compare.

    loss = w_t / p_t error of the method + w_c consistency + w_a alignment

    consistency   `training/consistency.py`: of the estimate with that at a lower level of the same trajectory
    alignment     (1 - cos(e+, e-)) / 2 * softplus(x0_hat(x_T, T) . (e- - e+)),   x_T pure noise, e- another's wanted item

Reference: TA-Rec (arXiv 2510.17245) for both; its alignment is adaptive in the likeness of the two items, here as written.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from rediffuse.denoisers.conditioning import thinned
from rediffuse.denoisers.next_item import NextItemNetwork
from rediffuse.models.chain import ChainConfig
from rediffuse.models.gaussian import Drawn, Objective
from rediffuse.noise.predictions import as_denoiser
from rediffuse.noise.process import add_noise
from rediffuse.protocols import Denoiser
from rediffuse.training.consistency import consistency, estimate_below
from rediffuse.training.prefixes import Prefixes
from rediffuse.training.rows import shuffled
from rediffuse.types import Condition


@dataclass(frozen=True)
class Step:
    """A batch, noised and estimated: what an error is made of."""

    table: Tensor
    """(I, D), the vectors of the items."""
    target: Tensor
    """(B,) int64, the items wanted."""
    x0: Tensor
    """(B, D), their vectors."""
    drawn: Drawn
    estimate: Tensor
    """(B, D), x0_hat."""
    mse: Tensor
    """(B,) mean_d (prediction - target)^2."""
    noise: Callable[[Tensor], Tensor]
    """Other x_0 (B, D) -> x_t at the same levels and under the same eps."""
    denoise: Callable[[Tensor], Tensor]
    """x_t (B, D) at the same levels -> estimates of x_0 after the same histories."""


class NextItemTraining:
    """The `Trainable`."""

    def __init__(
        self,
        config: ChainConfig,
        network: NextItemNetwork,
        prefixes: Prefixes,
        batch_size: int,
        error: Callable[[Step], Tensor],
        *,
        consistency: float = 0.0,
        stride: int = 1,
        alignment: float = 0.0,
    ) -> None:
        """Args: consistency, alignment: their weights.   stride: levels between the two estimates of the first."""
        self.config, self.network, self.prefixes, self.batch_size = config, network, prefixes, batch_size
        self.error, self.consistency, self.stride, self.alignment = error, consistency, stride, alignment
        self.objective = Objective(config, network.table.device)
        self.module = nn.ModuleDict({"network": network, "levels": self.objective.levels})

    def batches(self, generator: torch.Generator) -> Iterator[Tensor]:
        """The numbers of the examples, each once, in a new order, (B,)."""
        return shuffled(self.prefixes, self.batch_size, generator)

    def loss(self, batch: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """As at the head of this file.

        Args: batch: numbers of examples (B,).
        Returns: loss, error, mse and level, (B,) each, and what else is weighed in.
        """
        items, target = self.prefixes.examples(batch, generator)
        cond = thinned(self.network.condition(items, generator), self.config.condition_drop, generator)
        x0 = functional.embedding(target, self.network.table)
        drawn = self.objective.draw(x0, generator)
        network = partial(self.network, generator=generator)
        values, estimate = self.objective.loss(network, x0, cond, generator, drawn=drawn)
        denoise = self._denoiser(network)
        schedule = self.objective.schedule
        step = Step(
            self.network.table,
            target,
            x0,
            drawn,
            estimate,
            values["mse"],
            noise=lambda other: add_noise(other, drawn.t, drawn.eps, schedule),
            denoise=lambda x_t: denoise(x_t, drawn.t, cond),
        )
        values["error"] = self.error(step)
        loss = (self.objective.weights[drawn.t] / drawn.p).to(values["error"].dtype) * values["error"]
        if self.consistency:
            t, network = drawn.t, self._denoiser(self.network)
            below = estimate_below(network, x0, drawn.eps, t, schedule, cond=cond, stride=self.stride)
            values["consistency"] = consistency(estimate, below)
            loss = loss + self.consistency * values["consistency"]
        if self.alignment:
            values["alignment"] = self._alignment(step, cond, denoise, generator)
            loss = loss + self.alignment * values["alignment"]
        return {**values, "loss": loss}

    def _denoiser(self, network: Denoiser) -> Denoiser:
        return as_denoiser(network, self.config.prediction, self.objective.schedule)

    def _alignment(self, step: Step, cond: Condition, denoise: Denoiser, generator: torch.Generator) -> Tensor:
        """The preference of the items wanted over those of other examples, (B,); 0 where both are the same."""
        top = torch.full_like(step.drawn.t, self.config.levels)
        sigma = float(self.objective.schedule.sigma[-1])
        estimate = denoise(sigma * torch.empty_like(step.x0).normal_(generator=generator), top, cond)
        other = step.target[torch.randperm(len(top), generator=generator, device=top.device)]
        rival = functional.embedding(other, step.table)
        unlike = (1 - functional.cosine_similarity(step.x0, rival)).detach() / 2
        margin = (estimate * (rival - step.x0)).sum(1)
        return (other != step.target) * unlike * functional.softplus(margin)
