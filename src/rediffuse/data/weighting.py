"""How an event weighs in a row: binary, by its kind, or less with age."""

from typing import Literal, Self

import torch
from pydantic import Field, PositiveFloat, model_validator
from torch import Tensor

from rediffuse.config import FrozenConfig
from rediffuse.errors import InvalidInput, say
from rediffuse.types import Ragged, SparseRows, offsets

DAY_US = 86_400_000_000


class RecencyConfig(FrozenConfig):
    """Recency weights; any method that reads rows may take them, and T-DiffRec is nothing else."""

    recency: Literal["none", "linear", "exponential"] = "none"
    """none: every event counts 1, or what its kind weighs. linear: from weight_min (oldest) to weight_max (newest). exponential: halves with age."""
    weight_min: float = Field(default=0.5, ge=0, le=1)
    """linear: weight of the oldest event; a single event gets this too."""
    weight_max: float = Field(default=1.0, ge=0, le=1)
    """linear: weight of the newest event."""
    half_life: PositiveFloat | None = None
    """exponential: how many newer events halve a weight."""
    half_life_days: PositiveFloat | None = None
    """exponential: age in days that halves a weight; counted from the query's time, else from the newest event."""

    @model_validator(mode="after")
    def _one_age(self) -> Self:
        given = [name for name in ("half_life", "half_life_days") if getattr(self, name) is not None]
        if len(given) == 2:
            raise ValueError(say("half_life and half_life_days exclude each other", remedy="Give one of them"))
        if self.recency == "exponential" and not given:
            raise ValueError("recency = 'exponential' needs half_life (events) or half_life_days")
        if self.recency != "exponential" and given:
            raise ValueError(f"{given[0]} goes with recency = 'exponential'; recency is {self.recency!r}")
        return self

    def check_order(self, order: str) -> None:
        """Refuse weights by age where no order of events is known. Raises: InvalidInput."""
        if self.recency != "none" and order == "none":
            raise InvalidInput(say(f"recency = {self.recency!r} needs events in a known order; this data has none"))


def weigh(history: Ragged, recency: RecencyConfig, width: int, at_us: Tensor | None = None) -> SparseRows:
    """Rows of weights; an item that stands twice in a history keeps its largest.

        linear: linspace(weight_min, weight_max, n);   exponential: 2^(-age / half_life);   times the event's own weight

    Args: history: B lists, oldest first; without weights every event weighs 1.   width: I.   at_us: (B,), the query's time.
    Raises: InvalidInput when ages in days are asked of events without times.
    Reference: Wang et al. 2023 (DiffRec), section 3.6 (T-DiffRec, linear).
    """
    values = _weights(history, recency, at_us)
    if history.weight is not None:
        values = values * history.weight
    rows, items = history.rows, history.items
    place = rows * width + items
    unique, inverse = torch.unique(place, return_inverse=True)
    if unique.numel() < place.numel():
        values = values.new_zeros(unique.numel()).scatter_reduce_(0, inverse, values, "amax")
        rows, items = unique // width, unique % width
    lengths = torch.bincount(rows, minlength=len(history))
    return SparseRows(offsets(lengths), items, values, width)


def _weights(history: Ragged, recency: RecencyConfig, at_us: Tensor | None) -> Tensor:
    if recency.recency == "none":
        return torch.ones(history.items.numel(), dtype=torch.float32, device=history.items.device)
    count = history.lengths[history.rows]
    if recency.recency == "linear":
        share = history.ranks / (count - 1).clamp(min=1)
        return (recency.weight_min + (recency.weight_max - recency.weight_min) * share).to(torch.float32)
    if recency.half_life is not None:
        age = count - 1 - history.ranks
        return torch.exp2(-age / recency.half_life).to(torch.float32)
    if history.time_us is None:
        raise InvalidInput(
            say(
                "half_life_days needs the time of every event",
                remedy="Give times_us, or train with half_life, which counts events",
            )
        )
    assert recency.half_life_days is not None
    newest = at_us
    if newest is None:
        newest = torch.zeros(len(history), dtype=torch.int64, device=count.device)
        newest = newest.scatter_reduce_(0, history.rows, history.time_us, "amax", include_self=False)
    days = (newest[history.rows] - history.time_us).clamp(min=0) / DAY_US
    return torch.exp2(-days / recency.half_life_days).to(torch.float32)
