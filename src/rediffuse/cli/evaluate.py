"""`evaluate`: read the report part of a protocol with a trained model."""

import time
from pathlib import Path
from typing import Annotated

import typer

from rediffuse import registry
from rediffuse.artifacts import ModelFolder, read_model
from rediffuse.cli.console import (
    DataOption,
    DeviceOption,
    JsonOption,
    ProtocolOption,
    SeedOption,
    StepsOption,
    ThreadsOption,
    find_protocol,
    run_config,
    show_table,
    tell,
    write_result,
)
from rediffuse.cli.memory import peak_rss_mb
from rediffuse.data.dataset import Dataset
from rediffuse.errors import InvalidInput, say
from rediffuse.evaluation.beyond_accuracy import Background, beyond
from rediffuse.evaluation.evaluate import Task
from rediffuse.evaluation.evaluate import evaluate as score
from rediffuse.evaluation.protocol import Protocol
from rediffuse.evaluation.report import Result
from rediffuse.evaluation.slices import slices
from rediffuse.evaluation.statistics import Interval
from rediffuse.types import Options


def evaluate(
    model: Annotated[Path, typer.Argument(help="Model folder.")],
    data: DataOption,
    protocol: ProtocolOption = None,
    steps: StepsOption = None,
    json: JsonOption = None,
    device: DeviceOption = "auto",
    threads: ThreadsOption = 0,
    seed: SeedOption = 1,
) -> None:
    """Rank the whole catalog for every user and report metrics with 95 % intervals.

    Example: `rediffuse evaluate models/diffrec --data data/shop --steps 5 --json out/diffrec.json`
    """
    run = run_config(device, "float32", threads, seed)
    folder = read_model(model)
    dataset = Dataset.read(data).numbered_like(folder.items)
    if len(dataset.catalog) > len(folder.items):
        new = dataset.catalog.items.ids[len(folder.items)]
        raise InvalidInput(
            say(
                "The dataset has items that the model has never seen",
                got=new,
                remedy="Evaluate on the dataset it was trained on, or go on with it: rediffuse train --from MODEL",
            )
        )
    found = _protocol(folder, dataset, protocol)
    leaks = [*found.leaks(dataset), *_other_data(folder, dataset, found)]
    if leaks and not found.allow_leak:
        raise InvalidInput(
            say(f"This figure would be a leak: {leaks[0]}", remedy="Set allow_leak = true to see what it is worth")
        )
    _, recommender = registry.restore(folder, run.device)
    task = Task.of(dataset, found.report)
    began = time.perf_counter()
    scores = score(recommender, task, found, options=Options(steps=steps), seed=seed)
    seconds = time.perf_counter() - began
    background = Background.of(dataset, found, task)
    result = Result(
        method=folder.method,
        dataset=dataset.name,
        protocol={**found.describe(dataset), "leak": leaks},
        users=len(scores.values),
        metrics=scores.intervals,
        seconds={"fit": folder.made.get("fit_seconds", 0.0), "evaluate": round(seconds, 3)},
        peak_rss_mb=peak_rss_mb(),
        undefined=task.undefined,
        settings={**folder.config, **({"steps": steps} if steps else {})},
        role=registry.role_of(folder.method, folder.made.get("preset")),
        beyond=beyond(scores.lists, task.relevant, background, found.ks),
        slices=slices(scores, task, background.data, found.select_by),
    )
    _show(result, found)
    tell(f"{result.users:,} users, {task.undefined:,} without anything to find; {seconds:.1f} s")
    for leak in leaks:
        tell(f"Leak: {leak}", "bold red")
    write_result(json, result.to_json())


def _show(result: Result, protocol: Protocol) -> None:
    """Print the metrics, what the lists are like besides, and the selection metric on parts of users and items."""
    for title, values in (
        (f"{result.method} on {result.dataset}, protocol {protocol.name}", result.metrics),
        ("Beyond accuracy", result.beyond),
    ):
        show_table(title, ("metric", "mean", "low", "high"), [(name, *_cells(i)) for name, i in values.items()])
    rows = [(part.by, part.label, f"{part.users:,}", *_cells(part.value)) for part in result.slices]
    show_table(f"{protocol.select_by} on parts", ("parted by", "part", "users", "mean", "low", "high"), rows)


def _cells(interval: Interval) -> tuple[str, str, str]:
    mean, low, high = (f"{value:.4f}" for value in (interval.mean, interval.low, interval.high))
    return mean, low, high


def _protocol(folder: ModelFolder, dataset: Dataset, name: str | None) -> Protocol:
    """The protocol asked for, put to this model; else the one it was trained under."""
    trained = Protocol.make({key: folder.protocol[key] for key in Protocol.model_fields if key in folder.protocol})
    if name is None:
        trained.check(dataset)
        return trained
    return find_protocol(dataset, name, seeds=trained.seeds).of_model(trained)


def _other_data(folder: ModelFolder, dataset: Dataset, protocol: Protocol) -> list[str]:
    """In words, when the model learned from other data or another split, which may hold the answers.

    What an earlier model had learned before this one went on from it does no harm where it lies before what is asked.
    """
    found: list[str] = []
    if folder.data.get("content_sha256") != dataset.digest():
        found.append("report: the model learned from other data or another split, which may hold the answers")
    asked = dataset.history(protocol.report.relevant).time_us
    begins = int(asked.min()) if asked is not None and len(asked) else None
    for past in folder.data.get("earlier", []):
        until = past["until_us"]
        if past["content_sha256"] != dataset.digest() and (begins is None or until is None or until > begins):
            found.append("report: the model it went on from learned from events that may hold the answers")
    return found
