"""`train`: learn a model from a dataset and publish its folder."""

import hashlib
import json
from pathlib import Path
from typing import Annotated

import typer

from rediffuse import registry
from rediffuse.cli.console import (
    DataOption,
    DeviceOption,
    PrecisionOption,
    ProtocolOption,
    SeedOption,
    SetOption,
    ThreadsOption,
    find_protocol,
    line,
    run_config,
    settings,
    tell,
    training_progress,
)
from rediffuse.config import RunConfig
from rediffuse.data.dataset import Dataset
from rediffuse.errors import InvalidInput, say
from rediffuse.evaluation.protocol import Protocol
from rediffuse.training.checkpoint import FolderCheckpoint


def train(
    method: Annotated[
        str, typer.Argument(help=f"One of {', '.join(registry.METHODS)}, or one that an installed package adds.")
    ],
    data: DataOption,
    to: Annotated[Path, typer.Option("--to", help="Model folder to make.")],
    protocol: ProtocolOption = None,
    preset: Annotated[str | None, typer.Option(help="Named settings, for example ml-1m-clean.")] = None,
    sets: SetOption = None,
    device: DeviceOption = "auto",
    precision: PrecisionOption = "float32",
    threads: ThreadsOption = 0,
    seed: SeedOption = 1,
) -> None:
    """Learn a model and publish its folder. An interrupted training goes on with the same command.

    Example: `rediffuse train ease --data data/shop --set regularization=1000 --to models/ease`
    """
    if to.exists():
        raise InvalidInput(say(f"{str(to)!r} exists already", remedy="Choose another place or remove it first"))
    run = run_config(device, precision, threads, seed)
    chosen = registry.recipe(method, preset, settings(sets))
    dataset = Dataset.read(data)
    found = find_protocol(dataset, protocol, seeds=(seed,))
    checkpoint = FolderCheckpoint(to.with_name(f".{to.name}.training"), fingerprint(chosen, dataset, found, run))
    try:
        with training_progress(f"Training {chosen.label}") as report:
            fitted = registry.fit(chosen, dataset, found, run, report=report, checkpoint=checkpoint)
    except KeyboardInterrupt:
        if checkpoint.folder.is_dir():
            tell("Interrupted. The same command goes on from the last validation.")
        raise
    fitted.write(to)
    checkpoint.remove()
    value = fitted.folder.metrics[found.select_by]["mean"]
    reached = f"{found.select_by} {value:.4f}" if value is not None else "nothing to find"
    tell(f"{chosen.label}: {reached} on {found.selection.relevant!r}, {fitted.seconds:.1f} s")
    tell(f"Wrote {to}. Next: {line('rediffuse', 'evaluate', to, '--data', data)}")


def fingerprint(chosen: registry.Recipe, dataset: Dataset, protocol: Protocol, run: RunConfig) -> str:
    """A hash of all that decides the course of a training."""
    parts = [
        chosen.name,
        dataset.digest(),
        *(c.model_dump(mode="json") for c in (chosen.config, chosen.training, protocol, run)),
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
