"""The frozen floors are settings that today's methods take."""

import json
from pathlib import Path

import pytest

from rediffuse import registry

ROOT = Path(__file__).parents[2] / "benchmarks"
ENTRIES = [
    pytest.param(label, entry, id=f"{name} {dataset} {label}")
    for name in ("floors.json", "floors-in-time.json")
    for dataset, methods in json.loads((ROOT / name).read_text(encoding="utf-8")).items()
    for label, entry in methods.items()
]


@pytest.mark.parametrize(("label", "entry"), ENTRIES)
def test_settings_are_taken_as_they_stand(label: str, entry: dict[str, object]) -> None:
    settings = entry["settings"]
    assert isinstance(settings, dict)
    assert registry.recipe(*registry.named(label), settings).settings == settings


@pytest.mark.parametrize(("label", "entry"), ENTRIES)
def test_each_tells_where_it_comes_from(label: str, entry: dict[str, object]) -> None:
    assert len(str(entry["commit"])) == 40, label
    assert len(str(entry["content_sha256"])) == 64, label
    assert isinstance(entry["trials"], int), label
    assert entry["trials"] >= 1, label
