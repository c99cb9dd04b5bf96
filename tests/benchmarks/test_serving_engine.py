"""The benchmark of the engine runs, and tells what it measured."""

import json
import sys
from pathlib import Path

import pytest

from benchmarks.serving import engine


def test_a_small_catalog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    told = tmp_path / "engine.json"
    monkeypatch.setattr(engine, "RATES", (50,))
    arguments = ["engine", "--items", "300", "--threads", "1", "--seconds", "0.2", "--json", str(told)]
    monkeypatch.setattr(sys, "argv", arguments)
    engine.main()
    found = json.loads(told.read_text())
    assert [row["batch"] for row in found["closed"]] == [*engine.BATCHES] * 2
    assert all(row["answers_per_s"] > 0 for row in found["closed"])
    assert found["open"][0]["refused"] == 0
    assert "asks/s" in capsys.readouterr().out
