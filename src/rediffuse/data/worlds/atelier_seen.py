"""What a shop knows of a user at the moment of a question, and how money and visits show in it."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rediffuse.data.worlds.atelier_config import DAY_US, END_US, START_US, AtelierConfig
from rediffuse.data.worlds.atelier_events import CLOSING_US, KINDS, passed_by
from rediffuse.data.worlds.atelier_latents import expected_visits
from rediffuse.data.worlds.atelier_users import BUDGET_SPREAD, STANDING_NOISE, TIER_QUANTILES, UserTable
from rediffuse.errors import InvalidInput, say
from rediffuse.types import Ragged

VISIT_GAP_US = 300_000_000
"""Views further apart belong to different visits."""
FUNNEL_US = 5_100_000_000
"""Carts and purchases follow their view within this."""
NUMBER = {kind: place for place, kind in enumerate(sorted(KINDS))}
"""The numbers of kinds in `Ragged.kind`."""


@dataclass(frozen=True)
class Seen:
    """What a shop knows of a user at the moment of the question."""

    age_band: int
    tier: int
    span: float
    """Part of the visits of two full years that fall after joining."""
    so_far: float
    """Part of those that lie before the question, 0..1."""
    visits: int
    item: Tensor
    """(N,) int64, items of the views."""
    time_us: Tensor
    """(N,) int64."""
    day: Tensor
    """(N,) int64 place in `days`."""
    days: Tensor
    """(D,) int64, the days with views."""
    carts: Tensor
    """(N,) how many carts followed the view."""
    purchases: Tensor
    """(N,)."""


def seen_of(users: UserTable, user: int, history: Ragged, row: int, until_us: int) -> Seen:
    """What the shop knows of a user: their events, oldest first, and their attributes.

    Raises: InvalidInput when the events have no times or kinds.
    """
    if history.time_us is None or history.kind is None:
        raise InvalidInput(say("The ceiling needs times and kinds of events", remedy="Use the dataset as imported"))
    own = slice(int(history.indptr[row]), int(history.indptr[row + 1]))
    item, time_us, kind = (v[own].numpy() for v in (history.items, history.time_us, history.kind))
    views = kind == NUMBER["view"]
    seen_item, seen_us = item[views], time_us[views]
    carts, purchases = (
        _followed(seen_item, seen_us, item[kind == NUMBER[name]], time_us[kind == NUMBER[name]])
        for name in ("cart", "purchase")
    )
    days, place = np.unique((seen_us - START_US) // DAY_US, return_inverse=True)
    span, joined = span_of(users, user), np.maximum(users.joined_us[user], START_US)
    before = float(passed_by(np.array(until_us)) - passed_by(joined))
    return Seen(
        age_band=int(users.age_band[user]),
        tier=int(users.tier[user]),
        span=span,
        so_far=min(max(before / span, 0.0), 1.0),
        visits=int((np.diff(seen_us) > VISIT_GAP_US).sum()) + bool(len(seen_us)),
        item=torch.from_numpy(seen_item),
        time_us=torch.from_numpy(seen_us),
        day=torch.from_numpy(place),
        days=torch.from_numpy(days),
        carts=torch.from_numpy(carts),
        purchases=torch.from_numpy(purchases),
    )


def span_of(users: UserTable, user: int) -> float:
    """Part of the visits of two full years that fall after a user joined."""
    joined = np.maximum(users.joined_us[user], START_US)
    return float(passed_by(np.array(END_US - CLOSING_US)) - passed_by(joined))


def standing(config: AtelierConfig, taste: Tensor, seen: Seen) -> Tensor:
    """(P,) log-likelihood of the number of visits and of the tier, which follows money and activity.

    One visit is sure, the others are Poisson; each falls before the question with probability `so_far`.
    """
    sure = seen.so_far
    rate = ((expected_visits(config, taste[:, -1], seen.span) - 1.0) * sure).clamp_min(1e-6)
    visits = seen.visits * torch.log(rate) - rate + torch.log(1.0 - sure + sure * seen.visits / rate + 1e-30)
    spread = math.sqrt(BUDGET_SPREAD**2 + config.activity_spread**2 + STANDING_NOISE**2)
    edges = torch.special.ndtri(torch.tensor([0.0, *TIER_QUANTILES, 1.0], dtype=torch.float64)) * spread
    level = (taste[:, -2] + taste[:, -1]).double()
    low, high = (torch.special.ndtr((edges[seen.tier + up] - level) / STANDING_NOISE) for up in (0, 1))
    return visits + torch.log(high - low + 1e-12).float()


def _followed(
    item: NDArray[np.int64], time_us: NDArray[np.int64], done: NDArray[np.int64], done_us: NDArray[np.int64]
) -> NDArray[np.float32]:
    """How many carts or purchases each view led to: each belongs to the last view of its item before it.

    Args: item, time_us: (N,) of the views.   done, done_us: (n,) of the others. Returns: (N,).
    """
    out = np.zeros(len(item), dtype=np.float32)
    for what, when in zip(done, done_us, strict=True):
        of = np.flatnonzero((item == what) & (time_us <= when) & (time_us >= when - FUNNEL_US))
        if len(of):
            out[of[-1]] += 1.0
    return out
