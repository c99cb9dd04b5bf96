"""The values that cross the house, and the letters of their shapes.

B batch, U users, I items, L history, D embedding, H hidden, K list, T levels, S draws, n entries of a ragged list.
Item and user numbers are dense int64; -1 means none. Times are UTC microseconds.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from enum import IntEnum
from typing import Self

import torch
from torch import Tensor

from rediffuse.errors import InvalidInput, say


class Fallback(IntEnum):
    """Why an answer did not come from the method itself."""

    NONE = 0
    EMPTY_HISTORY = 1


@dataclass(frozen=True)
class Ragged:
    """Lists of unequal length: row b owns entries indptr[b] .. indptr[b+1], oldest first."""

    indptr: Tensor
    """(B+1,) int64, rising from 0."""
    items: Tensor
    """(n,) int64."""
    time_us: Tensor | None = None
    """(n,) int64, UTC microseconds."""
    kind: Tensor | None = None
    """(n,) int64, number of the event kind."""
    weight: Tensor | None = None
    """(n,) float32."""
    context: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])
    """What was declared of the moment of each event: name -> (n,) int64 code, -1 unknown."""

    @classmethod
    def of(cls, rows: list[list[int]]) -> Self:
        """From plain lists."""
        lengths = torch.tensor([len(row) for row in rows], dtype=torch.int64)
        flat = torch.tensor([item for row in rows for item in row], dtype=torch.int64)
        return cls(offsets(lengths), flat)

    @classmethod
    def empty(cls, rows: int) -> Self:
        """`rows` lists with nothing in them."""
        return cls(torch.zeros(rows + 1, dtype=torch.int64), torch.zeros(0, dtype=torch.int64))

    def __len__(self) -> int:
        """Number of rows, B."""
        return self.indptr.numel() - 1

    @property
    def lengths(self) -> Tensor:
        """(B,) int64, entries per row."""
        return self.indptr.diff()

    @property
    def rows(self) -> Tensor:
        """(n,) int64, the row of each entry."""
        return torch.repeat_interleave(torch.arange(len(self), device=self.indptr.device), self.lengths)

    @property
    def ranks(self) -> Tensor:
        """(n,) int64, the place of each entry in its row, 0 the oldest."""
        return torch.arange(self.items.numel(), device=self.indptr.device) - self.indptr[self.rows]

    def select(self, rows: Tensor) -> Self:
        """The given rows, in the given order. Args: rows: (b,) int64."""
        lengths = self.lengths[rows]
        indptr = offsets(lengths)
        start = torch.repeat_interleave(self.indptr[rows] - indptr[:-1], lengths)
        return self._take(indptr, start + torch.arange(int(indptr[-1]), device=start.device))

    def keep(self, mask: Tensor) -> Self:
        """Only the entries where `mask` is true. Args: mask: (n,) bool."""
        kept = torch.zeros(len(self), dtype=torch.int64, device=mask.device).index_add_(0, self.rows, mask.long())
        return self._take(offsets(kept), mask.nonzero().squeeze(1))

    def to(self, device: torch.device | str) -> Self:
        """The same on another device."""

        def at(values: Tensor | None) -> Tensor | None:
            return None if values is None else values.to(device)

        items, indptr = self.items.to(device), self.indptr.to(device)
        context = {name: values.to(device) for name, values in self.context.items()}
        return type(self)(indptr, items, at(self.time_us), at(self.kind), at(self.weight), context)

    def to_lists(self) -> list[list[int]]:
        """Plain lists of item numbers."""
        return [part.tolist() for part in self.items.split(self.lengths.tolist())]

    def _take(self, indptr: Tensor, index: Tensor) -> Self:
        def at(values: Tensor | None) -> Tensor | None:
            return None if values is None else values[index]

        context = {name: values[index] for name, values in self.context.items()}
        return type(self)(indptr, self.items[index], at(self.time_us), at(self.kind), at(self.weight), context)


@dataclass(frozen=True)
class SparseRows:
    """B sparse rows of width I; an item stands at most once in a row."""

    indptr: Tensor
    """(B+1,) int64."""
    items: Tensor
    """(n,) int64."""
    values: Tensor
    """(n,) float32."""
    width: int
    """I."""

    def __len__(self) -> int:
        """Number of rows, B."""
        return self.indptr.numel() - 1

    @property
    def device(self) -> torch.device:
        """Where the rows lie."""
        return self.values.device

    @property
    def lengths(self) -> Tensor:
        """(B,) int64, entries per row."""
        return self.indptr.diff()

    def select(self, rows: Tensor) -> Self:
        """The given rows, in the given order. Args: rows: (b,) int64."""
        taken = Ragged(self.indptr, self.items, weight=self.values).select(rows)
        assert taken.weight is not None
        return type(self)(taken.indptr, taken.items, taken.weight, self.width)

    def dense(self) -> Tensor:
        """(B, I) in the number format of the values: for one batch, never for all users."""
        rows = torch.repeat_interleave(torch.arange(len(self), device=self.device), self.lengths)
        out = torch.zeros(len(self), self.width, dtype=self.values.dtype, device=self.device)
        out[rows, self.items] = self.values
        return out

    def project(self, weight: Tensor) -> Tensor:
        """The rows times a matrix: a sum of |history| of its rows each. Args: weight: (I, H). Returns: (B, H)."""
        return torch.nn.functional.embedding_bag(
            self.items, weight, self.indptr[:-1], mode="sum", per_sample_weights=self.values.to(weight.dtype)
        )

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> Self:
        """The same on another device or in another number format."""
        values = self.values.to(device=device, dtype=dtype)
        return type(self)(self.indptr.to(device), self.items.to(device), values, self.width)


@dataclass(frozen=True)
class Assortment:
    """Which items may be returned, and how many of a kind; what is None limits nothing."""

    items: Tensor | None = None
    """(I,) bool, alike for all subjects."""
    lists: Ragged | None = None
    """For each subject the only ones."""
    groups: Tensor | None = None
    """(I,) int64, the product that an item is a variant of: a list holds the best of each and no other."""

    @classmethod
    def of(cls, candidates: "Candidates | None") -> "Assortment":
        """Plain lists likewise; None is the whole catalog."""
        return candidates if isinstance(candidates, Assortment) else cls(lists=candidates)

    def check(self, n_items: int) -> None:
        """Refuse a catalog of another size. Raises: InvalidInput."""
        for table in (self.items, self.groups):
            if table is not None and table.shape != (n_items,):
                raise InvalidInput(
                    say("An assortment is of another catalog", got=tuple(table.shape), allowed=[n_items])
                )

    def numbers(self, n_items: int) -> Tensor:
        """The items that are offered to all, (n,) int64, rising. Raises: as `check`."""
        self.check(n_items)
        return torch.arange(n_items) if self.items is None else self.items.nonzero().squeeze(1)

    def select(self, rows: Tensor) -> Self:
        """For the given subjects, in the given order. Args: rows: (b,) int64."""
        return replace(self, lists=None if self.lists is None else self.lists.select(rows))

    def to(self, device: torch.device | str) -> Self:
        """The same on another device."""
        parts = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{name: part.to(device) for name, part in parts.items() if part is not None})


Candidates = Ragged | Assortment
"""What may be returned: a list for each subject, or more than lists can say."""


@dataclass(frozen=True)
class Condition:
    """What steers a reverse process. Where `present` is false the learned null stands in."""

    values: Mapping[str, Tensor]
    """name -> (B, ...)."""
    present: Mapping[str, Tensor]
    """name -> (B,) bool."""

    def without(self, names: Collection[str]) -> Self:
        """The same with the null in place of some conditions."""
        gone = {name: torch.zeros_like(there) if name in names else there for name, there in self.present.items()}
        return type(self)(self.values, gone)

    def select(self, rows: Tensor) -> Self:
        """The given subjects, in the given order. Args: rows: (b,) int64."""
        values, present = (
            {name: value[rows] for name, value in table.items()} for table in (self.values, self.present)
        )
        return type(self)(values, present)

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """Those of several batches, one after the other."""
        first = parts[0]
        return cls(
            {name: torch.cat([part.values[name] for part in parts]) for name in first.values},
            {name: torch.cat([part.present[name] for part in parts]) for name in first.present},
        )


@dataclass(frozen=True)
class Query:
    """What is asked, for B subjects at once."""

    user: Tensor
    """(B,) int64, -1 unknown."""
    history: Ragged
    """Items, optionally times, kinds and weights; oldest first."""
    key: Tensor
    """(B,) int64, stable hash of the external user id, else of the posted history: seeds the draws."""
    at_us: Tensor | None = None
    """(B,) int64, when the answer is wanted, UTC microseconds."""
    context: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])
    """name -> (B, ...)."""
    exclude: Ragged | None = None
    """Items that must not be returned."""
    candidates: Candidates | None = None
    """The only items that may be returned; None: the whole catalog."""

    def __len__(self) -> int:
        """Number of subjects, B."""
        return len(self.history)

    @classmethod
    def from_history(cls, history: Ragged, *, exclude: Ragged | None = None) -> Self:
        """Unknown users with posted histories, whose items are not recommended again unless `exclude` says otherwise."""
        nobody = torch.full((len(history),), -1, dtype=torch.int64)
        return cls(nobody, history, history_key(history), exclude=history if exclude is None else exclude)

    def fanned(self, times: int) -> Self:
        """Each subject so many times, the copies side by side."""
        return self.select(torch.arange(len(self), device=self.key.device).repeat_interleave(times))

    def to(self, device: torch.device | str) -> Self:
        """The same on another device."""
        return type(self)(
            user=self.user.to(device),
            history=self.history.to(device),
            key=self.key.to(device),
            at_us=None if self.at_us is None else self.at_us.to(device),
            context={name: value.to(device) for name, value in self.context.items()},
            exclude=None if self.exclude is None else self.exclude.to(device),
            candidates=None if self.candidates is None else self.candidates.to(device),
        )

    def select(self, rows: Tensor) -> Self:
        """The given subjects, in the given order. Args: rows: (b,) int64."""
        return type(self)(
            user=self.user[rows],
            history=self.history.select(rows),
            key=self.key[rows],
            at_us=None if self.at_us is None else self.at_us[rows],
            context={name: value[rows] for name, value in self.context.items()},
            exclude=None if self.exclude is None else self.exclude.select(rows),
            candidates=None if self.candidates is None else self.candidates.select(rows),
        )


@dataclass(frozen=True)
class Options:
    """How it is answered; what a method cannot do is refused, never ignored."""

    steps: int | None = None
    """Reverse steps; None: as the model was configured."""
    draws: int = 1
    """Reverse chains per query."""
    start: str | None = None
    """Where the reverse process begins: history, thinned_history, noised_history, pure_noise, origin; None: as configured."""
    temperature: float = 1.0
    """Factor on the standard deviation of every draw of noise, 0 or more."""
    guidance_scale: float | Mapping[str, float] = 1.0
    """uncond + s (cond - uncond); 1 is none."""
    diversity: float = 0.0
    """0 plain ranking .. 1 most diverse."""
    horizon: int | None = None
    """How many of the next events count; None: as configured."""

    def asked(self) -> dict[str, object]:
        """The settings that differ from their defaults."""
        return {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}


@dataclass(frozen=True)
class Ranking:
    """Lists, best first."""

    items: Tensor
    """(B, K) int64, -1 padded."""
    scores: Tensor
    """(B, K) float32, -inf where padded."""
    spread: Tensor | None = None
    """(B, K) float32, standard deviation over draws."""
    probability: Tensor | None = None
    """(B, K) float32; NaN where nothing is known."""
    probability_of: str | None = None
    """What `probability` is of: "top_k", to stand in the list of a draw, or "consumption", to be taken."""
    fallback: Tensor | None = None
    """(B,) int64, a `Fallback` code; None: the method itself answered everywhere."""

    def __len__(self) -> int:
        """Number of lists, B."""
        return self.items.shape[0]

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """Lists of several batches, one after the other; all tell the same, but some may need no fallback."""

        def column(name: str) -> Tensor | None:
            values = [getattr(part, name) for part in parts]
            return None if values[0] is None else torch.cat(values)

        items, scores = (torch.cat([getattr(part, name) for part in parts]) for name in ("items", "scores"))
        fallback = None if all(part.fallback is None for part in parts) else torch.cat([part.reasons for part in parts])
        of = parts[0].probability_of
        return cls(items, scores, column("spread"), column("probability"), of, fallback)

    @property
    def reasons(self) -> Tensor:
        """(B,) int64, a `Fallback` code for every list."""
        return self.items.new_zeros(len(self)) if self.fallback is None else self.fallback

    def select(self, rows: Tensor) -> Self:
        """The lists of the given subjects, in the given order. Args: rows: (b,) int64."""
        fallback = None if self.fallback is None else self.fallback[rows]
        return replace(self._each(lambda values: values[rows]), fallback=fallback)

    def top(self, k: int) -> Self:
        """The first k places of every list."""
        return self._each(lambda values: values[:, :k])

    def cpu(self) -> Self:
        """The same in main memory."""
        fallback = None if self.fallback is None else self.fallback.cpu()
        return replace(self._each(lambda values: values.cpu()), fallback=fallback)

    def _each(self, change: Callable[[Tensor], Tensor]) -> Self:
        """Apply to every (B, K) table."""
        tables = {name: getattr(self, name) for name in ("items", "scores", "spread", "probability")}
        return replace(self, **{name: None if table is None else change(table) for name, table in tables.items()})


def history_key(history: Ragged) -> Tensor:
    """A stable key of each posted history: order matters, batch mates do not.

    Each item number is mixed by two xor-multiply rounds (constants of splitmix64) and weighed by an odd number that
    depends on its place; the sum modulo 2^64 is the key.

    Returns: (B,) int64.
    """
    word = history.items + 1
    for shift, factor in ((30, -4658895280553007687), (27, -7723592293110705685)):
        word = (word ^ ((word >> shift) & ((1 << (64 - shift)) - 1))) * factor
    word = word * (2 * history.ranks + 1)
    total = torch.zeros(len(history), dtype=torch.int64, device=word.device)
    return total.index_add_(0, history.rows, word)


def offsets(lengths: Tensor) -> Tensor:
    """Where each row begins and the last one ends. Args: lengths: (B,) int64. Returns: (B+1,) int64."""
    return torch.cat((lengths.new_zeros(1), lengths.cumsum(0)))
