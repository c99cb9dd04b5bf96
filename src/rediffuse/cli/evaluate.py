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
from rediffuse.evaluation.evaluate import Task
from rediffuse.evaluation.evaluate import evaluate as score
from rediffuse.evaluation.protocol import Protocol
from rediffuse.evaluation.report import Result
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
    dataset = Dataset.read(data)
    if tuple(folder.items) != dataset.catalog.items.ids:
        raise InvalidInput(
            say(
                "Model and dataset number their items differently",
                remedy="Evaluate on the dataset it was trained on, or train it anew",
            )
        )
    found = _protocol(folder, dataset, protocol)
    leaks = [*found.leaks(dataset), *_other_data(folder, dataset)]
    if leaks and not found.allow_leak:
        raise InvalidInput(
            say(f"This figure would be a leak: {leaks[0]}", remedy="Set allow_leak = true to see what it is worth")
        )
    _, recommender = registry.restore(folder, run.device)
    task = Task.of(dataset, found.report)
    began = time.perf_counter()
    scores = score(recommender, task, found, options=Options(steps=steps), seed=seed)
    seconds = time.perf_counter() - began
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
        role=registry.methods()[folder.method].role,
    )
    rows = [(name, f"{i.mean:.4f}", f"{i.low:.4f}", f"{i.high:.4f}") for name, i in result.metrics.items()]
    show_table(f"{result.method} on {dataset.name}, protocol {found.name}", ("metric", "mean", "low", "high"), rows)
    tell(f"{result.users:,} users, {task.undefined:,} without anything to find; {seconds:.1f} s")
    for leak in leaks:
        tell(f"Leak: {leak}", "bold red")
    write_result(json, result.to_json())


def _protocol(folder: ModelFolder, dataset: Dataset, name: str | None) -> Protocol:
    """The protocol asked for, put to this model; else the one it was trained under."""
    trained = Protocol.make({key: folder.protocol[key] for key in Protocol.model_fields if key in folder.protocol})
    if name is None:
        trained.check(dataset)
        return trained
    return find_protocol(dataset, name, seeds=trained.seeds).of_model(trained)


def _other_data(folder: ModelFolder, dataset: Dataset) -> list[str]:
    """In words, when the model learned from other data or another split, which may hold the answers."""
    if folder.data.get("content_sha256") == dataset.digest():
        return []
    return ["report: the model learned from other data or another split, which may hold the answers"]
