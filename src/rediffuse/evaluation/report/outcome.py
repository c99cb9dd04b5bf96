"""The sections on what was reached: accuracy, paired differences, parts of the users and items, beyond accuracy."""

import math
from collections.abc import Iterable, Mapping, Sequence

from rediffuse.evaluation import figures, wording
from rediffuse.evaluation.report.blocks import Block, Cell, Details, Mark, Picture, Section, Table, Terms, Text
from rediffuse.evaluation.report.comparison import Report, reached
from rediffuse.evaluation.report.values import ALPHA, Reference, Result, Slice
from rediffuse.evaluation.statistics import Interval

MEANT = {
    "diffusion": "diffusion model",
    "classic": "classic method",
    "control": "control, the least to beat",
    "method": "other method",
    "reference": "reference, out of reach for a shop",
}
_TITLES = {
    "history length": "By how much is known of the user",
    "popularity": "By how popular the item is",
    "answer": "By where the answer came from",
}
"""Ways of parting users and items, as headings."""
_BOLD = (
    "The best mean of a column is bold. Overlapping intervals do not decide between two methods: the paired differences "
    "below do."
)
_SHAPES = {role: shape for role, (_, shape) in figures.ROLES.items()}


def accuracy(report: Report, results: Sequence[Result]) -> Section:
    """The picture and the table of every metric, the selection metric and those of recall and ndcg first."""
    k = report.select_by.partition("@")[2]
    names = in_order([report.select_by], *(result.metrics for result in results))
    names.sort(key=lambda name: (name != report.select_by, name.partition("@")[2] != k))
    shown = [n for n in names if n == report.select_by or n.partition("@")[0] in ("recall", "ndcg")]
    folded = [name for name in names if name not in shown]
    dots = [_dot(f"{r.name} (reference)", "reference", r.metrics.get(report.select_by)) for r in report.references]
    dots += [_dot(result.method, result.role, result.metrics[report.select_by]) for result in results]
    rival = report.rival()
    line = report.value(rival) if rival else math.nan
    caption = (
        f"Mean {report.select_by} over users with its 95\u00a0% interval, best first; the axis need not start at 0."
    )
    caption += f" The dashed line marks {rival.method}." if rival else ""
    caption += " Dotted lines mark the references." if report.references else ""
    key = [*key_of(results, "reference" if report.references else "")]
    key += [Mark("dash", "muted", "best control or classic method")] if rival else []
    blocks: list[Block] = [
        Picture(lambda w, n: figures.accuracy(dots, line, metric=report.select_by, width=w, name=n), caption, key),
        _metrics("Accuracy: mean over users with its 95\u00a0% interval", shown, results, report.references),
        *([Text(_BOLD, "note")] if len(results) > 1 else []),
        Text(_users(results), "note"),
    ]
    if folded:
        table = _metrics("Further metrics, as above", folded, results, report.references)
        blocks.append(Details(f"{wording.counted(len(folded), 'further metric')}: {', '.join(folded)}", [table]))
    if terms := [(name, f"{text}.") for name in names if (text := wording.meaning(name))]:
        blocks.append(Details("What each metric says", [Terms(terms)]))
    if report.references:
        blocks += _references(report, results)
    return Section("accuracy", "Accuracy of each method" if len(results) > 1 else "Accuracy", blocks)


