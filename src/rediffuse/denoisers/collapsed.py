"""The reverse chain in hidden space, exactly.

A sampler only ever forms linear combinations of its state, the denoiser's answers and fresh noise. With
lift(x) = W x and head(h) = V h + b all of that commutes with W, so any sampler may run on u_t = W x_t:

    inner(u, t, c) = M core(u, t, c) + m,   M = W V  (H x H'),   m = W b       a denoiser over R^H
    last(u, t, c)  = V core(u, t, c) + b                                       the answer, once

A step then costs H H' instead of 2 I H: the catalog is touched at the start (|history| columns) and at the end.
Exact up to rounding, for every sampler and guidance (tests/theory/test_collapse.py).
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from rediffuse.protocols import LiftedDenoiser, Noise
from rediffuse.types import Condition, SparseRows


@dataclass(frozen=True)
class Collapsed:
    """A lifted denoiser without its catalog."""

    denoiser: LiftedDenoiser
    M: Tensor
    """(H, H'), W V."""
    m: Tensor
    """(H,), W b."""

    @cached_property
    def F(self) -> Tensor:
        """(H, H), the symmetric square root of W W^T: F z' is W z in distribution, for z' over R^H.

        Formed in float64; dead units and I < H are fine.
        """
        with torch.no_grad():
            wt = self.denoiser.ends()[0].to(torch.float64)
            return symmetric_root(wt.t() @ wt).to(self.M.dtype)

    def lift(self, x: SparseRows | Tensor) -> Tensor:
        """The state W x. Args: x: (B, I). Returns: (B, H)."""
        return self.denoiser.lift(x)

    def inner(self, u: Tensor, t: Tensor, cond: Condition | None = None) -> Tensor:
        """W E[x_0 | x_t], a denoiser over R^H. Args: u: (B, H).   t: (B,). Returns: (B, H)."""
        return torch.addmm(self.m, self.denoiser.core(u, t, cond), self.M.t())

    def last(self, u: Tensor, t: Tensor, cond: Condition | None = None, items: Tensor | None = None) -> Tensor:
        """E[x_0 | x_t] itself. Args: u: (B, H).   t: (B,).   items: as in `head`. Returns: (B, I) or (B, n)."""
        return self.denoiser.head(self.denoiser.core(u, t, cond), items)

    def points(self, u: Tensor, t: Tensor, cond: Condition | None = None) -> Tensor:
        """What the head reads. Args: u: (B, H).   t: (B,). Returns: (B, H')."""
        return self.denoiser.core(u, t, cond)

    def score(self, points: Tensor, items: Tensor | None = None) -> Tensor:
        """The answer from its points, affine in them. Args: points: (B, H'). Returns: (B, I) or (B, n)."""
        return self.denoiser.head(points, items)

    def noise(self, source: Noise) -> Noise:
        """Turn a source of standard normal draws over R^H into one of W z, z ~ N(0, 1) over R^I."""

        def projected(t: int, like: Tensor) -> Tensor:
            return source(t, like) @ self.F

        return projected


def collapse(denoiser: LiftedDenoiser) -> Collapsed:
    """Compute M and m once for a trained denoiser.

    Limits: one product of (H, I) with (I, H'). Not for networks that normalise x_t, use dropout at inference,
        or predict eps or v: those need x_1 in item space.
    """
    with torch.no_grad():
        wt, v, b = denoiser.ends()
        return Collapsed(denoiser, wt.t() @ v, wt.t() @ b)


def symmetric_root(covariance: Tensor) -> Tensor:
    """F = F^T with F F = covariance, by eigendecomposition, eigenvalues clipped at 0: a singular one is fine.

    This root is unique, so the same draws F z give the same answer on every device.

    Args: covariance: (D, D) float64, symmetric, no negative eigenvalue but for rounding. Returns: (D, D).
    """
    values, vectors = torch.linalg.eigh(covariance)
    return (vectors * values.clamp(min=0).sqrt()) @ vectors.t()


def project_exactly(denoiser: LiftedDenoiser, source: Noise, width: int) -> Noise:
    """W z for draws z over R^I: the same stream as a dense chain. Costs the catalog; for checks of equality."""

    def projected(t: int, like: Tensor) -> Tensor:
        return denoiser.lift(source(t, like.new_empty(like.shape[0], width)))

    return projected
