"""Plain functions (denoiser, x, levels) -> x_0, one published algorithm a file."""

from collections.abc import Mapping

from rediffuse.protocols import Sampler
from rediffuse.samplers.ancestral import ancestral
from rediffuse.samplers.ddim import ddim
from rediffuse.samplers.dpmpp import dpmpp
from rediffuse.samplers.heun import heun
from rediffuse.samplers.levels import SPACINGS, evenly
from rediffuse.samplers.starts import STARTS, history, noised_history, pure_noise

SAMPLERS: Mapping[str, Sampler] = {"ancestral": ancestral, "ddim": ddim, "heun": heun, "dpmpp": dpmpp}

__all__ = [
    "SAMPLERS",
    "SPACINGS",
    "STARTS",
    "ancestral",
    "ddim",
    "dpmpp",
    "evenly",
    "heun",
    "history",
    "noised_history",
    "pure_noise",
]
