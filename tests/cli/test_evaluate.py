"""What `evaluate` shows and writes besides accuracy."""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from rediffuse.artifacts import read_model
from rediffuse.cli import main
from rediffuse.cli.console import options_of
from rediffuse.cli.studying import STUDIES, rivals_of
from rediffuse.data.catalog import Catalog
from rediffuse.data.dataset import Dataset
from rediffuse.errors import InvalidInput
from tests.cli.conftest import SMALL, Command


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


@pytest.fixture(scope="module")
def season(shop: Path) -> Path:
    """A small DiffRec that knows the season, and beside it an EASE."""
    small = (*SMALL, "--set", "condition=season")
    for method, to, sets in (("diffrec", "season", small), ("ease", "ease", ())):
        argv = sys.argv
        sys.argv = ["rediffuse", "train", method, "--data", str(shop), "--to", str(shop.parent / to), *sets]
        with pytest.raises(SystemExit):
            main.run()
        sys.argv = argv
    return shop.parent / "season"


def test_studies_are_said_written_and_make_a_page(command: Command, shop: Path, season: Path, tmp_path: Path) -> None:
    ways = ("--by-history", "--guidance", "--samplers", "--rival", season.parent / "ease", "--guidance-scale", "2")
    page, result = tmp_path / "o.html", tmp_path / "o.json"
    said = command("evaluate", season, "--data", shop, *ways, "--report", page, "--json", result)
    assert said.code == 0, said
    for words in (
        "After a single posted event diffrec reaches ndcg@20",
        "diffrec against ease on ndcg@20 is",
        "diffrec against popularity on ndcg@20 is",
        "Asking for another season at scale 3",
        "heun is best with",
        "Milliseconds per user",
    ):
        assert words in said.out
    found = json.loads(result.read_text())
    assert list(found["studies"]) == ["by-history", "guidance", "samplers"]
    assert found["settings"]["guidance_scale"] == 2
    assert set(found["studies"]["by-history"]["posted"]["1 event"]["methods"]) == {"diffrec", "ease", "popularity"}
    assert found["studies"]["guidance"]["scales"]["0.0"]["season auroc"]["mean"] == 0.5
    assert {point["method"] for point in found["studies"]["samplers"]["points"]} == {
        "ancestral",
        "ddim",
        "heun",
        "dpmpp",
    }
    text = page.read_text()
    for id_ in ("accuracy", "by-history", "guidance", "samplers", "by-history-length", "beyond", "protocol", "made"):
        assert text.count(f'<h2 id="{id_}">') == 1
    assert "--by-history --guidance" in text


@pytest.mark.slow
def test_studies_of_doubt_and_diversity(command: Command, shop: Path, season: Path, tmp_path: Path) -> None:
    ways = ("--calibration", "--diversity-front", "--report", tmp_path / "o.html", "--json", tmp_path / "o.json")
    said = command("evaluate", season, "--data", shop, *ways)
    assert said.code == 0, said
    assert list(json.loads((tmp_path / "o.json").read_text())["studies"]) == ["calibration", "diversity-front"]
    assert all(f'<h2 id="{id_}">' in (tmp_path / "o.html").read_text() for id_ in ("uncertainty", "diversity"))


def test_a_page_without_studies(command: Command, shop: Path, model: Path, tmp_path: Path) -> None:
    said = command("evaluate", model, "--data", shop, "--report", tmp_path / "o.md")
    assert said.code == 0, said
    text = (tmp_path / "o.md").read_text()
    assert text.startswith("# diffrec on atelier-tiny\n\n")
    assert "**diffrec reaches recall@20 " in text
    assert "0 studies" in text


def test_what_a_model_cannot_be_studied_for_is_refused_at_once(
    refused: Command, shop: Path, model: Path, season: Path, tmp_path: Path
) -> None:
    ease = season.parent / "ease"
    for words, message in (
        ((model, "--guidance"), "--guidance needs a model with a condition; this diffrec has none."),
        ((ease, "--samplers"), "--samplers needs a model with a reverse process; ease has none."),
        ((model, "--report", tmp_path / "o.json"), "names no form of a report. Got '.json'. Allowed: .html, .md."),
        ((model, "--guidance-scale", "much"), "--guidance-scale takes a number, or name=number. Got 'much'."),
        ((model, "--guidance-scale", "2"), "diffrec cannot use 'guidance_scale'."),
        ((model, "--by-history", "--rival", tmp_path), "is no"),
        ((ease, "--calibration", "--rival", model), "--rival needs a study that holds models side by side."),
    ):
        assert message in refused("evaluate", *words, "--data", shop).err


