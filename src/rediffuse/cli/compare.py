"""`compare`: several methods on one dataset under one protocol, with paired tests and a page to look at."""

import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

from rediffuse import registry
from rediffuse.cli.console import (
    DataOption,
    DeviceOption,
    JsonOption,
    KsOption,
    PrecisionOption,
    ProtocolOption,
    RepeatsOption,
    SetOption,
    ThreadsOption,
    find_protocol,
    run_config,
    settings,
    show_table,
    tell,
    whole_numbers,
    write_result,
)
from rediffuse.cli.frozen import freeze, read_frozen, with_frozen_parts
from rediffuse.cli.running import Comparison, Run
from rediffuse.data.dataset import Dataset
from rediffuse.errors import InvalidInput, say, unknown
from rediffuse.evaluation.evaluate import Task, evaluate
from rediffuse.evaluation.protocol import Protocol
from rediffuse.evaluation.report import (
    Pair,
    Reference,
    Report,
    SweepPoint,
    Walk,
    WalkItem,
    require_report,
    write_report,
)
from rediffuse.evaluation.statistics import holm, paired
from rediffuse.protocols import Stepwise
from rediffuse.types import Options

SWEEP = (1, 2, 4, 8, 32, 100, 500)
WALKED_LEVELS = 6


def compare(
    data: DataOption,
    methods: Annotated[str, typer.Option(help="NAME or NAME:PRESET, separated by commas.")],
    floors: Annotated[
        bool,
        typer.Option(
            "--floors/--no-floors",
            help="Whether what a method must beat is compared with it, named or not: --no-floors leaves it out.",
        ),
    ] = True,
    protocol: ProtocolOption = None,
    ks: KsOption = None,
    select_by: Annotated[
        str | None, typer.Option(help="The selection metric, such as ndcg@10; else the protocol's.")
    ] = None,
    repeats: RepeatsOption = None,
    seeds: Annotated[
        str | None,
        typer.Option(help="Training seeds, separated by commas, fixed before the run; else those of the protocol."),
    ] = None,
    sets: SetOption = None,
    json: JsonOption = None,
    report: Annotated[
        Path | None, typer.Option(help="Write a report here: .html (one self-contained page), .md or .json.")
    ] = None,
    trials: Annotated[
        int,
        typer.Option(
            min=0, help="Settings to try for every method on the selection part, the given ones first; 0: none."
        ),
    ] = 0,
    frozen: Annotated[
        Path | None,
        typer.Option(
            help="File of frozen settings: methods and parts of a blend that stand in it take theirs, untuned."
        ),
    ] = None,
    freeze_to: Annotated[
        Path | None, typer.Option("--freeze", help="Enter the settings that --trials chose into this file.")
    ] = None,
    ceiling: Annotated[
        bool,
        typer.Option(
            "--ceiling",
            help="Where the world behind the data is known (atelier): what could be reached at all. Minutes on small.",
        ),
    ] = False,
    keep: Annotated[
        Path | None, typer.Option(help="Folder for finished trials and models: the same command goes on from there.")
    ] = None,
    device: DeviceOption = "auto",
    precision: PrecisionOption = "float32",
    threads: ThreadsOption = 0,
) -> None:
    """Tune, train and score several methods under one protocol; paired tests, Holm-corrected.

    With --trials every method gets the same number of trials on the selection part, which the report part never
    enters. A setting for one method only is written METHOD.KEY=VALUE.

    Example: `rediffuse compare --data data/shop --methods popularity,ease,diffrec --trials 20 --report out/report.html`
    """
    run = run_config(device, precision, threads, 0)
    names = [name.strip() for name in methods.split(",")]
    added = floors_of(names) if floors else []
    recipes([*names, *added], settings(sets))  # a wrong name costs no reading of data
    if freeze_to is not None and not trials:
        raise InvalidInput(say("--freeze needs something to be chosen", remedy="Add --trials N"))
    dataset = Dataset.read(data)
    seeded = {} if seeds is None else {"seeds": whole_numbers("--seeds", seeds)}
    found = find_protocol(
        dataset, protocol, ks=whole_numbers("--ks", ks), select_by=select_by, repeats=repeats, **seeded
    )
    known = {} if frozen is None else read_frozen(frozen, dataset, found)
    chosen = recipes([*names, *added], settings(sets), known)
    if report is not None:
        require_report(report)
    if ceiling and "world" not in dataset.facts:
        raise InvalidInput(
            say("--ceiling needs data of a world whose truth is known", got=dataset.name, remedy="Leave it out")
        )
    work = Comparison(dataset, found, run, trials, keep, frozenset(known))
    if ceiling:
        work.check_references()
    if added:
        tell(f"Beside what they must beat: {', '.join(added)} (--no-floors leaves them out)")
    if used := [one.label for one in chosen if one.label in known]:
        tell(f"Settings frozen in {frozen}: {', '.join(used)}")
    runs = work.run_all(chosen)
    made = make_report(work, runs, work.references(runs) if ceiling else ())
    show(made)
    write_result(json, made.to_json())
    if freeze_to is not None:
        tell(f"Froze {', '.join(freeze(freeze_to, dataset, found, runs)) or 'nothing'} in {freeze_to}")
    if report is not None:
        write_report(report, made)
        tell(f"Wrote {report}")


