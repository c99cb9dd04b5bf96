"""Every command, flag, setting, snippet and code reference in the documentation is real, and runs."""

import ast
import re
import shlex
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from docs import reference
from rediffuse import registry
from rediffuse.cli.main import app

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
COMMANDS = get_command(app).commands


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)


def rediffuse_lines(text: str) -> list[str]:
    """`rediffuse VERB ...` wherever it stands as code."""
    found = re.findall(r"`(rediffuse [a-z][^`]*)`", text)
    return found + [line for line in text.splitlines() if line.startswith("rediffuse ")]


@pytest.mark.parametrize("name", reference.pages())
def test_reference_pages_are_those_of_the_code(name):
    assert (reference.FOLDER / name).read_text(encoding="utf-8") == reference.pages()[name], "run: make docs"


def test_tables_of_the_readme_are_those_of_the_results():
    assert (ROOT / "README.md").read_text(encoding="utf-8") == reference.readme(), "run: make docs"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_in_pages_exist_with_their_flags(page):
    for line in rediffuse_lines(page.read_text(encoding="utf-8")):
        verb, *words = shlex.split(line)[1:]
        assert verb in COMMANDS, line
        flags = {flag for parameter in COMMANDS[verb].params for flag in parameter.opts}
        assert not {word for word in words if re.fullmatch(r"--?[a-z][a-z-]*", word)} - flags, line


@pytest.mark.parametrize("verb", COMMANDS)
def test_every_verb_has_help_with_an_example_that_parses(verb):
    example = re.search(r"Example: `(rediffuse .*?)`", COMMANDS[verb].help or "", flags=re.DOTALL)
    assert example, f"{verb} has no example"
    words = shlex.split(example[1])[1:]
    assert words[0] == verb
    COMMANDS[verb].make_context(verb, words[1:])


@pytest.mark.parametrize("name", registry.methods())
def test_every_method_has_a_card_whose_references_exist(name):
    card = (ROOT / "docs" / "cards" / f"{name}.md").read_text(encoding="utf-8")
    assert card.startswith(f"# {name}\n")
    places = re.findall(r"`([\w/]+\.py)::([\w.]+)`", card)
    assert places, "a card says where each equation stands"
    for path, qualified in places:
        tree = ast.parse((ROOT / "src" / "rediffuse" / path).read_text(encoding="utf-8"))
        for part in qualified.split("."):
            named = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.ClassDef) and n.name == part]
            assert named, f"{path} has no {qualified}"
            tree = named[0]


def test_links_between_pages_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links {target}"


def test_make_targets_in_pages_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, flags=re.MULTILINE))
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        used = set(re.findall(r"`make ([a-z-]+)`", text)) | set(
            re.findall(r"^make ([a-z-]+)", text, flags=re.MULTILINE)
        )
        assert used <= targets, f"{page.name} names {used - targets}"


def run_readme(replace: dict[str, str]) -> None:
    (commands,) = blocks(ROOT / "README.md", "bash")
    for line in commands.splitlines():
        for old, new in replace.items():
            line = line.replace(old, new)  # noqa: PLW2901
        result = CliRunner().invoke(app, shlex.split(line)[1:], catch_exceptions=False)
        assert result.exit_code == 0, f"{line}: {result.output}"
    for snippet in blocks(ROOT / "README.md", "python"):
        exec(compile(snippet, "README.md", "exec"), {})
    assert Path("out/report.html").is_file()
    assert Path("out/diffrec.json").is_file()


def test_readme_runs_on_a_tiny_shop(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_readme({"atelier small": "atelier tiny"})


@pytest.mark.slow
def test_readme_runs_as_it_stands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_readme({})
