"""The benchmarks of the running service run, small, and what they promise at any speed holds."""

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from benchmarks.serving import load, overload, swaps

pytestmark = pytest.mark.slow


def told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, benchmark: ModuleType, *arguments: str) -> dict[str, Any]:
    """What a benchmark writes."""
    file = tmp_path / "told.json"
    monkeypatch.setattr(sys, "argv", ["benchmark", "--items", "300", "--json", str(file), *arguments])
    benchmark.main()
    return json.loads(file.read_text())


def test_load(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(load, "RATES", (20,))
    found = told(monkeypatch, tmp_path, load, "--seconds", "1")
    for name in ("answers_at_20", "answers_closed", "batches", "singles"):
        assert set(found[name]["statuses"]) == {"200"}, name
        assert found[name]["p99_ms"] > 0
    assert found["batches"]["events_per_s"] > 1000


def test_overload(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = told(monkeypatch, tmp_path, overload, "--seconds", "2", "--times", "3")
    assert set(found["flood"]["statuses"]) <= {"200", "429", "503"}
    # On a busy machine the driver may not get to send more than can be answered.
    assert "429" in found["flood"]["statuses"] or found["sent_per_s"] < 2 * found["capacity_per_s"]
    assert found["after"]["statuses"]["200"] > 0


def test_swaps(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = told(monkeypatch, tmp_path, swaps, "--swaps", "30", "--rate", "20")
    assert (found["failed"], found["unlike_offline"]) == (0, 0)
    assert (found["refused"], found["rollbacks"]) == (3, 6)
    assert set(found["answered_by"]) == set(swaps.GOOD)
