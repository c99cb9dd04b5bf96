"""The whole reverse chain as one affine map, exactly.

A sampler only ever forms linear combinations of its state, the denoiser's answers and fresh noise. Where the denoiser is
affine in the state and in a condition vector h, so is everything that follows from it:

    x_0 = A x_T + H h + c + sum_s J_s z_s,   z_s ~ N(0, 1)      E = A x_T + H h + c,   Cov = sum_s J_s J_s^T

An answer then costs D (D + C) whatever T: one Gaussian draw instead of T steps. Guidance of scale s extrapolates the
condition, h~ = none + s (h - none) = `torch.lerp(none, h, s)`, since the other parts cancel in
f(none) + s (f(h) - f(none)); so one map serves every scale, provided that guidance acts on all levels.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from rediffuse.denoisers.collapsed import symmetric_root
from rediffuse.errors import InvalidInput, say
from rediffuse.protocols import Noise, Sampler, Schedule
from rediffuse.types import Condition

VectorDenoiser = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(x_t (B, D), t (B,) int64, h (B, C)) -> estimate of x_0, (B, D); row by row."""
_FAR, _CLOSE = 100.0, 1e-9


@dataclass(frozen=True)
class Affine:
    """What a walk makes of its first state and of a condition, in float64."""

    A: Tensor
    """(D, D), of the state."""
    H: Tensor
    """(D, C), of the condition."""
    c: Tensor
    """(D,)."""
    covariance: Tensor | None = None
    """(D, D), of the answer given state and condition; None where the walk draws nothing."""

    @cached_property
    def F(self) -> Tensor | None:
        """(D, D), the symmetric square root of `covariance`."""
        return None if self.covariance is None else symmetric_root(self.covariance)

    def mean(self, x: Tensor, h: Tensor) -> Tensor:
        """E[x_0 | x, h] = A x + H h + c. Args: x: (B, D), at the walk's first level.   h: (B, C). Returns: (B, D), as x."""
        return torch.addmm(torch.addmm(self.c, h.to(self.c), self.H.t()), x.to(self.c), self.A.t()).to(x)

    def draw(self, x: Tensor, h: Tensor, noise: Noise) -> Tensor:
        """The mean and F z: what the walk answers, in distribution.

        Args: x: (B, D).   h: (B, C).   noise: source of z; its level 0 is used, which no walk draws for.
        Returns: (B, D), as x.
        """
        mean = self.mean(x, h)
        return mean if self.F is None else mean + (noise(0, x).to(self.F) @ self.F).to(x)


def affine_map(
    denoise: VectorDenoiser,
    width: int,
    levels: Tensor,
    schedule: Schedule,
    sampler: Sampler,
    *,
    cond_width: int,
    fresh: bool = True,
    device: torch.device | str = "cpu",
) -> Affine:
    """What a walk of any sampler does, from a single one started at zero: A, H and every J_s are derivatives of its end.

    Row i of the batch gives row i of the matrices, so one backward pass yields them all, steps of several orders included.

    Args: denoise: affine in x_t and h, in float64. Its weights were not made in inference mode, which derivatives refuse;
            with `requires_grad_(False)` no step has to be kept.
        width: D.   levels: (N+1,) int64, strictly falling.   cond_width: C, 0 without a condition.
        fresh: whether the walk is given noise to draw; what it draws becomes `covariance`.
    Raises: InvalidInput if `denoise` is not affine, or the levels do not fall.
    Reference: Ho et al. 2020, eq. 7, composed over the levels; DreamRec (Yang et al. 2023) has such a denoiser.
    Limits: N calls of `denoise` with D rows, and once back; with fresh noise N D^2 numbers are kept.
    """
    if not is_affine(denoise, width, levels, cond_width=cond_width, device=device):
        raise InvalidInput(
            say("The denoiser is not affine in x_t and the condition", remedy="Run its chain step by step")
        )

    def zeros(size: int) -> Tensor:
        return torch.zeros(width, size, dtype=torch.float64, device=device, requires_grad=True)

    draws: list[Tensor] = []

    def source(t: int, like: Tensor) -> Tensor:
        del t, like
        draws.append(zeros(width))
        return draws[-1]

    # An answer may be asked for in inference mode, which would record nothing.
    with torch.inference_mode(mode=False), torch.enable_grad():
        x, h = zeros(width), zeros(cond_width)

        def steered(x_t: Tensor, t: Tensor, cond: Condition | None = None, /) -> Tensor:
            del cond
            # Samplers may change a state in place after the denoiser has read it.
            return denoise(x_t.clone(), t, h)

        end = sampler(steered, x, levels, schedule, noise=source if fresh else None)
        A, H, *J = torch.autograd.grad(end.diagonal().sum(), [x, h, *draws], materialize_grads=True)
    each = torch.cat(J, dim=1) if J else None  # (D, N D)
    return Affine(A, H, end[0].detach(), None if each is None else each @ each.t())


def is_affine(
    denoise: VectorDenoiser, width: int, levels: Tensor, *, cond_width: int, device: torch.device | str = "cpu"
) -> bool:
    """Whether f(a + b) - f(a) - f(b) + f(0) = 0 for f(x, h) = denoise(x, t, h) at every level above 0 of a walk.

    Args: as `affine_map`. a, b are fixed points, far out so that a bound on the answer shows.
    """
    t = levels[levels > 0].repeat(4).to(device)
    generator = torch.Generator().manual_seed(0)
    a, b = _FAR * torch.randn(2, len(t) // 4, width + cond_width, generator=generator, dtype=torch.float64)
    points = torch.cat((a + b, a, b, torch.zeros_like(a))).to(device)
    with torch.no_grad():
        answers = denoise(points[:, :width], t, points[:, width:])
    both, one, other, none = answers.chunk(4)
    return bool((both - one - other + none).abs().max() <= _CLOSE * answers.abs().max())
