"""DDIM: straight lines between the estimated x_0 and its noise."""

from torch import Tensor

from rediffuse.protocols import Denoiser, Noise, OnStep, Schedule
from rediffuse.samplers.levels import pairs
from rediffuse.types import Condition


def ddim(
    denoise: Denoiser,
    x: Tensor,
    levels: Tensor,
    schedule: Schedule,
    *,
    cond: Condition | None = None,
    noise: Noise | None = None,
    on_step: OnStep | None = None,
) -> Tensor:
    """Walk down the levels without fresh noise.

        eps_hat = (x_t - alpha[t] x0_hat) / sigma[t];   x_s = alpha[s] x0_hat + sigma[s] eps_hat

    Args: x: state at levels[0], (B, *D).   levels: (N+1,) int64, strictly falling.   noise: not used.
    Returns: the state at the last level, (B, *D); x_0 when that is 0.
    Raises: InvalidInput if the levels do not fall.   eps_hat = 0 where sigma[t] = 0.
    Reference: Song et al. 2021 (DDIM), eq. 12 with the variance set to 0.
    Limits: N calls of `denoise`; keeps one state.
    """
    del noise
    for t, s, batch in pairs(x, levels):
        x0 = denoise(x, batch, cond)
        if on_step:
            on_step(t, x, x0)
        kept = float(schedule.sigma[s] / schedule.sigma[t]) if schedule.sigma[t] > 0 else 0.0
        w_x0 = float(schedule.alpha[s]) - kept * float(schedule.alpha[t])
        x = w_x0 * x0 if kept == 0 else (w_x0 * x0).add_(x, alpha=kept)
    return x
