"""Who may import whom, and what an import costs."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=True, cwd=ROOT)


def test_imports_go_from_left_to_right_only() -> None:
    found = subprocess.run(
        [shutil.which("lint-imports", path=str(Path(sys.executable).parent)) or "lint-imports", "--no-cache"],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert found.returncode == 0, found.stdout + found.stderr
    assert re.search(r"Contracts: [1-9]\d* kept, 0 broken", found.stdout)


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = """
import sys
import rediffuse
assert rediffuse.__version__
dir(rediffuse)
heavy = {"torch", "numpy", "scipy", "polars", "pyarrow", "pydantic", "typer", "rich"} & set(sys.modules)
assert not heavy, heavy
"""
    python("-c", code)


def test_public_names_load_on_first_use() -> None:
    code = """
import rediffuse
assert rediffuse.Options().draws == 1
import sys
assert "torch" in sys.modules
assert all(getattr(rediffuse, name) is not None for name in rediffuse.__all__)
try:
    rediffuse.nothing
except AttributeError as error:
    assert str(error) == "module 'rediffuse' has no attribute 'nothing'"
else:
    raise SystemExit("an unknown name was found")
"""
    python("-c", code)


@pytest.mark.slow
def test_importing_the_package_is_quick() -> None:
    found = python("-X", "importtime", "-c", "import rediffuse")
    microseconds = re.search(r"\|\s+(\d+) \| rediffuse$", found.stderr, re.MULTILINE)
    assert microseconds is not None
    assert int(microseconds[1]) < 300_000