def paired(report: Report) -> Section:
    """Every comparison that was made, of the selection metric first."""
    if not report.pairs:
        none = Text("No paired comparison was made, so no difference between methods is settled.")
        return Section("paired", "Paired differences", [none])
    pairs = sorted(report.pairs, key=lambda pair: pair.metric != report.select_by)
    rows = [
        [
            Cell(pair.a),
            Cell(pair.b, kind="words"),
            Cell(pair.metric),
            Cell(wording.signed(pair.mean)),
            Cell(f"{wording.signed(pair.low)} to {wording.signed(pair.high)}"),
            Cell(wording.p_value(pair.p_holm)),
            Cell({1: pair.a, -1: pair.b, 0: "not settled"}[pair.sign], kind="settled" if pair.sign else ""),
        ]
        for pair in pairs
    ]
    first = report.ranked()[0].method if report.ranked() else ""
    near = [row for row, pair in zip(rows, pairs, strict=True) if first in (pair.a, pair.b)]
    rest = [row for row in rows if row not in near]
    head = ("a", "b", "metric", "a − b", "95\u00a0% interval", "p (Holm)", "ahead")
    blocks: list[Block] = [
        Table("Differences taken user by user", head, near or rows, "pairs"),
        Text(
            "A difference counts as settled when its interval excludes zero and its p, corrected for the number of "
            f"comparisons (Holm), lies below {ALPHA}; the intervals themselves are not corrected.",
            "note",
        ),
    ]
    if near and rest:
        folded = Table("Differences among the others", head, rest, "pairs")
        blocks.insert(1, Details(f"{wording.counted(len(rest), 'comparison')} among the others", [folded]))
    return Section("paired", "Paired differences", blocks)


def parts(report: Report, results: Sequence[Result]) -> list[Section]:
    """A section per way of parting users or items: small pictures and the table."""
    return [_by(report, by, results) for by in in_order(*([s.by for s in result.slices] for result in results))]


def beyond(report: Report, results: Sequence[Result]) -> list[Section]:
    """What lists are like besides accurate, with what each figure says; at the K of the selection metric first."""
    names, there = in_order(*(result.beyond for result in results)), [result for result in results if result.beyond]
    if not names:
        return []
    k = report.select_by.partition("@")[2]
    shown = [name for name in names if name.partition("@")[2] in (k, "")] or names
    folded = [name for name in names if name not in shown]
    blocks: list[Block] = [_lists("What the lists are like besides accurate", shown, there)]
    if terms := [(name, f"{text}.") for name in shown if (text := wording.meaning(name, wording.BEYOND))]:
        blocks.append(Terms(terms))
    blocks.append(Text("A figure without an interval is one number of all lists together.", "note"))
    if folded:
        blocks.append(Details("The same at other list lengths", [_lists("At other list lengths", folded, there)]))
    return [Section("beyond", "Beyond accuracy", blocks)]


def in_order(*names: Iterable[str]) -> list[str]:
    """All names, each once, in order of first appearance."""
    return list(dict.fromkeys(name for group in names for name in group))


def key_of(results: Sequence[Result], *more: str) -> list[Mark]:
    """The marks of the roles that are there."""
    there = {*more, *(result.role for result in results)}
    return [Mark(_SHAPES[role], role, MEANT[role]) for role in MEANT if role in there]


def measured(value: Interval | None, best: float | None = None, places: int = 4) -> Cell:
    """A mean above its interval, strong where it is the `best`; a dash where undefined."""
    if value is None or not math.isfinite(value.mean):
        return Cell("–")
    alone = value.low == value.high == value.mean or not math.isfinite(value.low)
    small = "" if alone else f"{wording.mean(value.low, places)}–{wording.mean(value.high, places)}"
    return Cell(wording.mean(value.mean, places), small, strong=round(value.mean, 4) == best)


def _metrics(caption: str, names: Sequence[str], results: Sequence[Result], references: Sequence[Reference]) -> Table:
    best = {name: _best(name, results) for name in names} if len(results) > 1 else {}
    rows = [
        [_method(r), *(measured(r.metrics.get(name), best.get(name)) for name in names)]
        for r in results
        if any(name in r.metrics for name in names)
    ]
    above = [
        [Cell(f"{r.name} (reference)", role="reference"), *(measured(r.metrics.get(name)) for name in names)]
        for r in references
        if any(name in r.metrics for name in names)
    ]
    return Table(caption, ("method", *names), [*above, *rows])


def _lists(caption: str, names: Sequence[str], results: Sequence[Result]) -> Table:
    rows = [[_method(r), *(measured(r.beyond.get(name), places=3) for name in names)] for r in results]
    return Table(caption, ("method", *names), rows)


