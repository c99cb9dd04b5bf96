"""Seconds a step and peak memory of DiffRec's training on rows as wide and as many as Amazon-book's.

    python -m benchmarks.large_rows [--users 108822] [--items 94949] [--events 3100000] [--steps 20] [--json FILE]

Made-up events: items by a power law, at least five a user. One hidden layer of 1,000, batches of 400, the settings of
the preset amazon-book-clean. Each precision runs in a process of its own; what it holds at most includes the data, the
libraries and the optimiser's state. There is no rival: a plain users x items matrix alone would take 41 GB.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.reverse_chain import machine
from rediffuse.data.weighting import weigh
from rediffuse.denoisers.mlp import MLPDenoiser
from rediffuse.files import write_json
from rediffuse.models.diffrec import DiffRecConfig, RowTraining
from rediffuse.registry import recipe
from rediffuse.training.loop import TrainingConfig, fit
from rediffuse.types import Ragged, SparseRows, offsets

THREADS = 2


def main() -> None:
    """Run one precision in this process, or all in processes of their own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=108_822)
    parser.add_argument("--items", type=int, default=94_949)
    parser.add_argument("--events", type=int, default=3_100_000)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--precision", choices=("float32", "mixed"))
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(THREADS)
    size = {name: getattr(given, name) for name in ("users", "items", "events", "steps")}
    if given.precision:
        print(json.dumps(train(**size, mixed=given.precision == "mixed")))
        return
    gains = torch.cpu.get_capabilities()
    kinds = ["float32", *(["mixed"] if gains.get("avx512_bf16") or gains.get("amx_bf16") else [])]
    rows = {kind: _apart(kind, size) for kind in kinds}
    print(f"{'precision':>9} {'s / step':>8} {'s in all':>8} {'peak MB':>8} {'first loss':>10} {'last loss':>10}")
    for kind, row in rows.items():
        print(
            f"{kind:>9} {row['step_s']:>8.2f} {row['total_s']:>8.1f} {row['peak_rss_mb']:>8.0f} "
            f"{row['first_loss']:>10.3e} {row['last_loss']:>10.3e}"
        )
    if given.json:
        write_json(given.json, {"machine": machine(THREADS), **size, "rows": rows})


def train(users: int, items: int, events: int, steps: int, *, mixed: bool) -> dict[str, Any]:
    """Make so many steps. Returns: median seconds of a step, seconds in all, peak memory, losses."""
    chosen = recipe("diffrec", "amazon-book-clean")
    assert isinstance(chosen.config, DiffRecConfig)
    assert isinstance(chosen.training, TrainingConfig)
    rows = weigh(histories(users, items, events), chosen.config, items)
    denoiser = MLPDenoiser(items, chosen.config.hidden, generator=torch.Generator().manual_seed(1))
    task = Few(chosen.config, denoiser, rows, chosen.training.batch_size, steps)
    began = time.perf_counter()
    training = chosen.training.model_copy(update={"epochs": 1})
    fit(task, training, torch.Generator().manual_seed(1), mixed=mixed)
    total = time.perf_counter() - began
    times = np.diff(task.times)
    return {
        "step_s": float(np.median(times)),
        "total_s": total,
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "first_loss": task.losses[0],
        "last_loss": task.losses[-1],
        "events": int(rows.lengths.sum()),
    }


class Few(RowTraining):
    """DiffRec's own training, cut off after some steps, with the time and loss of each."""

    def __init__(
        self, config: DiffRecConfig, denoiser: MLPDenoiser, rows: SparseRows, batch_size: int, steps: int
    ) -> None:
        super().__init__(config, denoiser, rows, batch_size)
        self.steps, self.times, self.losses = steps, list[float](), list[float]()

    def batches(self, generator: torch.Generator) -> Iterator[Tensor]:
        """As many as are wanted."""
        for batch in islice(super().batches(generator), self.steps):
            self.times.append(time.perf_counter())
            yield batch
        self.times.append(time.perf_counter())

    def loss(self, batch: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """As it is, noted."""
        values = super().loss(batch, generator)
        self.losses.append(float(values["mse"].detach().mean()))
        return values


def histories(users: int, items: int, events: int) -> Ragged:
    """Distinct items for every user, at least five, the popular ones more often."""
    rng = np.random.default_rng(1)
    lengths = 5 + rng.multinomial(max(events - 5 * users, 0), rng.dirichlet(np.full(users, 0.7)))
    chance = 1 / np.arange(1, items + 1) ** 0.8
    draws = rng.choice(items, size=int(lengths.sum() * 1.1), p=chance / chance.sum())
    user = np.repeat(np.arange(users), np.ceil(lengths * 1.1).astype(np.int64))[: len(draws)]
    pairs = np.unique(user[: len(draws)] * items + draws[: len(user)])
    pairs = np.sort(rng.permutation(pairs)[:events])
    counts = torch.from_numpy(np.bincount(pairs // items, minlength=users))
    return Ragged(offsets(counts), torch.from_numpy(pairs % items))


def _apart(precision: str, size: dict[str, int]) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.large_rows", "--precision", precision]
    command += [word for name, value in size.items() for word in (f"--{name}", str(value))]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


if __name__ == "__main__":
    main()
