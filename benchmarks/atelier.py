"""Where methods stand on Atelier between popularity and what can be known, and how sure the ceiling is.

    python -m benchmarks.atelier [--size small] [--seed 1] [--particles 64] [--converge 32,64,128,256] [--json FILE]

Split by time, standard protocol: history and mask train + valid, relevant test, the whole catalog ranked. The ceiling is
computed by four independent filters; its error is their standard deviation over 2. With --converge every eighth user is
asked again with other numbers of particles.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.reverse_chain import machine
from rediffuse.config import RunConfig
from rediffuse.data.dataset import Dataset
from rediffuse.data.importers.atelier import load
from rediffuse.data.splits import GlobalTime
from rediffuse.data.worlds.atelier import regenerate
from rediffuse.data.worlds.atelier_references import PARTICLES, Ceiling, references, window_of
from rediffuse.evaluation.evaluate import Scores, Task, evaluate
from rediffuse.evaluation.protocol import Protocol
from rediffuse.evaluation.statistics import paired
from rediffuse.files import write_json
from rediffuse.protocols import Recommender
from rediffuse.registry import fit, recipe

RIVALS = (("popularity", None), ("ease", "atelier"), ("ease", "atelier-recent"))


def main() -> None:
    """Print the table, and write it where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="small")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--particles", type=int, default=PARTICLES)
    parser.add_argument("--converge", default="")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    dataset = load(arguments.size, seed=arguments.seed).with_split(GlobalTime())
    protocol = Protocol()
    task = Task.of(dataset, protocol.report)
    out: dict[str, Any] = {"machine": machine(arguments.threads), "dataset": dataset.digest(), "users": len(task.query)}
    out["methods"] = stand(dataset, task, protocol, arguments.particles)
    counts = [int(text) for text in arguments.converge.split(",") if text]
    if counts:
        out["convergence"] = converge(dataset, task, protocol, counts)
    if arguments.json:
        write_json(arguments.json, out)


def stand(dataset: Dataset, task: Task, protocol: Protocol, particles: int) -> dict[str, Any]:
    """Every method on the same users, worst first; each against the one above it."""
    found: dict[str, Scores] = {}
    facts: dict[str, dict[str, Any]] = {}
    for name, preset in RIVALS:
        chosen = recipe(name, preset)
        found[chosen.label] = evaluate(fit(chosen, dataset, protocol, RunConfig()).model, task, protocol)
        facts[chosen.label] = {}
    for reference in references(dataset, *window_of(dataset, protocol.report.relevant), particles=particles):
        runs, seconds = zip(
            *(_timed(reference.make(n), task, protocol) for n in range(reference.replicates)), strict=True
        )
        values = np.mean([run.values for run in runs], axis=0)
        found[reference.name] = Scores(protocol.names, values)
        by_replicate = [run.mean("recall@20") for run in runs]
        error = float(np.std(by_replicate, ddof=1) / np.sqrt(len(runs))) if len(runs) > 1 else 0.0
        facts[reference.name] = {"seconds": list(seconds), "recall@20 by replicate": by_replicate, "error": error}
    previous: str | None = None
    for name, scores in found.items():
        facts[name] |= {n: i.to_json() for n, i in scores.intervals.items() if n in ("recall@20", "ndcg@20")}
        at = scores.intervals["recall@20"]
        line = f"{name:>20} recall@20 {at.mean:.4f} [{at.low:.4f}, {at.high:.4f}] ndcg@20 {scores.mean('ndcg@20'):.4f}"
        if previous:
            gap, _ = paired(scores.of("recall@20"), found[previous].of("recall@20"))
            facts[name]["ahead of " + previous] = gap.to_json()
            line += f"  ahead of {previous} by {gap.mean:+.4f} [{gap.low:+.4f}, {gap.high:+.4f}]"
        print(line)
        previous = name
    print({name: value for name, value in facts["ceiling"].items() if name in ("seconds", "error")})
    return facts


def converge(dataset: Dataset, task: Task, protocol: Protocol, counts: list[int]) -> list[dict[str, Any]]:
    """The ceiling with other numbers of particles, on every eighth user: two filters each."""
    rows = torch.arange(0, len(task.query), 8)
    part = Task(task.query.select(rows), task.relevant.select(rows), task.undefined)
    world, window = regenerate(dataset.facts), window_of(dataset, protocol.report.relevant)
    out: list[dict[str, Any]] = []
    for particles in counts:
        pair = [Ceiling(world, window, particles, seed) for seed in (1, 2)]
        recall = [_timed(one, part, protocol)[0].mean("recall@20") for one in pair]
        alive = [float(np.mean(list(one.effective.values()))) for one in pair]
        out.append({"particles": particles, "recall@20": recall, "mean effective": alive, "users": len(rows)})
        print(out[-1])
    return out


def _timed(model: Recommender, task: Task, protocol: Protocol) -> tuple[Scores, float]:
    began = time.perf_counter()
    return evaluate(model, task, protocol), round(time.perf_counter() - began, 2)


if __name__ == "__main__":
    main()
