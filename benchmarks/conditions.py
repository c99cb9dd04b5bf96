"""What a condition that means nothing costs: DiffRec with a random word for each user, against DiffRec without.

    python -m benchmarks.conditions [--data DATASET] [--preset atelier] [--words 8] [--seeds 1,2,3] [--set KEY=VALUE]
        [--json FILE]

Wanted: ndcg@10 changes by less than 2 %, and the 95 % interval of the change lies within +-2 %. Per-user means over the
training seeds are compared; the interval is that of the paired difference over the mean without the condition. The same
network trained with other seeds is told beside it: so much changes with nothing changed. Without --data: the small
embedded world.
"""

import argparse
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from benchmarks.reverse_chain import machine
from rediffuse.cli.console import settings
from rediffuse.config import RunConfig
from rediffuse.data.catalog import Catalog
from rediffuse.data.dataset import Dataset
from rediffuse.data.importers.atelier import load
from rediffuse.data.splits import GlobalTime
from rediffuse.evaluation.evaluate import Scores, Task, evaluate
from rediffuse.evaluation.protocol import Protocol, protocol_for
from rediffuse.evaluation.statistics import Interval, paired
from rediffuse.files import write_json
from rediffuse.random import stable_key
from rediffuse.registry import fit, recipe

NAME, METRIC, MOST = "noise", "ndcg@10", 0.02


def main() -> None:
    """Train with and without, and say what changed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--preset", default="atelier")
    parser.add_argument("--words", type=int, default=8)
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--set", action="append", default=[], dest="sets")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    plain = load("small").with_split(GlobalTime()) if arguments.data is None else Dataset.read(arguments.data)
    dataset, seeds = with_noise(plain, arguments.words), [int(seed) for seed in arguments.seeds.split(",")]
    protocol, given = protocol_for(dataset), settings(arguments.sets)
    run = RunConfig(threads=arguments.threads).resolve()
    found = {
        label: scores(dataset, protocol, arguments.preset, {**given, **more}, chosen, run)
        for label, more, chosen in (
            ("without", {}, seeds),
            ("with", {"condition": [NAME]}, seeds),
            ("without, other seeds", {}, [seed + 1000 for seed in seeds]),
        )
    }
    out: dict[str, Any] = {label: one.intervals[METRIC].to_json() for label, one in found.items()}
    for label in ("with", "without, other seeds"):
        gap = change(found[label], found["without"])
        inside = abs(gap.mean) < MOST and gap.low > -MOST and gap.high < MOST
        print(f"{label}: {METRIC} changes by {gap.mean:+.2%} [{gap.low:+.2%}, {gap.high:+.2%}], within 2 %: {inside}")
        out[f"change, {label}"] = {**gap.to_json(), "within": inside}
    if arguments.json:
        command = shlex.join(["python", "-m", "benchmarks.conditions", *sys.argv[1:]])
        facts = {"machine": machine(arguments.threads), "command": command, "dataset": plain.digest(), "seeds": seeds}
        write_json(arguments.json, {**facts, **out})


def with_noise(dataset: Dataset, words: int) -> Dataset:
    """The same with a word for each user that depends on nothing but the external id."""
    drawn = [f"w{stable_key(f'{NAME} {user}') % words}" for user in dataset.users.items.ids]
    table = dataset.users.attributes.with_columns(pl.Series(NAME, drawn))
    return replace(dataset, users=Catalog(dataset.users.items, table))


def scores(
    dataset: Dataset,
    protocol: Protocol,
    preset: str | None,
    given: Mapping[str, Any],
    seeds: Sequence[int],
    run: RunConfig,
) -> Scores:
    """Each user's mean over trainings of several seeds."""
    only, task, found = protocol.only(METRIC), Task.of(dataset, protocol.report), list[Scores]()
    for seed in seeds:
        model = fit(recipe("diffrec", preset, given), dataset, protocol, run.model_copy(update={"seed": seed})).model
        found.append(evaluate(model, task, only, seed=seed))
        print(f"{given.get('condition', [])} seed {seed}: {METRIC} {found[-1].mean(METRIC):.4f}", flush=True)
    return Scores.over_seeds(found)


def change(one: Scores, other: Scores) -> Interval:
    """The paired difference as a share of the other's mean, which counts as exact."""
    gap, base = paired(one.of(METRIC), other.of(METRIC))[0], float(np.nanmean(other.of(METRIC)))
    return Interval(gap.mean / base, gap.low / base, gap.high / base)


if __name__ == "__main__":
    main()
