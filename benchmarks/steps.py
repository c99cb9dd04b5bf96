"""What a model answers in fewer steps: accuracy at 1, 2, 4, 8, 32 and all of them, and what one step keeps.

    python -m benchmarks.steps FOLDER --data DATASET [--metric ndcg@10] [--steps 1,2,4,8,32] [--start START]
        [--repeats] [--device auto] [--json FILE]

FOLDER is a trained model that answers in steps. The best number of steps of 8 or more is chosen on the selection part;
what one step keeps of it is read on the report part, users paired. Wanted: 97 % or more.
"""

import argparse
import shlex
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.reverse_chain import machine
from rediffuse import registry
from rediffuse.artifacts import read_model
from rediffuse.data.dataset import Dataset
from rediffuse.errors import InvalidConfig, InvalidInput, say
from rediffuse.evaluation.evaluate import Scores, Task, evaluate
from rediffuse.evaluation.protocol import Protocol, protocol_for
from rediffuse.evaluation.statistics import paired
from rediffuse.files import write_json
from rediffuse.protocols import Recommender, Stepwise
from rediffuse.types import Options, Query, Ragged

MANY, WANTED = 8, 0.97


@dataclass(frozen=True)
class Row:
    """One number of steps."""

    steps: int
    chosen_on: float
    """Metric on the selection part."""
    scores: Scores
    """On the report part."""
    ms_per_user: float


def main() -> None:
    """Measure every number of steps, and say what one keeps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--metric", default="ndcg@10")
    parser.add_argument("--steps", default="1,2,4,8,32")
    parser.add_argument("--start", default=None)
    parser.add_argument("--repeats", action="store_true")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    dataset, folder = Dataset.read(arguments.data), read_model(arguments.folder)
    protocol = protocol_for(dataset).only(arguments.metric)
    protocol = protocol.with_repeats() if arguments.repeats else protocol
    protocol.check(dataset)
    method, model = registry.restore(folder, arguments.device)
    if not isinstance(method, Stepwise):
        raise InvalidInput(say(f"{folder.method} answers in one go", remedy="Take a model that answers in steps"))
    wanted = {*map(int, arguments.steps.split(",")), method.steps}
    asked = [steps for steps in sorted(wanted) if possible(method, steps)]
    rows = [measured(model, dataset, protocol, Options(steps=s, start=arguments.start)) for s in asked]
    told = kept(rows, arguments.metric)
    show(rows, told, arguments.metric)
    if arguments.json:
        found = {
            "machine": machine(arguments.threads),
            "command": shlex.join(["python", "-m", "benchmarks.steps", *sys.argv[1:]]),
            "method": folder.method,
            "settings": {**folder.config, **folder.training},
            "protocol": protocol.describe(dataset),
            "start": arguments.start or folder.config["start"],
            "rows": [
                {
                    "steps": row.steps,
                    "selection": row.chosen_on,
                    "report": row.scores.intervals[arguments.metric].to_json(),
                    "ms_per_user": row.ms_per_user,
                }
                for row in rows
            ],
            **told,
        }
        write_json(arguments.json, found)


def possible(method: Recommender, steps: int) -> bool:
    """Whether the model has so many levels."""
    try:
        method.recommend(Query.from_history(Ragged.of([[0]])), 1, options=Options(steps=steps))
    except (InvalidConfig, InvalidInput):
        return False
    return True


def measured(model: Recommender, dataset: Dataset, protocol: Protocol, options: Options) -> Row:
    """Accuracy on both parts, and the time of an answer among many."""
    assert options.steps is not None
    chosen_on = evaluate(model, Task.of(dataset, protocol.selection), protocol, options=options, seed=1)
    task, began = Task.of(dataset, protocol.report), time.perf_counter()
    scores = evaluate(model, task, protocol, options=options, seed=1)
    took = 1e3 * (time.perf_counter() - began) / max(len(task.query), 1)
    return Row(options.steps, chosen_on.mean(protocol.select_by), scores, took)


def kept(rows: list[Row], metric: str) -> dict[str, Any]:
    """What one step keeps of the best of many, chosen on the selection part; nothing where there are not so many."""
    many = [row for row in rows if row.steps >= MANY]
    one = next((row for row in rows if row.steps == 1), None)
    if one is None or not many:
        return {}
    best = max(many, key=lambda row: row.chosen_on)
    gap, p = paired(one.scores.of(metric), best.scores.of(metric))
    base = best.scores.mean(metric)
    share = 1 + gap.mean / base
    return {
        "best_steps": best.steps,
        "one_step_keeps": share,
        "one_step_keeps_low": 1 + gap.low / base,
        "one_step_keeps_high": 1 + gap.high / base,
        "p": p,
        "wanted": WANTED,
        "reached": share >= WANTED,
    }


def show(rows: list[Row], told: dict[str, Any], metric: str) -> None:
    """A line for each number of steps."""
    print(f"steps   {metric} selection    report                 ms a user")
    for row in rows:
        interval = row.scores.intervals[metric]
        found = f"{interval.mean:.4f} [{interval.low:.4f}, {interval.high:.4f}]"
        print(f"{row.steps:5d}   {row.chosen_on:17.4f}    {found}   {row.ms_per_user:7.2f}")
    if told:
        low, high = told["one_step_keeps_low"], told["one_step_keeps_high"]
        print(
            f"one step keeps {told['one_step_keeps']:.1%} [{low:.1%}, {high:.1%}] of {told['best_steps']} steps, "
            f"the best of {MANY} or more on the selection part (wanted {WANTED:.0%})"
        )


if __name__ == "__main__":
    main()
