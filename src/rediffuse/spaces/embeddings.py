"""x_0 as a vector of a table: of an item or of a user; the mean of a history is `tables.py::mean_of`.

A user is found by the stable hash of their external id (`Query.key`), never by a number, which another dataset may give
to somebody else. Whoever is not in the table is known by their history alone.
"""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from rediffuse.errors import InvalidInput, say
from rediffuse.types import Query, SparseRows


@dataclass(frozen=True)
class Embeddings:
    """Tables that score by inner product. Raises: InvalidInput when shapes do not fit or a number is not finite."""

    items: Tensor
    """(I, D)."""
    users: Tensor | None = None
    """(U, D)."""
    keys: Tensor | None = None
    """(U,) int64, ascending: whose row is whose."""

    def __post_init__(self) -> None:
        """Check what every lookup relies on."""
        if self.items.dim() != 2 or not len(self.items):
            raise InvalidInput(say("A table of items must have a row for each", got=tuple(self.items.shape)))
        for name, table in (("items", self.items), ("users", self.users)):
            if table is None:
                continue
            if table.dim() != 2 or table.shape[1] != self.items.shape[1]:
                wanted = f"(.., {self.items.shape[1]})"
                raise InvalidInput(
                    say(f"The table of {name} has another width", got=tuple(table.shape), allowed=wanted)
                )
            if not bool(torch.isfinite(table).all()):
                raise InvalidInput(say(f"The table of {name} holds a number that is not finite"))
        if self.users is not None and (self.keys is None or len(self.keys) != len(self.users)):
            raise InvalidInput(say("A table of users needs a key for each row"))

    @classmethod
    def named(cls, items: Tensor, users: Tensor, keys: Tensor) -> Self:
        """Tables whose users stand in any order. Args: keys: (U,) int64."""
        order = keys.to(users.device).argsort()
        return cls(items, users[order], keys.to(users.device)[order])

    @property
    def width(self) -> int:
        """D."""
        return self.items.shape[1]

    def of_users(self, query: Query) -> tuple[Tensor, Tensor]:
        """Vectors of the subjects that the table knows, (B, D), zeros for others; and who they are, (B,) bool."""
        if self.users is None or self.keys is None or not len(self.keys):
            none = torch.zeros(len(query), dtype=torch.bool, device=self.items.device)
            return self.items.new_zeros(len(query), self.width), none
        key = query.key.to(self.keys.device)
        place = torch.searchsorted(self.keys, key).clamp(max=len(self.keys) - 1)
        known = self.keys[place] == key
        return self.users[place] * known.unsqueeze(1), known

    def score(self, points: Tensor, items: Tensor | None = None) -> Tensor:
        """As `inner` with the items. Args: points: (B, D). Returns: (B, I) or (B, n)."""
        return inner(points, self.items, items)


@dataclass(frozen=True)
class NextVector:
    """A `Space` whose x_0 is the vector of what comes next: nothing of a history is in it."""

    table: Tensor
    """(I, D), of the items; as it is at the moment of asking."""

    def encode(self, batch: SparseRows) -> Tensor:
        """0. Args: batch: (B, I). Returns: (B, D)."""
        return self.table.new_zeros(len(batch), self.table.shape[1])

    def decode(self, x0: Tensor, items: Tensor | None = None) -> Tensor:
        """As `inner`. Args: x0: (B, D). Returns: (B, I) or (B, n)."""
        return inner(x0, self.table, items)


def inner(points: Tensor, table: Tensor, items: Tensor | None = None) -> Tensor:
    """Inner products. Args: points: (B, D).   table: (I, D).   items: (n,) or (B, n); None: all. Returns: (B, I) or (B, n)."""
    table = table if items is None else table[items]
    return points @ table.t() if table.dim() == 2 else torch.einsum("bd,bnd->bn", points, table)
