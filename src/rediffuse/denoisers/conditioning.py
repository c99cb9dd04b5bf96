"""Conditions -> tokens for a denoiser: one vector for each, and a learned null where a condition is absent.

A denoiser takes the tokens and asks no further, so any network is conditioned by a value: the names of its conditions.

    season, or whatever else is a share of a cycle   [cos, sin](2 pi k x), k = 1 .. 3, then a linear map
    a word                                           a row of a table
    history                                          `networks/history.py`

Reference: Ho & Salimans 2022, section 3.2 (the null, dropped in training).
"""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from rediffuse.networks.history import HistoryEncoder
from rediffuse.types import Condition, Ragged

HISTORY = "history"
HARMONICS = 3


class Conditioner(nn.Module):
    """C conditions, each a token of width D."""

    def __init__(
        self,
        sizes: Mapping[str, int],
        width: int,
        *,
        history_length: int = 50,
        generator: torch.Generator | None = None,
    ) -> None:
        """Draw the weights.

        Args: sizes: name -> number of codes, 0 for a share of a cycle, the number of items for the history.
            width: D.   history_length: how many of the newest items the history encoder sees.
        """
        super().__init__()
        self.names, self.width = tuple(sizes), width
        self.nulls = nn.Parameter(torch.empty(len(sizes), width).normal_(0, width**-0.5, generator=generator))
        self.encoders = nn.ModuleList(
            HistoryEncoder(size, width, history_length, generator=generator)
            if name == HISTORY
            else Words(size, width, generator=generator)
            if size
            else Cycle(width, generator=generator)
            for name, size in sizes.items()
        )

    @property
    def count(self) -> int:
        """Number of tokens, C."""
        return len(self.names)

    def forward(self, cond: Condition | None, batch: int) -> Tensor:
        """Args: cond: of `batch` subjects; None: nothing is known. Returns: (batch, C, D)."""
        nulls = self.nulls.expand(batch, -1, -1)
        if cond is None:
            return nulls
        tokens: list[Tensor] = []
        for place, (name, encoder) in enumerate(zip(self.names, self.encoders, strict=True)):
            null = nulls[:, place]
            there = cond.present.get(name)
            tokens.append(null if there is None else torch.where(there.unsqueeze(1), encoder(cond.values[name]), null))
        return torch.stack(tokens, dim=1)


class Cycle(nn.Module):
    """A share of a cycle, such as the year: 0 and 1 are the same."""

    def __init__(self, width: int, *, generator: torch.Generator | None = None) -> None:
        """Args: width: D."""
        super().__init__()
        self.map = nn.Parameter(torch.empty(2 * HARMONICS, width).normal_(0, HARMONICS**-0.5, generator=generator))

    def forward(self, share: Tensor) -> Tensor:
        """Args: share: (B,) 0 .. 1. Returns: (B, D)."""
        k = torch.arange(1, HARMONICS + 1, device=share.device)
        angle = 2 * math.pi * share.nan_to_num().unsqueeze(1).to(torch.float64) * k
        return torch.cat((torch.cos(angle), torch.sin(angle)), dim=1).to(self.map.dtype) @ self.map


class Words(nn.Module):
    """One of several words."""

    count: Tensor
    """(), how many."""

    def __init__(self, count: int, width: int, *, generator: torch.Generator | None = None) -> None:
        """Args: count: number of words.   width: D."""
        super().__init__()
        self.table = nn.Parameter(torch.empty(count, width).normal_(0, width**-0.5, generator=generator))
        self.register_buffer("count", torch.tensor(count))  # the table alone cannot tell that some of it is missing

    def forward(self, code: Tensor) -> Tensor:
        """Args: code: (B,) int64, -1 unknown. Returns: (B, D)."""
        return self.table[code.clamp(min=0)]


def sizes_of(state: Mapping[str, Tensor], names: Sequence[str], *, n_items: int | None = None) -> dict[str, int]:
    """What a conditioner was made for, read from its state.

    Args: state: by the conditioner's own names.   n_items: of the catalog; None: as many as the history's table has.
    """
    counts = (state.get(f"encoders.{place}.count") for place in range(len(names)))
    sizes = {name: 0 if count is None else int(count) for name, count in zip(names, counts, strict=True)}
    if HISTORY in sizes:
        own = state.get(f"encoders.{names.index(HISTORY)}.table")
        sizes[HISTORY] = n_items or (0 if own is None else len(own))
    return sizes


def newest(history: Ragged, length: int) -> Tensor:
    """The newest items of each history, the newest first, (B, L) int64, -1 padded; L = min(length, the longest)."""
    lengths = history.lengths
    longest = int(lengths.max()) if len(history) else 0
    wide = max(1, min(length, longest))
    place = history.indptr[1:].unsqueeze(1) - 1 - torch.arange(wide, device=lengths.device)
    there = place >= history.indptr[:-1].unsqueeze(1)
    padded = torch.cat((history.items, history.items.new_full((1,), -1)))
    return torch.where(there, padded[place.clamp(min=0)], -1)


def thinned(cond: Condition, share: float, generator: torch.Generator) -> Condition:
    """Put the null in place of each condition of each example with a chance of `share`, independently, for training."""
    return Condition(
        cond.values,
        {
            name: there & (torch.rand(there.shape, generator=generator, device=there.device) >= share)
            for name, there in cond.present.items()
        },
    )
