"""The benchmark of steps: what one step keeps is read where nothing was chosen."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks import steps
from rediffuse import registry
from rediffuse.config import RunConfig
from rediffuse.data.importers.atelier import load
from rediffuse.data.splits import LeaveLastOut
from rediffuse.evaluation.evaluate import Scores
from rediffuse.evaluation.protocol import protocol_for


def _row(count: int, chosen_on: float, values: list[float]) -> steps.Row:
    return steps.Row(count, chosen_on, Scores(("ndcg@10",), np.array(values)[:, None]), 1.0)


def test_many_steps_are_chosen_on_the_selection_part() -> None:
    rows = [_row(1, 0.9, [0.2, 0.4]), _row(8, 0.5, [0.3, 0.5]), _row(32, 0.4, [0.9, 0.9])]
    told = steps.kept(rows, "ndcg@10")
    assert told["best_steps"] == 8
    assert told["one_step_keeps"] == pytest.approx(0.3 / 0.4)
    assert told["reached"] is False
    assert steps.kept(rows[:1], "ndcg@10") == {}


def test_it_measures_a_trained_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = load("tiny").with_split(LeaveLastOut())
    chosen = registry.recipe("dreamrec", None, {"epochs": 1, "width": 8, "levels": 10, "steps": 2})
    registry.fit(chosen, dataset, protocol_for(dataset), RunConfig(device="cpu", threads=1)).write(tmp_path / "model")
    dataset.write(tmp_path / "data")
    words = [
        str(tmp_path / "model"),
        "--data",
        str(tmp_path / "data"),
        "--json",
        str(tmp_path / "out.json"),
        "--threads",
        "1",
    ]
    monkeypatch.setattr("sys.argv", ["steps", *words])
    steps.main()
    out = capsys.readouterr().out
    # 2 steps as configured, 8 of the 10 levels, and no 32.
    assert [line.split()[0] for line in out.splitlines()[1:-1]] == ["1", "2", "4", "8"]
    assert "one step keeps" in out
    assert (tmp_path / "out.json").is_file()
