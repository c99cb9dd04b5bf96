"""What each sampler makes of few steps: accuracy and time against the number of reverse steps."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from rediffuse.evaluation import figures, wording
from rediffuse.evaluation.evaluate import evaluate
from rediffuse.evaluation.protocol import Protocol
from rediffuse.evaluation.report.blocks import Block, Bullets, Cell, Mark, Picture, Section, Table, Text
from rediffuse.evaluation.report.outcome import measured
from rediffuse.evaluation.report.values import SweepPoint
from rediffuse.evaluation.statistics import paired
from rediffuse.evaluation.study import Examined, Study
from rediffuse.protocols import Recommender

STEPS = (1, 2, 5, 10, 20, 40)
_TITLE = "Samplers and steps"


def sampler_sweep(examined: Examined, remade: Mapping[str, Recommender], levels: int) -> Study:
    """Ndcg@10 and milliseconds per user at 1, 2, 5, .. and all steps, for the same weights under each sampler.

    Args: remade: sampler -> the model under it.   levels: T, the most steps there are.
    Returns: values: a point for each sampler and number of steps, the paired difference to the model as it is, and the
        steps of each sampler that the selection part speaks for.
    Limits: 14 evaluations a sampler; a step of heun asks the network twice; times are of this machine, while it does this.
    """
    protocol = examined.protocol.only(f"ndcg@{min(10, len(examined.dataset.catalog))}")
    metric, task, seed = protocol.select_by, examined.task, examined.seed
    if not len(task.query):
        return Study(Section("samplers", _TITLE, [Text("No user has anything to find.")]), {})
    own = evaluate(examined.model, task, protocol, options=examined.options, seed=seed)
    points, gaps = list[SweepPoint](), list[dict[str, object]]()
    chosen: dict[str, int] = {}
    for name, model in remade.items():
        tried: dict[int, float] = {}
        for steps in (*(n for n in STEPS if n < levels), levels):
            options = replace(examined.options, steps=steps)
            tried[steps] = evaluate(model, examined.selection, protocol, options=options, seed=seed).mean(metric)
            began = time.perf_counter()
            scores = evaluate(model, task, protocol, options=options, seed=seed)
            took = 1e3 * (time.perf_counter() - began) / max(len(task.query), 1)
            points.append(SweepPoint(name, steps, metric, scores.intervals[metric], took))
            gap = paired(scores.of(metric), own.of(metric))[0]
            gaps.append({"sampler": name, "steps": steps, "less the model as it is": gap})
        chosen[name] = max(tried, key=lambda steps: tried[steps])
    values = {"metric": metric, "levels": levels, "as it is": own.intervals[metric], "points": points, "gaps": gaps}
    blocks = _blocks(points, chosen, protocol, own.mean(metric))
    return Study(Section("samplers", _TITLE, blocks), {**values, "chosen": chosen})


def _blocks(points: Sequence[SweepPoint], chosen: Mapping[str, int], protocol: Protocol, own: float) -> list[Block]:
    metric, names = protocol.select_by, list(dict.fromkeys(point.method for point in points))
    lines = [_line([point for point in points if point.method == name]) for name in names]
    key = [Mark(figures.SERIES[n % 4][1], f"s{n % 4 + 1}", name) for n, name in enumerate(names)]
    key += [Mark("dash", "muted", "as the model is set")] if math.isfinite(own) else []
    caption = (
        f"Mean {metric} against the number of reverse steps, on a logarithmic axis; below, what one user costs. Intervals "
        "stand in the table: users vary alike under every sampler."
    )
    counts = sorted({point.steps for point in points})
    rows = [
        [Cell(name), *(_cell([p for p in points if (p.method, p.steps) == (name, steps)]) for steps in counts)]
        for name in names
    ]
    costs = [[Cell(line.label), *(Cell(wording.score(ms)) for ms in line.ms_per_user)] for line in lines]
    head = ("sampler", *(wording.counted(n, "step") for n in counts))
    return [
        Bullets(_said(lines, chosen, protocol)),
        Picture(lambda w, n: figures.steps(lines, own, metric=metric, width=w, name=n), caption, key),
        Table(f"{metric} after so many steps", head, rows),
        Table("Milliseconds per user", head, costs),
        Text(
            "The same weights throughout: the sampler is chosen when the model is asked, nothing is trained anew.",
            "note",
        ),
    ]


def _line(mine: Sequence[SweepPoint]) -> figures.Line:
    mean = [point.value.mean for point in mine]
    return figures.Line(mine[0].method, [p.steps for p in mine], mean, mean, mean, [p.ms_per_user for p in mine])


def _cell(found: Sequence[SweepPoint]) -> Cell:
    return measured(found[0].value) if found else Cell("–")


def _said(lines: Sequence[figures.Line], chosen: Mapping[str, int], protocol: Protocol) -> list[str]:
    """What the steps of each sampler that were chosen on the selection part, and one step, come to on the report part."""
    out: list[str] = []
    for line in lines:
        best = line.steps.index(chosen[line.label])
        out.append(
            f"{line.label} is best with {wording.counted(line.steps[best], 'step')} on {protocol.selection.relevant}: "
            f"{protocol.select_by} {wording.mean(line.mean[best])} on {protocol.report.relevant}, "
            f"{wording.score(line.ms_per_user[best])} ms per user; one step gives {wording.mean(line.mean[0])}."
        )
    return out
