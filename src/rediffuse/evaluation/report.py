"""One comparison of recommenders as a page that needs nothing else: the verdict first, then what it rests on.

`Report` holds the numbers, `headline` words them, `write_report` publishes the page. Nothing is computed here but
sentences: means, intervals and corrected p-values come from `statistics`.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from rediffuse.errors import InvalidInput, MissingExtra, say
from rediffuse.evaluation import figures
from rediffuse.evaluation.statistics import Interval
from rediffuse.files import write_text

T = TypeVar("T")
ROLES = tuple(figures.ROLES)
ALPHA = 0.05
"""A difference is settled when its interval excludes 0 and its corrected p lies below this."""
RIVALS = ("control", "classic")
"""The roles that a diffusion model has to beat."""
SHOWN_LEVELS, SHOWN_HISTORY, DRAWN_LEVELS = 5, 12, 12
MEANING = {
    "recall": "the share of what a user really took next that stands among the first {k} suggestions",
    "ndcg": "how much of what a user really took next stands among the first {k} suggestions; higher places count more",
    "precision": "the share of the first {k} suggestions that the user really took next",
    "hit": "the share of users who took at least one of the first {k} suggestions",
    "mrr": "one over the place of the first suggestion that the user took, among the first {k}",
    "map": "precision averaged over the places of what the user took, among the first {k}",
}
"""What a metric says, in words. Higher is better for these, so the table sets their best in bold."""

_BEST = {
    "classic": "the best classic method",
    "control": "the strongest control",
    "diffusion": "the next diffusion model",
    "method": "the best other method",
}
_KINDS: dict[int, Literal["ahead", "behind", "open"]] = {1: "ahead", 0: "open", -1: "behind"}


@dataclass(frozen=True)
class Slice:
    """The selection metric on a part of the users, or of the items."""

    by: str
    """What parts them: "history length", "popularity"."""
    label: str
    """Which part: "1-5 events", "tail"."""
    users: int
    """Users with something to find there."""
    value: Interval


@dataclass(frozen=True)
class CoursePoint:
    """One epoch of a training."""

    epoch: int
    loss: float
    validation: float | None
    seconds: float
    """Since the training began."""


@dataclass(frozen=True)
class Trial:
    """One setting that was tried on the selection part."""

    settings: Mapping[str, Any]
    value: float | None
    """The selection metric; None where the setting failed."""
    seconds: float


@dataclass(frozen=True)
class Reference:
    """A yardstick that no shop has, such as the Bayes ceiling of a world whose truth is known."""

    name: str
    meaning: str
    """In one sentence: what it knows."""
    metrics: Mapping[str, Interval]
    error: float
    """Monte-Carlo standard error of the selection metric; 0 where it is exact."""
    gaps: Mapping[str, Interval]
    """Method -> reference minus method on the selection metric, paired by user."""


@dataclass(frozen=True)
class Result:
    """What one method reached under one protocol."""

    method: str
    dataset: str
    protocol: Mapping[str, Any]
    users: int
    metrics: Mapping[str, Interval]
    """`recall@20` -> mean over users."""
    seconds: Mapping[str, float]
    """`fit`, `evaluate`, ... -> seconds."""
    peak_rss_mb: float
    undefined: int = 0
    """Users without relevant items: in no mean."""
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    role: str = "method"
    """`diffusion`, `classic`, `control`, or `method` for what is none of them."""
    beyond: Mapping[str, Interval] = field(default_factory=dict[str, Interval])
    """`coverage@20` .. -> value; low = high = mean where it is one number of all lists together."""
    slices: Sequence[Slice] = ()
    course: Sequence[CoursePoint] = ()
    """How the training of the last seed went; empty for what has no epochs."""
    trials: Sequence[Trial] = ()
    """What was tried on the selection part, in order; empty when the settings were given."""

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise InvalidInput(say(f"The role of {self.method!r} is unknown", got=self.role, allowed=ROLES))

    def to_json(self) -> dict[str, Any]:
        """The fixed JSON form of a result."""
        return {
            "method": self.method,
            "dataset": self.dataset,
            "protocol": dict(self.protocol),
            "users": self.users,
            "undefined": self.undefined,
            "metrics": {name: value.to_json() for name, value in self.metrics.items()},
            "seconds": dict(self.seconds),
            "peak_rss_mb": self.peak_rss_mb,
            "settings": dict(self.settings),
        }


@dataclass(frozen=True)
class Pair:
    """The paired difference a - b per user, with its 95 % interval and Holm-corrected p."""

    a: str
    b: str
    metric: str
    mean: float
    low: float
    high: float
    p_holm: float

    @property
    def sign(self) -> int:
        """1 where a is ahead, -1 where b is, 0 where it is not settled."""
        if not self.p_holm < ALPHA:
            return 0
        return int(self.low > 0) - int(self.high < 0)

    def turned(self) -> "Pair":
        """The same comparison as b - a."""
        return Pair(self.b, self.a, self.metric, -self.mean, -self.high, -self.low, self.p_holm)

    def to_json(self) -> dict[str, Any]:
        """The fixed JSON form of a comparison; null where undefined."""
        return {name: _number(value) if isinstance(value, float) else value for name, value in asdict(self).items()}


@dataclass(frozen=True)
class SweepPoint:
    """A stepwise method at one number of reverse steps, on the same users as the results."""

    method: str
    steps: int
    metric: str
    value: Interval
    ms_per_user: float


@dataclass(frozen=True)
class WalkItem:
    """An item in a list of one level; `taken`: the user really took it next."""

    id: str
    title: str
    score: float
    taken: bool


@dataclass(frozen=True)
class Walk:
    """One user's reverse process as the lists it would give at each level, noisiest first, the answer last."""

    method: str
    user: str
    history: Sequence[str]
    """Titles, oldest first."""
    levels: Sequence[tuple[int, Sequence[WalkItem]]]