def floors_of(names: Sequence[str]) -> list[str]:
    """What the named methods must beat and is not among them, each once; any preset of a floor will do for its name."""
    known, there = registry.methods(), {*names, *(registry.named(name)[0] for name in names)}
    owners = [known[name] for name in (registry.named(label)[0] for label in names) if name in known]
    return [*dict.fromkeys(floor for owner in owners for floor in owner.floors if floor not in there)]


def recipes(
    names: Sequence[str], given: Mapping[str, Any], frozen: Mapping[str, Mapping[str, Any]] | None = None
) -> list[registry.Recipe]:
    """The methods of a comparison with their settings; `method.key` goes to one method, `key` to all that have it.

    Args: frozen: settings by label, which those given change.
    Raises: InvalidConfig for an unknown name; InvalidInput when a method stands twice.
    """
    out: list[registry.Recipe] = []
    frozen = frozen or {}
    for text in names:
        label = text.strip()
        name, preset = registry.named(label)
        method = registry.method_class(name)
        known = {*method.Config.model_fields, *method.Training.model_fields}
        own = {key.removeprefix(f"{name}."): value for key, value in given.items() if key.startswith(f"{name}.")}
        shared = {key: value for key, value in given.items() if "." not in key and key in known}
        chosen = registry.recipe(name, preset, {**frozen.get(label, {}), **shared, **own})
        mine = {**shared, **own}.get("settings", {})
        out.append(with_frozen_parts(chosen, {part: values for part, values in frozen.items() if part not in mine}))
    labels = [chosen.label for chosen in out]
    if len(set(labels)) != len(labels):
        raise InvalidInput(say("A method stands twice in --methods", got=",".join(labels)))
    used = {key for chosen in out for key in (*type(chosen.config).model_fields, *type(chosen.training).model_fields)}
    for key in given:
        name, _, own = key.rpartition(".")
        if own not in used or (name and name not in {chosen.name for chosen in out}):
            owners = {chosen.name for chosen in out}
            raise InvalidInput(unknown("setting", key, [*used, *(f"{o}.{u}" for o in owners for u in used)]))
    return out


def make_report(work: Comparison, runs: Sequence[Run], references: Sequence[Reference] = ()) -> Report:
    """Test, sweep and watch: all that the page of a comparison shows."""
    dataset, protocol, run = work.dataset, work.protocol, work.run
    facts = dataset.facts
    world = {"world": f"{facts['world']} {facts['version']}, recipe {facts['sha256']}"} if "world" in facts else {}
    return Report(
        title=f"Recommenders on {dataset.name}",
        results=[one.result for one in runs],
        pairs=_pairs(runs, protocol),
        sweep=[point for one in runs for point in _sweep(one, work.task, protocol)],
        walks=_walk(runs, dataset, work.task, protocol),
        select_by=protocol.select_by,
        references=references,
        facts={
            "command": shlex.join(["rediffuse", *sys.argv[1:]]),
            "dataset": f"{dataset.name}, content {dataset.digest()}",
            **world,
            **{name: str(value) for name, value in registry.versions().items()},
            "device": f"{run.device}, {run.threads} threads, {run.precision}",
            "seeds": ", ".join(map(str, protocol.seeds)),
            "steps, walk, lists and parts of items": f"the model of seed {protocol.seeds[-1]}",
        },
    )


