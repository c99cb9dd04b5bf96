"""Single steps against the schedulers of Hugging Face diffusers: an independent implementation of the same papers.

Their timestep is t - 1, and `clip_sample`, which cuts x_0 at 1, must be off. Their tables are float32, which spoils
1 - abar where it is small: the formulas are compared at every level with our float64 tables put in, to 1e-10, and the
schedulers as they are from level 250 on, to 1e-5. Whole chains of the second-order schedulers, which count in float32
whatever they are given, agree to 1e-5 as well.
"""

import inspect
import warnings
from typing import Any

import pytest
import torch

from rediffuse.noise import add_noise, linear
from rediffuse.noise.process import posterior_weights
from rediffuse.protocols import Noise
from rediffuse.samplers import SPACINGS, ancestral, ddim, dpmpp, evenly, heun

pytestmark = pytest.mark.slow

T = 1000
SCHEDULE = linear(T, low=1e-4, high=0.02)
CASES = [(t, torch.float64) for t in (1, 2, 3, 10, 250, 1000)] + [(t, torch.float32) for t in (250, 500, 999, 1000)]
SAMPLERS = {"DDPMScheduler": ancestral, "DDIMScheduler": ddim}


def scheduler(name: str, dtype: torch.dtype, steps: int | torch.Tensor = T, **more: object) -> Any:
    """Theirs, for a number of steps or for the levels themselves."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import diffusers

        cls = getattr(diffusers, name)
        if "clip_sample" in inspect.signature(cls.__init__).parameters:
            more["clip_sample"] = False
        betas = torch.linspace(1e-4, 0.02, T, dtype=torch.float64).numpy()
        made = cls(num_train_timesteps=T, trained_betas=betas, prediction_type="sample", **more)
        if dtype == torch.float64:
            made.alphas_cumprod = SCHEDULE.alpha[1:] ** 2
        if isinstance(steps, int):
            made.set_timesteps(steps)
        else:
            made.set_timesteps(timesteps=(steps[:-1] - 1).tolist())
    return made


def state(dtype: torch.dtype, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """x_t, an estimate of x_0 far beyond 1, and a draw."""
    generator = torch.Generator().manual_seed(seed)
    x_t, x0, eps = (torch.randn(6, 4, 3, generator=generator, dtype=dtype) for _ in range(3))
    return x_t, 5 * x0, eps


def close(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    assert ours.dtype == theirs.dtype
    tolerance = 1e-10 if ours.dtype == torch.float64 else 1e-5
    torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)


def stepped(theirs: Any, x0: torch.Tensor, index: int, x_t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Their next state, and the draw they used."""
    z = torch.randn(x_t.shape, generator=torch.Generator().manual_seed(9), dtype=x_t.dtype)
    more = {"generator": torch.Generator().manual_seed(9)}
    return theirs.step(x0, index, x_t, **more).prev_sample, z


@pytest.mark.parametrize(("t", "dtype"), CASES)
@pytest.mark.parametrize("name", SAMPLERS)
def test_single_steps(name: str, t: int, dtype: torch.dtype) -> None:
    x_t, x0, _ = state(dtype)
    found, z = stepped(scheduler(name, dtype), x0, t - 1, x_t)
    levels = torch.tensor([t, t - 1])
    close(SAMPLERS[name](lambda x, t, cond=None: x0, x_t, levels, SCHEDULE, noise=lambda t, like: z), found)


@pytest.mark.parametrize(("t", "dtype"), CASES)
def test_mean_and_variance_apart(t: int, dtype: torch.dtype) -> None:
    theirs = scheduler("DDPMScheduler", dtype)
    x_t, x0, _ = state(dtype)
    found, z = stepped(theirs, x0, t - 1, x_t)
    mean = ancestral(lambda x, t, cond=None: x0, x_t, torch.tensor([t, t - 1]), SCHEDULE, noise=None)
    variance = float(posterior_weights(SCHEDULE, t, t - 1)[2])
    close(mean, found - z * variance**0.5)
    if t > 1:
        assert variance == pytest.approx(float(theirs._get_variance(t - 1)), rel=1e-4)


