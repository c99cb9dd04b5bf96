"""Training examples of next items: an event, and what came before it."""

from dataclasses import dataclass
from typing import Literal, Self

import torch
from torch import Tensor

from rediffuse.networks.sequence import window
from rediffuse.protocols import FitData
from rediffuse.training.sequences import continued
from rediffuse.types import Ragged

Which = Literal["drawn", "every", "last"]


@dataclass(frozen=True)
class Prefixes:
    """Each example stands for a run of events of one user, of which one is wanted at a time."""

    history: Ragged
    """The users' events, oldest first, on the device of training."""
    first: Tensor
    """(n,) int64, where the run begins among all events; never the first of a user."""
    count: Tensor
    """(n,) int64, how many events it has."""
    row: Tensor
    """(n,) int64, whose it is."""
    length: int
    """Of the histories, at most."""

    @classmethod
    def of(cls, data: FitData, length: int, device: str, which: Which, method: str = "a method of next items") -> Self:
        """Args: which: one event drawn anew from each user, every event as an example of its own, or each user's last.
            method: what to call it in messages.
        Raises: InvalidInput when the order of events is not known, or nobody has two.
        """
        history = continued(data, method).to(device)
        first, count = history.indptr[:-1] + 1, history.lengths - 1
        if which == "last":
            first, count = history.indptr[1:] - 1, torch.ones_like(count)
        elif which == "every":
            first = (history.ranks > 0).nonzero().squeeze(1)
            count = torch.ones_like(first)
        return cls(history, first, count, history.rows[first], length)

    def __len__(self) -> int:
        """Number of examples."""
        return len(self.first)

    def examples(self, batch: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Histories, oldest first, (B, L) int64, -1 padded on the right; and the items wanted, (B,). Args: batch: (B,)."""
        share = torch.rand(len(batch), generator=generator, device=batch.device, dtype=torch.float64)
        place = self.first[batch] + (share * self.count[batch]).long()
        before = place - self.history.indptr[self.row[batch]]
        return window(self.history.items, place, before.clamp(max=self.length)), self.history.items[place]
