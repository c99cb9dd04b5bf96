"""Ancestral sampling: draw every x_s from its posterior."""

from torch import Tensor

from rediffuse.noise.process import posterior_weights
from rediffuse.protocols import Denoiser, Noise, OnStep, Schedule
from rediffuse.samplers.levels import pairs
from rediffuse.types import Condition


def ancestral(
    denoise: Denoiser,
    x: Tensor,
    levels: Tensor,
    schedule: Schedule,
    *,
    cond: Condition | None = None,
    noise: Noise | None,
    on_step: OnStep | None = None,
) -> Tensor:
    """Walk down the levels, drawing x_s ~ q(x_s | x_t, x_0 = estimate).

        x_s = w_xt x_t + w_x0 x0_hat + std z,   weights as in `posterior_weights`

    Args: x: state at levels[0], (B, *D).   levels: (N+1,) int64, strictly falling.
        noise: source of z; None walks the posterior means (DiffRec's inference).
    Returns: the state at the last level, (B, *D); x_0 when that is 0.
    Raises: InvalidInput if the levels do not fall.
    Reference: Ho et al. 2020, algorithm 2.
    Limits: N calls of `denoise`; keeps one state.
    """
    for t, s, batch in pairs(x, levels):
        x0 = denoise(x, batch, cond)
        if on_step:
            on_step(t, x, x0)
        w_xt, w_x0, variance = (float(w) for w in posterior_weights(schedule, t, s))
        x = w_x0 * x0 if w_xt == 0 else (w_x0 * x0).add_(x, alpha=w_xt)
        if noise and variance > 0:
            x = x.add_(noise(s, x), alpha=variance**0.5)
    return x
