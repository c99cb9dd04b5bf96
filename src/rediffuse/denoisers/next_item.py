"""Networks that estimate the vector of the next item, x_0, from a noised one and a history.

    guided     h = state of the newest event,   x0_hat = W [x_t; h; tau(t)] + b, or one hidden layer;   h = null without
    injected   x0_hat = state of the newest event of a sequence of tokens  e_i + lambda (x_t + tau(t))

The first reads the history once for all levels, the second anew at every one.
Reference: Yang et al. 2023 (DreamRec), section 3.2; Li et al. 2023 (DiffuRec), section 4.2.
"""

from abc import ABC, abstractmethod
from copy import deepcopy

import torch
from torch import Tensor, nn

from rediffuse.denoisers.affine import VectorDenoiser
from rediffuse.denoisers.conditioning import HISTORY
from rediffuse.networks.dropout import drop
from rediffuse.networks.sequence import SequenceEncoder, final
from rediffuse.networks.time_embedding import sinusoids
from rediffuse.networks.transformer import linear
from rediffuse.types import Condition


class NextItemNetwork(nn.Module, ABC):
    """A `Denoiser` over R^D whose x_0 are rows of its own table."""

    table: nn.Parameter
    """(I, D), the vectors of the items."""

    @abstractmethod
    def condition(self, items: Tensor, generator: torch.Generator | None = None) -> Condition:
        """What `forward` is told of histories.

        Args: items: (B, L) int64, oldest first, -1 padded on the right.   generator: draws the dropout; None: there is none.
        """

    @abstractmethod
    def forward(
        self, x_t: Tensor, t: Tensor, cond: Condition | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        """Estimate x_0. Args: x_t: (B, D).   t: (B,) int64 in 1..T.   cond: as `condition` gives it. Returns: (B, D)."""


class Level(nn.Module):
    """tau(t): sinusoids -> GELU layer of 2 D -> (B, D)."""

    def __init__(self, width: int, generator: torch.Generator | None) -> None:
        """Args: width: D."""
        super().__init__()
        self.width = width
        self.layers = nn.Sequential(linear(width, 2 * width, generator), nn.GELU(), linear(2 * width, width, generator))

    def forward(self, t: Tensor, dtype: torch.dtype) -> Tensor:
        """Args: t: (B,) int64 in 1..T, fed to the sinusoids as t - 1. Returns: (B, D)."""
        return self.layers(sinusoids((t - 1).to(torch.float64), self.width).to(dtype))


class GuidedNetwork(NextItemNetwork):
    """The history as one vector h beside x_t. Affine in (x_t, h) unless it is deep."""

    def __init__(
        self,
        n_items: int,
        encoder: SequenceEncoder,
        width: int,
        *,
        deep: bool = False,
        item_scale: float = 1.0,
        item_dropout: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> None:
        """Draw the weights.

        Args: n_items: I.   encoder: of the histories.   width: D.   deep: one hidden layer of 2 D and GELU.
            item_scale: standard deviation of the first vectors of the items.
            item_dropout: share of the entries of a history's vectors that is set to 0 in training.
        """
        super().__init__()
        self.item_dropout, self.deep = item_dropout, deep
        self.table = nn.Parameter(torch.empty(n_items, width).normal_(0, item_scale, generator=generator))
        self.null = nn.Parameter(torch.empty(width).normal_(generator=generator))
        self.level = Level(width, generator)
        self.encoder = encoder
        self.out = (
            nn.Sequential(linear(3 * width, 2 * width, generator), nn.GELU(), linear(2 * width, width, generator))
            if deep
            else linear(3 * width, width, generator)
        )

    def condition(self, items: Tensor, generator: torch.Generator | None = None) -> Condition:
        """As promised: the value is h, (B, D)."""
        there = items >= 0
        tokens = _tokens(self.table, items, self.item_dropout, generator)
        h = final(self.encoder(tokens, there, generator), there)
        return Condition({HISTORY: h}, {HISTORY: there.any(1)})

    def forward(
        self, x_t: Tensor, t: Tensor, cond: Condition | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        """As promised."""
        del generator
        h = self.steering(cond, len(x_t))
        return self.out(torch.cat((x_t, h, self.level(t, x_t.dtype)), dim=1))

    def steering(self, cond: Condition | None, batch: int) -> Tensor:
        """h, or the null where there is no history, (B, D)."""
        h = self.null.expand(batch, -1)
        if cond is None:
            return h
        return torch.where(cond.present[HISTORY].unsqueeze(1), cond.values[HISTORY].to(h.dtype), h)

    def vectors(self) -> VectorDenoiser | None:
        """`forward` with weights of its own in float64, where it is affine: what `affine_map` reads; None where deep."""
        if self.deep:
            return None
        # Derivatives through weights that were made in inference mode are refused: these are copies, made outside it.
        with torch.inference_mode(mode=False):
            out, level = (
                deepcopy(part).to(torch.float64).requires_grad_(requires_grad=False) for part in (self.out, self.level)
            )

        def denoise(x_t: Tensor, t: Tensor, h: Tensor) -> Tensor:
            return out(torch.cat((x_t, h, level(t, x_t.dtype)), dim=1))

        return denoise


class InjectedNetwork(NextItemNetwork):
    """x_t inside every token of the history. Without a history a learned token stands in."""

    def __init__(
        self,
        n_items: int,
        encoder: SequenceEncoder,
        width: int,
        *,
        strength: float = 0.001,
        spread: float = 0.001,
        item_scale: float = 1.0,
        item_dropout: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> None:
        """Draw the weights.

        Args: n_items, encoder, width, item_scale, item_dropout: as in `GuidedNetwork`.
            strength, spread: mean and standard deviation of lambda, drawn for each entry in training; else the mean.
        """
        super().__init__()
        self.item_dropout, self.strength, self.spread = item_dropout, strength, spread
        self.table = nn.Parameter(torch.empty(n_items, width).normal_(0, item_scale, generator=generator))
        self.null = nn.Parameter(torch.empty(width).normal_(0, item_scale, generator=generator))
        self.level = Level(width, generator)
        self.encoder = encoder

    def condition(self, items: Tensor, generator: torch.Generator | None = None) -> Condition:
        """As promised: the value is the history itself, (B, L)."""
        del generator
        return Condition({HISTORY: items}, {HISTORY: (items >= 0).any(1)})

    def forward(
        self, x_t: Tensor, t: Tensor, cond: Condition | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        """As promised."""
        if cond is None:
            items, known = t.new_full((len(t), 1), -1), torch.zeros_like(t, dtype=torch.bool)
        else:
            items, known = cond.values[HISTORY], cond.present[HISTORY]
        there = (items >= 0) & known.unsqueeze(1)
        tokens = _tokens(self.table, items, self.item_dropout, generator)
        first = torch.zeros_like(there)
        first[:, 0] = ~known
        tokens = torch.where(first.unsqueeze(2), self.null, tokens)
        inside = (x_t + self.level(t, x_t.dtype)).unsqueeze(1)
        strength = torch.full_like(tokens, self.strength)
        if generator is not None:
            strength = strength + self.spread * torch.empty_like(tokens).normal_(generator=generator)
        there = there | first
        return final(self.encoder(tokens + strength * inside, there, generator), there)


def _tokens(table: Tensor, items: Tensor, dropout: float, generator: torch.Generator | None) -> Tensor:
    """Vectors of a history's items, (B, L, D), zeros where padded."""
    tokens = nn.functional.embedding(items.clamp(min=0), table) * (items >= 0).unsqueeze(2)
    return tokens if generator is None else drop(tokens, dropout, generator)
