"""Microseconds for the x_0 of a batch of users: the reverse chain of a one-layer denoiser against its affine map.

    python -m benchmarks.affine [--json FILE]

DreamRec's denoiser, x0_hat = W [x; h; tau_t] + b, D = 64, ancestral over all T levels, float32. What is timed is what lies
between a first state x_T with its condition h and x_0: no encoder before it, no ranking after it. The chain is given
every advantage: guidance is folded into the condition (one forward a step, not two) and tau is a table. "means" walks
without fresh noise, "draws" with that of each query, against one product with A, H and one with F. Making the map is
timed apart: once for each set of weights. Median of 3 chains, and of 3 times 200 collapsed answers; one thread, since
matrices this small gain nothing from two.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.reverse_chain import machine
from rediffuse.denoisers.affine import affine_map
from rediffuse.files import write_json
from rediffuse.networks.time_embedding import sinusoids
from rediffuse.noise import exponential
from rediffuse.protocols import Noise
from rediffuse.random import PhiloxNoise
from rediffuse.samplers import ancestral, evenly
from rediffuse.types import Condition

WIDTH, REPEATS, ANSWERS, THREADS = 64, 3, 200, 1
CASES = ((500, 1), (500, 100), (2000, 1), (2000, 100))
"""Levels, users in a batch."""
LIMIT = 1000.0
"""How many times faster one user's answer at T = 500 has to be."""


@dataclass(frozen=True)
class Layer:
    """x0_hat = W [x; h; tau_t] + b."""

    weight: Tensor
    """(D, 3 D)."""
    bias: Tensor
    """(D,)."""
    tau: Tensor
    """(T+1, D)."""

    def __call__(self, x: Tensor, t: Tensor, h: Tensor) -> Tensor:
        """As `VectorDenoiser`."""
        return torch.addmm(self.bias, torch.cat((x, h, self.tau[t]), dim=1), self.weight.t())

    def to(self, dtype: torch.dtype) -> "Layer":
        """The same in another number format."""
        return Layer(self.weight.to(dtype), self.bias.to(dtype), self.tau.to(dtype))


@dataclass(frozen=True)
class Row:
    """One case, means or draws."""

    levels: int
    batch: int
    kind: str
    chain_us: float
    map_us: float
    making_s: float
    ratio: float
    error: float
    """Largest difference of chain and map without noise, both in float64."""


def main() -> None:
    """Run all cases and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--threads", type=int, default=THREADS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows = [measure(*case, draws=draws) for case in CASES for draws in (False, True)]
    print(f"D = {WIDTH}; limit: {LIMIT:,.0f}x for the means of one user at T = 500")
    print(f"{'T':>5} {'batch':>5} {'':>6} {'chain us':>10} {'map us':>8} {'ratio':>9} {'error':>8} {'making s':>9}")
    for row in rows:
        print(
            f"{row.levels:>5} {row.batch:>5} {row.kind:>6} {row.chain_us:>10,.0f} {row.map_us:>8.1f} {row.ratio:>9,.0f} "
            f"{row.error:>8.0e} {row.making_s:>9.2f}"
        )
    if arguments.json:
        write_json(arguments.json, {"machine": machine(arguments.threads), "rows": [asdict(row) for row in rows]})


def measure(levels: int, batch: int, *, draws: bool) -> Row:
    """One case, with weights that contract as trained ones do: the time does not depend on them."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(WIDTH, 3 * WIDTH, generator=generator) / (3 * WIDTH) ** 0.5
    layer = Layer(weight, torch.zeros(WIDTH), sinusoids(torch.arange(levels + 1), WIDTH))
    schedule, walk = exponential(levels), evenly(levels)
    x, h = (torch.randn(batch, WIDTH, generator=generator) for _ in range(2))
    noise = PhiloxNoise(0, torch.arange(batch))

    def chain(layer: Layer, x: Tensor, h: Tensor, noise: Noise | None) -> Tensor:
        def denoise(x_t: Tensor, t: Tensor, cond: Condition | None = None, /) -> Tensor:
            del cond
            return layer(x_t, t, h)

        return ancestral(denoise, x, walk, schedule, noise=noise)

    began = time.perf_counter()
    exact = layer.to(torch.float64)
    found = affine_map(exact, WIDTH, walk, schedule, ancestral, cond_width=WIDTH, fresh=draws)
    making_s = time.perf_counter() - began
    error = float((chain(exact, x.double(), h.double(), None) - found.mean(x.double(), h.double())).abs().max())
    chain_us = timed(lambda: chain(layer, x, h, noise if draws else None), 1)
    map_us = timed(lambda: found.draw(x, h, noise) if draws else found.mean(x, h), ANSWERS)
    return Row(levels, batch, "draws" if draws else "means", chain_us, map_us, making_s, chain_us / map_us, error)


@torch.inference_mode()
def timed(answer: Callable[[], Tensor], times: int) -> float:
    """Median microseconds of one answer over the repeats, each of so many, after one repeat to warm up."""
    found: list[float] = []
    for _ in range(1 + REPEATS):
        began = time.perf_counter()
        for _ in range(times):
            answer()
        found.append(1e6 * (time.perf_counter() - began) / times)
    return statistics.median(found[1:])


if __name__ == "__main__":
    main()
