"""A latent space of rows: a clustered variational auto-encoder.

    x = (x_1 .. x_C), its items parted in C groups of alike ones;   (mu_c, log sigma_c^2) = tanh(encoder_c(x_c))
    z = (z_1 .. z_C) ~ N(mu, diag sigma^2), (B, D);                 scores = V z + b

Each group has an encoder and a part of z of its own, as wide as its share of the items; one decoder reads them all.
Items keep their numbers: nothing is put in another order outside.
Reference: Wang et al. 2023 (DiffRec), section 3.5 (L-DiffRec); Liang et al. 2018 (the variational auto-encoder of a row).
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Self

import torch
from torch import Tensor, nn

from rediffuse.errors import InvalidConfig, say
from rediffuse.types import Ragged, SparseRows

Posterior = tuple[Tensor, Tensor]


def shares(sizes: Sequence[int], width: int) -> list[int]:
    """How wide the part of each group is: 1, and of the rest its share of the items, cut; the last takes what is left.

    Args: sizes: items of each group.
    Raises: InvalidConfig when there are more groups than the width has places.
    """
    spare = width - len(sizes)
    if spare < 0:
        raise InvalidConfig(
            say(f"{len(sizes)} groups of items need a width of as many", got=width, remedy="Take fewer clusters")
        )
    wide = [1 + spare * size // sum(sizes) for size in sizes[:-1]]
    return [*wide, width - sum(wide)]


class LatentRows(nn.Module):
    """A `Space`: rows of I items <-> points of width D."""

    groups: Tensor
    place: Tensor

    def __init__(
        self, groups: Tensor, widths: Sequence[Sequence[int]], *, generator: torch.Generator | None = None
    ) -> None:
        """Draw the weights: W ~ N(0, 2 / (fan_in + fan_out)), b ~ N(0, .001^2).

        Args: groups: (I,) int64, the group of each item, 0 .. C-1.
            widths: for each group, of the hidden layers of its encoder and, last, of its part of a point.
        """
        super().__init__()
        self.register_buffer("groups", groups)
        sizes = torch.bincount(groups, minlength=len(widths))
        # The n-th item of a group is row n of its first layer, so items added to the catalog are new last rows.
        place = torch.empty_like(groups)
        place[groups.argsort(stable=True)] = torch.cat([torch.arange(size) for size in sizes.tolist()])
        self.register_buffer("place", place, persistent=False)
        self.lifts = nn.ParameterList(
            torch.empty(size, layers[0] if len(layers) > 1 else 2 * layers[0])
            for size, layers in zip(sizes.tolist(), widths, strict=True)
        )
        self.lift_biases = nn.ParameterList(torch.empty(lift.shape[1]) for lift in self.lifts)
        self.bodies = nn.ModuleList(
            nn.ModuleList(nn.Linear(a, b) for a, b in pairwise((*layers[:-1], 2 * layers[-1]))) for layers in widths
        )
        self.out = nn.Linear(sum(layers[-1] for layers in widths), len(groups))
        for weight in self.parameters():
            if weight.dim() == 2:
                nn.init.xavier_normal_(weight, generator=generator)
            else:
                nn.init.normal_(weight, std=0.001, generator=generator)

    @classmethod
    def of(
        cls, groups: Tensor, latent: int, hidden: Sequence[int] = (), *, generator: torch.Generator | None = None
    ) -> Self:
        """Widths by the shares of the groups. Args: groups: (I,), none empty.   latent: D.   hidden: of all encoders together."""
        sizes = torch.bincount(groups).tolist()
        layers = [shares(sizes, width) for width in (*hidden, latent)]
        return cls(groups, list(zip(*layers, strict=True)), generator=generator)

    @classmethod
    def like(cls, state: Mapping[str, Tensor], groups: Tensor, *, generator: torch.Generator | None = None) -> Self:
        """As wide as one that was learned. Args: state: by the names of the module.   groups: (I,), perhaps of more items."""
        widths: list[tuple[int, ...]] = []
        for group in range(int(groups.max()) + 1):
            own = [state[f"lifts.{group}"].shape[1]]
            while (bias := state.get(f"bodies.{group}.{len(own) - 1}.bias")) is not None:
                own.append(len(bias))
            widths.append((*own[:-1], own[-1] // 2))
        return cls(groups, widths, generator=generator)

    @property
    def n_items(self) -> int:
        """I."""
        return len(self.groups)

    def posterior(self, rows: SparseRows) -> Posterior:
        """q(z given x). Args: rows: (B, I). Returns: mu and log sigma^2, (B, D) each, between -1 and 1."""
        means, log_variances = list[Tensor](), list[Tensor]()
        for group, (bias, body) in enumerate(zip(self.lift_biases, self.bodies, strict=True)):
            h = torch.tanh(self._lifted(rows, group) + bias)
            assert isinstance(body, nn.ModuleList)
            for layer in body:
                h = torch.tanh(layer(h))
            mean, log_variance = h.chunk(2, dim=1)
            means.append(mean)
            log_variances.append(log_variance)
        return torch.cat(means, dim=1), torch.cat(log_variances, dim=1)

    def encode(self, batch: SparseRows) -> Tensor:
        """The mean of q(z given x). Args: batch: (B, I). Returns: (B, D)."""
        return self.posterior(batch)[0]

    def decode(self, x0: Tensor, items: Tensor | None = None) -> Tensor:
        """V z + b. Args: x0: (B, D).   items: (n,) or (B, n) to score alone. Returns: (B, I) or (B, n)."""
        weight, bias = self.out.weight, self.out.bias
        if items is None:
            return torch.addmm(bias, x0, weight.t())
        if items.dim() == 1:
            return torch.addmm(bias[items], x0, weight[items].t())
        return torch.einsum("bd,bnd->bn", x0, weight[items]) + bias[items]

    def _lifted(self, rows: SparseRows, group: int) -> Tensor:
        """W_c x_c, (B, H_c)."""
        weight = self.lifts[group]
        own = Ragged(rows.indptr, rows.items, weight=rows.values).keep(self.groups[rows.items] == group)
        assert own.weight is not None
        return SparseRows(own.indptr, self.place[own.items], own.weight, len(weight)).project(weight)


def joined_groups(groups: Tensor, vectors: Tensor) -> Tensor:
    """Put items that came later into the group whose older items are nearest to them in the mean.

    Args: groups: (J,) of the older items, the first J.   vectors: (I, D) of all items.
    Returns: (I,).
    """
    count = int(groups.max()) + 1
    sums = vectors.new_zeros(count, vectors.shape[1]).index_add_(0, groups, vectors[: len(groups)])
    centres = sums / torch.bincount(groups, minlength=count).clamp(min=1).unsqueeze(1)
    return torch.cat((groups, torch.cdist(vectors[len(groups) :], centres).argmin(1)))
