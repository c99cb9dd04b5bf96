"""What `evaluate` shows and writes besides accuracy."""

import json
from pathlib import Path

from tests.cli.conftest import Command


def test_figures_beyond_accuracy_and_parts_are_shown_and_written(
    command: Command, shop: Path, model: Path, tmp_path: Path
) -> None:
    said = command("evaluate", model, "--data", shop, "--json", tmp_path / "o.json")
    assert said.code == 0, said
    for word in ("Beyond accuracy", "coverage@20", "ild_category@10", "recall@20 on parts", "history length", "tail"):
        assert word in said.out
    found = json.loads((tmp_path / "o.json").read_text())
    names = ("coverage", "gini", "novelty", "serendipity", "ild", "ild_category", "popularity", "tail")
    assert list(found["beyond"]) == [f"{name}@{k}" for name in names for k in (10, 20)]
    assert found["beyond"]["novelty@20"]["low"] < found["beyond"]["novelty@20"]["mean"]
    parts = {
        by: sum(part["users"] for part in found["slices"] if part["by"] == by) for by in ("history length", "answer")
    }
    # The tiny world has users without a history: their lists are the fallback's, and stand apart.
    assert parts == {"history length": found["users"], "answer": found["users"]}
    (fallback,) = (part for part in found["slices"] if part["label"] == "fallback: empty history")
    (nothing,) = (part for part in found["slices"] if part["label"] == "0 events")
    assert fallback["value"] == nothing["value"]
