"""The page in its order, once for every form it is written in."""

from collections.abc import Sequence
from dataclasses import dataclass

from rediffuse.evaluation import wording
from rediffuse.evaluation.report import context, making, outcome, watching
from rediffuse.evaluation.report.blocks import Section
from rediffuse.evaluation.report.comparison import Report, Verdict, headline


@dataclass(frozen=True)
class Page:
    """A report ready to be shown."""

    title: str
    subtitle: str
    standing: str
    """Whether the headline is settled."""
    verdict: Verdict
    note: str
    """What the selection metric says."""
    sections: Sequence[Section]


def lay_out(report: Report) -> Page:
    """Verdict first, then what it rests on, then how it was made and what it does not show."""
    ranked = report.ranked()
    results = ranked + [result for result in report.results if result not in ranked]
    verdict, said = headline(report), wording.meaning(report.select_by)
    first = results[0]
    counts = f"{wording.counted(len(results), 'method')} · {wording.counted(first.users, 'user')}"
    return Page(
        title=report.title,
        subtitle=f"{first.dataset} · {counts} · decided by {report.select_by}",
        standing="Not settled" if verdict.kind == "open" else "Settled",
        verdict=verdict,
        note=f"{report.select_by} is {said}. 1 is perfect." if said else "",
        sections=[
            outcome.accuracy(report, results),
            outcome.paired(report),
            *outcome.parts(report, results),
            *outcome.beyond(report, results),
            *making.learning(report, results),
            *making.tried(report, results),
            making.cost(report, results),
            *watching.sweep(report),
            *watching.walks(report),
            context.protocol(report, results),
            context.made(report),
            context.limits(report),
        ],
    )
