"""Weights of a part of the loss that change on a straight line while training goes on."""

import torch
from torch import Tensor, nn


class Ramp(nn.Module):
    """From `first` to `last`; how far it has come is a buffer, so that a resumed training goes on from there."""

    step: Tensor

    def __init__(self, first: float, last: float, steps: int, *, every: int = 1) -> None:
        """Args: steps: after so many `last` is reached; 0 begins there.   every: the value stands so long."""
        super().__init__()
        self.first, self.last, self.steps, self.every = first, last, steps, every
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    def next(self) -> Tensor:
        """First + (last - first) min(1, step / steps), (); each call is a step."""
        at = self.step // self.every * self.every
        share = (at / self.steps).clamp(max=1) if self.steps else torch.ones_like(at)
        self.step += 1
        return self.first + (self.last - self.first) * share
