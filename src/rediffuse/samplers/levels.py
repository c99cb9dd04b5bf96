"""Which levels a reverse process visits."""

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor

from rediffuse.errors import InvalidInput, say


def evenly(T: int, steps: int | None = None) -> Tensor:
    """From T down to 0 in `steps` nearly equal steps; all T when None.

    Returns: (steps+1,) int64, strictly falling.
    Raises: InvalidInput unless 1 <= steps <= T.
    """
    steps = T if steps is None else steps
    if not 1 <= steps <= T:
        raise InvalidInput(say(f"steps must be 1..{T}", got=steps, remedy=f"Leave it out for all {T}"))
    return torch.linspace(T, 0, steps + 1, dtype=torch.float64).round().to(torch.int64)


def pairs(x: Tensor, levels: Tensor) -> Iterator[tuple[int, int, Tensor]]:
    """(t, s, t for every row of the batch) for each step of a walk.

    Args: x: (B, *D), gives B and the device.   levels: (N+1,) int64.
    Raises: InvalidInput if the levels do not fall.
    """
    walk = levels.tolist()
    if any(t <= s for t, s in pairwise(walk)) or (walk and walk[-1] < 0):
        raise InvalidInput(say("Levels must strictly fall to 0 or above", got=walk))
    for t, s in pairwise(walk):
        yield t, s, torch.full((x.shape[0],), t, dtype=torch.int64, device=x.device)
