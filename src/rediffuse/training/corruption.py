"""Dropout whose draws come from the run's own generator, so that a resumed run repeats them."""

import torch
from torch import Tensor


def drop(x: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Set a random share of the entries to 0 and scale the rest by 1 / (1 - share).

    Args: x: any shape.   share: 0 .. 1, 1 excluded.
    Reference: Srivastava et al. 2014.
    """
    if share == 0:
        return x
    return x * torch.empty_like(x).bernoulli_(1 - share, generator=generator).div_(1 - share)
