"""Training examples that stand at a moment of a user: what was before it, what surrounds it, what belongs to it.

Each epoch every user gives one example, at an event drawn from theirs. Its conditions are those of that event, which are
known when an answer is wanted, and the history before it. What is asked of the network is

    row     the user's row, each event weighed by how like its surroundings are to those of the moment:
            w_j = product over the conditions told of (1 + cos(angle_j - angle)),   words are at right angles
    next    the `horizon` events from the moment on; the history is then what is known of the user

A row as it is seen from winter counts winter's events twice and those of summer not at all; on average it counts each
once, as the row that is noised and as the history that an answer begins with. A condition that is dropped weighs nothing.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, Self

import torch
from pydantic import Field, PositiveInt, field_validator
from torch import Tensor

from rediffuse.config import FrozenConfig, RunConfig
from rediffuse.data.weighting import RecencyConfig, weigh
from rediffuse.denoisers.conditioning import HISTORY, newest, thinned
from rediffuse.errors import InvalidInput, say, unknown
from rediffuse.protocols import Context, FitData
from rediffuse.training.rows import known_rows
from rediffuse.types import Condition, Query, Ragged, SparseRows


class SteerConfig(FrozenConfig):
    """What steers a reverse process."""

    condition: tuple[str, ...] = ()
    """What steers the reverse process: `history`, `season`, `price_tier`, columns of the users, declared columns of the events."""
    condition_width: PositiveInt = 32
    """Width of the vector of a condition."""
    condition_drop: float = Field(default=0.1, ge=0, lt=1)
    """Chance in training that a condition is absent: what guidance leans away from; 0: nothing can be guided."""
    history_length: PositiveInt = 50
    """Newest items that the condition `history` sees."""

    @field_validator("condition", mode="before")
    @classmethod
    def _one_name(cls, value: object) -> object:
        """A single name may stand without a list; several may be parted by commas."""
        return [name.strip() for name in value.split(",") if name.strip()] if isinstance(value, str) else value


class MomentConfig(SteerConfig, RecencyConfig):
    """What steers a reverse process over rows, and what its x_0 is."""

    target: Literal["row", "next"] = "row"
    """What x_0 is: the user's row, as seen from a moment where a condition tells of one; or the events that follow a
    moment, and then `history` must be a condition."""
    horizon: PositiveInt = 10
    """next: how many events from the moment on belong to x_0."""


class Example(NamedTuple):
    """What a batch of users gives."""

    row: SparseRows
    """(B, I), x_0: what is noised."""
    wanted: SparseRows
    """(B, I), what the estimate of x_0 is compared with."""
    cond: Condition | None


@dataclass(frozen=True)
class Moments:
    """The users who have events, ready to give examples."""

    history: Ragged
    """(U',) rows, on the device of training."""
    contexts: Mapping[str, Context]
    config: MomentConfig
    n_items: int

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
            if name in config.condition
        }
        return cls(data.history.select(known).to(device), contexts, config, data.n_items)

    def __len__(self) -> int:
        """Number of users."""
        return len(self.history)

    def draw(self, batch: Tensor, generator: torch.Generator) -> Example:
        """The examples of some users, each condition absent with a chance. Args: batch: (B,) int64."""
        own = self.history.select(batch)
        share = torch.rand(len(batch), generator=generator, device=own.items.device)
        # What follows a moment needs something before it: from the second event on where there are two.
        first = ((own.lengths > 1) & (self.config.target == "next")).long()
        moment = first + (share * (own.lengths - first)).long()
        ranks, rows = own.ranks, own.rows
        values: dict[str, Tensor] = {}
        for name in self.config.condition:
            if name == HISTORY:
                values[name] = newest(own.keep(ranks < moment[rows]), self.config.history_length)
            else:
                context = self.contexts[name]
                at = batch if context.per == "user" else self.history.indptr[batch] + moment
                values[name] = context.values[at]
        cond = Condition(values, {name: known(value) for name, value in values.items()})
        cond = thinned(cond, self.config.condition_drop, generator)
        if self.config.target == "next":
            own = own.keep((ranks >= moment[rows]) & (ranks < moment[rows] + self.config.horizon))
            row = weigh(own, self.config, self.n_items)
            return Example(row, row, cond)
        row, near = weigh(own, self.config, self.n_items), self._nearness(batch, own, cond)
        if near is None:
            return Example(row, row, cond)
        weight = near if own.weight is None else near * own.weight
        return Example(row, weigh(replace(own, weight=weight), self.config, self.n_items), cond)

    def _nearness(self, batch: Tensor, own: Ragged, cond: Condition) -> Tensor | None:
        """w_j of each event, (n,) float32; None where no condition tells of a moment. Args: own: the users' events."""
        out: Tensor | None = None
        rows = own.rows
        place = self.history.indptr[batch][rows] + own.ranks
        for name, context in self.contexts.items():
            if context.per == "user":
                continue
            there, here = context.values[place], cond.values[name][rows]
            alike = (there == here).float() if context.names else torch.cos(2 * math.pi * (there - here)).nan_to_num()
            weight = torch.where(cond.present[name][rows], 1 + alike, 1.0)
            out = weight if out is None else out * weight
        return out


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
    """What a `Conditioner` is made for: the number of words of each condition, 0 for a cycle, the items for the history.

    Raises: InvalidInput for a condition of which the data tells nothing.
    """
    for name in names:
        if name != HISTORY and name not in data.contexts:
            raise InvalidInput(unknown("condition", name, [HISTORY, *data.contexts]))
    return {name: data.n_items if name == HISTORY else len(data.contexts[name].names) for name in names}


def examples(data: FitData, config: MomentConfig, run: RunConfig) -> SparseRows | Moments:
    """The rows of the users as they are where nothing tells of a moment, else what draws their examples.

    Raises: InvalidInput when recency or a condition of a moment is asked of data without order.
    """
    if not config.condition:
        return known_rows(data, config, run)
    config.check_order(data.order)
    return Moments.of(data, config, run.device)


def drawn(rows: SparseRows | Moments, batch: Tensor, generator: torch.Generator) -> Example:
    """The examples of some users. Args: batch: (B,) int64."""
    if isinstance(rows, Moments):
        return rows.draw(batch, generator)
    row = rows.select(batch)
    return Example(row, row, None)
