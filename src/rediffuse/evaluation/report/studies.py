"""One model as a page: what it reached, and what studies found of it."""

from collections.abc import Iterator, Mapping, Sequence

from rediffuse.evaluation import wording
from rediffuse.evaluation.report import context, outcome
from rediffuse.evaluation.report.blocks import Block, Bullets, Section, Text
from rediffuse.evaluation.report.comparison import Report, Verdict
from rediffuse.evaluation.report.page import Page
from rediffuse.evaluation.report.values import Result
from rediffuse.evaluation.study import Study


def study_page(result: Result, select_by: str, studies: Mapping[str, Study], facts: Mapping[str, str]) -> Page:
    """The first sentence of every study, accuracy, the studies, then parts, what lists are like, and how it was made.

    Args: select_by: the metric that is told first.   facts: as `Report.facts`.
    """
    report = Report(f"{result.method} on {result.dataset}", [result], [], [], [], select_by, facts)
    value = result.metrics[select_by]
    reached = (
        f"{result.method} reaches {select_by} {wording.mean(value.mean)} "
        f"(95\u00a0% interval {wording.mean(value.low)} to {wording.mean(value.high)})."
    )
    found = [first for study in studies.values() if (first := next(sentences(study.section), ""))]
    said = wording.meaning(select_by)
    counts = f"{wording.counted(result.users, 'user')} · {wording.counted(len(studies), 'study', 'studies')}"
    return Page(
        title=report.title,
        subtitle=f"{counts} · read on {result.protocol.get('report', {}).get('relevant', 'the report part')}",
        standing="Findings",
        verdict=Verdict("open", (reached, *found)),
        note=f"{select_by} is {said}. 1 is perfect." if said else "",
        sections=[
            outcome.accuracy(report, [result]),
            *(study.section for study in studies.values()),
            *outcome.parts(report, [result]),
            *outcome.beyond(report, [result]),
            context.protocol(report, [result]),
            context.made(report),
            context.limits(report),
        ],
    )


def sentences(section: Section) -> Iterator[str]:
    """What a section finds in words: the sentences before its first picture or table."""
    blocks: Sequence[Block] = section.blocks
    for block in blocks:
        if isinstance(block, Bullets):
            yield from block.items
        elif isinstance(block, Text):
            yield block.words
        else:
            return
