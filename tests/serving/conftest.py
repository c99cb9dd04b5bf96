"""Model folders of a small shop, good ones and ones that must never answer."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from benchmarks.serving.damage import WEIGHTS, flipped, not_finite, other_schema, seal
from rediffuse import registry
from rediffuse.config import RunConfig
from rediffuse.data.dataset import Dataset
from rediffuse.evaluation.protocol import Protocol


def overflowing(folder: Path) -> None:
    """All weights are finite, the scores they make are not."""
    save_file({name: t.sign() * 3e38 for name, t in load_file(folder / WEIGHTS).items()}, folder / WEIGHTS)
    seal(folder)


def truncated(folder: Path) -> None:
    """A table is cut off, with a right manifest."""
    path = folder / "vocabulary.parquet"
    path.write_bytes(path.read_bytes()[:-40])
    seal(folder)


def emptied(folder: Path) -> None:
    """A setting is of another kind, with a right manifest."""
    facts = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps({**facts, "data": {"contexts": 3, "until_us": "late"}}))
    seal(folder)


BAD: dict[str, tuple[Callable[[Path], None], str]] = {
    "flipped": (flipped, "differs from its manifest"),
    "other-schema": (other_schema, "another format version"),
    "not-finite": (not_finite, "Weight .* is not finite"),
    "overflowing": (overflowing, "not a number|not finite"),
    "truncated": (truncated, "cannot be read"),
    "emptied": (emptied, "cannot be used"),
}
"""Name -> what is done to a good folder, and why it is refused."""


@pytest.fixture(scope="session")
def models(tiny: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of versions: one, two and three are good, the others are named as in BAD."""
    place = tmp_path_factory.mktemp("models")
    run = RunConfig(device="cpu", threads=1)
    for name, regularization in (("one", 10.0), ("two", 200.0), ("three", 3000.0)):
        chosen = registry.recipe("ease", None, {"regularization": regularization})
        registry.fit(chosen, tiny, Protocol(), run).write(place / name)
    for name, (change, _) in BAD.items():
        shutil.copytree(place / "one", place / name)
        change(place / name)
    return place
