"""A model on disk: whole, unaltered, of this format, finite; and no way for it to carry code."""

import json
import os
import re
import shutil
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from safetensors.torch import save_file

from rediffuse import registry
from rediffuse.artifacts import FORMAT_VERSION, ModelFolder, read_model, write_model
from rediffuse.artifacts.card import card
from rediffuse.errors import ArtifactError, InvalidInput
from rediffuse.evaluation.calibration import Beta, Calibrator, Isotonic, Logistic
from rediffuse.evaluation.consumption import KNOWN
from rediffuse.files import MANIFEST, sha256
from tests.users import as_nobody

FILES = {"model.json", "weights.safetensors", "vocabulary.parquet", "README.md"}
SOURCE = Path(registry.__file__).parent


def made(**changes: Any) -> ModelFolder:
    """A popularity model of three items."""
    folder = ModelFolder(
        method="popularity",
        config={},
        training={},
        run={"device": "cpu", "seed": 1},
        protocol={"name": "standard"},
        metrics={"recall@20": {"mean": 0.5, "low": None, "high": 1.0}},
        data={"name": "shop", "fit": ["train"]},
        items=("a", "é [x]", "☃"),
        titles=("A", "É", "Snow"),
        popularity=torch.tensor([3.0, 2.0, 1.0]),
        tensors={"counts": torch.tensor([3.0, 2.0, 1.0])},
        made={"preset": None},
    )
    return replace(folder, **changes)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_model(tmp_path / "model", made())
    return tmp_path / "model"


def sign(folder: Path) -> None:
    """Make the manifest right again, as somebody would who alters a folder on purpose."""
    files = {name: {"bytes": (folder / name).stat().st_size, "sha256": sha256(folder / name)} for name in FILES}
    (folder / MANIFEST).write_text(json.dumps({"files": files}))


