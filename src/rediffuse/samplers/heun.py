"""Heun: the slope of a straight line is averaged with that at its end."""

from torch import Tensor

from rediffuse.protocols import Denoiser, Noise, OnStep, Schedule
from rediffuse.samplers.ddim import step
from rediffuse.samplers.levels import pairs
from rediffuse.types import Condition


def heun(
    denoise: Denoiser,
    x: Tensor,
    levels: Tensor,
    schedule: Schedule,
    *,
    cond: Condition | None = None,
    noise: Noise | None = None,
    on_step: OnStep | None = None,
) -> Tensor:
    """Walk down the levels with second order, in the coordinates y = x / alpha over rho = sigma / alpha.

        dy/drho = (y - x0_hat) / rho =: d;   y_trial = y + (rho_s - rho_t) d_t
        y_s = y + (rho_s - rho_t) (d_t + d_trial) / 2

    which is, in x: x_s = x_trial + alpha[s]/2 (rho_t / rho_s - 1) (x0_trial - x0_hat), x_trial a step of DDIM.
    The step to level 0, and one from where alpha = 0, are x_trial itself.

    Args: x: state at levels[0], (B, *D).   levels: (N+1,) int64, strictly falling.   noise: not used.
        on_step: called once a step, not for its trial.
    Returns: the state at the last level, (B, *D); x_0 when that is 0.
    Raises: InvalidInput if the levels do not fall.
    Reference: Karras et al. 2022 (EDM), algorithm 1 (= algorithm 2 without churn), for any alpha and sigma.
    Limits: 2 N calls of `denoise`, one less when the last level is 0; keeps three states. Where one step takes rho down by
        orders of magnitude, as the first steps of `cosine` do, the correction overshoots: more steps, or `dpmpp`.
    """
    del noise
    rho = schedule.sigma / schedule.alpha
    for t, s, batch in pairs(x, levels):
        x0 = denoise(x, batch, cond)
        if on_step:
            on_step(t, x, x0)
        x = step(x, x0, t, s, schedule, noise=None, eta=0.0)
        if schedule.sigma[s] > 0 and schedule.alpha[t] > 0:
            trial = denoise(x, batch.new_full(batch.shape, s), cond)
            x = x.add_(trial - x0, alpha=float(schedule.alpha[s] / 2 * (rho[t] / rho[s] - 1)))
    return x
