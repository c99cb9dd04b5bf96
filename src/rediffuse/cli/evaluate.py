"""`evaluate`: read the report part of a protocol with a trained model, and study what else it can do."""

import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from rediffuse import registry
from rediffuse.artifacts import ModelFolder, read_model
from rediffuse.cli.console import (
    DataOption,
    DeviceOption,
    DiversityOption,
    DrawsOption,
    GuidanceOption,
    JsonOption,
    KsOption,
    ProtocolOption,
    Repeats,
    RepeatsOption,
    SeedOption,
    StartOption,
    StepsOption,
    TemperatureOption,
    ThreadsOption,
    asked_for,
    find_protocol,
    options_of,
    run_config,
    show_section,
    show_table,
    tell,
    whole_numbers,
    write_result,
)
from rediffuse.cli.memory import peak_rss_mb
from rediffuse.cli.studying import STUDIES, Bench, check, check_data, protocol_of, rivals_of
from rediffuse.config import RunConfig
from rediffuse.data.dataset import Dataset
from rediffuse.errors import InvalidInput, say
from rediffuse.evaluation.beyond_accuracy import beyond
from rediffuse.evaluation.evaluate import evaluate as score
from rediffuse.evaluation.protocol import Protocol
from rediffuse.evaluation.report import PAGES, Result, require_report, write_page
from rediffuse.evaluation.report.as_json import to_plain
from rediffuse.evaluation.report.studies import study_page
from rediffuse.evaluation.slices import slices
from rediffuse.evaluation.statistics import Interval
from rediffuse.evaluation.study import Examined


def evaluate(
    model: Annotated[Path, typer.Argument(help="Model folder.")],
    data: DataOption,
    protocol: ProtocolOption = None,
    ks: KsOption = None,
    repeats: RepeatsOption = None,
    steps: StepsOption = None,
    draws: DrawsOption = 1,
    start: StartOption = None,
    temperature: TemperatureOption = 1.0,
    guidance_scale: GuidanceOption = None,
    diversity: DiversityOption = 0.0,
    calibration: Annotated[
        bool, typer.Option("--calibration", help="Study: whether probabilities hold, and how sure a list is.")
    ] = False,
    diversity_front: Annotated[
        bool, typer.Option("--diversity-front", help="Study: what more diverse lists cost, with each re-ranker.")
    ] = False,
    by_history: Annotated[
        bool,
        typer.Option("--by-history", help="Study: users of whom little is known, and posted histories of 1 to 10."),
    ] = False,
    guidance: Annotated[
        bool, typer.Option("--guidance", help="Study: guidance scales, and lists when another season is asked.")
    ] = False,
    samplers: Annotated[
        bool, typer.Option("--samplers", help="Study: every sampler at 1, 2, 5, .. reverse steps.")
    ] = False,
    rival: Annotated[
        list[Path] | None,
        typer.Option(
            "--rival",
            help="Another model folder that --diversity-front and --by-history hold beside it; may be repeated.",
        ),
    ] = None,
    report: Annotated[
        Path | None, typer.Option("--report", help="Write a page here: .html (self-contained) or .md.")
    ] = None,
    json: JsonOption = None,
    device: DeviceOption = "auto",
    threads: ThreadsOption = 0,
    seed: SeedOption = 1,
) -> None:
    """Rank the whole catalog for every user and report metrics with 95 % intervals; study what else a model can do.

    The options from --steps to --diversity say how the model is asked, in the studies too; rivals answer under their own
    settings.

    Example: `rediffuse evaluate models/diffrec --data data/shop --by-history --rival models/ease --report out/diffrec.html`
    """
    run = run_config(device, "float32", threads, seed)
    flags = (calibration, diversity_front, by_history, guidance, samplers)
    wanted = [name for name, flag in zip(STUDIES, flags, strict=True) if flag]
    options = options_of(steps, draws, start, temperature, guidance_scale, diversity)
    if report is not None:
        require_report(report, PAGES)
    folder = read_model(model)
    check(wanted, folder, rivals=bool(rival))
    dataset = _numbered(Dataset.read(data), folder)
    check_data(folder, dataset)
    found = _protocol(folder, dataset, protocol, whole_numbers("--ks", ks), repeats)
    leaks = [*found.leaks(dataset), *_other_data(folder, dataset, found)]
    if leaks and not found.allow_leak:
        raise InvalidInput(
            say(f"This figure would be a leak: {leaks[0]}", remedy="Set allow_leak = true to see what it is worth")
        )
    _, recommender = registry.restore(folder, run.device)
    examined = Examined(folder.method, recommender, dataset, found, options, seed)
    bench = Bench(examined, folder, rivals_of(rival or (), folder, dataset, run.device), run.device)
    result = _result(examined, folder, leaks)
    _show(result, found)
    for leak in leaks:
        tell(f"Leak: {leak}", "bold red")
    studies = bench.run(wanted)
    for study in studies.values():
        show_section(study.section)
    values = {"studies": {name: to_plain(study.values) for name, study in studies.items()}} if studies else {}
    write_result(json, {**result.to_json(), **values})
    if report is not None:
        write_page(report, study_page(result, found.select_by, studies, _facts(dataset, run)))
        tell(f"Wrote {report}")


