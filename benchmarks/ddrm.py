"""DDRM over one backbone beside all its controls, over several seeds: does denoising add anything to a mean of vectors?

    python -m benchmarks.ddrm --data DATASET [--protocol as-shipped] [--metric ndcg@20] [--seeds 1,2,3,4,5]
        [--backbone lightgcn] [--preset NAME] [--trials 0] [--set METHOD.KEY=VALUE] [--keep FOLDER]
        [--device auto] [--json FILE]

For each seed the backbone is trained once; everything else stands on its tables. With --trials DDRM is tuned on the
selection part with the first seed, and its controls take what was chosen. The controls: the backbone itself, the mean of the
history with nothing learned, the same weights in one step and from a start without noise, the same network trained without
noise, EASE and popularity. Each is held against DDRM on the same users, paired, the mean over seeds of each.
"""

import argparse
import shlex
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks.reverse_chain import machine
from rediffuse import registry
from rediffuse.cli.console import find_protocol, settings
from rediffuse.cli.running import Comparison, Run
from rediffuse.config import RunConfig
from rediffuse.data.dataset import Dataset
from rediffuse.data.importers.vectors import write_vectors
from rediffuse.errors import InvalidInput, say
from rediffuse.evaluation.evaluate import Scores, Task, evaluate
from rediffuse.evaluation.protocol import Protocol
from rediffuse.evaluation.statistics import holm, paired
from rediffuse.files import sha256, write_json
from rediffuse.protocols import Embeds
from rediffuse.registry import Recipe
from rediffuse.types import Options

SAME_WEIGHTS: Mapping[str, Options] = {
    "ddrm, one step": Options(steps=1),
    "ddrm, start without noise": Options(start="history"),
}
"""Controls that need no training."""


@dataclass
class Table:
    """What was measured so far."""

    dataset: Dataset
    protocol: Protocol
    run: RunConfig
    keep: Path | None = None
    rows: dict[str, list[Scores]] = field(default_factory=dict[str, list[Scores]])
    """Name -> over the seeds."""

    def add(self, name: str, scores: Scores) -> None:
        """Another seed."""
        self.rows.setdefault(name, []).append(scores)

    def runs(self, chosen: Sequence[Recipe], seed: int, trials: int = 0) -> list[Run]:
        """Train and score with one seed."""
        protocol = self.protocol.model_copy(update={"seeds": (seed,)})
        return Comparison(self.dataset, protocol, self.run, trials, self.keep).run_all(chosen)

    def over_seeds(self) -> dict[str, Scores]:
        """The mean of each user's metrics."""
        return {name: Scores.over_seeds(scores) for name, scores in self.rows.items()}


