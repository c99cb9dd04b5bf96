"""A transformer over a row, written as head(core(lift(x_t), t, cond)) with linear ends.

    lift   token_g = sum over the items i of group g of x_i w_i                                       G state tokens
    core   [tokens + place, condition tokens] -> blocks steered by the level -> norm steered by the level
    head   x0_i = token_g(i) . v_i + b_i

The row is read as a few sums, one for each group of items that are taken together (`spaces/item_vectors.py`), so the
chain runs in hidden space as that of the MLP does, with H = G D. Item i enters and leaves through its group's token alone:
its vectors are stored once, (I, D), and only `ends` spreads them over the (I, G D) of their matrices.
Reference: Peebles & Xie 2023 (DiT), section 3 (blocks, steering by the level, conditions as tokens).
"""

import torch
from torch import Tensor, nn

from rediffuse.denoisers.conditioning import Conditioner
from rediffuse.errors import InvalidInput, say
from rediffuse.networks.time_embedding import sinusoids
from rediffuse.networks.transformer import TransformerBlock, adaptive_norm, linear, zero_linear
from rediffuse.types import Condition, SparseRows, offsets


class TransformerDenoiser(nn.Module):
    """A `LiftedDenoiser` over rows of width I."""

    groups: Tensor
    """(I,) int64, the group of each item; restored by a state_dict."""

    def __init__(
        self,
        groups: Tensor,
        token_width: int,
        layers: int,
        heads: int,
        *,
        time_width: int = 32,
        conditioner: Conditioner | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        """Draw the weights: w, v ~ N(0, 2 / (I/G + D)), b = 0; the level has no say until training gives it one.

        Args: groups: (I,) int64, 0 .. G-1.   token_width: D.   layers: number of blocks.
            heads: of attention, a divisor of D.   conditioner: its tokens are read along with the state's.
        Raises: InvalidInput when there is no item or a group is negative; InvalidConfig for heads.
        """
        super().__init__()
        if groups.dim() != 1 or not len(groups) or int(groups.min()) < 0:
            raise InvalidInput(say("groups must hold a number from 0 on for every item", got=tuple(groups.shape)))
        count, width = int(groups.max()) + 1, token_width
        spread = (2 / (len(groups) / count + width)) ** 0.5
        self.count, self.time_width = count, time_width
        self.register_buffer("groups", groups.clone())
        self.lift_weight = nn.Parameter(torch.empty(len(groups), width).normal_(0, spread, generator=generator))
        self.place = nn.Parameter(torch.empty(count, width).normal_(0, 0.02, generator=generator))
        self.level = nn.Sequential(
            linear(time_width, width, generator), nn.SiLU(), linear(width, width, generator), nn.SiLU()
        )
        self.blocks = nn.ModuleList(TransformerBlock(width, heads, width, generator=generator) for _ in range(layers))
        self.steer = zero_linear(width, 2 * width)
        self.head_weight = nn.Parameter(torch.empty(len(groups), width).normal_(0, spread, generator=generator))
        self.bias = nn.Parameter(torch.zeros(len(groups)))
        self.conditioner = conditioner
        if conditioner is not None:
            fits = conditioner.width == width
            self.condition_map = nn.Identity() if fits else linear(conditioner.width, width, generator)

    def lift(self, x: SparseRows | Tensor) -> Tensor:
        """W x. Args: x: (B, I) sparse or dense. Returns: (B, G D)."""
        if not isinstance(x, SparseRows):
            return torch.cat([x[:, items] @ self.lift_weight[items] for items in self._parts(self.groups)], dim=1)
        # One narrower row for each token: the same entries, parted by group.
        rows = torch.repeat_interleave(torch.arange(len(x), device=x.device), x.lengths)
        token = rows * self.count + self.groups[x.items]
        order = token.argsort(stable=True)
        indptr = offsets(torch.bincount(token, minlength=len(x) * self.count))
        parted = SparseRows(indptr, x.items[order], x.values[order], x.width)
        return parted.project(self.lift_weight).view(len(x), self.count * self.lift_weight.shape[1])

    def core(self, u: Tensor, t: Tensor, cond: Condition | None = None) -> Tensor:
        """The blocks.

        Args: u: (B, G D).   t: (B,) int64 in 1..T, fed to the sinusoids as t - 1.
            cond: of B subjects; nothing to a network without a conditioner.
        Returns: (B, G D).
        """
        level = self.level(sinusoids((t - 1).to(torch.float64), self.time_width).to(u.dtype))
        tokens = u.unflatten(1, (self.count, -1)) + self.place
        if self.conditioner is not None:
            tokens = torch.cat((tokens, self.condition_map(self.conditioner(cond, len(u)))), dim=1)
        for block in self.blocks:
            tokens = block(tokens, level)
        shift, scale = self.steer(level).unsqueeze(1).chunk(2, dim=2)
        return adaptive_norm(tokens[:, : self.count], shift, scale).flatten(1)

    def head(self, h: Tensor, items: Tensor | None = None) -> Tensor:
        """V h + b. Args: h: (B, G D).   items: (n,) or (B, n) to score alone. Returns: (B, I) or (B, n)."""
        tokens = h.unflatten(1, (self.count, -1))
        groups, weight, bias = self.groups, self.head_weight, self.bias
        if items is not None:
            groups, weight, bias = groups[items], weight[items], bias[items]
        if groups.dim() == 2:
            each = torch.arange(len(h), device=h.device).unsqueeze(1)
            return torch.einsum("bnd,bnd->bn", tokens[each, groups], weight) + bias
        parts = self._parts(groups)
        scores = torch.cat([tokens[:, group] @ weight[part].t() for group, part in enumerate(parts)], dim=1)
        return scores.index_select(1, torch.cat(parts).argsort()) + bias

    def ends(self) -> tuple[Tensor, Tensor, Tensor]:
        """W^T (I, G D), V (I, G D), b (I,). Limits: dense, though each row has D entries that are not 0."""
        return self._spread(self.lift_weight), self._spread(self.head_weight), self.bias

    def forward(self, x_t: SparseRows | Tensor, t: Tensor, cond: Condition | None = None) -> Tensor:
        """Estimate x_0. Args: x_t: (B, I).   t: (B,) int64 in 1..T. Returns: (B, I)."""
        return self.head(self.core(self.lift(x_t), t, cond))

    def _parts(self, groups: Tensor) -> tuple[Tensor, ...]:
        """Where each group stands: G lists of places in `groups` (n,)."""
        return groups.argsort(stable=True).split(torch.bincount(groups, minlength=self.count).tolist())

    def _spread(self, weight: Tensor) -> Tensor:
        """Each item's vector in the columns of its group's token. Args: weight: (I, D). Returns: (I, G D)."""
        own = nn.functional.one_hot(self.groups, self.count).to(weight.dtype)
        return (own.unsqueeze(2) * weight.unsqueeze(1)).flatten(1)
