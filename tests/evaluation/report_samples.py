"""Reports to show: a usual one, and one with everything that a report may hold."""

import math
from dataclasses import replace

from rediffuse.evaluation.report import (
    CoursePoint,
    Interval,
    Pair,
    Reference,
    Report,
    Result,
    Slice,
    SweepPoint,
    Trial,
    Walk,
    WalkItem,
)

PROTOCOL = {"split": {"kind": "in-time-order", "cut": "2001-01-01"}, "mask": ["train", "test"], "repeats": False}


def about(mean: float, half: float = 0.004) -> Interval:
    return Interval(mean, mean - half, mean + half)


def result(method: str, role: str, ndcg: float, *, recall: float | None = None, fit_s: float = 10.0) -> Result:
    metrics = {"ndcg@20": about(ndcg), "recall@20": about(ndcg * 1.4 if recall is None else recall)}
    seconds = {"fit": fit_s, "evaluate": 1.25}
    return Result(method, "ml-1m", PROTOCOL, 5949, metrics, seconds, 812.0, 91, {"l2": 500.0, "dims": [1000]}, role)


def walk(titles: list[str] | None = None) -> Walk:
    names = titles or [f"Title {n}" for n in range(12)]
    lists = [range(10), [2, 0, 1, 5, 4, 3, 10, 6, 7, 8], [2, 11, 0, 5, 1, 4, 3, 10, 6, 7]]
    levels = [
        (t, tuple(WalkItem(str(n), names[n], 1 / (rank + 1), n in (2, 11)) for rank, n in enumerate(items)))
        for t, items in zip((40, 20, 0), lists, strict=True)
    ]
    return Walk("DiffRec", "u17", tuple(f"Seen {n}" for n in range(15)), tuple(levels))


def make(diffusion: float = 0.131, pair: Pair | None = None, **changes: object) -> Report:
    report = Report(
        title="Which recommender for the shop",
        results=[
            result("popularity", "control", 0.062, fit_s=0.02),
            result("EASE", "classic", 0.124, fit_s=4.4),
            result("DiffRec", "diffusion", diffusion, fit_s=311.0),
        ],
        pairs=[pair or Pair("DiffRec", "EASE", "ndcg@20", 0.007, 0.004, 0.010, 0.0004)],
        sweep=[SweepPoint("DiffRec", n, "ndcg@20", about(0.12 + n / 1e4), 0.2 * n) for n in (1, 2, 5, 40)],
        walks=[walk()],
        select_by="ndcg@20",
        facts={"command": "rediffuse compare --seed 1", "torch": "2.13.0", "dataset sha256": "ab12" * 16},
    )
    return replace(report, **changes)


def course(best: float, epochs: int = 20) -> tuple[CoursePoint, ...]:
    """Validated every fifth epoch, best at epoch 15."""
    return tuple(
        CoursePoint(epoch, 1 / epoch, best - abs(15 - epoch) / 1e3 if epoch % 5 == 0 else None, 1.5 * epoch)
        for epoch in range(1, epochs + 1)
    )


def trials(best: float) -> tuple[Trial, ...]:
    """Four: the third is best, the second failed."""
    values = (best - 0.02, None, best, best - 0.01)
    return tuple(Trial({"l2": 10.0**n, "dims": [n]}, value, 2.0) for n, value in enumerate(values))


def everything() -> Report:
    """A report in which no section is empty, with two references."""

    def filled(one: Result) -> Result:
        value = one.metrics["ndcg@20"].mean
        parts = (("history length", "1-4 events"), ("history length", "5+ events"), ("popularity", "tail"))
        more = {"coverage@20": Interval(0.5, 0.5, 0.5), "ild@20": about(0.7), "ild@10": about(0.6)}
        return replace(
            one,
            beyond=more,
            slices=tuple(Slice(by, label, 100 + n, about(value + n / 100)) for n, (by, label) in enumerate(parts)),
            course=course(value) if one.role == "diffusion" else (),
            trials=trials(value) if one.role != "control" else (),
        )

    results = tuple(filled(one) for one in make().results)
    gaps = {one.method: about(0.2 - one.metrics["ndcg@20"].mean, 0.01) for one in results}
    ceiling = Reference("Bayes ceiling", "Knows every taste", {"ndcg@20": about(0.2)}, 0.0005, gaps)
    oracle = Reference("oracle", "Knows tastes and moods", {"ndcg@20": about(0.25)}, 0.0, {})
    return make(
        results=results,
        pairs=tuple(make().pairs),
        sweep=tuple(make().sweep),
        walks=tuple(make().walks),
        references=(ceiling, oracle),
    )


def nothing() -> Interval:
    """Undefined."""
    return Interval(math.nan, math.nan, math.nan)
