"""One model takes another's place, whole or not at all."""

import json
import shutil
import threading
import weakref
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

import rediffuse
from benchmarks.serving.damage import WEIGHTS, seal
from rediffuse.errors import ArtifactError, InvalidInput
from rediffuse.facade import Model
from rediffuse.files import MANIFEST, sha256
from rediffuse.serving import versions as module
from rediffuse.serving.canaries import warm_up
from rediffuse.serving.engine import Answered, Ask
from rediffuse.serving.gate import Gate
from rediffuse.serving.versions import NoModel, Versions
from rediffuse.types import Options, Query, Ranking
from tests.serving.conftest import BAD

ASK = Ask(history=("A00083", "A00037"))


def answered(versions: Versions) -> Answered:
    with versions.current() as version:
        found = version.engine.answer([ASK])[0]
    assert isinstance(found, Answered)
    return found


def offline(folder: Path) -> list[tuple[str, float]]:
    model = rediffuse.load(str(folder), device="cpu")
    return [(place.item, place.score) for place in model.recommend(ASK.told).items]


def shown(answer: Answered) -> list[tuple[str, float]]:
    return [(place.item_id, place.score) for place in answer.items]


def test_a_version_is_loaded_promoted_and_taken_back(models: Path) -> None:
    versions = Versions(models, "cpu", now_s=lambda: 12.5)
    with pytest.raises(NoModel, match="No model is loaded"), versions.current():
        pass
    with pytest.raises(InvalidInput, match="no version before"):
        versions.rollback()
    first = versions.load(models / "one")
    assert (first.name, first.sha256, first.loaded_us) == ("one", sha256(models / "one" / MANIFEST), 12_500_000)
    assert versions.promote("one") is first
    assert shown(answered(versions)) == offline(models / "one")
    assert answered(versions).version == first.sha256[:12]
    versions.promote("two")
    versions.load(models / "three")
    states = {row.name: row.state for row in versions.list()}
    assert states == {"one": "on_disk", "two": "current", "three": "candidate", **dict.fromkeys(BAD, "on_disk")}
    assert shown(answered(versions)) == offline(models / "two")
    versions.promote("three")
    for name in ("two", "one"):
        assert versions.rollback().name == name
        assert shown(answered(versions)) == offline(models / name)
    with pytest.raises(InvalidInput, match="no version before"):
        versions.rollback()


@pytest.mark.parametrize("name", BAD)
def test_a_bad_model_never_takes_the_place_of_a_good_one(models: Path, name: str) -> None:
    versions = Versions(models, "cpu")
    versions.promote("one")
    before = answered(versions)
    with pytest.raises(ArtifactError, match=BAD[name][1]):
        versions.promote(name)
    with pytest.raises(ArtifactError, match=BAD[name][1]):
        versions.load(models / name)
    assert answered(versions) == before
    assert [row.name for row in versions.list() if row.state != "on_disk"] == ["one"]
    versions.promote("two")
    assert answered(versions).model == "two"


def test_names_never_lead_elsewhere(models: Path, tmp_path: Path) -> None:
    inside = tmp_path / "models"
    inside.mkdir()
    (inside / "link").symlink_to(models / "one")
    shutil.copytree(models / "one", inside / "Large")
    (inside / "empty").mkdir()
    versions = Versions(inside, "cpu")
    for name in ("../models/one", str(models / "one"), "link", "", ".", "..", "Large", "none", "one\0"):
        with pytest.raises(InvalidInput, match="There is no version of this name"):
            versions.promote(name)
    with pytest.raises(ArtifactError, match="is no model folder"):
        versions.promote("empty")
    with pytest.raises(InvalidInput, match="No name of a version"):
        versions.load(inside / "Large")
    with pytest.raises(InvalidInput, match="There is no version of this name"):
        Versions(None, "cpu").promote("one")
    assert versions.list() == []


