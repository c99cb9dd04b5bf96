"""Publish a report in the form that a file's name asks for."""

from collections.abc import Sequence
from pathlib import Path

from rediffuse.errors import InvalidInput, say
from rediffuse.evaluation.figures import require_plotting
from rediffuse.evaluation.report import as_html, as_markdown
from rediffuse.evaluation.report.comparison import Report
from rediffuse.evaluation.report.page import Page, lay_out
from rediffuse.files import read_json, write_json, write_text

PAGES = (".html", ".md")
"""Endings of a page to read."""
SUFFIXES = (*PAGES, ".json")


def require_report(path: Path, suffixes: Sequence[str] = SUFFIXES) -> None:
    """Complain before long work when its report could not be written there.

    Raises: InvalidInput for another ending; MissingExtra when a page's pictures could not be drawn.
    """
    if path.suffix not in suffixes:
        raise InvalidInput(say(f"{str(path)!r} names no form of a report", got=path.suffix, allowed=[*suffixes]))
    if path.suffix == ".html":
        require_plotting()


def write_report(path: Path, report: Report) -> None:
    """Publish the report atomically as .html (one file without script or outside resources), .md or .json.

    Same report, same bytes. Raises: as `require_report`.
    """
    require_report(path)
    if path.suffix == ".json":
        write_json(path, report.to_json())
    else:
        write_page(path, lay_out(report))


def write_page(path: Path, page: Page) -> None:
    """Publish a page atomically as .html or .md. Raises: as `require_report`."""
    require_report(path, PAGES)
    write_text(path, as_html.render(page) if path.suffix == ".html" else as_markdown.render(page))


def write_markdown(path: Path, report: Report) -> None:
    """Publish the report atomically as GitHub-flavoured Markdown, whatever the file is called."""
    write_text(path, as_markdown.render(lay_out(report)))


def read_report(path: Path) -> Report:
    """The report in a JSON file. Raises: ArtifactError when it is no JSON; InvalidInput when it holds no report."""
    return Report.from_json(read_json(path))
