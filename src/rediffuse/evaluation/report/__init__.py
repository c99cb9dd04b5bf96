"""One comparison of recommenders as a page that needs nothing else: the verdict first, then what it rests on.

`Report` holds the numbers, `headline` words them, `write_report` publishes them as HTML, Markdown or JSON. Means,
intervals and corrected p-values come from `statistics`: here they only become sentences, tables and pictures.
"""

from rediffuse.evaluation.report.comparison import Report, Verdict, headline
from rediffuse.evaluation.report.values import (
    ALPHA,
    ROLES,
    CoursePoint,
    Pair,
    Reference,
    Result,
    Slice,
    SweepPoint,
    Trial,
    Walk,
    WalkItem,
)
from rediffuse.evaluation.report.write import (
    PAGES,
    read_report,
    require_report,
    write_markdown,
    write_page,
    write_report,
)
from rediffuse.evaluation.statistics import Interval

__all__ = [
    "ALPHA",
    "PAGES",
    "ROLES",
    "CoursePoint",
    "Interval",
    "Pair",
    "Reference",
    "Report",
    "Result",
    "Slice",
    "SweepPoint",
    "Trial",
    "Verdict",
    "Walk",
    "WalkItem",
    "headline",
    "read_report",
    "require_report",
    "write_markdown",
    "write_page",
    "write_report",
]
