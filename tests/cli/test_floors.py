"""What a comparison adds by itself, scores besides, and freezes."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from rediffuse import recipes, registry
from rediffuse.cli import frozen
from rediffuse.cli.compare import floors_of
from tests.cli.conftest import Command

TUNED = ("--trials", 2, "--ks", "10,20")


@pytest.fixture
def steep(monkeypatch: pytest.MonkeyPatch) -> str:
    """A method that must beat two others."""
    entry = registry.Entry("rediffuse.baselines.pure_svd:PureSVD", floors=("popularity", "ease", "ease:linear"))
    monkeypatch.setattr(recipes, "METHODS", {**registry.METHODS, "steep": entry})
    return "steep"


def results(path: Path) -> dict[str, dict[str, Any]]:
    return {result["method"]: result for result in json.loads(path.read_text())["results"]}


def test_floors_are_added_and_said(steep: str, shop: Path, tmp_path: Path, command: Command) -> None:
    said = command("compare", "--data", shop, "--methods", f"popularity,{steep}", "--json", tmp_path / "c.json")
    assert said.code == 0, said
    assert "Beside what they must beat: ease, ease:linear (--no-floors leaves them out)" in said.out
    assert list(results(tmp_path / "c.json")) == ["popularity", "steep", "ease", "ease:linear"]
    said = command("compare", "--data", shop, "--methods", steep, "--no-floors", "--json", tmp_path / "c.json")
    assert said.code == 0, said
    assert list(results(tmp_path / "c.json")) == ["steep"]
    assert "must beat" not in said.out


def test_any_preset_of_a_floor_will_do_for_its_name(steep: str) -> None:
    assert floors_of([steep, "ease:atelier"]) == ["popularity", "ease:linear"]
    assert floors_of([steep, steep]) == ["popularity", "ease", "ease:linear"]
    assert floors_of(["popularity", "ease", "no such method"]) == []


def test_every_floor_is_registered() -> None:
    known = registry.methods()
    labels = {floor for entry in known.values() for floor in entry.floors}
    for name, preset in map(registry.named, labels):
        assert name in known
        assert preset is None or preset in registry.method_class(name).presets
    assert all(known[name].floors == registry.SEQUENCE_FLOORS for name in ("dreamrec", "preferdiff", "diffurec"))


def test_lengths_metric_and_mask_come_from_the_command_line(shop: Path, tmp_path: Path, command: Command) -> None:
    base = ("compare", "--data", shop, "--methods", "popularity,ease", "--json", tmp_path / "c.json")
    said = command(*base, "--ks", "5,10", "--select-by", "ndcg@10", "--repeats", "allow")
    assert said.code == 0, said
    assert "repeats allowed" in said.out
    assert "ndcg@10" in said.out
    allowed = results(tmp_path / "c.json")["ease"]
    protocol = allowed["protocol"]
    assert (protocol["ks"], protocol["select_by"], protocol["repeats"]) == ([5, 10], "ndcg@10", True)
    assert protocol["selection"]["mask"] == protocol["report"]["mask"] == []
    said = command(*base, "--ks", "5,10", "--repeats", "mask")
    assert said.code == 0, said
    assert "history masked" in said.out
    masked = results(tmp_path / "c.json")["ease"]
    assert masked["protocol"]["ks"] == [5, 10, 20]  # the length that selects is among them
    assert masked["protocol"]["report"]["mask"] == ["train", "valid"]
    assert masked["metrics"]["recall@10"] != allowed["metrics"]["recall@10"]


def test_a_model_is_scored_at_other_lengths_with_or_without_its_mask(
    shop: Path, model: Path, tmp_path: Path, command: Command
) -> None:
    where = tmp_path / "e.json"
    found = {}
    for repeats in ("mask", "allow"):
        said = command("evaluate", model, "--data", shop, "--ks", 5, "--repeats", repeats, "--json", where)
        assert said.code == 0, said
        found[repeats] = json.loads(where.read_text())
        assert ("history masked" if repeats == "mask" else "repeats allowed") in said.out
        assert found[repeats]["protocol"]["ks"] == [5, 20]
        assert found[repeats]["protocol"]["selection"]["mask"] == ["train"]  # how it was chosen is a fact
    assert found["mask"]["protocol"]["report"]["mask"] == ["train", "valid"]
    assert found["allow"]["protocol"]["report"]["mask"] == []
    assert found["mask"]["metrics"]["recall@5"] != found["allow"]["metrics"]["recall@5"]


def test_what_was_chosen_is_frozen_and_used_untuned(shop: Path, tmp_path: Path, command: Command) -> None:
    kept, where = tmp_path / "floors.json", tmp_path / "c.json"
    kept.write_text(json.dumps({"other": {"ease": {"settings": {}}}}))
    base = ("compare", "--data", shop, "--json", where, *TUNED)
    said = command(*base, "--methods", "popularity,ease", "--freeze", kept)
    assert said.code == 0, said
    assert f"Froze popularity, ease in {kept}" in said.out
    first, file = results(where)["ease"], json.loads(kept.read_text())
    (name,) = set(file) - {"other"}
    entry = file[name]["ease"]
    assert entry["settings"]["regularization"] == first["settings"]["regularization"]
    assert entry["selection"] == {"recall@20": max(trial["value"] for trial in first["trials"])}
    assert (entry["trials"], entry["protocol"]["name"]) == (2, "standard")
    assert entry["commit"] == frozen.commit()
    assert file["other"] == {"ease": {"settings": {}}}
    entry["settings"]["regularization"] = 77.0
    kept.write_text(json.dumps(file))
    said = command(*base, "--methods", "ease,item_knn,blend", "--frozen", kept, "--freeze", kept)
    assert said.code == 0, said
    assert f"Settings frozen in {kept}: ease" in said.out
    again = results(where)
    assert again["ease"]["settings"]["regularization"] == 77.0
    assert again["ease"]["trials"] == []
    assert again["blend"]["settings"]["settings"]["ease"]["regularization"] == 77.0
    assert len(again["item_knn"]["trials"]) == 2
    file = json.loads(kept.read_text())
    assert file[name]["ease"] == entry
    assert set(file[name]) == {"popularity", "ease", "item_knn", "blend"}


def test_a_given_setting_changes_a_frozen_one(shop: Path, tmp_path: Path, command: Command) -> None:
    kept, where = tmp_path / "floors.json", tmp_path / "c.json"
    base = ("compare", "--data", shop, "--json", where)
    assert command(*base, "--methods", "ease", *TUNED, "--freeze", kept).code == 0
    given = ("--set", "ease.regularization=3", "--set", "blend.settings={ease={regularization=4}}")
    said = command(*base, "--methods", "ease,blend", "--frozen", kept, *given)
    assert said.code == 0, said
    found = results(where)
    assert found["ease"]["settings"]["regularization"] == 3
    assert found["blend"]["settings"]["settings"]["ease"]["regularization"] == 4


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"content_sha256": "another"}, "ease is frozen for other data or another split. Got 'another'"),
        ({"protocol": {"fit": ["valid"]}}, "ease is frozen under another protocol: fit differs"),
        ({"protocol": "standard"}, "The entry of ease"),
        ({"settings": {"regularisation": 1}}, "Nearest known key: 'regularization'"),
    ],
)
def test_settings_frozen_elsewhere_are_refused(
    shop: Path, tmp_path: Path, command: Command, refused: Command, change: dict[str, Any], sentence: str
) -> None:
    kept = tmp_path / "floors.json"
    assert command("compare", "--data", shop, "--methods", "ease", *TUNED, "--freeze", kept).code == 0
    file = json.loads(kept.read_text())
    (entries,) = file.values()
    for key, value in change.items():
        whole = isinstance(value, dict) and key == "protocol"
        entries["ease"][key] = {**entries["ease"][key], **value} if whole else value
    kept.write_text(json.dumps(file))
    assert sentence in refused("compare", "--data", shop, "--methods", "ease", "--frozen", kept).err


def test_nothing_frozen_and_nothing_to_freeze_are_refused(shop: Path, tmp_path: Path, refused: Command) -> None:
    base = ("compare", "--data", shop, "--methods", "ease")
    assert "--freeze needs something to be chosen. Add --trials N." in refused(*base, "--freeze", tmp_path / "f").err
    assert "has no f.json" in refused(*base, "--frozen", tmp_path / "f.json").err
    (tmp_path / "f.json").write_text('{"other": {}}')
    assert "holds nothing for" in refused(*base, "--frozen", tmp_path / "f.json").err
    assert "--ks takes whole numbers separated by commas" in refused(*base, "--ks", "5;10").err
    assert "Unknown metric 'recal@5'" in refused(*base, "--select-by", "recal@5").err


def test_the_commit_is_that_of_the_working_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frozen.rediffuse, "__file__", str(tmp_path / "src" / "__init__.py"))
    (tmp_path / "src").mkdir()
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert frozen.commit() == "unknown"
    who = ("-c", "user.name=n", "-c", "user.email=e")
    for words in (("init", "-q"), (*who, "commit", "-q", "--allow-empty", "-m", "first")):
        subprocess.run(["git", "-C", str(tmp_path), *words], check=True, capture_output=True)
    head = subprocess.run(["git", "-C", str(tmp_path), "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    assert frozen.commit() == head.stdout.strip()
    monkeypatch.setenv("PATH", "")
    assert frozen.commit() == "unknown"
