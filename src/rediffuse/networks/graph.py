"""The graph of who took what, normalised, and how vectors spread along its edges: each formula once.

    A_hat = D^-1/2 A D^-1/2,   E^{k+1} = A_hat E^k,   A the users and items as one bipartite graph without self loops

Reference: He et al. 2020 (LightGCN), eq. 3 and 7.
"""

from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from rediffuse.types import Ragged, SparseRows, offsets


@dataclass(frozen=True)
class BipartiteGraph:
    """A_hat as its two blocks, each the transpose of the other."""

    by_user: SparseRows
    """(U, I), values 1 / sqrt(d_u d_i)."""
    by_item: SparseRows
    """(I, U), the same edges."""

    @classmethod
    def of(cls, met: Ragged, n_items: int, dtype: torch.dtype = torch.float32) -> Self:
        """From lists of distinct items. Args: met: U rows.   n_items: I."""
        users, items = met.rows, met.items
        of_user, of_item = met.lengths, torch.bincount(items, minlength=n_items)
        values = (of_user[users] * of_item[items]).to(torch.float64).rsqrt().to(dtype)
        order = torch.argsort(items, stable=True)
        return cls(
            SparseRows(met.indptr, items, values, n_items),
            SparseRows(offsets(of_item), users[order], values[order], len(met)),
        )

    def hop(self, users: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
        """A_hat E. Args: users: (U, D).   items: (I, D). Returns: the same shapes."""
        return self.by_user.project(items), self.by_item.project(users)

    def mean(self, users: Tensor, items: Tensor, layers: int) -> tuple[Tensor, Tensor]:
        """Average E^0 .. E^K, differentiable. Args: users: (U, D).   items: (I, D).   layers: K. Returns: the same shapes."""
        summed: Any = _Powers.apply
        of_users, of_items = summed(users, items, self, layers)
        return of_users / (layers + 1), of_items / (layers + 1)

    def normalised_sum(self, users: Tensor, items: Tensor, layers: int) -> tuple[Tensor, Tensor]:
        """E^0 + .. + E^K with the rows of each hop brought to length 1, which the next then spreads: released tables of SGL.

        Args: users: (U, D).   items: (I, D).   layers: K. Returns: the same shapes.
        """
        of_users, of_items = users, items
        for _ in range(layers):
            users, items = (torch.nn.functional.normalize(table) for table in self.hop(users, items))
            of_users, of_items = of_users + users, of_items + items
        return of_users, of_items

    def newcomer(self, users: Tensor, items: Tensor, layers: int) -> Tensor:
        """What each item gives to the mean vector of a user who joins now, before division by sqrt of their history.

            u^0 = 0,   u^k = sum_i e_i^{k-1} / sqrt(|h| d_i),   u = sum_k u^k / (K + 1)

        Args: users: (U, D).   items: (I, D).   layers: K, 1 or more.
        Returns: sum_{k < K} e_i^k / ((K + 1) sqrt(d_i)), (I, D); 0 for items that nobody took.
        """
        degree = self.by_item.lengths.to(items.dtype)
        weight = torch.where(degree > 0, degree.rsqrt(), 0) / (layers + 1)
        return self.powers(users, items, layers - 1)[1] * weight.unsqueeze(1)

    def powers(self, users: Tensor, items: Tensor, layers: int) -> tuple[Tensor, Tensor]:
        """E^0 + .. + E^K = E + A_hat (E + A_hat (E + ..)).

        Args: users: (U, D).   items: (I, D).   layers: K. Returns: the same shapes.
        """
        of_users, of_items = users, items
        for _ in range(layers):
            spread = self.hop(of_users, of_items)
            of_users, of_items = users + spread[0], items + spread[1]
        return of_users, of_items


def distinct(history: Ragged, n_items: int) -> Ragged:
    """Which items each user met, ascending; events that weigh 0 are none. Args: history: U rows.   n_items: I."""
    if history.weight is not None:
        history = history.keep(history.weight > 0)
    pairs = torch.unique(history.rows * n_items + history.items)
    lengths = torch.bincount(pairs // n_items, minlength=len(history))
    return Ragged(offsets(lengths), pairs % n_items)


class _Powers(torch.autograd.Function):
    """`BipartiteGraph.powers`. A_hat is symmetric and so is a sum of its powers: a gradient spreads as a vector does."""

    @staticmethod
    def forward(ctx: Any, users: Tensor, items: Tensor, graph: BipartiteGraph, layers: int) -> tuple[Tensor, Tensor]:
        ctx.graph, ctx.layers = graph, layers
        return graph.powers(users, items, layers)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None]:
        users, items = (grad.contiguous() for grad in grads)
        return *ctx.graph.powers(users, items, ctx.layers), None, None
