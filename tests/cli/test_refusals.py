"""What is wrong is said in one sentence, with exit code 2, and nothing is left half written."""

import errno
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from rediffuse.cli import recommend
from rediffuse.data.dataset import Dataset
from rediffuse.data.splits import GlobalTime
from rediffuse.files import new_folder
from tests.cli.conftest import SMALL, Command

TRAIN = ("train", "ease")


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (("train", "eas"), "Unknown method 'eas'. Nearest known method: 'ease'."),
        (("train", "diffrec", "--preset", "ml-1m-claen"), "Nearest known preset: 'ml-1m-clean'."),
        (("train", "popularity", "--preset", "x"), "Unknown preset 'x'. There is none."),
        ((*TRAIN, "--set", "regularisation=3"), "Nearest known key: 'regularization'."),
        ((*TRAIN, "--set", "regularization"), "--set takes key=value. Got 'regularization'."),
        ((*TRAIN, "--set", "=3"), "--set takes key=value. Got '=3'."),
        ((*TRAIN, "--set", "regularization=-1"), "regularization = -1 is not possible"),
        ((*TRAIN, "--set", "regularization=lots"), "regularization = 'lots' is not possible"),
        ((*TRAIN, "--protocol", "standart"), "Unknown protocol 'standart'. Nearest known protocol: 'standard'."),
        ((*TRAIN, "--protocol", "none.toml"), "There is no file 'none.toml'."),
        ((*TRAIN, "--device", "gpu7"), "This device is not available. Got 'gpu7'."),
        ((*TRAIN, "--precision", "half"), "precision = 'half' is not possible"),
        ((*TRAIN, "--seed", str(2**63)), "seed = 9223372036854775808 is not possible"),
        (
            (*TRAIN, "--set", "recency=exponential", "--set", "half_life=5", "--set", "half_life_days=3"),
            "half_life and half_life_days exclude each other.",
        ),
        ((*TRAIN, "--set", "recency=exponential"), "needs half_life (events) or half_life_days."),
        ((*TRAIN, "--set", "half_life=5"), "half_life goes with recency = 'exponential'"),
        (("train", "diffrec", "--set", "noise_min=.5"), "noise_min must be below noise_max."),
    ],
)
def test_train(shop: Path, tmp_path: Path, refused: Command, args: tuple[str, ...], sentence: str) -> None:
    assert sentence in refused(*args, "--data", shop, "--to", tmp_path / "model").err


