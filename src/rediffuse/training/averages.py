"""A running average of weights, which is often better than the last of them."""

from collections.abc import Generator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Average:
    """a <- d a + (1 - d) w after every step, with d = min(decay, (1 + n) / (10 + n)) at step n, so that it warms up.

    Reference: Polyak & Juditsky 1992 for averaging; Tarvainen & Valpola 2017 for the exponential form.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        """Args: decay: 0 .. 1, 1 excluded; 0 follows the weights."""
        self.module, self.decay, self.steps = module, decay, 0
        self.weights = {name: weight.detach().clone() for name, weight in module.named_parameters()}

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights as they are."""
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        self.steps += 1
        for name, weight in self.module.named_parameters():
            self.weights[name].lerp_(weight, 1 - decay)

    @contextmanager
    def swapped_in(self) -> Generator[None]:
        """The module holds the averages inside the block, its own weights after it."""
        own = {name: weight.detach().clone() for name, weight in self.module.named_parameters()}
        self._put(self.weights)
        try:
            yield
        finally:
            self._put(own)

    @torch.no_grad()
    def _put(self, weights: dict[str, Tensor]) -> None:
        for name, weight in self.module.named_parameters():
            weight.copy_(weights[name])