def _numbered(dataset: Dataset, folder: ModelFolder) -> Dataset:
    """The data with items as the model knows them. Raises: InvalidInput for items that it has never seen."""
    numbered = dataset.numbered_like(folder.items)
    if len(numbered.catalog) > len(folder.items):
        new = numbered.catalog.items.ids[len(folder.items)]
        raise InvalidInput(
            say(
                "The dataset has items that the model has never seen",
                got=new,
                remedy="Evaluate on the dataset it was trained on, or go on with it: rediffuse train --from MODEL",
            )
        )
    return numbered


def _result(examined: Examined, folder: ModelFolder, leaks: Sequence[str]) -> Result:
    """Score every user of the report part."""
    dataset, protocol, task, options = examined.dataset, examined.protocol, examined.task, examined.options
    began = time.perf_counter()
    scores = score(examined.model, task, protocol, options=options, seed=examined.seed)
    seconds = time.perf_counter() - began
    return Result(
        method=folder.method,
        dataset=dataset.name,
        protocol={**protocol.describe(dataset), "leak": leaks},
        users=len(scores.values),
        metrics=scores.intervals,
        seconds={"fit": folder.made.get("fit_seconds", 0.0), "evaluate": round(seconds, 3)},
        peak_rss_mb=peak_rss_mb(),
        undefined=task.undefined,
        settings={**folder.config, **options.asked()},
        role=registry.role_of(folder.method, folder.made.get("preset")),
        beyond=beyond(scores.lists, task.relevant, examined.background, protocol.ks),
        slices=slices(scores, task, examined.background.data, protocol.select_by),
    )


def _facts(dataset: Dataset, run: RunConfig) -> dict[str, str]:
    """How a page came to be."""
    return {
        "command": shlex.join(["rediffuse", *sys.argv[1:]]),
        "dataset": f"{dataset.name}, content {dataset.digest()}",
        **{name: str(value) for name, value in registry.versions().items()},
        "device": f"{run.device}, {run.threads} threads, {run.precision}",
    }


def _show(result: Result, protocol: Protocol) -> None:
    """Print the metrics, what the lists are like besides, and the selection metric on parts of users and items."""
    for title, values in (
        (f"{result.method} on {result.dataset}, {protocol.title}", result.metrics),
        ("Beyond accuracy", result.beyond),
    ):
        show_table(title, ("metric", "mean", "low", "high"), [(name, *_cells(i)) for name, i in values.items()])
    tell(f"{result.users:,} users, {result.undefined:,} without anything to find; {result.seconds['evaluate']:.1f} s")
    rows = [(part.by, part.label, f"{part.users:,}", *_cells(part.value)) for part in result.slices]
    show_table(f"{protocol.select_by} on parts", ("parted by", "part", "users", "mean", "low", "high"), rows)


def _cells(interval: Interval) -> tuple[str, str, str]:
    mean, low, high = (f"{value:.4f}" for value in (interval.mean, interval.low, interval.high))
    return mean, low, high


def _protocol(
    folder: ModelFolder, dataset: Dataset, name: str | None, ks: Sequence[int] | None, repeats: Repeats | None
) -> Protocol:
    """The protocol asked for, put to this model; else the one it was trained under."""
    trained = protocol_of(folder)
    if name is None:
        found = asked_for(trained, ks, None, repeats).of_model(trained)
        found.check(dataset)
        return found
    return find_protocol(dataset, name, ks=ks, repeats=repeats, seeds=trained.seeds).of_model(trained)


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
