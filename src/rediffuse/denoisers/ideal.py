"""Closed-form oracles: what a perfectly trained denoiser would answer, for tests of samplers and schedules."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from rediffuse.noise.process import at_level
from rediffuse.protocols import Schedule
from rediffuse.types import Condition


@dataclass(frozen=True)
class GaussianDenoiser:
    """E[x_0 | x_t] for x_0 ~ N(mu, Sigma) and x_t = alpha x_0 + sigma eps:

        mu + alpha Sigma (alpha^2 Sigma + sigma^2 1)^-1 (x_t - alpha mu)

    computed in the eigenbasis of Sigma, so a singular Sigma is fine.
    Reference: Bishop 2006, eq. 2.116 (posterior of a linear Gaussian model).
    """

    mean: Tensor
    """(D,) float64."""
    covariance: Tensor
    """(D, D) float64, symmetric, no negative eigenvalue."""
    schedule: Schedule

    @cached_property
    def _eigen(self) -> tuple[Tensor, Tensor]:
        values, vectors = torch.linalg.eigh(self.covariance)
        return values.clamp(min=0), vectors

    def __call__(self, x_t: Tensor, t: Tensor, cond: Condition | None = None) -> Tensor:
        """Args: x_t: (B, D).   t: (B,) int64 in 1..T. Returns: (B, D)."""
        del cond
        values, vectors = self._eigen
        alpha, sigma = at_level(self.schedule.alpha, t, x_t), at_level(self.schedule.sigma, t, x_t)
        spread = alpha**2 * values + sigma**2  # (B, D), variances of x_t along the eigenvectors
        gain = torch.where(spread > 0, alpha * values / spread, 0.0)
        return self.mean + (gain * ((x_t - alpha * self.mean) @ vectors)) @ vectors.t()

    def flow(self, x: Tensor, t: int) -> Tensor:
        """The x_0 at the end of the probability-flow ODE from x at level t: what deterministic samplers tend to.

            mu + Sigma^(1/2) (alpha^2 Sigma + sigma^2 1)^(-1/2) (x - alpha mu)

        Args: x: (B, D).   t: level 1..T.
        Reference: Song et al. 2021 (score SDE), eq. 13, solved for Gaussian data.
        """
        values, vectors = self._eigen
        alpha, sigma = float(self.schedule.alpha[t]), float(self.schedule.sigma[t])
        spread = alpha**2 * values + sigma**2
        gain = torch.where(spread > 0, (values / spread).sqrt(), 0.0)
        return self.mean + (gain * ((x - alpha * self.mean) @ vectors)) @ vectors.t()
