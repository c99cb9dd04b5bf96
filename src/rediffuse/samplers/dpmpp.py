"""DPM-Solver++ (2M): DDIM with an estimate that is carried on from the one before."""

import torch
from torch import Tensor

from rediffuse.protocols import Denoiser, Noise, OnStep, Schedule
from rediffuse.samplers.ddim import step
from rediffuse.samplers.levels import pairs
from rediffuse.types import Condition


def dpmpp(
    denoise: Denoiser,
    x: Tensor,
    levels: Tensor,
    schedule: Schedule,
    *,
    cond: Condition | None = None,
    noise: Noise | None = None,
    on_step: OnStep | None = None,
    eta: float = 0.0,
) -> Tensor:
    """Walk down the levels with second order at one call a step.

        lambda = log(alpha / sigma);   h = lambda_s - lambda_t;   r = (lambda_t - lambda_before) / h
        D = x0_hat + (x0_hat - x0_before) / (2 r)
        x_s = (sigma[s] / sigma[t]) x_t + alpha[s] (1 - exp(-h)) D

    The last line is a step of DDIM with D for x0_hat; with eta = 1 it is that of the SDE solver,
    x_s = (sigma[s] / sigma[t]) exp(-h) x_t + alpha[s] (1 - exp(-2h)) D + sigma[s] sqrt(1 - exp(-2h)) z.
    The first step and the one to level 0 are of first order, D = x0_hat.

    Args: x: state at levels[0], (B, *D).   levels: (N+1,) int64, strictly falling.
        noise: source of z; None: no fresh noise, as with eta = 0.   eta: 0 the ODE .. 1 the SDE.
    Returns: the state at the last level, (B, *D); x_0 when that is 0.
    Raises: InvalidInput if the levels do not fall or eta lies outside 0..1.
    Reference: Lu et al. 2022 (DPM-Solver++), algorithm 2; for eta = 1 their SDE-DPM-Solver++(2M).
    Limits: N calls of `denoise`; keeps one state and one estimate. Steps that grow much from one to the next (r near 0)
        carry the estimate far.
    """
    rate = torch.log(schedule.alpha) - torch.log(schedule.sigma)  # lambda
    before: tuple[int, Tensor] | None = None
    for t, s, batch in pairs(x, levels):
        x0 = denoise(x, batch, cond)
        if on_step:
            on_step(t, x, x0)
        ahead = x0
        if before and schedule.sigma[s] > 0:
            at, x0_before = before
            # Infinite spans (alpha = 0 at the noisiest level) give 0: order 1 there.
            ahead = x0 + float((rate[s] - rate[t]) / (rate[t] - rate[at]) / 2) * (x0 - x0_before)
        x = step(x, ahead, t, s, schedule, noise=noise, eta=eta)
        before = (t, x0)
    return x