@dataclass(frozen=True)
class Report:
    """Everything on the page. All results share one dataset and one protocol, else they are not comparable."""

    title: str
    results: Sequence[Result]
    pairs: Sequence[Pair]
    sweep: Sequence[SweepPoint]
    walks: Sequence[Walk]
    select_by: str
    """The metric that methods were chosen by; it decides the headline."""
    facts: Mapping[str, str]
    """`command`, versions, seeds, hashes, facts of the dataset."""
    references: Sequence[Reference] = ()

    def __post_init__(self) -> None:
        if not self.results:
            raise InvalidInput(say("A report needs at least one result"))
        methods = [result.method for result in self.results]
        if len(set(methods)) < len(methods):
            raise InvalidInput(say("Every method stands once in a report", got=methods))
        first = self.results[0]
        for result in self.results:
            if (result.dataset, dict(result.protocol)) != (first.dataset, dict(first.protocol)):
                what = f"{result.method!r} and {first.method!r} differ in dataset or protocol"
                raise InvalidInput(say(what, remedy="Compare only what was evaluated alike"))
            if self.select_by not in result.metrics:
                what = f"{result.method!r} lacks the selection metric"
                raise InvalidInput(say(what, got=self.select_by, allowed=list(result.metrics)))

    def to_json(self) -> dict[str, Any]:
        """The fixed JSON form of a comparison."""
        return {
            "protocol": dict(self.results[0].protocol),
            "results": [result.to_json() for result in self.results],
            "pairs": [pair.to_json() for pair in self.pairs],
        }


@dataclass(frozen=True)
class Verdict:
    """The headline: `ahead`, `behind` or `open`, and one or two plain sentences."""

    kind: Literal["ahead", "behind", "open"]
    sentences: Sequence[str]


