"""Where a reverse process begins, given the history at level 0.

Those of STARTS are linear, so they work in hidden space too; `thinned_history` acts on the row before it is lifted.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from rediffuse.protocols import Noise, Schedule
from rediffuse.types import SparseRows

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


def origin(x: Tensor, t: int, schedule: Schedule, noise: Noise) -> Tensor:
    """0, the mean of pure noise: nothing of the history, nothing drawn. x: (B, *D), gives the shape."""
    del t, schedule, noise
    return torch.zeros_like(x)


def thinned_history(rows: SparseRows, share: float, noise: Noise) -> SparseRows:
    """A history of which each item is left out with a chance of `share`; where none would be left, all stay.

        kept items are scaled up by (1 - share^n) / (1 - share) for a history of n, so that the mean is the history

    The corruption that a row denoiser learned to mend is this one where its noise is small: what it leaves differs from
    draw to draw, and so do the answers. A single item always stays.

    Args: rows: (B, I).   share: 0 .. 1, 1 excluded.   noise: of each query; its level 0 is used, which no chain draws for.
    Returns: (B, I), explicit zeros where an item is left out.
    """
    at = torch.repeat_interleave(torch.arange(len(rows), device=rows.device), rows.lengths)
    # Items meet their draws in the order of their numbers: that in which a row stands may depend on its batch mates.
    place = torch.empty_like(at)
    place[(at * rows.width + rows.items).argsort()] = torch.arange(len(at), device=rows.device) - rows.indptr[at]
    widest = int(rows.lengths.max()) if len(rows) else 0
    draws = noise(0, rows.values.new_empty(len(rows), max(widest, 1), dtype=torch.float64))
    kept = torch.special.ndtr(draws)[at, place] >= share
    whole = torch.zeros_like(rows.lengths).index_add_(0, at, kept.long()) == 0
    scale = (1 - share ** rows.lengths.to(torch.float64)) / (1 - share)
    factor = torch.where(whole, 1.0, scale)[at] * (kept | whole[at])
    return SparseRows(rows.indptr, rows.items, rows.values * factor.to(rows.values.dtype), rows.width)


STARTS: Mapping[str, Start] = {
    "history": history,
    "noised_history": noised_history,
    "pure_noise": pure_noise,
    "origin": origin,
}