def test_a_rival_that_learned_from_other_data_is_refused(
    command: Command, refused: Command, shop: Path, model: Path, tmp_path: Path
) -> None:
    few = tmp_path / "few.toml"
    few.write_text('fit_share = 0.5\nfit = ["train"]\n')
    assert command("train", "popularity", "--data", shop, "--to", tmp_path / "few", "--protocol", few).code == 0
    said = refused("evaluate", model, "--data", shop, "--by-history", "--rival", tmp_path / "few")
    assert "A rival has learned from other data than the model." in said.err


def test_rivals_of_a_taken_name_go_by_their_paths(
    season: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("diffrec", "popularity"):
        shutil.copytree(season.parent / "ease", name)
    paths = [Path(name) for name in ("diffrec", "popularity", "./popularity")]
    dataset = Dataset.read(season.parent / "shop")
    found = rivals_of([*paths, season.parent / "ease"], read_model(model), dataset, "cpu")
    assert [name for name, _ in found] == [str(tmp_path / "diffrec"), str(tmp_path / "popularity"), "ease"]


def test_other_words_for_a_condition_are_refused(
    command: Command, refused: Command, tiny: Dataset, tmp_path: Path
) -> None:
    """Codes of a word are its places: where a word is missing, those after it would mean another."""
    club = pl.Series("club", ["north", "east", "south"] * len(tiny.users))[: len(tiny.users)]
    users = pl.DataFrame([pl.Series("user", tiny.users.items.ids), club])
    fewer = users.with_columns(pl.col("club").replace("east", None))
    for name, table in (("told", users), ("fewer", fewer), ("none", None)):
        replace(tiny, users=Catalog.of(tiny.users.items, table, "user")).write(tmp_path / name)
    words = (*SMALL, "--set", "condition=club")
    for method, more in (("diffrec", words), ("popularity", ())):
        to = tmp_path / method
        assert command("train", method, "--data", tmp_path / "told", "--to", to, *more).code == 0
    # Data that tells nothing of it is no harm; data that tells it in other words is.
    for name in ("told", "none"):
        assert command("evaluate", tmp_path / "diffrec", "--data", tmp_path / name).code == 0
    message = "The values of the condition 'club' are not those that the model knows. Got ['north', 'south']."
    for ways in (("diffrec",), ("popularity", "--rival", tmp_path / "diffrec", "--by-history")):
        said = refused("evaluate", tmp_path / ways[0], *ways[1:], "--data", tmp_path / "fewer")
        assert message in said.err


def test_the_name_of_a_condition_is_checked_before_training(refused: Command, shop: Path, tmp_path: Path) -> None:
    words = ("--set", "condition=seson", "--set", "epochs=1")
    said = refused("train", "diffrec", "--data", shop, "--to", tmp_path / "m", *words)
    assert said.err == "Error: Unknown condition 'seson'. Nearest known condition: 'season'.\n"


def test_options_of_a_command() -> None:
    assert options_of().asked() == {}
    asked = options_of(3, 8, "pure_noise", 0.5, ["2"], 0.3).asked()
    assert asked == {
        "steps": 3, "draws": 8, "start": "pure_noise", "temperature": 0.5, "guidance_scale": 2.0, "diversity": 0.3
    }  # fmt: skip
    named = options_of(guidance_scale=["season=2,history=1.5", "device=0"])
    assert named.guidance_scale == {"season": 2.0, "history": 1.5, "device": 0.0}
    for texts in (["a=b"], ["2", "season=1"], [""], ["season="], ["season=2,season=3"], ["1", "2"]):
        with pytest.raises(InvalidInput, match="--guidance-scale takes a number"):
            options_of(guidance_scale=texts)


def test_every_study_has_its_flag(command: Command) -> None:
    said = command("evaluate", "--help")
    assert all(f"--{name}" in said.out for name in STUDIES)