def _references(report: Report, results: Sequence[Result]) -> list[Block]:
    """What a reference knows, and how far each method stands from it."""
    blocks: list[Block] = [Terms([(r.name, _known(r)) for r in report.references])]
    rows: list[list[Cell]] = []
    for result in results:
        row = [_method(result)]
        for reference in report.references:
            gap, share = reference.gaps.get(result.method), reached(report, reference, result.method)
            low_high = f"{wording.percent(share[1])} to {wording.percent(share[2])}" if share else ""
            row += [measured(gap), Cell(wording.percent(share[0]) if share else "–", low_high)]
        rows.append(row)
    if any(reference.gaps for reference in report.references):
        head = [title for r in report.references for title in (f"to {r.name}", "reached")]
        caption = f"What is left to gain on {report.select_by}: reference minus method, paired by user"
        note = "Reached: the method's mean as a share of the reference's, which counts as exact in the interval."
        blocks = [Table(caption, ("method", *head), rows), Text(note, "note"), *blocks]
    return blocks


def _known(reference: Reference) -> str:
    exact = f"Monte-Carlo standard error {reference.error:.2g}" if reference.error > 0 else "exact"
    return f"{reference.meaning.rstrip('.')} ({exact})."


def _by(report: Report, by: str, results: Sequence[Result]) -> Section:
    there = [result for result in results if any(one.by == by for one in result.slices)]
    labels = in_order(*([one.label for one in result.slices if one.by == by] for result in there))
    found: dict[tuple[str, str], Slice] = {
        (result.method, one.label): one for result in there for one in result.slices if one.by == by
    }
    panels = [
        (
            f"{label} ({_count(found, label)})",
            [_dot(r.method, r.role, one.value if (one := found.get((r.method, label))) else None) for r in there],
        )
        for label in labels
    ]
    caption = (
        f"Mean {report.select_by} with its 95\u00a0% interval; each panel is a part and has its own axis. In brackets the "
        "users with something to find there."
    )
    best = {label: _highest(found[key].value.mean for key in found if key[1] == label) for label in labels}
    rows = [
        [
            _method(r),
            *(measured(one.value if (one := found.get((r.method, label))) else None, best[label]) for label in labels),
        ]
        for r in there
    ]
    table = Table(f"{report.select_by} by {by}", ("method", *labels), rows)
    picture = Picture(
        lambda w, n: figures.parts(panels, metric=report.select_by, width=w, name=n), caption, key_of(there)
    )
    title = _TITLES.get(by, f"By {by}")
    return Section(f"by-{by.replace(' ', '-')}", title, [picture, Details("As numbers", [table])])


def _count(found: Mapping[tuple[str, str], Slice], label: str) -> str:
    counts = sorted({one.users for (_, part), one in found.items() if part == label})
    return f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,}–{counts[-1]:,}"


def _dot(label: str, role: str, value: Interval | None) -> figures.Dot:
    value = value or Interval(math.nan, math.nan, math.nan)
    return figures.Dot(label, role, value.mean, value.low, value.high)


def _method(result: Result) -> Cell:
    return Cell(result.method, role=result.role)


def _best(metric: str, results: Sequence[Result]) -> float | None:
    """The highest mean as it is printed; None where higher is not simply better or nothing is defined."""
    if metric.partition("@")[0] not in wording.MEANING:
        return None
    return _highest(result.metrics[metric].mean for result in results if metric in result.metrics)


def _highest(means: Iterable[float]) -> float | None:
    return max((round(mean, 4) for mean in means if math.isfinite(mean)), default=None)


def _users(results: Sequence[Result]) -> str:
    if len({(result.users, result.undefined) for result in results}) > 1:
        each = "; ".join(f"{r.method}: {r.users:,} ({r.undefined:,} undefined)" for r in results)
        return f"Users evaluated, and undefined ones with nothing to find, who are in no mean: {each}."
    first = results[0]
    nothing = f"Undefined: {wording.counted(first.undefined, 'user')} with nothing to find, in no mean."
    return f"Users evaluated, the same for every method: {first.users:,}. {nothing}"
