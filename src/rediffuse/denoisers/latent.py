"""A denoiser between the encoder and the decoder of a space, in the form `Collapsed` has: for x_0 that is a vector."""

from dataclasses import dataclass

from torch import Tensor

from rediffuse.protocols import Denoiser, Noise, Space
from rediffuse.types import Condition, SparseRows


@dataclass(frozen=True)
class Latent:
    """The state is x_t, (B, D): neither end is touched on the way."""

    space: Space[SparseRows]
    denoiser: Denoiser
    """E[x_0 | x_t]."""

    def lift(self, x: SparseRows) -> Tensor:
        """Encoded. Args: x: (B, I). Returns: (B, D)."""
        return self.space.encode(x)

    def inner(self, u: Tensor, t: Tensor, cond: Condition | None = None) -> Tensor:
        """The denoiser itself. Args: u: (B, D).   t: (B,). Returns: (B, D)."""
        return self.denoiser(u, t, cond)

    def points(self, u: Tensor, t: Tensor, cond: Condition | None = None) -> Tensor:
        """What the decoder reads: the answer. Args: u: (B, D).   t: (B,). Returns: (B, D)."""
        return self.denoiser(u, t, cond)

    def score(self, points: Tensor, items: Tensor | None = None) -> Tensor:
        """Decoded. Args: points: (B, D).   items: (n,) or (B, n); None: all. Returns: (B, I) or (B, n)."""
        return self.space.decode(points, items)

    def noise(self, source: Noise) -> Noise:
        """The source as it is."""
        return source
