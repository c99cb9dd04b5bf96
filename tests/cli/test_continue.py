"""Going on: from an earlier model on new events, from an interrupted comparison, and what is logged on the way."""

import json
from pathlib import Path

import polars as pl
import pytest
import torch

from rediffuse import registry
from rediffuse.artifacts import read_model
from rediffuse.config import RunConfig
from rediffuse.data.dataset import Dataset
from rediffuse.data.splits import GlobalTime
from rediffuse.evaluation.protocol import Protocol
from rediffuse.protocols import FitContext, FitData
from tests.cli.conftest import SMALL, Command


@pytest.fixture(scope="module")
def later(tiny: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny world a while later: the same events, some new items that sort before all others, and events on them."""
    frame = tiny.events.frame
    ids = pl.Series(tiny.catalog.items.ids)
    known = frame.select(
        user=pl.Series(tiny.users.items.ids).gather(frame["user"]), item=ids.gather(frame["item"]), time_us="time_us"
    )
    new = known.sort("time_us").gather_every(17).with_columns(item=pl.lit("0-new-") + pl.col("item").str.slice(-1))
    folder = tmp_path_factory.mktemp("later") / "shop"
    Dataset.from_events("later", pl.concat([known, new])).with_split(GlobalTime()).write(folder)
    return folder


def test_a_training_goes_on_from_a_model_on_new_events(
    model: Path, later: Path, tmp_path: Path, command: Command
) -> None:
    to = tmp_path / "next"
    said = command(
        "train", "--from", model, "--data", later, "--to", to, "--set", "epochs=1", "--set", "learning_rate=1e-9"
    )
    assert said.code == 0, said
    before, after = read_model(model), read_model(to)
    assert after.method == "diffrec"
    assert after.config == before.config
    assert after.training == {**before.training, "epochs": 1, "learning_rate": 1e-9}
    assert after.items[: len(before.items)] == before.items
    new = after.items[len(before.items) :]
    assert new == tuple(sorted(new))
    assert all(name.startswith("0-new-") for name in new)
    assert after.made["from"] == str(model)
    # A step that small leaves everything where it was, so the old items answer as before.
    old = registry.load(model).recommend(before.items[:3], 5, candidates=before.items)
    again = registry.load(to).recommend(before.items[:3], 5, candidates=before.items)
    assert [place.item for place in again.items] == [place.item for place in old.items]
    assert registry.load(to).recommend([new[0]], 5).unknown == ()


def test_a_closed_form_goes_on_by_fitting_anew_with_its_settings(
    shop: Path, later: Path, tmp_path: Path, command: Command
) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    assert command("train", "ease", "--data", shop, "--set", "regularization=77", "--to", old).code == 0
    assert command("train", "--from", old, "--data", later, "--to", new).code == 0
    assert read_model(new).config["regularization"] == 77
    assert read_model(new).items[:240] == read_model(old).items


def test_a_continued_model_is_evaluated_on_the_data_it_went_on_with(
    model: Path, later: Path, tmp_path: Path, command: Command
) -> None:
    to = tmp_path / "next"
    assert command("train", "--from", model, "--data", later, "--to", to, "--set", "epochs=1").code == 0
    said = command("evaluate", to, "--data", later, "--json", tmp_path / "e.json")
    assert said.code == 0, said
    assert json.loads((tmp_path / "e.json").read_text())["protocol"]["leak"] == []


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("ease",), "ease cannot go on from a diffrec"),
        (("--preset", "atelier"), "--preset and --from exclude each other"),
        (("--set", "hidden=[32]"), "The earlier model has other widths or layers"),
    ],
)
def test_what_cannot_go_on_is_refused(
    model: Path, later: Path, tmp_path: Path, refused: Command, more: tuple[str, ...], says: str
) -> None:
    assert says in refused("train", *more, "--from", model, "--data", later, "--to", tmp_path / "x").err


def test_neither_method_nor_model_is_refused(later: Path, tmp_path: Path, refused: Command) -> None:
    assert "Name a method, or a model with --from" in refused("train", "--data", later, "--to", tmp_path / "x").err


def test_a_training_is_logged_epoch_by_epoch(shop: Path, tmp_path: Path, command: Command) -> None:
    log = tmp_path / "log" / "t.jsonl"
    said = command("train", "diffrec", "--data", shop, "--to", tmp_path / "m", "--log", log, *SMALL)
    assert said.code == 0, said
    lines = [json.loads(text) for text in log.read_text().splitlines()]
    assert [entry["epoch"] for entry in lines] == [1, 2]
    assert lines == read_model(tmp_path / "m").made["course"]
    assert [entry["validation"] is None for entry in lines] == [True, False]


def test_a_comparison_tunes_all_with_the_same_budget_and_goes_on(shop: Path, tmp_path: Path, command: Command) -> None:
    keep, out = tmp_path / "keep", tmp_path / "c.json"
    line = ("compare", "--data", shop, "--methods", "popularity,ease,diffrec", "--trials", 3, *SMALL)
    assert command(*line, "--json", tmp_path / "plain.json").code == 0
    said = command(*line, "--keep", keep, "--json", out)
    assert said.code == 0, said
    assert "ease: best of 3 settings" in said.out
    popularity, ease, diffrec = json.loads(out.read_text())["results"]
    assert [len(r["trials"]) for r in (popularity, ease, diffrec)] == [1, 3, 3]
    best = max(ease["trials"], key=lambda trial: trial["value"])
    assert ease["settings"]["regularization"] == best["settings"].get("regularization", 500.0)
    assert len(diffrec["course"]) == 2
    # Lost: one trial and one model. The same command makes only these again, and the same figures.
    trials, models = (sorted((keep / kind).iterdir()) for kind in ("trials", "models"))
    assert (len(trials), len(models)) == (7, 3)
    stamps = {path: path.stat().st_mtime_ns for path in trials}
    trials[0].unlink()
    again = command(*line, "--keep", keep, "--json", tmp_path / "again.json")
    assert again.code == 0, again
    assert {path: path.stat().st_mtime_ns for path in trials[1:]} == {path: stamps[path] for path in trials[1:]}
    for other in ("plain.json", "again.json"):
        found = json.loads((tmp_path / other).read_text())
        assert [r["metrics"] for r in found["results"]] == [r["metrics"] for r in (popularity, ease, diffrec)]
        assert [r["settings"] for r in found["results"]] == [r["settings"] for r in (popularity, ease, diffrec)]


def test_a_world_brings_its_ceiling(shop: Path, tmp_path: Path, command: Command) -> None:
    out = tmp_path / "c.json"
    said = command("compare", "--data", shop, "--methods", "popularity,ease", "--json", out, "--ceiling")
    assert said.code == 0, said
    found = json.loads(out.read_text())
    names = {reference["name"]: reference for reference in found["references"]}
    assert set(names) == {"ceiling", "oracle"}
    assert names["oracle"]["error"] == 0 < names["ceiling"]["error"] < 0.03
    assert set(names["ceiling"]["gaps"]) == {"popularity", "ease"}
    assert all(gap["low"] > 0 for gap in names["ceiling"]["gaps"].values())
    assert "recipe" in found["facts"]["world"]


def test_a_refit_learns_from_more_and_for_as_long_as_was_best(tiny: Dataset) -> None:
    protocol = Protocol(refit=("train", "valid"))
    chosen = registry.recipe("diffrec", settings={"hidden": [8], "epochs": 3, "validate_every": 1})
    run = RunConfig(device="cpu")
    whole, part = registry.fit(chosen, tiny, protocol, run), registry.fit(chosen, tiny, protocol, run, refit=False)
    assert whole.folder.data["fit"] == ["train", "valid"]
    assert part.folder.data["fit"] == ["train"]
    assert whole.folder.metrics == part.folder.metrics
    assert whole.folder.popularity.sum() > part.folder.popularity.sum()
    epochs = chosen.changed({"epochs": whole.folder.made["best_epoch"]})
    data = FitData(tiny.history("train", "valid"), len(tiny.catalog), "time")
    direct = chosen.method.fit(epochs.config, epochs.training, data, FitContext(run.resolve()))
    for name, tensor in direct.state().items():
        assert torch.equal(tensor, whole.folder.tensors[name])


def test_a_refit_must_not_hold_what_is_asked(tiny: Dataset) -> None:
    leaks = Protocol(refit=("train", "test")).leaks(tiny)
    assert leaks == ["report: refit holds 'test', which is not earlier than 'test'"]