def test_what_is_held_stays_and_is_freed_with_its_last_request(models: Path) -> None:
    versions = Versions(models, "cpu", drain_s=0.05)
    versions.promote("one")
    with versions.current() as held:
        kept = weakref.ref(held.engine.model)
        with versions.current() as again:
            assert again is held
            versions.promote("two")
            assert answered(versions).model == "two"
        assert held.engine.name == "one"
        assert {row.name: row.state for row in versions.list()}["one"] == "draining"
        with pytest.raises(InvalidInput, match="Requests still hold"):
            versions.load(models / "three")
        assert answered(versions).model == "two"
    assert kept() is None
    with pytest.raises(NoModel, match="'one' was freed"):
        _ = held.engine
    versions.promote("three")
    assert answered(versions).model == "three"


def test_a_model_that_changed_is_not_taken_back(models: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        shutil.copytree(models / name, tmp_path / name)
    versions = Versions(tmp_path, "cpu")
    versions.promote("one")
    versions.promote("two")
    shutil.rmtree(tmp_path / "one")
    with pytest.raises(ArtifactError):
        versions.rollback()
    shutil.copytree(models / "three", tmp_path / "one")
    with pytest.raises(ArtifactError, match="no longer the model"):
        versions.rollback()
    assert answered(versions).model == "two"
    shutil.rmtree(tmp_path / "one")
    shutil.copytree(models / "one", tmp_path / "one")
    assert versions.rollback().name == "one"


def test_what_answers_already_is_promoted_once(models: Path, tmp_path: Path) -> None:
    """A client that waited too long says it again: rolling back still leads to the model before."""
    for name in ("one", "two"):
        shutil.copytree(models / name, tmp_path / name)
    versions = Versions(tmp_path, "cpu")
    versions.promote("one")
    two = versions.promote("two")
    assert versions.promote("two") is two
    candidate = versions.load(tmp_path / "two")
    assert candidate is not two
    assert versions.promote("two") is two
    assert [row.state for row in versions.list()] == ["current", "on_disk"]
    shutil.copytree(models / "three", tmp_path / "two", dirs_exist_ok=True)  # the same name, another model
    assert versions.promote("two").sha256 == sha256(models / "three" / MANIFEST)
    assert shown(answered(versions)) == offline(models / "three")
    shutil.rmtree(tmp_path / "two")
    shutil.copytree(models / "two", tmp_path / "two")
    for name in ("two", "one"):
        assert versions.rollback().name == name
        assert shown(answered(versions)) == offline(models / name)


@dataclass
class Wrong:
    """Answers wrongly in one way."""

    model: Model
    how: str

    def recommend(self, query: Query, k: int, *, options: Options = Options(), seed: int = 0) -> Ranking:
        found = self.model.recommender.recommend(query, k, options=options, seed=seed)
        items, scores = found.items.clone(), found.scores.clone()
        if self.how == "an item twice":
            items[:, 1] = items[:, 0]
        elif self.how == "a score that is not finite":
            scores[-1, -1] = -torch.inf
        elif self.how == "9 places for 10":
            items[:, -1] = -1
        elif self.how == "an item that was excluded":
            items[query.history.rows, 0] = query.history.items
        else:
            scores *= len(query)
        return replace(found, items=items, scores=scores)


HOW = [
    "an item twice",
    "a score that is not finite",
    "9 places for 10",
    "an item that was excluded",
    "another list among others",
]


@pytest.mark.parametrize("how", HOW)
def test_canaries_see_wrong_answers(models: Path, how: str) -> None:
    model = rediffuse.load(str(models / "one"), device="cpu")
    warm_up(model)
    with pytest.raises(ArtifactError, match=how):
        warm_up(replace(model, recommender=Wrong(model, how)))


def test_tables_beside_the_weights_must_be_finite(models: Path) -> None:
    model = rediffuse.load(str(models / "one"), device="cpu")
    assert model.folder.vectors is not None
    for name in ("popularity", "vectors"):
        table = getattr(model.folder, name).clone()
        table.view(-1)[-1] = torch.inf
        with pytest.raises(ArtifactError, match=f"The {name} of this model are not finite"):
            warm_up(replace(model, folder=replace(model.folder, **{name: table})))


def test_administrators_wait_for_each_other(models: Path) -> None:
    versions = Versions(models, "cpu")
    threads = [threading.Thread(target=versions.promote, args=(name,)) for name in ("one", "two", "three") * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert shown(answered(versions)) == offline(models / answered(versions).model)
    while versions._before:
        versions.rollback()
    assert shown(answered(versions)) == offline(models / answered(versions).model)


def test_a_model_that_answers_otherwise_than_when_it_was_made_is_refused(models: Path, tmp_path: Path) -> None:
    """Its weights are another's, its manifest is right: only the answers that it was saved with tell."""
    shutil.copytree(models / "one", tmp_path / "one")
    shutil.copytree(models / "one", tmp_path / "other")
    shutil.copy(models / "two" / WEIGHTS, tmp_path / "other" / WEIGHTS)
    seal(tmp_path / "other")
    versions = Versions(tmp_path, "cpu")
    versions.promote("one")
    with pytest.raises(ArtifactError, match="answers otherwise than when it was made"):
        versions.promote("other")
    assert answered(versions).model == "one"


def test_sums_in_another_order_are_no_other_model(models: Path, tmp_path: Path) -> None:
    """A model is trained on one kind of device and answers on another."""
    shutil.copytree(models / "one", tmp_path / "one")
    facts = json.loads((tmp_path / "one" / "model.json").read_text())
    assert facts["golden"]
    for told in facts["golden"]:
        largest = max(map(abs, told["scores"]))
        told["scores"] = [score + 1e-4 * largest * (-1) ** place for place, score in enumerate(told["scores"])]
    (tmp_path / "one" / "model.json").write_text(json.dumps(facts))
    seal(tmp_path / "one")
    versions = Versions(tmp_path, "cpu")
    versions.promote("one")
    assert answered(versions).model == "one"


def test_a_folder_that_is_closed_to_us_is_no_model(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(path: Path) -> str:
        if path.parent.name == "two":
            raise PermissionError(13, "Permission denied", str(path))
        return sha256(path)

    monkeypatch.setattr(module, "sha256", closed)
    versions = Versions(models, "cpu")
    versions.promote("one")
    assert {"one", "three"} <= {row.name for row in versions.list()} - {"two"} == {row.name for row in versions.list()}
    with pytest.raises(ArtifactError, match="a manifest we may read"):
        versions.promote("two")
    assert answered(versions).model == "one"


def recorded(folder: Path, **metrics: float) -> None:
    """Let a model folder tell that it reached so much."""
    facts = json.loads((folder / "model.json").read_text())
    facts["metrics"] |= {name: {"mean": value} for name, value in metrics.items()}
    (folder / "model.json").write_text(json.dumps(facts))
    seal(folder)


def test_a_gate_keeps_the_worse_out(models: Path, tmp_path: Path) -> None:
    reached = {"good": 0.20, "near": 0.19, "worse": 0.182, "poor": 0.001}
    for name, value in reached.items():
        shutil.copytree(models / "one", tmp_path / name)
        recorded(tmp_path / name, **{"ndcg@10": value})
    popular = json.loads((tmp_path / "good" / "model.json").read_text())
    assert 0.001 < popular["made"]["controls"]["popularity"]["ndcg@10"]["mean"] < 0.18
    versions = Versions(tmp_path, "cpu", gate=Gate("ndcg@10"))
    versions.promote("good")
    versions.promote("near")
    versions.promote("worse")
    versions.rollback()
    versions.rollback()
    with pytest.raises(InvalidInput, match=r"less than 95% of the model that answers.*0\.1900 or more"):
        versions.promote("worse")
    assert answered(versions).model == "good"
    assert [row.state for row in versions.list()].count("candidate") == 0
    low = Versions(tmp_path, "cpu", gate=Gate("ndcg@10", 0.0))
    low.promote("good")
    with pytest.raises(InvalidInput, match="less than popularity"):
        low.promote("poor")
    unknown = Versions(tmp_path, "cpu", gate=Gate("joy@10"))
    unknown.promote("good")
    with pytest.raises(InvalidInput, match="Nobody measured joy@10"):
        unknown.promote("near")
