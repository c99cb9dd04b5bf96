"""What is built holds all that a user needs."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.slow
def test_the_wheel_holds_types_template_program_and_licence(tmp_path: Path) -> None:
    program = Path(sys.executable).with_name("hatchling")
    subprocess.run([program, "build", "-t", "wheel", "-d", str(tmp_path)], cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("rediffuse-*.whl")
    with zipfile.ZipFile(wheel) as file:
        names = set(file.namelist())
        points = file.read(next(name for name in names if name.endswith("entry_points.txt"))).decode()
    source = ROOT / "src"
    wanted = {str(path.relative_to(source)) for path in (source / "rediffuse").rglob("*.py")}
    wanted |= {"rediffuse/py.typed", "rediffuse/evaluation/templates/report.html"}
    pages = source / "rediffuse" / "serving" / "pages"
    wanted |= {str(path.relative_to(source)) for room in ("templates", "static") for path in (pages / room).iterdir()}
    assert wanted <= names
    assert not [name for name in names if name.startswith(("tests", "benchmarks")) or name.endswith(".pyc")]
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert "rediffuse = rediffuse.cli.main:run" in points
