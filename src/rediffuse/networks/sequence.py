"""A transformer over histories: each event as a token, oldest first, padded on the right.

    tokens + places -> norm -> blocks -> norm,   causal: an event reads itself and what was before it

Padding is hidden as a key from every query. A causal encoder gives the same states for a history and for the same
history with more behind it, so one pass over a history trains all its beginnings.
Reference: Kang & McAuley 2018 (SASRec), section 3; Vaswani et al. 2017.
"""

import torch
from torch import Tensor, nn

from rediffuse.networks.dropout import drop
from rediffuse.networks.transformer import TransformerBlock, adaptive_norm
from rediffuse.types import Ragged


class SequenceEncoder(nn.Module):
    """(B, L, D) -> (B, L, D)."""

    def __init__(
        self,
        width: int,
        layers: int,
        heads: int,
        length: int,
        *,
        causal: bool = True,
        positions: bool = True,
        dropout: float = 0.0,
        expansion: int = 4,
        generator: torch.Generator | None = None,
    ) -> None:
        """Draw the weights.

        Args: width: D.   length: the longest L.   causal: whether an event reads only what was before it.
            positions: whether a learned vector tells the place of an event, counted from the oldest that is given.
            dropout: share of the tokens' entries, and of what each block adds, that is set to 0 in training.
        Raises: InvalidConfig when the heads do not divide D.
        """
        super().__init__()
        self.length, self.causal, self.dropout = length, causal, dropout
        self.place = (
            nn.Parameter(torch.empty(length, width).normal_(0, 0.02, generator=generator)) if positions else None
        )
        self.blocks = nn.ModuleList(
            TransformerBlock(width, heads, expansion=expansion, dropout=dropout, generator=generator)
            for _ in range(layers)
        )
        self.norm = nn.Parameter(torch.zeros(2, width))

    def forward(self, tokens: Tensor, there: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The state of each event.

        Args: tokens: (B, L, D), L at most `length`.   there: (B, L) bool, false where padded.
            generator: draws the dropout; None: there is none.
        Returns: (B, L, D); what stands at padded places means nothing.
        """
        wide = tokens.shape[1]
        x = tokens if self.place is None else tokens + self.place[:wide]
        if generator is not None:
            x = drop(x, self.dropout, generator)
        mask = there.unsqueeze(1)
        if self.causal:
            mask = mask & torch.ones(wide, wide, dtype=torch.bool, device=there.device).tril()
        for block in self.blocks:
            x = block(x, None, mask, generator)
        return adaptive_norm(x, self.norm[0], self.norm[1])


def padded(history: Ragged, length: int) -> Tensor:
    """The newest `length` items of each history, oldest first, (B, L) int64, -1 padded on the right; L >= 1."""
    return window(history.items, history.indptr[1:], history.lengths.clamp(max=length))


def window(items: Tensor, ends: Tensor, lengths: Tensor) -> Tensor:
    """Parts of one long list, side by side.

    Args: items: (n,) int64.   ends: (B,) int64, the place behind the last of each part.   lengths: (B,) int64.
    Returns: (B, L) int64, -1 padded on the right; L >= 1.
    """
    wide = max(1, int(lengths.max()) if len(lengths) else 1)
    place = torch.arange(wide, device=lengths.device)
    at = (ends - lengths).unsqueeze(1) + place
    more = torch.cat((items, items.new_full((1,), -1)))
    return torch.where(place < lengths.unsqueeze(1), more[at.clamp(max=len(items))], -1)


def final(states: Tensor, there: Tensor) -> Tensor:
    """The state of the newest event of each history, zeros where there is none. Args: (B, L, D), (B, L). Returns: (B, D)."""
    count = there.sum(1)
    newest = (count - 1).clamp(min=0).view(-1, 1, 1).expand(-1, 1, states.shape[2])
    return states.gather(1, newest).squeeze(1) * (count > 0).unsqueeze(1)
