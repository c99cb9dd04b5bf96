"""Make the pictures of docs/knobs.md anew, and the sentences that stand beside them, on the small embedded shop.

    python -m docs.pictures [--models FOLDER] [--only STUDY,STUDY]

Each picture is that of a study of `rediffuse evaluate`, drawn once more with colours of its own, since Markdown knows
none of a page. The sentences go between `<!-- found: STUDY -->` and `<!-- /found -->`. Where the folder of models holds
`next`, `season` and `ease`, trained by the commands of the page, they are taken.
"""

import argparse
import html
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp

import rediffuse
from rediffuse import registry
from rediffuse.artifacts import ModelFolder, read_model
from rediffuse.cli.studying import Bench, protocol_of
from rediffuse.config import RunConfig
from rediffuse.data.dataset import Dataset
from rediffuse.data.importers.atelier import load
from rediffuse.data.splits import GlobalTime
from rediffuse.evaluation.figures import WIDE
from rediffuse.evaluation.protocol import protocol_for
from rediffuse.evaluation.report.blocks import Mark, Picture
from rediffuse.evaluation.report.studies import sentences
from rediffuse.evaluation.study import Examined, Study
from rediffuse.types import Options

FOLDER = Path(__file__).parent / "pictures"
PAGE = FOLDER.parent / "knobs.md"
MODELS = {"next": ("diffrec", "atelier-next"), "season": ("diffrec", "atelier-season"), "ease": ("ease", "atelier")}
"""Folder -> method and preset."""
TEMPLATE = Path(rediffuse.__file__).parent / "evaluation" / "templates" / "report.html"
LINE, GAP, LETTER = 30, 26, 7.6
"""Height of the line that holds the key, space between two of its entries and width of a letter, px."""
SHAPES = {
    "o": '<circle cx="6" cy="6" r="4.5"/>',
    "s": '<path d="M2 2h8v8h-8z"/>',
    "D": '<path d="M6 .5 11.5 6 6 11.5 .5 6z"/>',
    "^": '<path d="M6 1.5 11 10.5H1z"/>',
    "*": '<path d="M6 0 7.5 4.2 12 4.4 8.5 7.1 9.7 11.4 6 8.9 2.3 11.4 3.5 7.1 0 4.4 4.5 4.2z"/>',
}


@dataclass(frozen=True)
class Shot:
    """A study of the page: its pictures by name, in their order; which model is studied, and how it is asked."""

    pictures: Sequence[str]
    model: str = "season"
    options: Options = Options()


SHOTS: Mapping[str, Shot] = {
    "samplers": Shot(["samplers"]),
    "guidance": Shot(["guidance"]),
    "calibration": Shot(["reliability", "risk"], "next", Options(draws=32)),
    "diversity-front": Shot(["diversity"]),
}


def main() -> None:
    """Train what is missing, run each study, draw and write what it found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, default=None)
    parser.add_argument("--only", default=",".join(SHOTS))
    arguments = parser.parse_args()
    shop = load("small").with_split(GlobalTime())
    folder = Path(mkdtemp()) if arguments.models is None else arguments.models
    models = {name: trained(shop, folder / name, *recipe) for name, recipe in MODELS.items()}
    for name in arguments.only.split(","):
        section = study(shop, models, name).section
        drawn = [block for block in section.blocks if isinstance(block, Picture)]
        for picture, file in zip(drawn, SHOTS[name].pictures, strict=True):
            (FOLDER / f"{file}.svg").write_text(standing(picture, file), encoding="utf-8")
        PAGE.write_text(telling(PAGE.read_text(encoding="utf-8"), name, sentences(section)), encoding="utf-8")


def trained(shop: Dataset, folder: Path, method: str, preset: str) -> ModelFolder:
    """The model of a folder, trained and put there first where it is missing."""
    if not folder.exists():
        recipe = registry.recipe(method, preset)
        registry.fit(recipe, shop, protocol_for(shop), RunConfig(device="cpu", seed=1)).write(folder)
    return read_model(folder)


def study(shop: Dataset, models: Mapping[str, ModelFolder], name: str) -> Study:
    """What `evaluate` finds, with ease for a rival."""
    shot = SHOTS[name]
    folder, rival = models[shot.model], models["ease"]
    model, other = (registry.restore(one, "cpu")[1] for one in (folder, rival))
    examined = Examined(folder.method, model, shop.numbered_like(folder.items), protocol_of(folder), shot.options, 1)
    return Bench(examined, folder, [("ease", other)], "cpu").run([name])[name]


def telling(page: str, name: str, words: Iterable[str]) -> str:
    """The page with these sentences of a study."""
    begin, end = f"<!-- found: {name} -->\n", "<!-- /found -->"
    before, found, rest = page.partition(begin)
    assert found, f"the page has no place for what {name} finds"
    return before + begin + "".join(f"> - {sentence}\n" for sentence in words) + end + rest.partition(end)[2]


def standing(picture: Picture, name: str) -> str:
    """The picture as a file of its own: key on top, white ground, the light colours of the report in words."""
    svg = picture.draw(WIDE, name)
    found = re.fullmatch(r'<svg viewBox="0 0 (\d+) (\d+)"([^>]*)>(.*)</svg>', svg, flags=re.DOTALL)
    assert found, "pictures of a report are inline SVG"
    width, height = int(found[1]), int(found[2])
    lines = list(_lines(picture.key, width))
    top = LINE * len(lines)
    key = "".join(f'<g transform="translate(12 {LINE * n + 9})">{"".join(line)}</g>' for n, line in enumerate(lines))
    text = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height + top}"{found[3]} '
        f'font-family="system-ui, -apple-system, Segoe UI, Roboto, DejaVu Sans, sans-serif">'
        f'<rect width="{width}" height="{height + top}" fill="var(--paper)"/>{key}'
        f'<g transform="translate(0 {top})">{found[4]}</g></svg>\n'
    )
    colours = dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", TEMPLATE.read_text(encoding="utf-8").partition("@media")[0]))
    return re.sub(r"var\(--(\w+)\)", lambda colour: colours[colour[1]], text)


def _lines(key: Sequence[Mark], width: int) -> Iterator[list[str]]:
    """The marks with their words, as many to a line as fit."""
    line, x = list[str](), 0.0
    for mark in key:
        wide = 20 + LETTER * len(mark.words) + GAP
        if line and x + wide > width:
            yield line
            line, x = [], 0.0
        shape = (
            '<path d="M0 6h16" stroke="var(--muted)" stroke-width="1.5" stroke-dasharray="3 3"/>'
            if mark.shape == "dash"
            else f'<g fill="var(--{mark.colour})">{SHAPES[mark.shape]}</g>'
        )
        words = f'<text x="20" y="11" font-size="13.5" fill="var(--muted)">{html.escape(mark.words)}</text>'
        line.append(f'<g transform="translate({x:.0f} 0)">{shape}{words}</g>')
        x += wide
    if line:
        yield line


if __name__ == "__main__":
    main()
