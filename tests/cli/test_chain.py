"""The verbs one after another, as a user gives them."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rediffuse import registry
from rediffuse.cli import doctor, quickstart
from rediffuse.cli.main import app
from rediffuse.data.dataset import Dataset
from rediffuse.models.diffrec import DiffRec
from tests.cli.conftest import SMALL, Command
from tests.conftest import ROOT

METRICS = {f"{name}@{k}" for name in ("recall", "ndcg", "precision", "mrr", "hit", "map") for k in (10, 20)}
VERBS = ("quickstart", "import", "describe", "split", "train", "evaluate", "compare", "recommend", "doctor")


def test_from_nothing_to_a_recommendation(tmp_path: Path) -> None:
    runner = CliRunner(env={"COLUMNS": "100"})

    def give(*args: object) -> str:
        result = runner.invoke(app, [str(arg) for arg in args], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.output

    raw, shop = tmp_path / "raw", tmp_path / "shop"
    said = give("import", "atelier", "tiny", "--to", raw, "--json", tmp_path / "raw.json")
    assert f"Next: rediffuse split {raw} global-time --to {raw}-split" in said
    facts = json.loads((tmp_path / "raw.json").read_text())
    assert facts == json.loads((raw / "dataset.json").read_text())
    facts["health"]["counts"].pop("times in the future")  # known only where the time of day is
    assert facts == Dataset.read(raw).describe()
    assert "240" in give("describe", raw)
    said = give("split", raw, "global-time", "--set", "valid=.15", "--to", shop, "--json", tmp_path / "split.json")
    assert f"Next: rediffuse compare --data {shop} --methods popularity,ease,diffrec" in said
    facts = json.loads((tmp_path / "split.json").read_text())["split"]
    assert facts["recipe"] == {"recipe": "global-time", "valid": 0.15, "test": 0.1}
    for method, more in (("popularity", ()), ("ease", ("--preset", "atelier")), ("diffrec", SMALL)):
        folder = tmp_path / "models" / method
        said = give("train", method, "--data", shop, "--to", folder, *more)
        assert f"Wrote {folder}. Next: rediffuse evaluate {folder} --data {shop}" in said
        assert "recall@20 0." in said
        give("evaluate", folder, "--data", shop, "--json", tmp_path / f"{method}.json")
        result = json.loads((tmp_path / f"{method}.json").read_text())
        assert result["method"] == method
        assert set(result["metrics"]) == METRICS
        assert list(result["metrics"]["recall@20"]) == ["mean", "low", "high"]
        assert result["protocol"]["report"]["relevant"] == "test"
        assert result["protocol"]["split"]["recipe"] == "global-time"
        assert result["users"] + result["undefined"] == 160
        assert set(result["seconds"]) == {"fit", "evaluate"}
        assert result["peak_rss_mb"] > 0
    assert not list(tmp_path.rglob(".*"))


def test_compare_writes_results_pairs_and_a_page(shop: Path, tmp_path: Path, command: Command) -> None:
    pytest.importorskip("matplotlib")
    where = ("--json", tmp_path / "c.json", "--report", tmp_path / "out" / "page.html")
    said = command("compare", "--data", shop, "--methods", "popularity,ease, diffrec", "--seeds", "1,2", *SMALL, *where)
    assert said.code == 0, said
    lines = said.out.splitlines()
    assert max(map(len, lines)) <= 100 or any("Wrote" in line for line in lines)
    assert "recall@20" in said.out
    assert "recall@10" not in said.out
    assert f"Wrote {tmp_path / 'out' / 'page.html'}" in lines
    found = json.loads((tmp_path / "c.json").read_text())
    assert {"protocol", "results", "pairs"} <= set(found)
    assert [result["method"] for result in found["results"]] == ["popularity", "ease", "diffrec"]
    assert found["protocol"]["seeds"] == [1, 2]
    assert set(found["results"][2]["metrics"]) == METRICS
    assert len(found["results"][2]["settings"]["recall@20 by seed"]) == 2
    assert len(found["results"][0]["settings"]["recall@20 by seed"]) == 1
    assert len(found["pairs"]) == 3
    assert set(found["pairs"][0]) >= {"a", "b", "metric", "mean", "low", "high", "p_holm"}
    page = (tmp_path / "out" / "page.html").read_text()
    assert all(name in page for name in ("popularity", "ease", "diffrec"))


def test_settings_of_a_comparison_go_where_they_belong(shop: Path, tmp_path: Path, command: Command) -> None:
    sets = ("--set", "recency=linear", "--set", "ease.regularization=7", "--set", "diffrec.levels=3", *SMALL)
    methods = "ease,ease:atelier,diffrec,popularity"
    said = command("compare", "--data", shop, "--methods", methods, *sets, "--json", tmp_path / "c.json")
    assert said.code == 0, said
    ease, named, diffrec, popularity = json.loads((tmp_path / "c.json").read_text())["results"]
    assert (ease["settings"]["regularization"], ease["settings"]["recency"]) == (7, "linear")
    assert (named["method"], named["settings"]["regularization"]) == ("ease:atelier", 7)
    assert (diffrec["settings"]["levels"], diffrec["settings"]["epochs"]) == (3, 2)
    assert "levels" not in popularity["settings"]


def test_evaluate_takes_steps_and_labels_a_leak(shop: Path, model: Path, tmp_path: Path, command: Command) -> None:
    protocol = tmp_path / "leak.toml"
    protocol.write_text(
        'name = "leak"\nallow_leak = true\nks = [5]\nselect_by = "recall@5"\n'
        '[report]\nrelevant = "valid"\nhistory = ["train", "test"]\nmask = ["train"]\n'
    )
    where = ("--protocol", protocol, "--json", tmp_path / "e.json")
    said = command("evaluate", model, "--data", shop, "--steps", 1, *where)
    assert said.code == 0, said
    assert "Leak: report: history holds 'test'" in said.out
    found = json.loads((tmp_path / "e.json").read_text())
    assert found["settings"]["steps"] == 1
    assert found["protocol"]["leak"]
    assert set(found["metrics"]) == {f"{name}@5" for name in ("recall", "ndcg", "precision", "mrr", "hit", "map")}


def test_recommend_for_a_history_and_for_a_user(shop: Path, model: Path, tmp_path: Path, command: Command) -> None:
    history = "A00001, A00002,A00001"
    where = ("--json", tmp_path / "r.json")
    said = command("recommend", model, "--items", history, "--items", "A00003,none", "-k", 1000, "--steps", 2, *where)
    assert said.code == 0, said
    assert "diffrec: 237 of 1000 asked, after 4 events" in said.out
    assert "Unknown to the model and left out: none" in said.out
    found = json.loads((tmp_path / "r.json").read_text())
    assert found["history"] == ["A00001", "A00002", "A00001", "A00003", "none"]
    assert found["unknown"] == ["none"]
    assert found["fallback"] is None
    assert len({place["item"] for place in found["items"]}) == 237
    assert {"item", "title", "score"} == set(found["items"][0])
    data = Dataset.read(shop)
    said = command("recommend", model, "--data", shop, "--user", data.users.items.ids[3], *where)
    assert said.code == 0, said
    found = json.loads((tmp_path / "r.json").read_text())
    assert found["history"] == data.catalog.items.decode(data.history().to_lists()[3])
    assert len(found["items"]) == 10
    said = command("recommend", model, "--items", "")
    assert "Not the method's own answer (empty history)" in said.out


def test_doctor_finds_what_is_there_and_what_is_not(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert set(doctor.EXTRAS) == set(project["optional-dependencies"]) - {"dev"}
    monkeypatch.setitem(doctor.EXTRAS, "gone", ("no_such_library",))
    said = command("doctor", "--json", tmp_path / "d.json")
    assert said.code == 0, said
    assert "All is well. Next: rediffuse quickstart" in said.out
    found = json.loads((tmp_path / "d.json").read_text())
    assert found["extra gone"] == 'missing: pip install "rediffuse[gone]"'
    assert found["end to end"].startswith("diffrec trained on atelier-tiny in ")
    assert {"rediffuse", "torch", "device", "memory"} <= set(found)


def test_quickstart_makes_everything_and_may_be_given_again(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(
        DiffRec, "presets", {"atelier-season": {"hidden": [16], "epochs": 2, "levels": 2, "condition": ["season"]}}
    )
    monkeypatch.setattr(quickstart, "METHODS", ("popularity", "diffrec:atelier-season"))
    to = tmp_path / "quick start"
    for _ in range(2):
        said = command("quickstart", "--to", to, "--size", "tiny", "--threads", 1)
        assert said.code == 0, said
    for words in ("After taking ", "asked for summer", "asked for winter"):
        assert words in said.out
    assert f"\nLook at {to / 'report.html'}. Serve diffrec-atelier-season, " in said.out
    model, dataset = to / "models" / "diffrec-atelier-season", to / "dataset"
    assert f"  rediffuse serve '{model}' --data '{dataset}'" in said.out.splitlines()
    assert f"  rediffuse describe '{to / 'dataset'}'" in said.out.splitlines()
    assert sorted(path.name for path in to.iterdir()) == [
        "dataset",
        "manifest.json",
        "models",
        "report.html",
        "results.json",
    ]
    assert registry.load(to / "models" / "diffrec-atelier-season").recommend(["A00001"]).items
    assert Dataset.read(to / "dataset").split is not None
    assert [path.name for path in tmp_path.iterdir()] == ["quick start"]


def test_every_verb_has_help_with_an_example(command: Command) -> None:
    said = command("--help")
    assert [verb for verb in VERBS if verb not in said.out] == []
    for verb in VERBS:
        said = command(verb, "-h")
        assert said.code == 0
        assert f"Example: rediffuse {verb}" in " ".join(said.out.split())


def test_the_version_is_told(command: Command) -> None:
    said = command("--version")
    assert (said.code, said.out) == (0, "0.1.0\n")


def test_no_verb_shows_help(command: Command) -> None:
    said = command()
    assert "quickstart" in said.out + said.err


def test_the_installed_program_ends_with_2_and_one_sentence(tmp_path: Path) -> None:
    line = [sys.executable, "-m", "rediffuse.cli.main", "train", "eas", "--data", "x", "--to", "y"]
    ended = subprocess.run(line, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert ended.returncode == 2
    assert ended.stderr == "Error: Unknown method 'eas'. Nearest known method: 'ease'.\n"
    assert not ended.stdout
    assert not list(tmp_path.iterdir())
