"""What is left of accuracy after training on a tenth, a quarter and half of the events.

    python -m benchmarks.sparsity [--data DATASET] [--methods diffrec:atelier,ease:atelier,popularity] [--shares .1,.25,.5,1]
        [--seeds 1] [--trials 0] [--set KEY=VALUE] [--keep FOLDER] [--json FILE] [--page FILE.html]

The first method is held against the others. Shares are drawn by user and item and nest (`Protocol.fit_share`); histories
that are asked after, and users, are the same throughout. Without --data: the small embedded world.
"""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.reverse_chain import machine
from rediffuse.cli.compare import recipes
from rediffuse.cli.console import settings
from rediffuse.cli.running import Comparison
from rediffuse.config import RunConfig
from rediffuse.data.dataset import Dataset
from rediffuse.data.importers.atelier import load
from rediffuse.data.splits import GlobalTime
from rediffuse.evaluation.evaluate import Scores
from rediffuse.evaluation.protocol import Protocol, protocol_for
from rediffuse.evaluation.report import write_page
from rediffuse.evaluation.report.as_json import to_plain
from rediffuse.evaluation.report.comparison import Verdict
from rediffuse.evaluation.report.page import Page
from rediffuse.evaluation.report.studies import sentences
from rediffuse.evaluation.studies.sparsity import by_share
from rediffuse.evaluation.study import Study
from rediffuse.files import write_json
from rediffuse.registry import Recipe

METHODS = "diffrec:atelier,ease:atelier,popularity"


def main() -> None:
    """Train every method on every share, and say what is left."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--methods", default=METHODS)
    parser.add_argument("--shares", default=".1,.25,.5,1")
    parser.add_argument("--seeds", default="1")
    parser.add_argument("--trials", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], dest="sets")
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--page", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    dataset = load("small").with_split(GlobalTime()) if arguments.data is None else Dataset.read(arguments.data)
    protocol = protocol_for(dataset, seeds=tuple(int(seed) for seed in arguments.seeds.split(",")))
    chosen = recipes(arguments.methods.split(","), settings(arguments.sets))
    shares = [float(share) for share in arguments.shares.split(",")]
    run = RunConfig(threads=arguments.threads).resolve()
    study = learned(dataset, protocol, chosen, shares, run, trials=arguments.trials, keep=arguments.keep)
    for sentence in sentences(study.section):
        print(sentence)
    if arguments.json:
        command = shlex.join(["python", "-m", "benchmarks.sparsity", *sys.argv[1:]])
        facts = {"machine": machine(arguments.threads), "command": command, "dataset": dataset.digest()}
        write_json(arguments.json, {**facts, "protocol": protocol.describe(dataset), **to_plain(study.values)})
    if arguments.page:
        said = tuple(sentences(study.section))
        title = f"Learning from a share of {dataset.name}"
        subtitle = f"{protocol.name} · seeds {arguments.seeds}"
        write_page(arguments.page, Page(title, subtitle, "Findings", Verdict("open", said), "", [study.section]))


def learned(
    dataset: Dataset,
    protocol: Protocol,
    chosen: Sequence[Recipe],
    shares: Sequence[float],
    run: RunConfig,
    *,
    trials: int = 0,
    keep: Path | None = None,
) -> Study:
    """Every method after every share, the first held against the others on the same users."""
    found: list[tuple[float, dict[str, Scores]]] = []
    for share in sorted(shares):
        some = protocol.model_copy(update={"fit_share": share})
        runs = Comparison(dataset, some, run, trials, keep).run_all(chosen)
        found.append((share, {one.result.method: one.scores for one in runs}))
        means = (f"{one.result.method} {one.scores.mean(protocol.select_by):.4f}" for one in runs)
        print(f"{share:>5.0%}  {protocol.select_by}  {'  '.join(means)}", flush=True)
    k = protocol.select_by.partition("@")[2]
    return by_share(found, [f"recall@{k}", f"ndcg@{k}"])


if __name__ == "__main__":
    main()
