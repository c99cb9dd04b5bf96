"""Run a page of the documentation: its commands, snippets and files in order, in the folder at hand."""

import importlib
import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from rediffuse.cli.main import app
from rediffuse.training.checkpoint import FolderCheckpoint

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"^```([^\n`]+)\n(.*?)^```", flags=re.DOTALL | re.MULTILINE)
FILE = re.compile(r"# ([\w./-]+/[\w.-]+\.(?:py|toml))\n")
"""A block that begins so is a file, not a snippet."""
SAVED_BEFORE_CTRL_C = 3
ACTIVATE = ". .venv/bin/activate"
"""Finds the commands of a checkout, as `make` installs them; whoever runs a page here has them."""


@dataclass
class Page:
    """What a page says, run block by block; the snippets share their names."""

    path: Path
    monkeypatch: pytest.MonkeyPatch
    change: Callable[[str], str] = lambda text: text
    """Applied to every block before it runs."""
    names: dict[str, Any] = field(default_factory=lambda: {"__name__": "page"})
    said: list[str] = field(default_factory=list[str])
    """What each command printed."""

    def run(self, info: str = "") -> "Page":
        """Run the blocks whose fence says `bash` or `python` and nothing else, or this besides."""
        for language, text in blocks(self.path):
            if language not in {f"bash {info}".strip(), f"python {info}".strip(), "toml"}:
                continue
            text = self.change(text)  # noqa: PLW2901
            if named := FILE.match(text):
                self.write(Path(named[1]), text)
            elif language.startswith("bash"):
                for line in text.splitlines():
                    self.command(line)
            elif language.startswith("python"):
                exec(compile(text, str(self.path.name), "exec"), self.names)
        return self

    def command(self, line: str) -> None:
        """Run one line; one that ends in `# Ctrl-C` is interrupted when its third state has been kept."""
        words = shlex.split(line, comments=True)
        if not words or line == ACTIVATE:
            return
        assert words[0] == "rediffuse", f"only commands of ours are run: {line}"
        interrupted = line.endswith("# Ctrl-C")
        with self.monkeypatch.context() as patch:
            if interrupted:
                patch.setattr(FolderCheckpoint, "save", _interrupting())
            result = CliRunner().invoke(app, words[1:], catch_exceptions=False)
        assert (result.exit_code != 0) == interrupted, f"{line}: {result.output}"
        assert not interrupted or "The same command goes on" in result.output
        self.said.append(result.output)

    def write(self, path: Path, text: str) -> None:
        """Put a file where the page says; one of ours can be imported from there."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        if path.parts[0] == "src":
            package = importlib.import_module(".".join(path.parts[1:-1]))
            self.monkeypatch.setattr(package, "__path__", [*package.__path__, str(path.parent.resolve())])


def blocks(page: Path) -> Iterator[tuple[str, str]]:
    """(what the fence says, text) of each block of a page."""
    for found in FENCE.finditer(page.read_text(encoding="utf-8")):
        yield found[1].strip(), found[2]


def examined(*paths: Path) -> dict[str, str]:
    """Run test files with pytest in a session of their own. Returns: test -> how it ended."""
    outcomes: dict[str, str] = {}

    class Seen:
        def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
            if report.when == "call" or report.outcome != "passed":
                outcomes[report.nodeid.rpartition("::")[2]] = report.outcome

    Path("pytest.ini").write_text("[pytest]\n")
    off = [
        word
        for name in ("randomly", "cacheprovider", "terminal", "faulthandler", "xdist")
        for word in ("-p", f"no:{name}")
    ]
    pytest.main([*off, "-c", "pytest.ini", "--import-mode=importlib", *map(str, paths)], plugins=[Seen()])
    return outcomes


def _interrupting() -> Callable[..., None]:
    """`FolderCheckpoint.save`, after whose third call somebody presses Ctrl-C."""
    save, count = FolderCheckpoint.save, 0

    def saved(*args: Any) -> None:
        nonlocal count
        count += 1
        save(*args)
        if count == SAVED_BEFORE_CTRL_C:
            raise KeyboardInterrupt

    return saved
