"""A page as one HTML file without script or outside resources."""

from rediffuse.evaluation import figures
from rediffuse.evaluation.report.page import Page


def render(page: Page) -> str:
    """The whole text; same page, same bytes. Raises: MissingExtra when matplotlib or jinja2 is not installed."""
    figures.require_plotting()
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("rediffuse.evaluation"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    template = environment.get_template("report.html")
    return template.render(page=page, wide=figures.WIDE, narrow=figures.NARROW) + "\n"
