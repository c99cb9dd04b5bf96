"""One import, lazy; its tour matches the tree; every module says what it is."""

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import rediffuse
from rediffuse import errors

SOURCE = Path(rediffuse.__file__).parent


def test_every_public_name_is_there() -> None:
    for name in rediffuse.__all__:
        assert getattr(rediffuse, name) is not None
    assert dir(rediffuse) == sorted(rediffuse.__all__)
    assert rediffuse.__all__ == sorted(rediffuse.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = rediffuse.nothing  # pyright: ignore[reportAttributeAccessIssue]


def test_type_checkers_see_the_same_names() -> None:
    text = (SOURCE / "__init__.py").read_text()
    homes = {
        name: home
        for home, name in re.findall(r"^    from rediffuse\.([\w.]+) import \w+ as (\w+)$", text, re.MULTILINE)
    }
    assert homes == rediffuse._HOME
    assert {*homes, "__version__"} == set(rediffuse.__all__)


def test_the_tour_names_every_folder() -> None:
    tour = inspect.getdoc(rediffuse) or ""
    told = set(re.findall(r"^ {4}(\w+) {2,}", tour, re.MULTILINE)) | {"baselines"}
    there = {path.name for path in SOURCE.iterdir() if (path / "__init__.py").is_file()} - {"testing"}
    assert there <= told
    assert told <= there | {path.stem for path in SOURCE.glob("*.py")}


def test_the_import_is_light() -> None:
    code = (
        "import sys, rediffuse; heavy = {'torch', 'numpy', 'polars', 'pydantic', 'typer'} & set(sys.modules);"
        "assert not heavy, heavy; dir(rediffuse); rediffuse.Options; assert 'torch' in sys.modules"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


def test_one_except_covers_every_error() -> None:
    kinds = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, Exception)]
    assert len(kinds) >= 7
    assert all(issubclass(kind, errors.RediffuseError) for kind in kinds)


def test_public_functions_and_classes_say_what_they_do() -> None:
    for name in set(rediffuse.__all__) - {"__version__"}:
        assert inspect.getdoc(getattr(rediffuse, name)), name


def test_every_module_says_what_it_is() -> None:
    silent = [str(path) for path in SOURCE.rglob("*.py") if not path.read_text().lstrip().startswith('"""')]
    assert not silent
