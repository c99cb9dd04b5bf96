"""A denoiser over the rows themselves, in the form `Collapsed` has: for networks that predict eps or v."""

from dataclasses import dataclass

from torch import Tensor

from rediffuse.protocols import Denoiser, Noise
from rediffuse.types import Condition, SparseRows


@dataclass(frozen=True)
class Dense:
    """The state is the row, (B, I): a step costs the catalog."""

    denoiser: Denoiser
    """E[x_0 | x_t]."""

    def lift(self, x: SparseRows | Tensor) -> Tensor:
        """The row itself. Returns: (B, I)."""
        return x.dense() if isinstance(x, SparseRows) else x

    def inner(self, u: Tensor, t: Tensor, cond: Condition | None = None) -> Tensor:
        """The denoiser itself. Args: u: (B, I).   t: (B,). Returns: (B, I)."""
        return self.denoiser(u, t, cond)

    def points(self, u: Tensor, t: Tensor, cond: Condition | None = None) -> Tensor:
        """The answer. Args: u: (B, I).   t: (B,). Returns: (B, I)."""
        return self.denoiser(u, t, cond)

    def score(self, points: Tensor, items: Tensor | None = None) -> Tensor:
        """Those of some items. Args: points: (B, I).   items: (n,) or (B, n); None: all. Returns: (B, I) or (B, n)."""
        if items is None:
            return points.clone()  # whoever ranks scores may change them
        return points[:, items] if items.dim() == 1 else points.gather(1, items)

    def noise(self, source: Noise) -> Noise:
        """The source as it is."""
        return source
