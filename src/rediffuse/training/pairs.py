"""Examples of a user and an item: their order, negatives drawn beside them, and the two losses that rank them.

| loss | formula |
|---|---|
| bpr | -log sigmoid(s_ui - s_uj), j drawn evenly from what u has not: Rendle et al. 2009, section 4.1 |
| softmax | -log (e^{s_ui/tau} / sum_j e^{s_uj/tau}), the sum over all items or estimated from some of them: Wu et al. 2022 (SSM), eq. 3 |
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import torch
from torch import Tensor

from rediffuse.errors import InvalidInput, say
from rediffuse.types import Ragged

_WORD = 1 << 62


@dataclass(frozen=True)
class Pairs:
    """What was met, one example each; users who have every item are no example, since nothing ranks below it."""

    users: Tensor
    """(n,) int64."""
    items: Tensor
    """(n,) int64."""
    met: Ragged
    """U rows of distinct items, ascending."""
    n_items: int
    """I."""

    @classmethod
    def of(cls, met: Ragged, n_items: int) -> Self:
        """Of lists of distinct items, in ascending order. Raises: InvalidInput when there is no example."""
        users = met.rows
        some = met.lengths[users] < n_items
        if not bool(some.any()):
            raise InvalidInput(say("There is nothing to learn from: nobody has some items but not all of them"))
        return cls(users[some], met.items[some], met, n_items)

    def __len__(self) -> int:
        """Number of examples, n."""
        return len(self.users)

    def negatives(self, users: Tensor, generator: torch.Generator) -> Tensor:
        """For each user an item they have not, all equally likely, without a rejected draw.

        The r-th free item is r + #{j: h_j - j <= r}, where h_0 < h_1 < .. are the items of the user.

        Args: users: (B,) int64, of examples. Returns: (B,) int64.
        """
        free = self.n_items - self.met.lengths[users]
        draw = torch.randint(_WORD, users.shape, generator=generator, device=users.device) % free
        before = torch.searchsorted(self._free_before, users * (self.n_items + 1) + draw, right=True)
        return draw + before - self.met.indptr[users]

    @cached_property
    def _free_before(self) -> Tensor:
        """h_j - j, how many free items stand below each item of a user, rising: users lie I + 1 apart, (n,) int64."""
        return self.met.rows * (self.n_items + 1) + self.met.items - self.met.ranks


def bpr(positive: Tensor, negative: Tensor) -> Tensor:
    """-log sigmoid of the difference. Args: scores, (B,) each. Returns: (B,)."""
    return torch.nn.functional.softplus(negative - positive)


def softmax(positive: Tensor, others: Tensor, same: Tensor, n_items: int) -> Tensor:
    """-log of the positive's share among all items.

    The sum over the other I - 1 items is estimated from those at hand, each as likely as any other; it is exact where
    they are all there is.

    Args: positive: scores over tau, (B,).   others: those of n items, (B, n).   same: where one of them is the positive
        itself, (B, n) bool.   n_items: I.
    Returns: (B,).
    """
    others = others.masked_fill(same, -math.inf)
    count = (~same).sum(1).clamp(min=1)
    rest = others.logsumexp(1) + torch.log((n_items - 1) / count)
    return torch.nn.functional.softplus(rest - positive)
