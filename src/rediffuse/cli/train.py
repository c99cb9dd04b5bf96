"""`train`: learn a model from a dataset and publish its folder."""

import contextlib
import hashlib
import json
import shlex
import sys
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Annotated, Any

import typer

from rediffuse import registry
from rediffuse.artifacts import ModelFolder, read_model
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
from rediffuse.files import storage
from rediffuse.protocols import Progress
from rediffuse.training.checkpoint import FolderCheckpoint

PHASES = ("training", "refit")


def train(
    data: DataOption,
    to: Annotated[Path, typer.Option("--to", help="Model folder to make.")],
    method: Annotated[
        str | None,
        typer.Argument(
            help=f"One of {', '.join(registry.METHODS)}, or one that an installed package adds; with --from: its own."
        ),
    ] = None,
    protocol: ProtocolOption = None,
    preset: Annotated[str | None, typer.Option(help="Named settings, for example ml-1m-clean.")] = None,
    earlier: Annotated[
        Path | None,
        typer.Option(
            "--from",
            help="Go on from this model on new events, with its settings and numbers of items; closed forms and als learn anew.",
        ),
    ] = None,
    sets: SetOption = None,
    log: Annotated[Path | None, typer.Option(help="Write a line of JSON here for every epoch.")] = None,
    checkpoint_s: Annotated[float, typer.Option(min=0, help="Seconds between two checkpoints inside an epoch.")] = 30.0,
    device: DeviceOption = "auto",
    precision: PrecisionOption = "float32",
    threads: ThreadsOption = 0,
    seed: SeedOption = 1,
) -> None:
    """Learn a model and publish its folder. An interrupted training goes on with the same command.

    Example: `rediffuse train ease --data data/shop --set regularization=1000 --to models/ease`
    """
    if to.exists():
        for phase in PHASES:  # what a kill between publishing and clearing away may have left
            FolderCheckpoint(_beside(to, phase), "").remove()
        raise InvalidInput(say(f"{str(to)!r} exists already", remedy="Choose another place or remove it first"))
    run = run_config(device, precision, threads, seed)
    before = None if earlier is None else read_model(earlier)
    chosen = _chosen(method, preset, settings(sets), before)
    dataset = Dataset.read(data)
    if before is not None:
        check_erasures(before, dataset)
        dataset = dataset.numbered_like(before.items)
    found = find_protocol(dataset, protocol, seeds=(seed,))
    mark = fingerprint(chosen, dataset, found, run, before)
    facts = {"method": chosen.label, **run.model_dump(mode="json"), **registry.versions()}
    kept = {phase: FolderCheckpoint(_beside(to, phase), f"{mark} {phase}", facts, checkpoint_s) for phase in PHASES}
    try:
        with training_progress(f"Training {chosen.label}") as report, _logged(log, report) as note:
            fitted = registry.fit(chosen, dataset, found, run, report=note, checkpoints=kept.get, earlier=before)
    except KeyboardInterrupt:
        if any(store.folder.is_dir() for store in kept.values()):
            tell("Interrupted. The same command goes on from the last checkpoint.")
        raise
    made = {"command": shlex.join(["rediffuse", *sys.argv[1:]]), **({} if earlier is None else {"from": str(earlier)})}
    fitted.noting(**made).write(to)
    for store in kept.values():
        store.remove()
    value = fitted.folder.metrics[found.select_by]["mean"]
    reached = f"{found.select_by} {value:.4f}" if value is not None else "nothing to find"
    tell(f"{chosen.label}: {reached} on {found.selection.relevant!r}, {fitted.seconds:.1f} s")
    tell(f"Wrote {to}. Next: {line('rediffuse', 'evaluate', to, '--data', data)}")


def check_erasures(before: ModelFolder, dataset: Dataset) -> None:
    """Refuse to go on from a model that may still know somebody who was erased since.

    Raises: InvalidInput naming the erasure, its receipt has the same number; or that the stores are two.
    """
    then, now = before.data.get("store"), dataset.facts.get("store")
    if now is None:
        if then is None:
            return
        raise InvalidInput(
            say(
                "The model learned from an event store, whose erasures this dataset does not tell",
                remedy="Make the dataset with `rediffuse collect`, or train from scratch",
            )
        )
    if then is not None and then["name"] != now["name"]:
        raise InvalidInput(
            say(
                "The model learned from another event store, of whose erasures this one knows nothing",
                got=then["name"],
                allowed=now["name"],
                remedy="Train from scratch: leave --from out and name the method",
            )
        )
    erased = now["erased_seq"]
    if erased and (then is None or then["erased_seq"] < erased):
        raise InvalidInput(
            say(
                "The model may still know somebody who was erased since it learned",
                got=f"erasure {erased}",
                remedy="Train from scratch: leave --from out and name the method",
            )
        )


def fingerprint(
    chosen: registry.Recipe, dataset: Dataset, protocol: Protocol, run: RunConfig, before: ModelFolder | None = None
) -> str:
    """A hash of all that decides the course of a training."""
    parts = [
        chosen.name,
        dataset.digest(),
        *(c.model_dump(mode="json") for c in (chosen.config, chosen.training, protocol, run)),
        None if before is None else [before.method, before.data, before.made],
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _beside(to: Path, phase: str) -> Path:
    """Where the state of an unfinished training is kept."""
    return to.with_name(f".{to.name}.{phase}")


def _chosen(
    method: str | None, preset: str | None, given: dict[str, Any], before: ModelFolder | None
) -> registry.Recipe:
    """What to train: as named, else as the earlier model was, with what is given changed."""
    if before is None:
        if method is None:
            raise InvalidInput(say("Name a method, or a model with --from", allowed=", ".join(registry.methods())))
        return registry.recipe(method, preset, given)
    if preset is not None:
        raise InvalidInput(say("--preset and --from exclude each other", remedy="Change single settings with --set"))
    if method is not None and method != before.method:
        raise InvalidInput(
            say(f"{method} cannot go on from a {before.method}", remedy="Leave the method out, or train from scratch")
        )
    return registry.recipe(before.method, settings={**before.config, **before.training, **given})


@contextlib.contextmanager
def _logged(path: Path | None, report: Callable[[Progress], None]) -> Generator[Callable[[Progress], None]]:
    """Write each epoch as a line of JSON as well; a resumed training writes those of its earlier part anew."""
    if path is None:
        yield report
        return
    with storage(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("w", encoding="utf-8")

    def note(progress: Progress) -> None:
        report(progress)
        if not progress.partial:
            with storage(path):
                file.write(json.dumps(registry.course_json(progress)) + "\n")
                file.flush()

    with file:
        yield note
