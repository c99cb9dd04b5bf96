"""What `recommend` shows of a list: how often such items are taken, or in how many draws they stand."""

import json
from pathlib import Path

from tests.cli.conftest import Command


def test_a_list_says_how_often_each_item_is_taken(command: Command, model: Path, tmp_path: Path) -> None:
    said = command("recommend", model, "--items", "A00001,A00002", "-k", 3, "--json", tmp_path / "o.json")
    assert said.code == 0, said
    told = json.loads((tmp_path / "o.json").read_text())
    assert told["probability_of"] == "consumption"
    assert "taken by" in said.out
    for place in told["items"]:
        assert f"{place['probability']:.1%} of such users" in said.out
    empty = command("recommend", model, "--items", "no such item", "-k", 3, "--json", tmp_path / "e.json")
    assert json.loads((tmp_path / "e.json").read_text())["probability_of"] is None
    assert "taken by" not in empty.out


def test_with_draws_it_says_in_how_many_of_them(command: Command, model: Path, tmp_path: Path) -> None:
    asked = ("--items", "A00001,A00002", "--draws", 4, "-k", 3, "--json", tmp_path / "o.json")
    said = command("recommend", model, *asked)
    assert said.code == 0, said
    assert json.loads((tmp_path / "o.json").read_text())["probability_of"] == "top_k"
    assert "in the list of" in said.out
    assert "of draws" in said.out
    assert "taken by" not in said.out
