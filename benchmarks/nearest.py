"""Seconds of exact and of approximate search for the largest inner products among a million items.

    python -m benchmarks.nearest [--json FILE]

1,000,000 items of 64 numbers in 1,000 Gaussian clusters with log-normal norms, seed 0; points of the same clusters; top
100. Exact: 256 points at once, with the memory beyond the table, and one. By an index: how long it takes to build, what
it finds of the exact answer for 256 points that it was not measured with, and one point; and that an index which is too
coarse is refused. Best of 5, one point the median of 20.
"""

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from rediffuse.cli.memory import forget_peak, peak_rss_mb
from rediffuse.errors import InvalidInput
from rediffuse.files import write_json
from rediffuse.grounding.nearest import Index, InnerProduct
from rediffuse.types import Assortment

ITEMS, WIDTH, CLUSTERS, POINTS, K, THREADS = 1_000_000, 64, 1_000, 256, 100, 2
WITHIN, NORMS = 0.5, 0.5
"""Standard deviations: of a cluster, whose centres have 1, and of the logarithm of the norms."""
BATCH_LIMIT_S, MEMORY_LIMIT_MB, FASTER, FLOOR = 2.0, 1024.0, 5.0, 0.95


@dataclass(frozen=True)
class Row:
    """All that is measured."""

    batch_s: float
    """Exact, POINTS at once."""
    processor_s: float
    """Of all threads together during that: over the threads it is what a quiet machine takes."""
    beyond_mb: float
    """The most memory during that, beyond what was held before it."""
    exact_ms: float
    """Exact, one point."""
    build_s: float
    index_ms: float
    """By the index, one point."""
    recall: float
    """Of the index, for other points than it was measured with when it was built."""
    offered_ms: float
    """By the index, one point, half of the catalog offered."""
    refusal: str
    """What an index that reads one cluster is told."""

    @property
    def faster(self) -> float:
        """How often the search by the index fits into the exact one."""
        return self.exact_ms / self.index_ms


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--threads", type=int, default=THREADS)
    parser.add_argument("--items", type=int, default=ITEMS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    load = os.getloadavg()[0]
    row = measure(arguments.items)
    print(f"{arguments.items:,} items x {WIDTH}, top {K}, {arguments.threads} threads, load before {load:.1f}")
    print(f"exact, {POINTS} points: {row.batch_s:.2f} s (limit {BATCH_LIMIT_S:.0f}), processor {row.processor_s:.2f} s")
    print(f"memory beyond the table: {row.beyond_mb:,.0f} MB (limit {MEMORY_LIMIT_MB:,.0f})")
    print(
        f"one point: exact {row.exact_ms:.1f} ms, index {row.index_ms:.2f} ms: {row.faster:.0f}x (least {FASTER:.0f}x)"
    )
    print(f"index, half of the catalog offered: {row.offered_ms:.2f} ms")
    print(f"index: built in {row.build_s:.1f} s, recall@{K} {row.recall:.3f} (least {FLOOR})")
    print(f"too coarse: {row.refusal}")
    if arguments.json:
        machine = {
            "machine": platform.machine(),
            "torch": torch.__version__,
            "threads": arguments.threads,
            "load": load,
        }
        write_json(arguments.json, {**machine, "items": arguments.items, "k": K, **asdict(row), "faster": row.faster})


def measure(n_items: int) -> Row:
    """Everything once."""
    centres = torch.randn(CLUSTERS, WIDTH, generator=torch.Generator().manual_seed(0))
    table = InnerProduct(items(n_items, centres))
    held_out, points = (around(centres, POINTS, seed) for seed in (1, 2))
    forget_peak()
    before = peak_rss_mb()
    batch_s, processor_s = best_of(lambda: table(points, K))
    beyond = peak_rss_mb() - before
    began = time.perf_counter()
    index = Index.built(table, held_out, k=K, floor=FLOOR)
    build_s = time.perf_counter() - began
    exact, found = table(points, K).items, index(points, K).items
    recall = float((found.unsqueeze(2) == exact.unsqueeze(1)).any(1).float().mean())
    half = Assortment(torch.arange(n_items) % 2 == 0)
    one = points[:1]
    exact_ms, index_ms, offered_ms = (
        1e3 * median_of(work)
        for work in (lambda: table(one, K), lambda: index(one, K), lambda: index(one, K, candidates=half))
    )
    try:
        Index.built(table, held_out, k=K, probes=1, floor=FLOOR)
        refusal = "not refused"
    except InvalidInput as error:
        refusal = str(error)
    return Row(batch_s, processor_s, beyond, exact_ms, build_s, index_ms, recall, offered_ms, refusal)


def items(n: int, centres: Tensor) -> Tensor:
    """Vectors of the clusters, whose norms are log-normal; (n, WIDTH)."""
    generator = torch.Generator().manual_seed(0)
    directions = torch.nn.functional.normalize(around(centres, n, 0))
    return directions * torch.exp(NORMS * torch.randn(n, 1, generator=generator))


def around(centres: Tensor, n: int, seed: int) -> Tensor:
    """Points around centres drawn at random, (n, WIDTH)."""
    generator = torch.Generator().manual_seed(seed)
    own = centres[torch.randint(len(centres), (n,), generator=generator)]
    return own + WITHIN * torch.randn(n, WIDTH, generator=generator)


def best_of(work: Callable[[], object], repeats: int = 5) -> tuple[float, float]:
    """The least seconds, and the least processor seconds."""
    walls, processors = list[float](), list[float]()
    for _ in range(repeats):
        began = time.process_time()
        walls.append(seconds(work))
        processors.append(time.process_time() - began)
    return min(walls), min(processors)


def median_of(work: Callable[[], object], repeats: int = 20) -> float:
    """Median seconds, after one run to warm up."""
    work()
    return statistics.median(seconds(work) for _ in range(repeats))


def seconds(work: Callable[[], object]) -> float:
    """Of one run."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