@pytest.mark.parametrize("index", [996, 500, 4])
@pytest.mark.parametrize("name", SAMPLERS)
def test_strides_of_four_levels(name: str, index: int) -> None:
    x_t, x0, _ = state(torch.float64, index)
    found, z = stepped(scheduler(name, torch.float64, 250), x0, index, x_t)
    levels = torch.tensor([index + 1, index - 3])
    close(SAMPLERS[name](lambda x, t, cond=None: x0, x_t, levels, SCHEDULE, noise=lambda t, like: z), found)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_noising(dtype: torch.dtype) -> None:
    _, x0, eps = state(dtype)
    t = torch.tensor([1, 2, 10, 500, 999, 1000])
    theirs = scheduler("DDPMScheduler", dtype).add_noise(x0, eps, t - 1)
    torch.testing.assert_close(add_noise(x0, t, eps, SCHEDULE), theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_whole_chain(name: str) -> None:
    """All levels, with a denoiser that depends on its state, and the same draws."""
    theirs = scheduler(name, torch.float64)
    x = start = state(torch.float64)[0]
    generator = torch.Generator().manual_seed(9)
    twin = torch.Generator().manual_seed(9)
    draws = [torch.randn(x.shape, generator=twin, dtype=x.dtype) for _ in range(T)]
    for index in theirs.timesteps:
        x = theirs.step(torch.tanh(x / 2), int(index), x, generator=generator).prev_sample
    ours = SAMPLERS[name](
        lambda x, t, cond=None: torch.tanh(x / 2),
        start,
        torch.arange(T, -1, -1),
        SCHEDULE,
        noise=lambda t, like: draws[T - 1 - t],
    )
    torch.testing.assert_close(ours, x, rtol=1e-8, atol=1e-8)


def curved(x: torch.Tensor, t: torch.Tensor | None = None, cond: object = None) -> torch.Tensor:
    """A denoiser that depends on its state."""
    return torch.tanh(x / 2)


def drawn_in_turn(start: torch.Tensor, dtype: torch.dtype) -> Noise:
    """What a generator gives, whichever the level."""
    generator = torch.Generator().manual_seed(9)
    return lambda t, like: torch.randn(start.shape, generator=generator, dtype=dtype).to(like.dtype)


@pytest.mark.parametrize("name", ["DDPMScheduler", "DDIMScheduler"])
@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("steps", [3, 7, 10, 16, 300, T])
def test_spacings(name: str, spacing: str, steps: int) -> None:
    theirs = scheduler(name, torch.float32, steps, timestep_spacing=spacing).timesteps
    assert (theirs + 1).tolist() == evenly(T, steps, spacing).tolist()[:-1]


@pytest.mark.parametrize("steps", [5, 20, 250])
@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("spacing", ["trailing", "leading"])
def test_ddim_with_eta(eta: float, steps: int, spacing: str) -> None:
    """Every step of theirs is T / steps long, which is not so for "linspace"."""
    theirs = scheduler("DDIMScheduler", torch.float64, steps, timestep_spacing=spacing)
    x = start = state(torch.float64)[0]
    generator = torch.Generator().manual_seed(9)
    for index in theirs.timesteps:
        x = theirs.step(curved(x), int(index), x, eta=eta, generator=generator).prev_sample
    levels, noise = evenly(T, steps, spacing), drawn_in_turn(start, torch.float64)
    close(ddim(curved, start, levels, SCHEDULE, noise=noise, eta=eta), x)


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("steps", [1, 2, 5, 20, 100, T])
@pytest.mark.parametrize(("kind", "eta"), [("dpmsolver++", 0.0), ("sde-dpmsolver++", 1.0)])
def test_dpmpp(kind: str, eta: float, steps: int, spacing: str) -> None:
    levels = evenly(T, steps, spacing)
    name = "DPMSolverMultistepScheduler"
    theirs = scheduler(name, torch.float64, levels, algorithm_type=kind, solver_order=2, final_sigmas_type="zero")
    x = start = state(torch.float64)[0]
    draws = drawn_in_turn(start, torch.float32)
    for index in theirs.timesteps:
        x = theirs.step(curved(x), int(index), x, variance_noise=draws(int(index), x)).prev_sample
    noise = drawn_in_turn(start, torch.float32)
    found = dpmpp(curved, start, levels, SCHEDULE, noise=noise, eta=eta)
    torch.testing.assert_close(found, x, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("steps", [1, 2, 5, 20, 100, T])
def test_heun(steps: int, spacing: str) -> None:
    """Theirs walks x / alpha over sigma / alpha."""
    levels = evenly(T, steps, spacing)
    theirs = scheduler("HeunDiscreteScheduler", torch.float64, levels)
    start = state(torch.float64)[0]
    y = start / SCHEDULE.alpha[levels[0]]
    for index in theirs.timesteps:
        y = theirs.step(curved(theirs.scale_model_input(y, index)), index, y).prev_sample
    torch.testing.assert_close(heun(curved, start, levels, SCHEDULE), y, rtol=1e-5, atol=1e-5)
