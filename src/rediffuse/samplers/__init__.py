"""Plain functions (denoiser, x, levels) -> x_0, one published algorithm a file."""

from rediffuse.samplers.ancestral import ancestral
from rediffuse.samplers.ddim import ddim
from rediffuse.samplers.levels import evenly
from rediffuse.samplers.starts import STARTS, history, noised_history, pure_noise

SAMPLERS = {"ancestral": ancestral, "ddim": ddim}

__all__ = ["SAMPLERS", "STARTS", "ancestral", "ddim", "evenly", "history", "noised_history", "pure_noise"]
