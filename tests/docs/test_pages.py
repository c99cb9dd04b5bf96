"""Every page with commands or snippets is run as it stands, on small data, in a folder of its own."""

import sys
import tomllib
from importlib import invalidate_caches
from pathlib import Path

import pytest

from rediffuse import registry, samplers
from rediffuse.data import importers
from tests.docs.pages import ROOT, Page, blocks, examined

DOCS = ROOT / "docs"
ELSEWHERE = {"adding_a_recommender.md", "adding_a_sampler.md", "adding_an_importer.md", "tutorial.md"}
"""Pages with a test of their own, below."""
RUNNING = sorted(
    path.name
    for path in DOCS.glob("*.md")
    if path.name not in ELSEWHERE and any(said in ("bash", "python") for said, _ in blocks(path))
)


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_pages_are_found() -> None:
    assert {"diffusion.md", "knobs.md", "protocol.md", "reliability.md", "tour.md"} <= set(RUNNING)


@pytest.mark.parametrize("name", RUNNING)
def test_a_page_runs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Page(DOCS / name, monkeypatch).run()


@pytest.mark.slow
@pytest.mark.realdata
def test_the_story_of_the_shipped_split_is_true(real: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = real / "ml-1m_clean"
    said = Page(DOCS / "protocol.md", monkeypatch, lambda text: text.replace("ml-1m_clean", str(folder))).run(
        "realdata"
    )
    assert len(said.said) > 2


@pytest.mark.slow
def test_the_tutorial_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    page = Page(DOCS / "tutorial.md", monkeypatch).run()
    assert not list(Path("models").glob(".*")), "a finished training leaves nothing but its model"
    lines = Path("out/first.jsonl").read_text().splitlines()
    assert [f'"epoch": {n}' in line for n, line in enumerate(lines, start=1)] == [True] * len(lines)
    assert "Recommenders on" in "".join(page.said)
    assert Path("out/report.html").is_file()


def test_the_recommender_of_its_page_keeps_the_contracts(monkeypatch: pytest.MonkeyPatch) -> None:
    Page(DOCS / "adding_a_recommender.md", monkeypatch).run()
    project = tomllib.loads(Path("mine/pyproject.toml").read_text())["project"]
    _install(Path("mine"), project["name"], project["entry-points"], monkeypatch)
    ((name, target),) = project["entry-points"]["rediffuse.methods"].items()
    assert registry.methods()[name].target == target
    outcomes = examined(Path("mine/tests"))
    assert [f"{test}: {how}" for test, how in outcomes.items() if how == "failed"] == []
    assert sum(how == "passed" for how in outcomes.values()) > 25


def test_the_sampler_of_its_page_keeps_the_contracts(monkeypatch: pytest.MonkeyPatch) -> None:
    Page(DOCS / "adding_a_sampler.md", monkeypatch).run()
    (file,) = Path("src/rediffuse/samplers").glob("*.py")
    assert not (ROOT / file).exists(), "the page adds what is not there"
    assert set(examined(Path("tests")).values()) == {"passed"}
    assert file.stem not in samplers.SAMPLERS


def test_the_importer_of_its_page_imports(monkeypatch: pytest.MonkeyPatch) -> None:
    page = Page(DOCS / "adding_an_importer.md", monkeypatch).run()
    assert set(examined(Path("tests")).values()) == {"passed"}
    (file,) = Path("src/rediffuse/data/importers").glob("*.py")
    monkeypatch.setitem(
        importers.IMPORTERS, file.stem, vars(sys.modules[f"rediffuse.data.importers.{file.stem}"])["load"]
    )
    page.command(f"rediffuse import {file.stem} till.txt --to data/till")
    page.command("rediffuse describe data/till")
    assert "till" in page.said[-1]


def _install(folder: Path, name: str, points: dict[str, dict[str, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    """What pip would do with a package: its modules can be imported, its entry points are found."""
    facts = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = [f"[{group}]\n" + "\n".join(f"{k} = {v}" for k, v in entries.items()) for group, entries in points.items()]
    (facts / "entry_points.txt").write_text("\n".join(lines) + "\n")
    monkeypatch.syspath_prepend(str(folder.resolve()))
    invalidate_caches()
