"""A small shop and a small model, made once, and the command line as a user meets it."""

import contextlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from rediffuse.cli import main
from rediffuse.data.dataset import Dataset

SMALL = ("--set", "hidden=[16]", "--set", "epochs=2")


@dataclass(frozen=True)
class Said:
    """What a command said and how it ended."""

    code: int
    out: str
    err: str


Command = Callable[..., Said]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run `rediffuse` in this process, through the entry point, on a terminal 100 columns wide."""
    monkeypatch.setenv("COLUMNS", "100")

    def run(*args: object) -> Said:
        monkeypatch.setattr(sys, "argv", ["rediffuse", *map(str, args)])
        code = 0
        try:
            main.run()
        except SystemExit as left:
            code = int(left.code or 0)
        said = capsys.readouterr()
        return Said(code, said.out, said.err)

    return run


@pytest.fixture
def refused(command: Command, tmp_path: Path) -> Command:
    """Run a command that must fail: exit code 2, one sentence on standard error, nothing written anywhere."""

    def run(*args: object) -> Said:
        before = files(tmp_path)
        said = command(*args)
        assert said.code == 2, said
        assert said.err.startswith("Error: ")
        assert said.err.count("\n") == 1
        assert said.err.endswith(".\n")
        assert files(tmp_path) == before
        return said

    return run


def files(folder: Path) -> dict[str, bytes | None]:
    """All that stands in a folder, hidden or not."""
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in folder.rglob("*")}


@pytest.fixture(scope="session")
def shop(tiny: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the tiny world, parted by time."""
    folder = tmp_path_factory.mktemp("shop") / "shop"
    tiny.write(folder)
    return folder


@pytest.fixture(scope="session")
def model(shop: Path) -> Path:
    """The folder of a small DiffRec trained on it."""
    folder = shop.parent / "model"
    argv, sys.argv = sys.argv, ["rediffuse", "train", "diffrec", "--data", str(shop), "--to", str(folder), *SMALL]
    with contextlib.suppress(SystemExit):
        main.run()
    sys.argv = argv
    assert folder.is_dir()
    return folder