@pytest.mark.parametrize(
    ("methods", "more", "sentence"),
    [
        ("ease,diffrek", (), "Unknown method 'diffrek'. Nearest known method: 'diffrec'."),
        ("ease:atelie", (), "Unknown preset 'atelie'. Nearest known preset: 'atelier'."),
        ("ease,", (), "Unknown method ''."),
        ("ease,ease", (), "A method stands twice in --methods. Got 'ease,ease'."),
        ("ease,popularity", ("--set", "hiden=3"), "Unknown setting 'hiden'."),
        ("ease,popularity", ("--set", "regularisation=3"), "Nearest known setting: 'regularization'."),
        ("ease,popularity", ("--set", "diffrec.levels=3"), "Unknown setting 'diffrec.levels'."),
        ("ease,diffrec", ("--set", "ease.levels=3"), "Unknown key 'levels'."),
        ("ease", ("--seeds", "1,two"), "--seeds takes whole numbers separated by commas. Got '1,two'."),
        ("ease", ("--seeds", ""), "--seeds takes whole numbers separated by commas."),
    ],
)
def test_compare(
    shop: Path, tmp_path: Path, refused: Command, methods: str, more: tuple[str, ...], sentence: str
) -> None:
    said = refused("compare", "--data", shop, "--methods", methods, *more, "--json", tmp_path / "c.json")
    assert sentence in said.err


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("ks = [5000]\nselect_by = 'recall@5000'", "K of a metric exceeds the catalog. Got 5000. Allowed: 1..240."),
        ("metrics = ['recal']", "Unknown metric 'recal'. Nearest known metric: 'recall'."),
        ("select_by = 'recall@7'", "Unknown metric 'recall@7'."),
        ("kss = [3]", "Unknown key 'kss'. Nearest known key: 'ks'."),
        ("fit = ['trane']", "Unknown part 'trane'. Nearest known part: 'train'."),
        ("fit = ['train', 'valid']", "gives the future away: selection: fit holds 'valid'"),
        ("[report]\nrelevant = 'test'", "Key 'report.history' of Protocol is missing."),
        ("name = ", "is not TOML."),
    ],
)
def test_protocols(shop: Path, tmp_path: Path, refused: Command, text: str, sentence: str) -> None:
    (tmp_path / "p.toml").write_text(text)
    args = ("--data", shop, "--to", tmp_path / "model", "--protocol", tmp_path / "p.toml")
    assert sentence in refused("train", "popularity", *args).err


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (("tabel", "events.csv"), "Unknown format 'tabel'. Nearest known format: 'table'."),
        (("table", "nothing.csv"), "There is no file "),
        (("table", "empty.csv"), "empty"),
        (("table", "header.csv"), "'header.csv' has no rows."),
        (("table", "columns.csv"), "No column is called like 'item'. Columns: 'user', 'price'."),
        (("table", "events.csv", "--map", "item=sku"), "There is no column 'sku' for 'item'."),
        (("table", "events.csv", "--map", "item"), "takes"),
        (("table", "events.csv", "--order", "alphabet"), "Unknown order. Got 'alphabet'."),
        (("table", "events.csv", "--order", "time"), "No column is called like 'time'."),
        (("table", "events.csv", "--seed", "3"), "import table cannot use 'seed'."),
        (("diffrec", "."), "There is no file "),
        (("auto", "nothing"), "is not there."),
        (("auto", "."), "holds no files of a known format."),
    ],
)
def test_import(tmp_path: Path, refused: Command, args: tuple[str, ...], sentence: str) -> None:
    for name, text in {
        "events.csv": "user,item\na,b\n",
        "empty.csv": "",
        "header.csv": "user,item\n",
        "columns.csv": "user,price\na,3\n",
    }.items():
        (tmp_path / name).write_text(text)
    format_, source, *more = args
    assert sentence in refused("import", format_, tmp_path / source, *more, "--to", tmp_path / "shop").err


def test_import_of_an_unknown_world(tmp_path: Path, refused: Command) -> None:
    assert "Nearest known size: 'small'." in refused("import", "atelier", "smal", "--to", tmp_path / "x").err
    said = refused("import", "atelier", "tiny", "--map", "user=u", "--to", tmp_path / "x")
    assert "import atelier cannot use 'columns'." in said.err


def test_split(shop: Path, tmp_path: Path, refused: Command) -> None:
    to = ("--to", tmp_path / "x")
    assert "Nearest known split recipe: 'global-time'." in refused("split", shop, "globl-time", *to).err
    assert "Nearest known key: 'valid'." in refused("split", shop, "global-time", "--set", "valdi=.1", *to).err
    assert "valid = 0.7 is not possible" in refused("split", shop, "global-time", "--set", "valid=.7", *to).err
    assert "as-shipped keeps the parts" in refused("split", shop, "as-shipped", *to).err


def test_a_dataset_without_split_is_sent_to_split(tmp_path: Path, tiny: Dataset, refused: Command) -> None:
    bare = Dataset(tiny.name, tiny.users, tiny.catalog, tiny.events)
    bare.write(tmp_path / "bare")
    said = refused("train", "ease", "--data", tmp_path / "bare", "--to", tmp_path / "m")
    assert "is not split yet. Run: rediffuse split" in said.err


def test_existing_targets_are_left_alone(shop: Path, tmp_path: Path, refused: Command) -> None:
    here = tmp_path / "here"
    here.mkdir()
    (here / "mine").write_text("precious")
    for verb in (
        ("import", "atelier", "tiny"),
        ("split", shop, "global-time"),
        ("train", "popularity", "--data", shop),
        ("quickstart", "--size", "tiny"),
    ):
        assert "exists already. Choose another place or remove it first." in refused(*verb, "--to", here).err


def test_what_is_no_dataset_or_model_folder(shop: Path, model: Path, tmp_path: Path, refused: Command) -> None:
    assert "is no dataset folder. Make one with: rediffuse import" in refused("describe", tmp_path).err
    assert "is no dataset folder" in refused("train", "ease", "--data", model, "--to", tmp_path / "m").err
    assert "is no model folder. Make one with: rediffuse train" in refused("evaluate", shop, "--data", shop).err
    assert "is no model folder" in refused("recommend", tmp_path / "none", "--items", "a").err


