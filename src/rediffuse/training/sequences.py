"""Training examples of a sequence: a window of a user's history, and for each place of it an item that comes later.

    target of place j = item of place j + d,   h uniform in 1 .. horizon,   d uniform in 1 .. h: one of the next h events

One pass of a causal encoder over the window answers all its places, so an epoch asks every window once.
Reference: Kang & McAuley 2018 (SASRec), section 3.5 (a target at every place; there horizon is 1).
"""

from typing import NamedTuple

import torch
from torch import Tensor

from rediffuse.errors import InvalidInput, say
from rediffuse.networks.sequence import window
from rediffuse.protocols import FitData
from rediffuse.types import Ragged


class Places(NamedTuple):
    """The places of some windows that have a target, n of B x L."""

    at: Tensor
    """(B, L - 1) bool, which places they are; what is told of them stands in this order, row by row."""
    target: Tensor
    """(n,) int64, the item that comes later."""
    horizon: Tensor
    """(n,) int64, h: the target is one of the next h events."""


def ordered_history(data: FitData, method: str) -> Ragged:
    """The events to learn from, once it is clear that their order means something. Raises: InvalidInput when it does not."""
    if data.order == "none":
        raise InvalidInput(say(f"{method} needs events in a known order; this data has none"))
    return data.history


def continued(data: FitData, method: str) -> Ragged:
    """The histories in which an event follows another, (U',) rows.

    Raises: InvalidInput when no order is known, or no user has two events.
    """
    history = ordered_history(data, method)
    known = (history.lengths > 1).nonzero().squeeze(1)
    if not len(known):
        raise InvalidInput(say(f"{method} needs users with two events or more", remedy="Use popularity"))
    return history.select(known)


def windows(history: Ragged, length: int, generator: torch.Generator) -> Tensor:
    """At most `length` events of each history in a row, their end drawn where there are more, (B, L) int64, -1 padded.

    The end is uniform over the places at which a window is full, so that every event is the last of one now and then.
    """
    share = torch.rand(len(history), dtype=torch.float64, generator=generator, device=history.items.device)
    spare = (history.lengths - length).clamp(min=0)
    end = history.lengths - ((spare + 1) * share).long()
    return window(history.items, history.indptr[:-1] + end, end.clamp(max=length))


def later(items: Tensor, horizon: int, generator: torch.Generator) -> Places:
    """A target for every place but the last of each window.

    Where fewer than h events are left, the target is one of those. With a horizon of 1 nothing is drawn.

    Args: items: the windows, (B, L) int64, -1 padded on the right, L >= 2.
    """
    left = (items >= 0).sum(1, keepdim=True) - 1 - torch.arange(items.shape[1] - 1, device=items.device)
    at = left > 0
    row, place = at.nonzero(as_tuple=True)
    if horizon == 1:
        h = d = torch.ones_like(place)
    else:
        share = torch.rand(2, len(place), dtype=torch.float64, generator=generator, device=items.device)
        h = 1 + (share[0] * horizon).long()
        d = 1 + (share[1] * h.minimum(left[at])).long()
    return Places(at, items[row, place + d], h)
