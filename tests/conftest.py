"""What all tests share: one thread, a small world, and real data where it is at hand."""

import os
import re
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from rediffuse.data.dataset import Dataset
from rediffuse.data.importers.atelier import load
from rediffuse.data.splits import GlobalTime

settings.register_profile("rediffuse", deadline=None, max_examples=30)
settings.load_profile("rediffuse")
torch.set_num_threads(1)

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def tiny() -> Dataset:
    """The embedded world at its smallest, parted by time."""
    return load("tiny", seed=1).with_split(GlobalTime())


def real_data() -> Path | None:
    """The folder that REDIFFUSE_DATA names, else ../shared/data beside the repository; None when there is none."""
    named = os.environ.get("REDIFFUSE_DATA")
    folder = Path(named) if named else ROOT.parent / "shared" / "data"
    return folder if folder.is_dir() else None


@pytest.fixture(scope="session")
def real() -> Path:
    """The folder of real data sets. Only tests marked `realdata` run with it; they are skipped where it is not."""
    folder = real_data()
    assert folder is not None
    return folder


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("realdata") and real_data() is None:
        pytest.skip("no real data: set REDIFFUSE_DATA to their folder")
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("no CUDA device")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    skipped = terminalreporter.stats.get("skipped", [])
    if left_out := sum("realdata" in report.keywords for report in skipped):
        terminalreporter.write_line(
            f"WARNING: {left_out} tests on real data were skipped; set REDIFFUSE_DATA", red=True
        )


class ByMethod(LoadScopeScheduling):
    """Contracts of one method meet in one process, where it is trained once; other tests go where there is room."""

    def _split_scope(self, nodeid: str) -> str:
        return re.sub(r"::\w+\[", "[", nodeid) if nodeid.startswith("tests/contracts/") else nodeid


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByMethod:
    return ByMethod(config, log)