@pytest.mark.parametrize("name", ["weights.safetensors", "vocabulary.parquet", "model.json", "README.md"])
def test_a_tampered_model(shop: Path, model: Path, tmp_path: Path, refused: Command, name: str) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(model, copy)
    data = bytearray((copy / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / name).write_bytes(data)
    sentence = f"{name} in {str(copy)!r} differs from its manifest. Make the folder anew."
    assert sentence in refused("recommend", copy, "--items", "A00001").err
    assert sentence in refused("evaluate", copy, "--data", shop).err


def test_a_missing_manifest(shop: Path, model: Path, tmp_path: Path, refused: Command) -> None:
    for source, verb in ((model, ("recommend", "--items", "A00001")), (shop, ("describe",))):
        copy = tmp_path / source.name
        shutil.copytree(source, copy)
        (copy / "manifest.json").unlink()
        assert "has no manifest.json." in refused(verb[0], copy, *verb[1:]).err


def test_model_and_dataset_must_fit(model: Path, tmp_path: Path, refused: Command) -> None:
    (tmp_path / "t.csv").write_text("user,item,time\n" + "".join(f"u{n % 3},i{n},{n + 10**9}\n" for n in range(30)))
    from rediffuse.data.importers.table import load

    load(tmp_path / "t.csv").with_split(GlobalTime()).write(tmp_path / "other")
    said = refused("evaluate", model, "--data", tmp_path / "other")
    assert "The dataset has items that the model has never seen. Got 'i0'." in said.err


def test_recommend(shop: Path, model: Path, refused: Command) -> None:
    assert (
        "Unknown user 'U0003'. Nearest known user: 'U00"
        in refused("recommend", model, "--data", shop, "--user", "U0003").err
    )
    for wrong in ((), ("--data", shop), ("--user", "U00001"), ("--items", "a", "--data", shop, "--user", "U00001")):
        assert "Give either --items, or --data and --user." in refused("recommend", model, *wrong).err
    said = refused("recommend", model, "--items", "A00001", "--steps", 99)
    assert "steps must be 1..5. Got 99. Leave it out for all 5." in said.err


def test_steps_of_a_method_that_has_none(shop: Path, tmp_path: Path, command: Command, refused: Command) -> None:
    assert command("train", "ease", "--data", shop, "--to", tmp_path / "ease").code == 0
    assert (
        "ease cannot use 'steps'. It takes no options; leave steps out."
        in refused("recommend", tmp_path / "ease", "--items", "A00001", "--steps", 2).err
    )
    assert "ease cannot use 'steps'." in refused("evaluate", tmp_path / "ease", "--data", shop, "--steps", 2).err


def test_npy_files_that_are_not_pairs(tmp_path: Path, refused: Command) -> None:
    pairs = np.array([[0, 0], [1, 1], [0, 1]])
    for part in ("train", "valid", "test"):
        np.save(tmp_path / f"{part}_list.npy", pairs)
    args = ("import", "diffrec", tmp_path, "--to", tmp_path / "shop")
    np.save(tmp_path / "valid_list.npy", np.array([[0, 7]]))
    assert "valid_list.npy holds 1 items that train_list.npy has not. Got 7." in refused(*args).err
    np.save(tmp_path / "valid_list.npy", np.array([[9, 1]]))
    assert "valid_list.npy holds 1 users that train_list.npy has not. Got 9." in refused(*args).err
    np.save(tmp_path / "valid_list.npy", np.array([["a", {}]], dtype=object), allow_pickle=True)
    assert "holds pickled objects, which are never loaded." in refused(*args).err
    np.save(tmp_path / "valid_list.npy", np.zeros((3, 2)))
    assert "must be integers of shape (n, 2). Got 'float64 (3, 2)'." in refused(*args).err


def test_what_the_machine_refuses_is_one_sentence_too(
    shop: Path, model: Path, refused: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = refused("train", "popularity", "--data", shop, "--to", model / "model.json" / "x")
    assert f"'{model / 'model.json' / 'x'}' could not be written. Got " in said.err

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/full")

    monkeypatch.setattr(recommend, "write_result", full)
    assert "No space left on device. Got '/full'." in refused("recommend", model, "--items", "A00001").err


def test_a_training_that_diverges_leaves_nothing(shop: Path, tmp_path: Path, refused: Command) -> None:
    said = refused("train", "diffrec", *SMALL, "--set", "learning_rate=1e30", "--data", shop, "--to", tmp_path / "m")
    assert "not finite" in said.err


def test_a_figure_the_model_may_know_is_refused_and_labelled_where_it_is_wanted(
    shop: Path, model: Path, tmp_path: Path, refused: Command, command: Command
) -> None:
    """A model trained on another split, or chosen on the part that is reported, says nothing about it."""
    command("split", shop, "leave-last-out", "--to", tmp_path / "other")
    assert "learned from other data or another split" in refused("evaluate", model, "--data", tmp_path / "other").err
    on_valid = tmp_path / "on-valid.toml"
    on_valid.write_text(
        '[selection]\nrelevant = "test"\nhistory = ["train"]\nmask = ["train"]\n'
        '[report]\nrelevant = "valid"\nhistory = ["train"]\nmask = ["train"]\n'
    )
    said = refused("evaluate", model, "--data", shop, "--protocol", on_valid)
    assert "settings are chosen on 'valid' itself" in said.err
    allowed = tmp_path / "allowed.toml"
    allowed.write_text("allow_leak = true\n" + on_valid.read_text())
    wanted = tmp_path / "leak.json"
    said = command("evaluate", model, "--data", shop, "--protocol", allowed, "--json", wanted)
    assert "Leak: report: settings are chosen on 'valid' itself" in said.out
    assert json.loads(wanted.read_text())["protocol"]["leak"] == ["report: settings are chosen on 'valid' itself"]


def test_a_model_is_evaluated_under_its_own_protocol(shop: Path, tmp_path: Path, command: Command) -> None:
    own = tmp_path / "own.toml"
    own.write_text('name = "mine"\nks = [5]\nselect_by = "recall@5"\n')
    command("train", "popularity", "--data", shop, "--protocol", own, "--to", tmp_path / "m")
    command("evaluate", tmp_path / "m", "--data", shop, "--json", tmp_path / "r.json")
    found = json.loads((tmp_path / "r.json").read_text())
    assert found["protocol"]["name"] == "mine"
    assert "recall@5" in found["metrics"]


def test_a_foreign_folder_is_never_replaced(tmp_path: Path, refused: Command) -> None:
    """Neither one that happens to hold a manifest, nor a quickstart to which something was added."""
    foreign = tmp_path / "extension"
    foreign.mkdir()
    (foreign / "manifest.json").write_text('{"files": {}}')
    (foreign / "precious.js").write_text("x")
    assert "exists already" in refused("quickstart", "--to", foreign, "--size", "tiny").err
    with new_folder(tmp_path / "q", kind="quickstart") as place:
        (place / "a.txt").write_text("a")
    (tmp_path / "q" / "mine.txt").write_text("mine")
    assert "exists already" in refused("quickstart", "--to", tmp_path / "q", "--size", "tiny").err


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--map", "user"), "--map takes ours=theirs. Got 'user'."),
        (("--time-zone", "Europe/Berlim"), "Unknown time zone. Got 'Europe/Berlim'."),
    ],
)
def test_import_options_that_cannot_be(tmp_path: Path, refused: Command, args: tuple[str, ...], message: str) -> None:
    (tmp_path / "t.csv").write_text("user,item\na,b\n")
    assert message in refused("import", "table", tmp_path / "t.csv", "--to", tmp_path / "d", *args).err


def test_column_names_and_time_zone_are_taken_as_they_are(tmp_path: Path, command: Command) -> None:
    (tmp_path / "t.csv").write_text("true,1e3\na,b\n")
    where = ("--map", "user=true,item=1e3", "--time-zone", "Europe/Berlin", "--to", tmp_path / "d")
    assert command("import", "table", tmp_path / "t.csv", *where).code == 0
    assert Dataset.read(tmp_path / "d").time_zone == "Europe/Berlin"


@pytest.mark.parametrize("seeds", ["1,1", "99999999999999999999", "-1"])
def test_seeds_that_cannot_be(shop: Path, refused: Command, seeds: str) -> None:
    assert "seed" in refused("compare", "--data", shop, "--methods", "popularity", "--seeds", seeds).err
