"""Training examples that stand at a moment of a user: what was before it, what surrounds it, what followed.

Each epoch every user gives one example, at an event drawn from theirs. Its row x_0 holds

    row     all events up to the `horizon` that begins with that event
    next    those of the horizon alone; the history is then what is known of the user

and its conditions are those of that event, which are known when an answer is wanted, and the history before it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Self

import torch
from pydantic import Field, PositiveInt, field_validator
from torch import Tensor

from rediffuse.config import RunConfig
from rediffuse.data.weighting import RecencyConfig, weigh
from rediffuse.denoisers.conditioning import HISTORY, newest, thinned
from rediffuse.errors import InvalidInput, say
from rediffuse.protocols import Context, FitData
from rediffuse.training.rows import known_rows
from rediffuse.types import Condition, Query, Ragged, SparseRows


class MomentConfig(RecencyConfig):
    """What steers a reverse process, and what its x_0 is."""

    condition: tuple[str, ...] = ()
    """What steers the reverse process: `history`, `season`, `price_tier`, columns of the users, declared columns of the events."""
    condition_width: PositiveInt = 32
    """Width of the vector of a condition."""
    condition_drop: float = Field(default=0.1, ge=0, lt=1)
    """Chance in training that a condition is absent: what guidance leans away from."""
    history_length: PositiveInt = 50
    """Newest items that the condition `history` sees."""
    target: Literal["row", "next"] = "row"
    """What x_0 is: the user's row, or the events that follow a moment; then `history` must be a condition."""
    horizon: PositiveInt = 10
    """How many events from the moment on belong to x_0, where a condition tells of a moment."""

    @field_validator("condition", mode="before")
    @classmethod
    def _one_name(cls, value: object) -> object:
        """A single name may stand without a list; several may be parted by commas."""
        return [name.strip() for name in value.split(",") if name.strip()] if isinstance(value, str) else value


@dataclass(frozen=True)
class Moments:
    """The users who have events, ready to give examples."""

    history: Ragged
    """(U',) rows, on the device of training."""
    contexts: Mapping[str, Context]
    config: MomentConfig
    n_items: int
    whole: bool = False
    """Whether x_0 is the whole row of a user, since no condition tells of a moment."""

    @classmethod
    def of(cls, data: FitData, config: MomentConfig, device: str) -> Self:
        """Raises: InvalidInput when a condition tells of a moment and the order of events is not known."""
        moment = [n for n in config.condition if n == HISTORY or data.contexts[n].per == "event"]
        if moment and data.order == "none":
            raise InvalidInput(say(f"The condition {moment[0]!r} needs events in a known order; this data has none"))
        known = data.history.lengths.nonzero().squeeze(1)
        contexts = {
            name: Context(c.per, (c.values if c.per == "event" else c.values[known]).to(device), c.names)
            for name, c in data.contexts.items()
        }
        # Where nothing tells of a moment the row is whole, as published.
        return cls(data.history.select(known).to(device), contexts, config, data.n_items, whole=not moment)

    def __len__(self) -> int:
        """Number of users."""
        return len(self.history)

    def draw(self, batch: Tensor, generator: torch.Generator) -> tuple[SparseRows, Condition]:
        """The examples of some users. Args: batch: (B,) int64. Returns: x_0 (B, I) and the conditions of B subjects."""
        own = self.history.select(batch)
        share = torch.rand(len(batch), generator=generator, device=own.items.device)
        # From the second event on where there are two; a single event follows an empty history.
        first = (own.lengths > 1).long()
        moment = first + (share * (own.lengths - first)).long()
        last = own.lengths if self.whole else torch.minimum(moment + self.config.horizon, own.lengths)
        begins = torch.zeros_like(moment) if self.config.target == "row" else moment
        ranks, rows = own.ranks, own.rows
        x0 = weigh(own.keep((ranks >= begins[rows]) & (ranks < last[rows])), self.config, self.n_items)
        values: dict[str, Tensor] = {}
        for name in self.config.condition:
            if name == HISTORY:
                values[name] = newest(own.keep(ranks < moment[rows]), self.config.history_length)
            else:
                context = self.contexts[name]
                at = batch if context.per == "user" else self.history.indptr[batch] + moment
                values[name] = context.values[at]
        return x0, Condition(values, {name: known(value) for name, value in values.items()})


def condition_of(names: Sequence[str], query: Query, length: int) -> Condition | None:
    """What a query tells of the conditions of a model; what it does not tell is absent.

    Args: length: newest items that the history encoder sees.   Returns: None where there is no condition.
    """
    values: dict[str, Tensor] = {}
    device = query.history.items.device
    for name in names:
        if name == HISTORY:
            values[name] = newest(query.history, length)
        else:
            value = query.context.get(name)
            values[name] = torch.full((len(query),), -1, device=device) if value is None else value
    return Condition(values, {name: known(value) for name, value in values.items()}) if values else None


def known(value: Tensor) -> Tensor:
    """Whether a condition is told, (B,): a code or an item that is not -1, a share that is a number of 0 or more."""
    return (value >= 0).flatten(1).any(1) if value.dim() > 1 else value >= 0


def sizes_for(names: Sequence[str], data: FitData) -> dict[str, int]:
    """What a `Conditioner` is made for: the number of words of each condition, 0 for a cycle, the items for the history."""
    return {name: data.n_items if name == HISTORY else len(data.contexts[name].names) for name in names}


def examples(data: FitData, config: MomentConfig, run: RunConfig) -> SparseRows | Moments:
    """The rows of the users as they are where nothing tells of a moment, else what draws their examples.

    Raises: InvalidInput when recency or a condition of a moment is asked of data without order.
    """
    if not config.condition:
        return known_rows(data, config, run)
    config.check_order(data.order)
    return Moments.of(data, config, run.device)


def drawn(
    rows: SparseRows | Moments, batch: Tensor, absent: float, generator: torch.Generator
) -> tuple[Tensor, Condition | None]:
    """x_0 of some users, (B, I), and their conditions, each absent with a chance. Args: batch: (B,) int64."""
    x0, cond = drawn_sparse(rows, batch, absent, generator)
    return x0.dense(), cond


def drawn_sparse(
    rows: SparseRows | Moments, batch: Tensor, absent: float, generator: torch.Generator
) -> tuple[SparseRows, Condition | None]:
    """As `drawn`, without the zeros."""
    if isinstance(rows, SparseRows):
        return rows.select(batch), None
    x0, cond = rows.draw(batch, generator)
    return x0, thinned(cond, absent, generator)