def write_report(path: Path, report: Report) -> None:
    """Publish the page atomically: one HTML file without script or outside resources; same report, same bytes.

    Raises: MissingExtra when matplotlib or jinja2 is not installed.
    """
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError:
        raise MissingExtra(figures.MISSING) from None
    environment = Environment(
        loader=PackageLoader("rediffuse.evaluation"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        mean=_mean, signed=_signed, p=_p, short=_short, score=_score, words=_words, meaning=_meaning
    )
    write_text(path, environment.get_template("report.html").render(_page(report)) + "\n")


def headline(report: Report) -> Verdict:
    """Who leads on the selection metric, and whether the best diffusion model beats the best method without one.

    Without a diffusion model the leader is held against the best other method.
    """
    ranked, metric = _ranked(report), report.select_by
    if not ranked:
        return Verdict("open", (f"{metric} is undefined for every method: no user has anything to find.",))
    leader = ranked[0]
    diffusion = [result for result in ranked if result.role == "diffusion"]
    subject = diffusion[0] if diffusion else leader
    others = [result for result in ranked if result is not subject]
    rivals = [result for result in others if result.role in RIVALS]
    leads = f"{leader.method} has the highest {metric}: {_value(report, leader):.4f}"
    if not rivals and (diffusion or not others):
        why = "No classic method or control was run beside it, so nothing can be said of its worth."
        return Verdict("open", (f"{leads}.", why))
    rival = (rivals or others)[0]
    pair = _find(report, subject.method, rival.method)
    if pair is None:
        why = f"{subject.method} and {rival.method} were not compared user by user, so their difference is not settled."
        return Verdict("open", (f"{leads}.", why))
    sentences = [_outcome(pair, subject, rival, leader, metric), _evidence(report, pair, subject, rival)]
    if leader not in (subject, rival):
        sentences.append(f"{leads}.")
    if not diffusion:
        sentences.append("No diffusion model was compared.")
    return Verdict(_KINDS[pair.sign], sentences)


def _outcome(pair: Pair, subject: Result, rival: Result, leader: Result, metric: str) -> str:
    other = f"{rival.method}, {_BEST[rival.role]}"
    if leader is rival:
        how = {1: "beats it user by user", 0: "does not beat it: the difference may be chance", -1: "falls short of it"}
        return f"{other}, leads on {metric}; {subject.method}, the best diffusion model, {how[pair.sign]}."
    name = subject.method if subject is leader else f"{subject.method}, the best diffusion model,"
    how = {
        1: f"beats {other}, on {metric}",
        0: f"{'leads on ' + metric + ' but ' if subject is leader else ''}does not beat {other}"
        f"{'' if subject is leader else ', on ' + metric}: the difference may be chance",
        -1: f"falls short of {other}, on {metric}",
    }
    return f"{name} {how[pair.sign]}."


def _evidence(report: Report, pair: Pair, subject: Result, rival: Result) -> str:
    base = _value(report, rival)
    share = f"{pair.mean / base:+.1%}; ".replace("%", "\u00a0%").replace("-", "−") if base > 0 else ""
    interval = f"95\u00a0% interval {_signed(pair.low)} to {_signed(pair.high)}"
    relation = "" if pair.p_holm < 0.001 or not math.isfinite(pair.p_holm) else "=\u00a0"
    p = f"Holm-corrected p\u00a0{relation}{_p(pair.p_holm)}"
    values = f"{_value(report, subject):.4f} against {base:.4f}"
    text = f"{values}; per user {_signed(pair.mean)} ({share}{interval}; {p})."
    if pair.sign:
        return text
    inside = pair.low <= 0 <= pair.high
    return f"{text} {'The interval includes zero' if inside else 'Among so many comparisons this may be chance'}."


def _find(report: Report, a: str, b: str) -> Pair | None:
    for pair in report.pairs:
        if pair.metric == report.select_by and {pair.a, pair.b} == {a, b}:
            return pair if pair.a == a else pair.turned()
    return None


def _value(report: Report, result: Result) -> float:
    return result.metrics[report.select_by].mean


def _ranked(report: Report) -> list[Result]:
    """Best first on the selection metric; methods whose mean is undefined are left out."""
    known = [result for result in report.results if math.isfinite(_value(report, result))]
    return sorted(known, key=lambda result: -_value(report, result))


def _page(report: Report) -> dict[str, Any]:
    """What the template shows, in the order of the page."""
    ranked = _ranked(report)
    results = ranked + [result for result in report.results if result not in ranked]
    rivals = [result for result in ranked if result.role in RIVALS]
    reference = _value(report, rivals[0]) if rivals else math.nan
    metrics = _in_order([report.select_by], *(result.metrics for result in results))
    lines, metric = _lines(report)
    return {
        "report": report,
        "verdict": headline(report),
        "results": results,
        "metrics": metrics,
        "best": {metric: _best(metric, results) for metric in metrics},
        "meaning": {metric: text for metric in metrics if (text := _meaning(metric))},
        "alike": len({(result.users, result.undefined) for result in results}) == 1,
        "timings": _in_order(*(result.seconds for result in results)),
        "roles": [role for role in ROLES if any(result.role == role for result in results)],
        "rival": rivals[0] if rivals else None,
        "accuracy": _accuracy(report, results, reference),
        "sweep": _sweep(lines, reference if metric == report.select_by else math.nan, metric),
        "lines": lines,
        "points": [dict(zip(line.steps, zip(line.mean, line.ms_per_user, strict=True), strict=True)) for line in lines],
        "swept": sorted({steps for line in lines for steps in line.steps}),
        "sweep_metric": metric,
        "walks": [
            _walk(walk, f"w{place}") for place, walk in enumerate(report.walks) if walk.levels and walk.levels[-1][1]
        ],
        "pairs": sorted(report.pairs, key=lambda pair: metrics.index(pair.metric) if pair.metric in metrics else 99),
        "protocol": list(_flat(report.results[0].protocol)),
        "alpha": ALPHA,
    }


def _accuracy(report: Report, results: Sequence[Result], reference: float) -> tuple[str, str]:
    """The wide and the narrow rendition."""
    values = [(result, result.metrics[report.select_by]) for result in results]
    dots = [figures.Dot(result.method, result.role, v.mean, v.low, v.high) for result, v in values]
    wide, narrow = (
        figures.accuracy(dots, reference, metric=report.select_by, width=width, name=f"a{width}")
        for width in (figures.WIDE, figures.NARROW)
    )
    return wide, narrow


def _lines(report: Report) -> tuple[list[figures.Line], str]:
    """A line per stepwise method, on the selection metric where it was swept, else on the first metric that was."""
    swept = [point.metric for point in report.sweep]
    metric = report.select_by if report.select_by in swept or not swept else swept[0]
    lines: list[figures.Line] = []
    for method in dict.fromkeys(point.method for point in report.sweep if point.metric == metric):
        mine = [point for point in report.sweep if (point.method, point.metric) == (method, metric)]
        mine.sort(key=lambda point: point.steps)
        values = [point.value for point in mine]
        steps, cost = [point.steps for point in mine], [point.ms_per_user for point in mine]
        mean, low, high = [v.mean for v in values], [v.low for v in values], [v.high for v in values]
        lines.append(figures.Line(method, steps, mean, low, high, cost))
    return lines, metric


def _sweep(lines: Sequence[figures.Line], reference: float, metric: str) -> dict[str, Any] | None:
    if not lines:
        return None
    wide, narrow = (
        figures.steps(lines, reference, metric=metric, width=width, name=f"s{width}")
        for width in (figures.WIDE, figures.NARROW)
    )
    return {"figure": (wide, narrow), "reference": math.isfinite(reference)}


def _walk(walk: Walk, name: str) -> dict[str, Any]:
    """A walk with few enough levels to read: the grid with rank movement, the picture, and what they say."""
    grid = _spread(walk.levels, SHOWN_LEVELS)
    drawn = _spread(walk.levels, DRAWN_LEVELS)
    columns = [figures.Column(str(t), [(item.id, item.title, item.taken) for item in items]) for t, items in drawn]
    columns[-1] = figures.Column("answer", columns[-1].items)
    picture = [figures.ranks(columns, width=w, name=f"{name}-{w}") for w in (figures.WIDE, figures.NARROW)]
    return {
        "walk": walk,
        "levels": [t for t, _ in grid],
        "rows": _cells([items for _, items in grid]),
        "figure": picture if len(columns) > 1 else None,
        "taken": [sum(item.taken for item in items) for _, items in (walk.levels[0], walk.levels[-1])],
        "length": len(walk.levels[-1][1]),
        "recent": list(walk.history[-SHOWN_HISTORY:]),
        "earlier": max(len(walk.history) - SHOWN_HISTORY, 0),
    }


def _cells(lists: Sequence[Sequence[WalkItem]]) -> list[list[tuple[WalkItem, int | None] | None]]:
    """Rank by rank, level by level: the item and how many places it rose (None: not in the list before)."""
    rows: list[list[tuple[WalkItem, int | None] | None]] = []
    for rank in range(max(map(len, lists))):
        row: list[tuple[WalkItem, int | None] | None] = []
        for place, items in enumerate(lists):
            before = {item.id: old for old, item in enumerate(lists[place - 1])} if place else {}
            old = before.get(items[rank].id) if rank < len(items) else None
            row.append((items[rank], None if old is None else old - rank) if rank < len(items) else None)
        rows.append(row)
    return rows


def _spread(values: Sequence[T], count: int) -> list[T]:
    """At most `count` of the values, evenly spread, the first and the last among them."""
    if len(values) <= count:
        return list(values)
    return [values[round(place * (len(values) - 1) / (count - 1))] for place in range(count)]


def _best(metric: str, results: Sequence[Result]) -> float | None:
    """The highest mean as it is printed; None where higher is not simply better or nothing is defined."""
    if metric.partition("@")[0] not in MEANING:
        return None
    means = [result.metrics[metric].mean for result in results if metric in result.metrics]
    return max((round(mean, 4) for mean in means if math.isfinite(mean)), default=None)


def _in_order(*names: Iterable[str]) -> list[str]:
    """All names, each once, in order of first appearance."""
    return list(dict.fromkeys(name for group in names for name in group))


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", _words(value)


def _words(value: Any) -> str:
    """A value of a protocol or a setting as one reads it."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} = {text}" for key, text in _flat(value))
    if isinstance(value, list | tuple):
        return ", ".join(map(_words, value))
    return {True: "yes", False: "no", None: "none"}[value] if value is None or isinstance(value, bool) else str(value)


def _meaning(metric: str) -> str:
    name, _, k = metric.partition("@")
    return MEANING.get(name, "").format(k=k or "K")


def _mean(value: float) -> str:
    return f"{value:.4f}".replace("-", "−") if math.isfinite(value) else "–"


def _signed(value: float) -> str:
    """A difference to four places with a real minus; more places where it would read as zero."""
    if not math.isfinite(value):
        return "–"
    shown = f"{value:+.4f}" if value == 0 or abs(value) >= 5e-5 else f"{value:+.1e}"
    return shown.replace("-", "−")


def _p(value: float) -> str:
    if not math.isfinite(value):
        return "undefined"
    return "<\u00a00.001" if value < 0.001 else f"{value:.3g}"


def _short(value: float) -> str:
    """Three significant digits, thousands apart: 0.0123, 4.56, 1,230."""
    if not math.isfinite(value):
        return "–"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _score(value: float) -> str:
    """Three significant digits, trailing zeros kept so that a column lines up."""
    if not math.isfinite(value):
        return "–"
    return (f"{value:,.0f}" if abs(value) >= 100 else f"{value:#.3g}").replace("-", "−")


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