def show(report: Report) -> None:
    """Print the table, at the K that methods were selected by, and how far the leader is ahead of each other."""
    k = report.select_by.partition("@")[2]
    names = [n for n in report.results[0].metrics if n in (report.select_by, f"recall@{k}", f"ndcg@{k}")]
    rows = [
        (
            r.method,
            *(f"{r.metrics[n].mean:.4f} ± {(r.metrics[n].high - r.metrics[n].low) / 2:.4f}" for n in names),
            *(f"{r.seconds[part]:.1f}" for part in ("fit", "evaluate")),
        )
        for r in report.results
    ]
    masked = "repeats allowed" if report.results[0].protocol.get("repeats") else "history masked"
    show_table(
        f"{report.title}, {report.results[0].users:,} users, {masked}", ("method", *names, "fit s", "evaluate s"), rows
    )
    for reference in report.references:
        gaps = [
            (name, *(f"{value:+.4f}" for value in (gap.mean, gap.low, gap.high)))
            for name, gap in reference.gaps.items()
        ]
        reached = f"{reference.metrics[report.select_by].mean:.4f} (error {reference.error:.4f})"
        title = f"{reference.name} reaches {reached}; it is ahead by (paired, 95 % interval)"
        show_table(title, ("method", "mean", "low", "high"), gaps)
    if report.pairs:
        leader = report.pairs[0].a
        pairs = [
            (
                p.b,
                f"{p.mean:+.4f}",
                f"{p.low:+.4f}",
                f"{p.high:+.4f}",
                f"{p.p_holm:.3f}" if p.p_holm >= 0.001 else "<0.001",
            )
            for p in report.pairs
            if p.a == leader
        ]
        title = f"{leader} is ahead of the others on {report.select_by} by (paired, 95 % interval, Holm-corrected p)"
        show_table(title, ("method", "mean", "low", "high", "p"), pairs)


def _pairs(runs: Sequence[Run], protocol: Protocol) -> list[Pair]:
    """Every pair of methods on the selection metric, the better one first."""
    metric = protocol.select_by
    ranked = sorted(runs, key=lambda one: -one.scores.mean(metric))
    tested = [(a, b, *paired(a.scores.of(metric), b.scores.of(metric))) for a, b in combinations(ranked, 2)]
    corrected = holm([p for *_, p in tested])
    return [
        Pair(a.result.method, b.result.method, metric, gap.mean, gap.low, gap.high, p)
        for (a, b, gap, _), p in zip(tested, corrected, strict=True)
    ]


def _sweep(one: Run, task: Task, protocol: Protocol) -> list[SweepPoint]:
    """Accuracy and time against the number of reverse steps, on the users of the report."""
    method = one.fitted.method
    if not isinstance(method, Stepwise):
        return []
    points: list[SweepPoint] = []
    only = protocol.only(protocol.select_by)
    for steps in sorted({*(s for s in SWEEP if s < method.steps), method.steps}):
        began = time.perf_counter()
        scores = evaluate(one.fitted.model, task, only, options=Options(steps=steps), seed=protocol.seeds[-1])
        took = 1e3 * (time.perf_counter() - began) / max(len(task.query), 1)
        points.append(SweepPoint(one.result.method, steps, only.select_by, scores.intervals[only.select_by], took))
    return points


def _walk(runs: Sequence[Run], dataset: Dataset, task: Task, protocol: Protocol) -> list[Walk]:
    """How one user's list takes shape level by level, in the best stepwise method.

    The user is the one with the median length of history: chosen before anything is known of the answer.
    """
    best_first = sorted(runs, key=lambda one: -one.scores.mean(protocol.select_by))
    one = next((one for one in best_first if isinstance(one.fitted.method, Stepwise)), None)
    if one is None or not len(task.query):
        return []
    method = one.fitted.method
    assert isinstance(method, Stepwise)
    lengths = task.query.history.lengths
    user = torch.argsort(lengths, stable=True)[len(lengths) // 2 :][:1]
    query, taken = task.query.select(user), set(task.relevant.select(user).items.tolist())
    titles, ids = dataset.catalog.titles(), dataset.catalog.items.ids
    path = method.walk(query, 10)
    kept = np.unique(np.linspace(0, len(path) - 1, min(WALKED_LEVELS, len(path))).round().astype(int))
    levels = [
        (
            level,
            [
                WalkItem(ids[i], titles[i], s, i in taken)
                for i, s in zip(r.items[0].tolist(), r.scores[0].tolist(), strict=True)
                if i >= 0
            ],
        )
        for level, r in (path[place] for place in kept)
    ]
    history = [titles[i] for i in query.history.items.tolist()]
    return [Walk(one.result.method, dataset.users.items.ids[int(query.user[0])], history, levels)]
