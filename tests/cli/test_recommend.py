"""What `recommend` shows of a list: how often such items are taken, or in how many draws they stand."""

import json
from pathlib import Path

import polars as pl

from rediffuse.data.dataset import Dataset
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


def test_conditions_and_variants(command: Command, model: Path, shop: Path, tiny: Dataset, tmp_path: Path) -> None:
    """From the attributes that the model was saved with, or those of the data; for one subject as for all."""
    slot, brand = (
        dict(zip(tiny.catalog.items.ids, tiny.catalog.attributes[name], strict=True)) for name in ("slot", "brand")
    )
    limits = ("--where", "slot=shoes|accessory", "--where", "price<=200", "--one-per", "brand", "-k", 4)
    said = command("recommend", model, "--items", "A00001,A00002", *limits, "--json", tmp_path / "o.json")
    assert said.code == 0, said
    found = [place["item"] for place in json.loads((tmp_path / "o.json").read_text())["items"]]
    assert {slot[item] for item in found} <= {"shoes", "accessory"}
    assert len({brand[item] for item in found}) == len(found) == 4
    cheap = tiny.catalog.attributes.with_columns(price=pl.lit(900.0))
    dear = Dataset("dear", tiny.users, type(tiny.catalog)(tiny.catalog.items, cheap), tiny.events, tiny.split)
    dear.write(tmp_path / "dear")
    user = tiny.users.items.ids[0]
    asked = ("recommend", model, "--data", tmp_path / "dear")
    assert "0 of 4 asked" in command(*asked, "--user", user, *limits).out
    said = command("recommend", model, "--data", shop, "--users", "all", "--to", tmp_path / "all.parquet", *limits)
    assert said.code == 0, said
    for (_,), rows in pl.read_parquet(tmp_path / "all.parquet").group_by("user"):
        assert {slot[item] for item in rows["item"]} <= {"shoes", "accessory"}
        assert len({brand[item] for item in rows["item"]}) == rows.height == 4


def test_a_condition_on_what_is_not_known(refused: Command, model: Path) -> None:
    said = refused("recommend", model, "--items", "A00001", "--where", "slott=shoes")
    assert "Unknown attribute of items 'slott'. Nearest known attribute of items: 'slot'." in said.err
    assert "Unknown attribute of items 'brnd'" in refused("recommend", model, "--items", "A1", "--one-per", "brnd").err
