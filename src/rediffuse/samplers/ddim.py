"""DDIM: straight lines between the estimated x_0 and its noise, a share of which may be drawn anew."""

from torch import Tensor

from rediffuse.errors import InvalidInput, say
from rediffuse.noise.process import posterior_weights
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
    eta: float = 0.0,
) -> Tensor:
    """Walk down the levels; eta^2 of the posterior's variance is drawn anew.

        eps_hat = (x_t - alpha[t] x0_hat) / sigma[t];   std = eta sqrt(posterior variance)
        x_s = alpha[s] x0_hat + sqrt(sigma[s]^2 - std^2) eps_hat + std z

    Args: x: state at levels[0], (B, *D).   levels: (N+1,) int64, strictly falling.
        noise: source of z; None: no fresh noise, as with eta = 0.   eta: 0 straight lines .. 1 the ancestral sampler.
    Returns: the state at the last level, (B, *D); x_0 when that level is 0.
    Raises: InvalidInput if the levels do not fall or eta lies outside 0..1.   eps_hat = 0 where sigma[t] = 0.
    Reference: Song et al. 2021 (DDIM), eq. 12 and 16.
    Limits: N calls of `denoise`; keeps one state.
    """
    for t, s, batch in pairs(x, levels):
        x0 = denoise(x, batch, cond)
        if on_step:
            on_step(t, x, x0)
        x = step(x, x0, t, s, schedule, noise=noise, eta=eta)
    return x


def step(x: Tensor, x0: Tensor, t: int, s: int, schedule: Schedule, *, noise: Noise | None, eta: float) -> Tensor:
    """One step of DDIM from level t to s: what the first order of every sampler without a mean of its own is.

    The share of x_t that is kept lies between that of the straight line and that of the posterior's mean:
    kept^2 = (1 - eta^2) (sigma[s] / sigma[t])^2 + eta^2 w_xt^2, which is (sigma[s]^2 - std^2) / sigma[t]^2.

    Args: x, x0: state and estimate at level t, (B, *D).   noise, eta: as in `ddim`.
    Returns: (B, *D), a new tensor; equal to x0 when s = 0 or where there is no noise.
    Raises: InvalidInput if eta lies outside 0..1.
    """
    if not 0 <= eta <= 1:
        raise InvalidInput(say("eta must be 0..1", got=eta, remedy="0 draws nothing, 1 as much as the posterior"))
    eta = eta if noise else 0.0
    line = float(schedule.sigma[s] / schedule.sigma[t]) if schedule.sigma[t] > 0 else 0.0
    w_xt, _, variance = (float(w) for w in posterior_weights(schedule, t, s))
    kept = ((1 - eta**2) * line**2 + eta**2 * w_xt**2) ** 0.5
    w_x0 = float(schedule.alpha[s]) - kept * float(schedule.alpha[t])
    out = w_x0 * x0 if kept == 0 else (w_x0 * x0).add_(x, alpha=kept)
    if noise and eta > 0 and variance > 0:
        out = out.add_(noise(s, x), alpha=eta * variance**0.5)
    return out
