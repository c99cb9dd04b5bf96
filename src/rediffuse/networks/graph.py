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
    """A_hat as its two blocks; each is the transpose of the other, so a gradient spreads as a vector does."""

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
        """A_hat E, differentiable. Args: users: (U, D).   items: (I, D). Returns: the same shapes."""
        spread: Any = _Spread.apply
        return spread(items, self.by_user, self.by_item), spread(users, self.by_item, self.by_user)

    def mean(self, users: Tensor, items: Tensor, layers: int) -> tuple[Tensor, Tensor]:
        """Average E^0 .. E^K. Args: users: (U, D).   items: (I, D).   layers: K. Returns: the same shapes."""
        *shallow, last = self._hops(users, items, layers)
        total = [
            sum(side, start=deep) / (layers + 1) for side, deep in zip(zip(*shallow, strict=True), last, strict=True)
        ]
        return total[0], total[1]

    def newcomer(self, users: Tensor, items: Tensor, layers: int) -> Tensor:
        """What each item gives to the mean vector of a user who joins now, before division by sqrt of their history.

            u^0 = 0,   u^k = sum_i e_i^{k-1} / sqrt(|h| d_i),   u = sum_k u^k / (K + 1)

        Args: users: (U, D).   items: (I, D).   layers: K, 1 or more.
        Returns: sum_{k < K} e_i^k / ((K + 1) sqrt(d_i)), (I, D); 0 for items that nobody took.
        """
        degree = self.by_item.lengths.to(items.dtype)
        weight = torch.where(degree > 0, degree.rsqrt(), 0) / (layers + 1)
        total = torch.stack([hop[1] for hop in self._hops(users, items, layers - 1)]).sum(0)
        return total * weight.unsqueeze(1)

    def _hops(self, users: Tensor, items: Tensor, layers: int) -> list[tuple[Tensor, Tensor]]:
        hops = [(users, items)]
        for _ in range(layers):
            hops.append(self.hop(*hops[-1]))
        return hops


class _Spread(torch.autograd.Function):
    """rows @ table, with the transpose at hand for the gradient."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, rows: SparseRows, transposed: SparseRows) -> Tensor:
        ctx.transposed = transposed
        return rows.project(table)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return ctx.transposed.project(grads[0].contiguous()), None, None