def main() -> None:
    """Measure the table and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--protocol")
    parser.add_argument("--metric", default="ndcg@20")
    parser.add_argument("--seeds", default="1,2,3,4,5")
    parser.add_argument("--backbone", default="lightgcn")
    parser.add_argument("--preset")
    parser.add_argument("--trials", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], dest="sets")
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    dataset = Dataset.read(arguments.data)
    seeds = tuple(int(seed) for seed in arguments.seeds.split(","))
    protocol = find_protocol(dataset, arguments.protocol, seeds=seeds, select_by=arguments.metric)
    run = RunConfig.make(device=arguments.device, threads=arguments.threads).resolve()
    table = Table(dataset, protocol, run, arguments.keep)
    given = settings(arguments.sets)
    floors = [registry.recipe(name, settings=_of(given, name)) for name in ("popularity", "ease")]
    for one in table.runs(floors, seeds[0]):
        table.add(one.result.method, one.scores)
    chosen = measured(table, seeds, arguments.backbone, arguments.preset, given, arguments.trials)
    compared = against(table.over_seeds(), arguments.metric)
    for name, entry in compared.items():
        print(f"{name:28} {entry['mean']:.4f}  {entry.get('versus', '')}", flush=True)
    if arguments.json:
        command = shlex.join(["python", "-m", "benchmarks.ddrm", *sys.argv[1:]])
        facts = {"machine": machine(run.threads), "device": run.device, "command": command, "data": dataset.digest()}
        write_json(
            arguments.json,
            {**facts, "protocol": protocol.describe(dataset), "settings": chosen.describe(), "rows": compared},
        )


def measured(
    table: Table,
    seeds: Sequence[int],
    backbone: str,
    preset: str | None,
    given: Mapping[str, Any],
    trials: int,
) -> Recipe:
    """Fill the table. Returns: DDRM as it was chosen."""
    base = registry.recipe(*registry.named(backbone), _of(given, registry.named(backbone)[0]))
    chosen, task = registry.recipe("ddrm", preset, _of(given, "ddrm")), Task.of(table.dataset, table.protocol.report)
    with tempfile.TemporaryDirectory() as folder:
        for seed in seeds:
            below = table.runs([base], seed)[0]
            on = {"tables": str(exported(below, table.keep or Path(folder)))}
            tuned = table.runs([chosen.changed(on)], seed, trials if seed == seeds[0] else 0)[0]
            chosen = tuned.fitted.recipe
            quiet = chosen.changed(dict(registry.method_class("ddrm").presets["no-noise"]))
            mean = registry.recipe("history_mean", settings={**_of(given, "history_mean"), **on})
            still, clean = table.runs([mean, replace(quiet, preset="no-noise", role="control")], seed)
            table.add(f"{base.label}, u . i", below.scores)
            table.add("history mean", still.scores)
            table.add("ddrm", tuned.scores)
            table.add("ddrm, trained without noise", clean.scores)
            for name, options in SAME_WEIGHTS.items():
                model = tuned.fitted.model
                table.add(name, evaluate(model, task, table.protocol, options=options, seed=seed))
    return chosen.changed({"tables": None, "backbone": backbone})


def exported(below: Run, folder: Path) -> Path:
    """The backbone's tables as a file whose name tells its content, so that what is kept of them is not mistaken.

    Raises: InvalidInput when it has none.
    """
    method = below.fitted.method
    if not isinstance(method, Embeds):
        raise InvalidInput(say("The backbone has no tables of vectors", remedy="Take lightgcn, mf, sgl or als"))
    with tempfile.TemporaryDirectory() as place:
        made = Path(place) / "tables.safetensors"
        write_vectors(made, below.fitted.folder.items, method.embeddings())
        target = folder / f"{sha256(made)[:16]}.safetensors"
    write_vectors(target, below.fitted.folder.items, method.embeddings())
    return target


def against(rows: Mapping[str, Scores], metric: str) -> dict[str, dict[str, Any]]:
    """Each row's mean with its interval, and by how much DDRM is better on the same users; p Holm-corrected."""
    mine = rows["ddrm"].of(metric)
    pairs = {name: paired(mine, scores.of(metric)) for name, scores in rows.items() if name != "ddrm"}
    p = dict(zip(pairs, holm([value for _, value in pairs.values()]), strict=True))
    out: dict[str, dict[str, Any]] = {}
    for name, scores in rows.items():
        entry: dict[str, Any] = {"mean": scores.mean(metric)}
        entry["metrics"] = {key: interval.to_json() for key, interval in scores.intervals.items()}
        if name in pairs:
            gap = pairs[name][0]
            entry["ddrm_minus_this"] = {**gap.to_json(), "p": p[name]}
            entry["versus"] = f"ddrm {gap.mean:+.4f} [{gap.low:+.4f}, {gap.high:+.4f}], p {p[name]:.2g}"
        out[name] = entry
    return out


def _of(given: Mapping[str, Any], label: str) -> dict[str, Any]:
    """The settings named for one method, METHOD.KEY, by their keys."""
    return {key.partition(".")[2]: value for key, value in given.items() if key.partition(".")[0] == label}


if __name__ == "__main__":
    main()