def alter(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change model.json and sign the folder."""
    facts = json.loads((folder / "model.json").read_text())
    change(facts)
    (folder / "model.json").write_text(json.dumps(facts))
    sign(folder)


def test_a_folder_gives_back_what_was_written(folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} == FILES | {MANIFEST}
    found, wanted = read_model(folder), made()
    for name in ("method", "config", "training", "run", "protocol", "metrics", "data", "items", "titles", "made"):
        assert getattr(found, name) == getattr(wanted, name)
    assert torch.equal(found.popularity, wanted.popularity)
    assert found.tensors.keys() == wanted.tensors.keys()
    assert torch.equal(found.tensors["counts"], wanted.tensors["counts"])
    assert found.attributes.width == 0
    assert json.loads((folder / "model.json").read_text())["format_version"] == FORMAT_VERSION == 1


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640)])
def test_every_file_is_open_to_whom_any_new_file_is(umask: int, mode: int, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        write_model(tmp_path / "model", made(vectors=torch.eye(3)))
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "model").iterdir()}
    assert modes == dict.fromkeys(FILES | {MANIFEST, "vectors.safetensors"}, mode)


def test_a_file_that_is_closed_to_us_says_whose_it_is(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    folder.parent.chmod(0o755)
    (folder / "weights.safetensors").chmod(0)
    with as_nobody(), pytest.raises(ArtifactError) as caught:
        read_model(Path("model"))
    said = str(caught.value)
    assert re.match(r"'model/weights.safetensors' is closed to user \d+, who reads it\. Got 'of user ", said)
    assert f"of user {os.getuid()} and group " in said
    assert said.endswith("mode 0000'. Let that user read it, for example: chmod -R a+rX model.")


def test_a_folder_that_is_closed_to_us_says_so(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    folder.parent.chmod(0o755)
    folder.chmod(0)
    try:
        with as_nobody(), pytest.raises(ArtifactError, match=r"is closed to user .* chmod -R a\+rX model"):
            read_model(Path("model"))
    finally:
        folder.chmod(0o755)


def test_what_is_known_of_the_items_is_kept(tmp_path: Path) -> None:
    known = pl.DataFrame({"category": ["shoes", None, "boots"], "price": [1.0, 2.0, None], "genres": [["a"], [], None]})
    write_model(tmp_path / "model", made(attributes=known))
    assert read_model(tmp_path / "model").attributes.equals(known)
    short = tmp_path / "short"
    write_model(short, made(attributes=known.head(2)))
    with pytest.raises(ArtifactError, match=r"has 3 items\. Got '2 rows of attributes'"):
        read_model(short)


LEVEL = Logistic(KNOWN, (0.0,) * 4, (1.0,) * 4, (1.0, -1.0, 0.5, 0.1), -3.0)


@pytest.mark.parametrize("curve", [None, Isotonic((0.1, 0.2), (0.05, 0.3)), Beta(1.0, 0.5, 0.0)])
def test_a_calibrator_comes_back_as_it_was(tmp_path: Path, curve: Isotonic | Beta | None) -> None:
    wanted = Calibrator(LEVEL, curve)
    write_model(tmp_path / "model", made(calibrator=wanted))
    assert read_model(tmp_path / "model").calibrator == wanted
    assert "A probability of being taken is for a time as long as" in (tmp_path / "model" / "README.md").read_text()


def test_a_folder_without_a_calibrator_tells_no_probability(folder: Path) -> None:
    assert read_model(folder).calibrator is None
    alter(folder, lambda facts: facts.pop("calibrator"))
    assert read_model(folder).calibrator is None
    answer = registry.load(folder).recommend(["a"])
    assert (answer.probability_of, answer.items[0].probability) == (None, None)


@pytest.mark.parametrize(
    "values",
    [
        3,
        {},
        {"level": {"kind": "os.system"}, "curve": None},
        {"level": {**LEVEL.to_json(), "names": ["score", "age", "rank", "popularity"]}, "curve": None},
        {"level": {**LEVEL.to_json(), "weight": ["a", "b", "c", "d"]}, "curve": None},
        {"level": {**LEVEL.to_json(), "weight": [1.0]}, "curve": None},
        {"level": {**LEVEL.to_json(), "intercept": float("nan")}, "curve": None},
        {"level": LEVEL.to_json(), "curve": {"kind": "isotonic", "x": [0.1], "y": []}},
    ],
)
def test_a_calibrator_that_cannot_work_is_refused(folder: Path, values: object) -> None:
    alter(folder, lambda facts: facts.update(calibrator=values))
    with pytest.raises(ArtifactError, match=r"The calibrator in .* cannot be used"):
        read_model(folder)


def test_the_card_is_that_of_its_facts(folder: Path) -> None:
    text = (folder / "README.md").read_text(encoding="utf-8")
    facts = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    assert text == card(facts, items=made().items, numbers=3)
    assert text.startswith("# popularity\n\nTrained by rediffuse on shop: it ranks 3 items; 3 numbers learned.")


def test_number_formats_and_views_survive(tmp_path: Path) -> None:
    wide = torch.arange(12, dtype=torch.float64).reshape(3, 4)
    write_model(tmp_path / "m", made(tensors={"turned": wide.T, "half": wide.half(), "count": torch.tensor([1, 2])}))
    found = read_model(tmp_path / "m").tensors
    assert torch.equal(found["turned"], wide.T)
    assert (found["turned"].dtype, found["half"].dtype, found["count"].dtype) == (
        torch.float64,
        torch.float16,
        torch.int64,
    )


def test_an_existing_folder_is_not_replaced(folder: Path) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(InvalidInput, match="exists already"):
        write_model(folder, made(items=("x", "y", "z")))
    assert before == {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("name", sorted(FILES))
def test_an_altered_file_is_refused(folder: Path, name: str) -> None:
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / name).write_bytes(data)
    with pytest.raises(ArtifactError, match=f"{name} in .* differs from its manifest"):
        read_model(folder)


@pytest.mark.parametrize("name", sorted(FILES | {MANIFEST}))
def test_a_removed_file_is_refused(folder: Path, name: str) -> None:
    (folder / name).unlink()
    missing = "is no model folder" if name == "model.json" else f"has no {name}|{name} in .* is missing"
    with pytest.raises(ArtifactError, match=missing):
        read_model(folder)


@pytest.mark.parametrize("name", ["code.py", "more/weights.safetensors"])
def test_an_added_file_is_refused(folder: Path, name: str) -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("print('hello')")
    with pytest.raises(ArtifactError, match="is not in its manifest"):
        read_model(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"files": []}', "\udcff"])
def test_a_manifest_that_is_none_is_refused(folder: Path, text: str) -> None:
    (folder / MANIFEST).write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ArtifactError):
        read_model(folder)


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_another_format_version_is_refused(folder: Path, version: object) -> None:
    alter(folder, lambda facts: facts.update(format_version=version))
    with pytest.raises(ArtifactError, match=r"has another format version\..*Allowed: 1\."):
        read_model(folder)


@pytest.mark.parametrize("key", ["method", "config", "training", "run", "protocol", "metrics", "data"])
@pytest.mark.parametrize("value", [None, 3])
def test_a_missing_field_is_refused(folder: Path, key: str, value: object) -> None:
    alter(folder, lambda facts: facts.update({key: value}))
    with pytest.raises(ArtifactError, match=f"model.json of .* lacks '{key}'"):
        read_model(folder)


def test_made_may_be_missing(folder: Path) -> None:
    alter(folder, lambda facts: facts.pop("made"))
    assert read_model(folder).made == {}


@pytest.mark.parametrize("method", ["popularty", "os:system", "rediffuse.baselines.popularity:Popularity", ""])
def test_a_method_that_is_not_registered_is_refused(folder: Path, method: str) -> None:
    alter(folder, lambda facts: facts.update(method=method))
    with pytest.raises(ArtifactError, match="Unknown method"):
        registry.load(folder)


def test_settings_that_do_not_fit_are_refused(folder: Path) -> None:
    alter(folder, lambda facts: facts.update(config={"hidden": 3}))
    with pytest.raises(ArtifactError, match=r"weights or settings of this popularity do not fit.*Train it anew"):
        registry.load(folder)


def test_a_vocabulary_of_another_length_is_refused(folder: Path) -> None:
    table = pl.read_parquet(folder / "vocabulary.parquet")
    table.head(2).write_parquet(folder / "vocabulary.parquet")
    sign(folder)
    with pytest.raises(ArtifactError, match="ranks 3 items, its vocabulary has 2"):
        registry.load(folder)


def test_a_vocabulary_that_repeats_an_id_is_refused(folder: Path) -> None:
    table = pl.read_parquet(folder / "vocabulary.parquet").with_columns(item=pl.lit("a"))
    table.write_parquet(folder / "vocabulary.parquet")
    sign(folder)
    with pytest.raises((ArtifactError, InvalidInput), match="stands twice"):
        registry.load(folder)


@pytest.mark.parametrize("name", ["weights.safetensors", "vocabulary.parquet"])
def test_a_file_that_cannot_be_read_is_refused(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"nonsense" * 20)
    sign(folder)
    with pytest.raises(ArtifactError, match="cannot be read"):
        read_model(folder)


def test_a_vocabulary_without_its_columns_is_refused(folder: Path) -> None:
    pl.DataFrame({"item": ["a", "b", "c"]}).write_parquet(folder / "vocabulary.parquet")
    sign(folder)
    with pytest.raises(ArtifactError, match="cannot be read"):
        read_model(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_not_finite_are_neither_written_nor_read(folder: Path, tmp_path: Path, value: float) -> None:
    broken = {"counts": torch.tensor([1.0, value, 2.0])}
    with pytest.raises(ArtifactError, match="Weight 'counts' is not finite"):
        write_model(tmp_path / "other", made(tensors=broken))
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    save_file(broken, folder / "weights.safetensors")
    sign(folder)
    with pytest.raises(ArtifactError, match=r"Weight 'counts' in .* is not finite"):
        read_model(folder)


def test_a_metric_that_json_cannot_hold_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_model(tmp_path / "m", made(metrics={"recall@20": float("nan")}))
    assert not list(tmp_path.iterdir())


def test_what_is_no_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for place in (tmp_path, tmp_path / "file", tmp_path / "none"):
        with pytest.raises(ArtifactError, match="is no model folder"):
            read_model(place)


def test_a_folder_may_be_moved(folder: Path, tmp_path: Path) -> None:
    moved = tmp_path / "somewhere [else]" / "m"
    moved.parent.mkdir()
    shutil.move(folder, moved)
    assert [place.item for place in registry.load(str(moved)).recommend(["a"]).items] == ["é [x]", "☃"]


@pytest.mark.parametrize(
    "pattern",
    [
        r"\bimport (c|cloud)?pickle\b",
        r"from (c|cloud)?pickle\b(?! import UnpicklingError\n)",  # the name of an error runs nothing
        r"allow_pickle\s*=\s*True",
        r"torch\.load\((?![^()\n]*, weights_only=True\)\n)",
        r"from torch\b.* import .*\bload\b",
        r"(?<![\w.])eval\(",
        r"(?<![\w.])exec\(",
    ],
)
def test_no_source_file_can_run_what_it_reads(pattern: str) -> None:
    assert not _sources_with(pattern)


def test_a_checkpoint_of_torch_is_read_by_one_file_in_a_process_of_its_own() -> None:
    assert _sources_with(r"torch\.load\b") == ["data/importers/torch_checkpoint.py"]


def _sources_with(pattern: str) -> list[str]:
    sources = sorted(SOURCE.rglob("*.py"))
    assert len(sources) > 50
    return [
        path.relative_to(SOURCE).as_posix() for path in sources if re.search(pattern, path.read_text(encoding="utf-8"))
    ]
