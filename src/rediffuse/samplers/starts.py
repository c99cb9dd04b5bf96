"""Where a reverse process begins, given the history at level 0; linear, so they work in hidden space too."""

from collections.abc import Callable, Mapping

from torch import Tensor

from rediffuse.protocols import Noise, Schedule

Start = Callable[[Tensor, int, Schedule, Noise], Tensor]


def history(x: Tensor, t: int, schedule: Schedule, noise: Noise) -> Tensor:
    """The history as it is, as if it stood at level t: DiffRec's released inference (T' = 0). x: (B, *D)."""
    del t, schedule, noise
    return x


def noised_history(x: Tensor, t: int, schedule: Schedule, noise: Noise) -> Tensor:
    """x_t of the history. x: (B, *D). Reference: Wang et al. 2023 (DiffRec), section 3.3 (T' = t)."""
    return float(schedule.alpha[t]) * x + float(schedule.sigma[t]) * noise(t, x)


def pure_noise(x: Tensor, t: int, schedule: Schedule, noise: Noise) -> Tensor:
    """sigma[t] z: nothing of the history is left. x: (B, *D), gives the shape. Reference: Ho et al. 2020, algorithm 2."""
    return float(schedule.sigma[t]) * noise(t, x)


STARTS: Mapping[str, Start] = {"history": history, "noised_history": noised_history, "pure_noise": pure_noise}
