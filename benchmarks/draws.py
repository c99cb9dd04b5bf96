"""Seconds for many draws of one user in one batch, against one answer and against as many separate answers.

    python -m benchmarks.draws [--json FILE]

One user, 60 events, 20,000 items, one hidden layer of H, T = 40, top 10, noise drawn at every step; median of 5, the
separate answers once. One answer is drawn too (a draw among one), and beside it stands the answer without any noise.
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from rediffuse.denoisers import MLPDenoiser
from rediffuse.files import write_json
from rediffuse.models.diffrec import DiffRec, DiffRecConfig
from rediffuse.types import Options, Query, Ragged

ITEMS, EVENTS, LEVELS, DRAWS, REPEATS, THREADS = 20_000, 60, 40, 64, 5, 2
WIDTHS = (200, 600, 1_000)
ONE_LIMIT, SEPARATE_LIMIT = 20.0, 1 / 3


@dataclass(frozen=True)
class Row:
    """One hidden width."""

    hidden: int
    plain_ms: float
    """One answer without noise."""
    one_ms: float
    """One answer with noise at every step."""
    together_ms: float
    """All draws in one batch, with mean, spread and probabilities."""
    separate_ms: float
    """As many answers one by one, each of one draw."""

    @property
    def of_plain(self) -> float:
        """How often the plain answer fits in."""
        return self.together_ms / self.plain_ms

    @property
    def of_one(self) -> float:
        """How often the noisy answer fits in."""
        return self.together_ms / self.one_ms

    @property
    def of_separate(self) -> float:
        """Share of the separate answers' time."""
        return self.together_ms / self.separate_ms


def main() -> None:
    """Run all widths and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--threads", type=int, default=THREADS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows = [measure(hidden) for hidden in WIDTHS]
    print(f"{DRAWS} draws, {ITEMS:,} items, T = {LEVELS}; limits: {ONE_LIMIT:.0f}x one answer, 1/3 of separate ones")
    print(
        f"{'H':>5} {'plain ms':>9} {'one ms':>8} {'together':>9} {'separate':>9} {'/plain':>7} {'/one':>6} {'/sep.':>6}"
    )
    for row in rows:
        print(
            f"{row.hidden:>5} {row.plain_ms:>9.1f} {row.one_ms:>8.1f} {row.together_ms:>9.1f} {row.separate_ms:>9.1f} "
            f"{row.of_plain:>7.1f} {row.of_one:>6.1f} {row.of_separate:>6.2f}"
        )
    if arguments.json:
        machine = {"machine": platform.machine(), "torch": torch.__version__, "threads": arguments.threads}
        ratios = [{**asdict(r), "of_plain": r.of_plain, "of_one": r.of_one, "of_separate": r.of_separate} for r in rows]
        write_json(arguments.json, {**machine, "items": ITEMS, "draws": DRAWS, "levels": LEVELS, "rows": ratios})


def measure(hidden: int) -> Row:
    """One width, with random weights: the time does not depend on them."""
    generator = torch.Generator().manual_seed(0)
    config = DiffRecConfig(hidden=(hidden,), levels=LEVELS, noise_scale=0.5, draws_start="noised_history")
    model = DiffRec(config, MLPDenoiser(ITEMS, config.hidden, generator=generator).eval())
    noisy = DiffRec(config.model_copy(update={"sampling_noise": True, "start": "noised_history"}), model.denoiser)
    history = Ragged.of([torch.randperm(ITEMS, generator=generator)[:EVENTS].tolist()])
    query = Query.from_history(history)
    many = Options(draws=DRAWS)

    def separately() -> None:
        for seed in range(DRAWS):
            noisy.recommend(query, 10, seed=seed)

    plain = timed(lambda: model.recommend(query, 10))
    one = timed(lambda: noisy.recommend(query, 10))
    together = timed(lambda: noisy.recommend(query, 10, options=many))
    return Row(hidden, plain, one, together, timed(separately, 1))


def timed(work: Callable[[], object], repeats: int = REPEATS) -> float:
    """Median milliseconds, after one run to warm up."""
    work()
    found: list[float] = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        found.append(1e3 * (time.perf_counter() - began))
    return statistics.median(found)


if __name__ == "__main__":
    main()
