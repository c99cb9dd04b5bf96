"""A pre-norm transformer block, its normalisation steered by a vector or learned.

    x + g_1 Attention(N(x; s_1, b_1)),   then   x + g_2 MLP(N(x; s_2, b_2)),   N(x; s, b) = LayerNorm(x) (1 + s) + b

Steered, (b, s, g) are linear in the vector and 0 at first: a new block hands its tokens on unchanged (adaLN-Zero).
Else they are parameters of the block, with g = 1 fixed: the plain block.
Reference: Peebles & Xie 2023 (DiT), section 3.2; Vaswani et al. 2017, section 3.2 (attention).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from rediffuse.errors import InvalidConfig, say
from rediffuse.networks.dropout import drop


class TransformerBlock(nn.Module):
    """(B, L, D) -> (B, L, D), steered by (B, E) or plain."""

    def __init__(
        self,
        width: int,
        heads: int,
        steering_width: int | None = None,
        *,
        expansion: int = 4,
        dropout: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> None:
        """Draw the weights: Xavier's normal; biases and all that the vector steers are 0.

        Args: width: D.   steering_width: E; None: a plain block.   expansion: width of the hidden layer of the MLP, in D.
            dropout: share of what either half adds that is set to 0 in training.
        Raises: InvalidConfig when the heads do not divide D.
        """
        super().__init__()
        if heads < 1 or width % heads:
            raise InvalidConfig(say(f"heads must divide the width of a token, {width}", got=heads))
        self.heads, self.dropout = heads, dropout
        self.qkv = linear(width, 3 * width, generator)
        self.mix = linear(width, width, generator)
        self.widen = linear(width, expansion * width, generator)
        self.narrow = linear(expansion * width, width, generator)
        if steering_width is None:
            self.norm = nn.Parameter(torch.zeros(4, width))
        else:
            self.steer = zero_linear(steering_width, 6 * width)

    def forward(
        self,
        x: Tensor,
        steering: Tensor | None = None,
        mask: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Let the tokens read each other, then change each by itself.

        Args: x: (B, L, D).   steering: (B, E), none for a plain block.   mask: which keys each query may read, true where
            it may, broadcastable to (B, L, L); `present.unsqueeze(1)` hides padded tokens (B, L) from all.
            generator: draws the dropout; None: there is none.
        Returns: (B, L, D). A token that may read nothing adds a constant for what it read.
        """
        shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = self._steering(steering)
        x = x + gate_1 * self._thin(self._attend(adaptive_norm(x, shift_1, scale_1), mask), generator)
        hidden = functional.gelu(self.widen(adaptive_norm(x, shift_2, scale_2)))
        return x + gate_2 * self._thin(self.narrow(hidden), generator)

    def _steering(self, steering: Tensor | None) -> tuple[Tensor | float, ...]:
        """Shift, scale and gate of the two halves, (B, 1, D) or (D,) each."""
        if steering is not None:
            return self.steer(steering).unsqueeze(1).chunk(6, dim=2)
        return self.norm[0], self.norm[1], 1.0, self.norm[2], self.norm[3], 1.0

    def _thin(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        return x if generator is None else drop(x, self.dropout, generator)

    def _attend(self, x: Tensor, mask: Tensor | None) -> Tensor:
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        read = functional.scaled_dot_product_attention(q, k, v, None if mask is None else mask.unsqueeze(1))
        return self.mix(read.transpose(1, 2).flatten(2))


def adaptive_norm(x: Tensor, shift: Tensor | float, scale: Tensor | float) -> Tensor:
    """LayerNorm(x) (1 + scale) + shift. Args: x: (B, L, D).   shift, scale: (B, 1, D) or (D,). Returns: (B, L, D)."""
    return functional.layer_norm(x, x.shape[-1:]) * (1 + scale) + shift


def linear(fan_in: int, fan_out: int, generator: torch.Generator | None) -> nn.Linear:
    """A layer with W ~ N(0, 2 / (fan_in + fan_out)) and no bias at first."""
    layer = zero_linear(fan_in, fan_out)
    nn.init.xavier_normal_(layer.weight, generator=generator)
    return layer


def zero_linear(fan_in: int, fan_out: int) -> nn.Linear:
    """A layer that answers 0 until it is trained."""
    layer = nn.Linear(fan_in, fan_out)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
