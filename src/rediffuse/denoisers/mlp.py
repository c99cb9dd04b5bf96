"""The multi-layer perceptron of DiffRec, written as head(core(lift(x_t), t)) with linear ends.

    x_t, level, conditions -> [x_t, Linear(time embedding), tokens] -> H_1 -> .. -> H_m -> I,   tanh after all but the last

The dropout on x_t of the paper belongs to training and stands there (`networks/dropout.py`).
Reference: Wang et al. 2023 (DiffRec), section 3.2 and its released network.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from rediffuse.denoisers.conditioning import Conditioner
from rediffuse.networks.time_embedding import sinusoids
from rediffuse.types import Condition, SparseRows


class MLPDenoiser(nn.Module):
    """A `LiftedDenoiser` over rows of width I."""

    def __init__(
        self,
        width: int,
        hidden: Sequence[int],
        *,
        time_width: int = 10,
        conditioner: Conditioner | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        """Draw the weights: W ~ N(0, 2 / (fan_in + fan_out)), b ~ N(0, .001^2).

        Args: width: I.   hidden: sizes of the hidden layers, first to last.   conditioner: its tokens join the first layer.
        """
        super().__init__()
        self.time_width = time_width
        self.time = nn.Linear(time_width, time_width)
        self.lift_weight = nn.Parameter(torch.empty(width, hidden[0]))
        self.time_lift = nn.Linear(time_width, hidden[0])
        self.body = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(hidden))
        self.out = nn.Linear(hidden[-1], width)
        self._draw_weights(generator)
        self.conditioner = conditioner
        if conditioner is not None:
            self.condition_lift = nn.Linear(conditioner.count * conditioner.width, hidden[0], bias=False)
            nn.init.xavier_normal_(self.condition_lift.weight, generator=generator)

    def _draw_weights(self, generator: torch.Generator | None) -> None:
        # lift_weight and time_lift are two blocks of one layer of the paper, with its fan-in and fan-out.
        fans = {id(self.lift_weight): sum(self.lift_weight.shape) + self.time_width}
        fans[id(self.time_lift.weight)] = fans[id(self.lift_weight)]
        with torch.no_grad():
            for weight in self.parameters():
                if weight.dim() == 2:
                    weight.normal_(0, (2 / fans.get(id(weight), sum(weight.shape))) ** 0.5, generator=generator)
                else:
                    weight.normal_(0, 0.001, generator=generator)

    def lift(self, x: SparseRows | Tensor) -> Tensor:
        """W x. Args: x: (B, I) sparse or dense. Returns: (B, H)."""
        return x.project(self.lift_weight) if isinstance(x, SparseRows) else x @ self.lift_weight

    def core(self, u: Tensor, t: Tensor, cond: Condition | None = None) -> Tensor:
        """tanh(u + W_e e_t + W_c c + b), then the hidden layers.

        Args: u: (B, H).   t: (B,) int64 in 1..T, fed to the sinusoids as t - 1 like the authors'.
            cond: of B subjects; nothing to a network without a conditioner.
        Returns: (B, H').
        """
        e_t = self.time(sinusoids((t - 1).to(torch.float64), self.time_width).to(u.dtype))
        h = torch.addmm(u, e_t, self.time_lift.weight.t()) + self.time_lift.bias
        if self.conditioner is not None:
            h = h + self.condition_lift(self.conditioner(cond, len(u)).flatten(1))
        h = torch.tanh(h)
        for layer in self.body:
            h = torch.tanh(layer(h))
        return h

    def head(self, h: Tensor, items: Tensor | None = None) -> Tensor:
        """V h + b. Args: h: (B, H').   items: (n,) or (B, n) to score alone. Returns: (B, I) or (B, n)."""
        weight, bias = self.out.weight, self.out.bias
        if items is None:
            return torch.addmm(bias, h, weight.t())
        if items.dim() == 1:
            return torch.addmm(bias[items], h, weight[items].t())
        return torch.einsum("bh,bnh->bn", h, weight[items]) + bias[items]

    def ends(self) -> tuple[Tensor, Tensor, Tensor]:
        """W^T (I, H), V (I, H'), b (I,)."""
        return self.lift_weight, self.out.weight, self.out.bias

    def forward(self, x_t: SparseRows | Tensor, t: Tensor, cond: Condition | None = None) -> Tensor:
        """Estimate x_0. Args: x_t: (B, I).   t: (B,) int64 in 1..T. Returns: (B, I)."""
        return self.head(self.core(self.lift(x_t), t, cond))
