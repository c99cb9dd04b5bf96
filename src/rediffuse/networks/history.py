"""A history as one vector: a learned weight for each place counted from the newest, then one layer.

    tanh(A sum_j p_j * e_(i_j)),   j = 0 the newest

Small on purpose: it knows what was taken and how long ago, but no interplay of items.
"""

import torch
from torch import Tensor, nn


class HistoryEncoder(nn.Module):
    """The newest `length` items of a history -> (B, D)."""

    def __init__(self, n_items: int, width: int, length: int, *, generator: torch.Generator | None = None) -> None:
        """Draw the weights: e ~ N(0, 1 / D); places fade from 1 as 1 / sqrt(1 + j). Args: n_items: I.   width: D."""
        super().__init__()
        self.table = nn.Parameter(torch.empty(n_items, width).normal_(0, width**-0.5, generator=generator))
        self.place = nn.Parameter((torch.arange(length) + 1.0).rsqrt().unsqueeze(1).repeat(1, width))
        self.out = nn.Parameter(torch.empty(width, width).normal_(0, width**-0.5, generator=generator))

    def forward(self, items: Tensor) -> Tensor:
        """Args: items: (B, L) int64, the newest first, -1 padded, L at most `length`. Returns: (B, D)."""
        known = (items >= 0).unsqueeze(2)
        terms = nn.functional.embedding(items.clamp(min=0), self.table) * self.place[: items.shape[1]]
        return torch.tanh((terms * known).sum(1) @ self.out)
