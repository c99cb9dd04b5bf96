"""The benchmark of search runs, and tells what it found."""

import json
import sys
from pathlib import Path

import pytest

from benchmarks import nearest


def test_a_small_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(nearest, "POINTS", 20)
    monkeypatch.setattr(nearest, "CLUSTERS", 60)
    told = tmp_path / "nearest.json"
    monkeypatch.setattr(sys, "argv", ["nearest", "--items", "9000", "--threads", "1", "--json", str(told)])
    nearest.main()
    found = json.loads(told.read_text())
    assert found["items"] == 9000
    assert nearest.FLOOR <= found["recall"] <= 1
    assert found["refusal"].startswith("The index finds ")
    assert found["faster"] == pytest.approx(found["exact_ms"] / found["index_ms"])
    assert found["refusal"] in capsys.readouterr().out
