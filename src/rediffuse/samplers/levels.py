"""Which levels a reverse process visits."""

from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise

import torch
from torch import Tensor

from rediffuse.errors import InvalidConfig, InvalidInput, say, unknown


def _trailing(T: int, steps: int) -> Tensor:
    return torch.linspace(T, 0, steps + 1, dtype=torch.float64).round()[:-1]


def _linspace(T: int, steps: int) -> Tensor:
    return 1 + torch.linspace(T - 1, 0, steps, dtype=torch.float64).round()


def _leading(T: int, steps: int) -> Tensor:
    return 1 + (T // steps) * torch.arange(steps - 1, -1, -1)


SPACINGS: Mapping[str, Callable[[int, int], Tensor]] = {
    "trailing": _trailing,
    "linspace": _linspace,
    "leading": _leading,
}
"""name -> (T, steps) -> the levels above 0, falling; `evenly` says what each means."""


def evenly(T: int, steps: int | None = None, spacing: str = "trailing") -> Tensor:
    """`steps` nearly equal steps down to 0; all T when None, whatever the spacing.

        trailing   T, T - T/steps, .. 0       equal steps from T to 0
        linspace   T, .. 1, 0                 equal steps from T to 1, then the one to 0
        leading    1 + k floor(T/steps), 0    counted from 1: stops short of T, so too little noise is taken away

    Returns: (steps+1,) int64, strictly falling to 0.
    Raises: InvalidInput unless 1 <= steps <= T.   InvalidConfig for an unknown spacing.
    Reference: Lin et al. 2024, "Common diffusion noise schedules and sample steps are flawed", table 2.
    Limits: a single step goes from T, but for "leading", where it goes from 1.
    """
    if spacing not in SPACINGS:
        raise InvalidConfig(unknown("spacing", spacing, SPACINGS))
    steps = T if steps is None else steps
    if not 1 <= steps <= T:
        raise InvalidInput(say(f"steps must be 1..{T}", got=steps, remedy=f"Leave it out for all {T}"))
    return torch.cat((SPACINGS[spacing](T, steps).to(torch.int64), torch.zeros(1, dtype=torch.int64)))


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
