"""Seconds for a batch of answers: the reverse chain in hidden space against the dense chain of the paper.

    python -m benchmarks.reverse_chain [--json FILE]

Batch 256, one hidden layer, top 100 on both sides with the history masked, same weights, M cached, median of 5.
Beside each ratio stands the bound by arithmetic: multiply-adds of the dense chain over those of ours.
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from benchmarks.rivals.dense_diffrec import DenseDiffRec, Settings
from rediffuse.data.weighting import weigh
from rediffuse.files import write_json
from rediffuse.models.diffrec import DiffRec, DiffRecConfig
from rediffuse.types import Query, Ragged

BATCH, TOP, EVENTS, REPEATS, THREADS = 256, 100, 60, 5, 2
CASES = ((2_810, 600, 40, 6.5), (20_000, 1_000, 5, 6.5), (100_000, 300, 40, 50.0))
"""Items, hidden width, levels, the ratio we hold ourselves to."""


@dataclass(frozen=True)
class Row:
    """One case."""

    items: int
    hidden: int
    levels: int
    dense_s: float
    ours_s: float
    ratio: float
    target: float
    bound: float
    same_top: float
    """Share of lists with the same 100 items."""


def main() -> None:
    """Run all cases and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--threads", type=int, default=THREADS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows = [measure(*case) for case in CASES]
    print(
        f"{'items':>8} {'H':>5} {'T':>3} {'dense s':>9} {'ours s':>8} {'ratio':>6} {'target':>6} {'bound':>6} {'same top-100':>13}"
    )
    for row in rows:
        print(
            f"{row.items:>8,} {row.hidden:>5} {row.levels:>3} {row.dense_s:>9.3f} {row.ours_s:>8.4f} {row.ratio:>6.1f} "
            f"{row.target:>6.1f} {row.bound:>6.1f} {row.same_top:>13.1%}"
        )
    if arguments.json:
        write_json(arguments.json, {"machine": machine(arguments.threads), "rows": [asdict(row) for row in rows]})


def measure(items: int, hidden: int, levels: int, target: float) -> Row:
    """Both sides on the same histories and weights."""
    generator = torch.Generator().manual_seed(0)
    query = Query.from_history(
        Ragged.of([torch.randperm(items, generator=generator)[:EVENTS].tolist() for _ in range(BATCH)])
    )
    config = DiffRecConfig(hidden=(hidden,), levels=levels, noise_scale=0.005, noise_min=0.005, noise_max=0.01)
    rival = DenseDiffRec(Settings((hidden,), levels, 0.005, 0.005, 0.01, 1e-3, BATCH), items).eval()
    ours = DiffRec.restore(config, _weights(rival, items), "cpu")
    rows = weigh(query.history, config, items).dense()
    dense_s, theirs = timed(lambda: _dense_answer(rival, rows))
    ours_s, mine = timed(lambda: ours.recommend(query, TOP).items)
    events = EVENTS * hidden
    bound = levels * 2 * items * hidden / (events + levels * hidden**2 + items * hidden)
    same = (mine.sort(1).values == theirs.sort(1).values).all(1).to(torch.float64).mean()
    return Row(items, hidden, levels, dense_s, ours_s, dense_s / ours_s, target, bound, float(same))


def timed(answer: Callable[[], Tensor]) -> tuple[float, Tensor]:
    """Median seconds of five calls after one that warms up, and the answer."""
    result = answer()
    seconds: list[float] = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        result = answer()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds), result


def machine(threads: int) -> dict[str, object]:
    """What the figures were measured on."""
    return {
        "torch": torch.__version__,
        "python": platform.python_version(),
        "threads": threads,
        "cpu": torch.backends.cpu.get_cpu_capability(),
    }


@torch.no_grad()
def _dense_answer(rival: DenseDiffRec, rows: Tensor) -> Tensor:
    scores = rival.reverse_chain(rows)
    scores[rows > 0] = -torch.inf
    return scores.topk(TOP).indices


def _weights(rival: DenseDiffRec, items: int) -> dict[str, Tensor]:
    """The rival's weights under our names: its first layer is our lift and our time_lift."""
    first, last = (cast("nn.Linear", layer) for layer in (rival.layers[0], rival.layers[-1]))
    return {
        "time.weight": rival.time_layer.weight.detach(),
        "time.bias": rival.time_layer.bias.detach(),
        "lift_weight": first.weight[:, :items].detach().t().contiguous(),
        "time_lift.weight": first.weight[:, items:].detach().contiguous(),
        "time_lift.bias": first.bias.detach(),
        "out.weight": last.weight.detach(),
        "out.bias": last.bias.detach(),
    }


if __name__ == "__main__":
    main()
