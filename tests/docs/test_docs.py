"""Every command, flag, setting, snippet and code reference in the documentation is real, and runs."""

import ast
import re
import shlex
from pathlib import Path

import pytest
from typer.main import get_command

from docs import reference
from rediffuse import registry
from rediffuse.cli.main import app
from tests.docs.pages import FENCE, ROOT, Page

PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
COMMANDS = get_command(app).commands
CARD = ("What to know", "What differs from the authors' code", "Settings and presets", "Limits")
"""What a card tells, after the paper and the table of equations."""
OWN_PRESETS = set(registry.methods()) - {"t-diffrec"}
"""Methods whose card names every preset; t-diffrec is a setting of diffrec."""


def rediffuse_lines(text: str) -> list[str]:
    """`rediffuse VERB ...` wherever it stands as code."""
    found = re.findall(r"`(rediffuse [a-z][^`]*)`", text)
    return found + [line for line in text.splitlines() if line.startswith("rediffuse ")]


@pytest.mark.parametrize("name", reference.pages())
def test_reference_pages_are_those_of_the_code(name):
    assert (reference.FOLDER / name).read_text(encoding="utf-8") == reference.pages()[name], "run: make docs"


def test_tables_of_the_readme_are_those_of_the_results():
    assert (ROOT / "README.md").read_text(encoding="utf-8") == reference.readme(), "run: make docs"


def test_the_readme_names_and_counts_every_method():
    table = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Methods\n")[2].partition("\n## ")[0]
    named = [
        name for row in re.findall(r"^\|.*\|(.*)\|$", table, flags=re.MULTILINE) for name in re.findall(r"`(.*?)`", row)
    ]
    assert sorted(named) == sorted(registry.METHODS)
    diffusion = [name for name, entry in registry.METHODS.items() if entry.role == "diffusion"]
    assert (len(diffusion), len(named) - len(diffusion)) == (8, 13), "the README says eight and thirteen"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_in_pages_exist_with_their_flags(page):
    for line in rediffuse_lines(page.read_text(encoding="utf-8")):
        verb, *words = shlex.split(line)[1:]
        assert verb in COMMANDS, line
        flags = {flag for parameter in COMMANDS[verb].params for flag in parameter.opts + parameter.secondary_opts}
        assert not {word for word in words if re.fullmatch(r"--?[a-z][a-z-]*", word)} - flags, line


@pytest.mark.parametrize("verb", COMMANDS)
def test_every_verb_has_help_with_an_example_that_parses(verb):
    example = re.search(r"Example: `(rediffuse .*?)`", COMMANDS[verb].help or "", flags=re.DOTALL)
    assert example, f"{verb} has no example"
    words = shlex.split(example[1])[1:]
    assert words[0] == verb
    COMMANDS[verb].make_context(verb, words[1:])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_and_functions_named_in_pages_exist(page):
    prose = FENCE.sub("", page.read_text(encoding="utf-8"))
    for path, qualified in re.findall(r"`((?:[\w-]+/)*\w+\.py)(?:::([\w.]+))?", prose):
        found = next((file for base in (ROOT / "src" / "rediffuse", ROOT) if (file := base / path).is_file()), None)
        assert found, f"{page.name} names {path}"
        tree = ast.parse(found.read_text(encoding="utf-8"))
        for part in filter(None, qualified.split(".")):
            tree = next((node for node in ast.walk(tree) if part in defined(node)), None)
            assert tree, f"{path} has no {qualified}"


def defined(node: ast.AST) -> tuple[str, ...]:
    """The name that a function, class or annotated field gives."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return (node.name,)
    return (node.target.id,) if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) else ()


@pytest.mark.parametrize("name", registry.methods())
def test_every_method_has_a_card_of_the_one_form(name):
    card = (ROOT / "docs" / "cards" / f"{name}.md").read_text(encoding="utf-8")
    assert card.startswith(f"# {name}\n")
    assert re.findall(r"^## (.*)", card, flags=re.MULTILINE) == list(CARD)
    assert re.search(r"^\| .* \| `[\w/]+\.py::", card, flags=re.MULTILINE), "a card says where each equation stands"
    presets = card.partition("## Settings and presets")[2].partition("## Limits")[0]
    assert all(f"`{preset}`" in presets for preset in registry.method_class(name).presets if name in OWN_PRESETS)


def test_the_index_names_every_page():
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    named = {(ROOT / "docs" / target).resolve() for target in re.findall(r"\]\(([^)#:]+)\)", index)}
    assert set(PAGES) - {ROOT / "docs" / "index.md"} <= named
    assert "(docs/index.md)" in (ROOT / "README.md").read_text(encoding="utf-8")


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


def test_readme_runs_on_a_tiny_shop(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Page(ROOT / "README.md", monkeypatch, lambda text: text.replace("atelier small", "atelier tiny")).run()
    assert Path("out/report.html").is_file()
    assert Path("out/diffrec.json").is_file()
    assert Path("out/season.html").is_file()


@pytest.mark.slow
def test_readme_runs_as_it_stands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Page(ROOT / "README.md", monkeypatch).run()
