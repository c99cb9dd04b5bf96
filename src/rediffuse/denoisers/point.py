"""A multi-layer perceptron over points: vectors of items and users, the one noised and the other its condition.

    x_t, level, c -> [x_t, Linear(time embedding), c] -> H_1 -> .. -> H_m -> D,   an activation after all but the last
    skip:   c + the same, whose last layer is 0 at first: an untrained network answers its condition

The dropout on x_t of the paper belongs to training and stands there (`networks/dropout.py`).
Reference: Zhao et al. 2024 (DDRM), section 3.2 and its released network.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from rediffuse.denoisers.conditioning import HISTORY
from rediffuse.networks.time_embedding import sinusoids
from rediffuse.types import Condition

ACTIVATIONS: Mapping[str, type[nn.Module]] = {"relu": nn.ReLU, "sigmoid": nn.Sigmoid, "tanh": nn.Tanh}


class PointDenoiser(nn.Module):
    """A `Denoiser` over R^D, steered by a vector of R^D; a learned null stands in where there is none."""

    def __init__(
        self,
        width: int,
        hidden: Sequence[int],
        *,
        time_width: int = 10,
        activation: str = "relu",
        skip: bool = False,
        generator: torch.Generator | None = None,
    ) -> None:
        """Draw the weights: W ~ N(0, 2 / (fan_in + fan_out)), b ~ N(0, .001^2).

        Args: width: D.   hidden: sizes of the hidden layers, first to last.   activation: one of ACTIVATIONS.
        """
        super().__init__()
        self.time_width, self.skip = time_width, skip
        self.time = nn.Linear(time_width, time_width)
        layers = [nn.Linear(a, b) for a, b in pairwise([2 * width + time_width, *hidden, width])]
        act = ACTIVATIONS[activation]
        self.body = nn.Sequential(*(part for layer in layers[:-1] for part in (layer, act())), layers[-1])
        self.null = nn.Parameter(torch.zeros(width))
        for layer in (self.time, *layers):
            nn.init.xavier_normal_(layer.weight, generator=generator)
            nn.init.normal_(layer.bias, 0, 0.001, generator=generator)
        if skip:
            nn.init.zeros_(layers[-1].weight)
            nn.init.zeros_(layers[-1].bias)

    def forward(self, x_t: Tensor, t: Tensor, cond: Condition | None = None) -> Tensor:
        """Estimate x_0.

        Args: x_t: (B, D).   t: (B,) int64 in 1..T, fed to the sinusoids as t - 1 like the authors'.
            cond: the vector by the name `history`, (B, D).
        Returns: (B, D).
        """
        c = self.null.expand_as(x_t)
        if cond is not None:
            c = torch.where(cond.present[HISTORY].unsqueeze(1), cond.values[HISTORY].to(x_t.dtype), c)
        e_t = self.time(sinusoids((t - 1).to(torch.float64), self.time_width).to(x_t.dtype))
        answer = self.body(torch.cat((x_t, e_t, c), dim=1))
        return c + answer if self.skip else answer
