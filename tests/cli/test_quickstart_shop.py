"""`rediffuse quickstart FEED EVENTS`: from a shop's exports to a model that can be served."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest

from rediffuse import registry
from rediffuse.cli import quickstart, quickstart_shop
from rediffuse.cli.compare import recipes
from rediffuse.data import importers
from rediffuse.data.dataset import Dataset
from rediffuse.data.importers import child
from rediffuse.serving.versions import NAME
from tests.cli.conftest import Command
from tests.cli.shop_files import write_events, write_feed


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Few epochs, files read in this process, and the shop's exports in the folder at hand."""
    monkeypatch.setattr(child, "read", importers.read)
    monkeypatch.setattr(quickstart_shop, "_MOST_EPOCHS", 5)
    monkeypatch.chdir(tmp_path)
    write_feed(Path("feed.tsv"))
    write_events(Path("events.jsonl"))


def test_a_feed_and_events_end_in_a_model_and_a_page(command: Command, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    said = command("quickstart", "feed.tsv", "events.jsonl", "--to", "my shop", "--trials", 2, "--threads", 1)
    assert said.code == 0, said
    assert "1/3 Reading feed.tsv (merchant) and events.jsonl (segment)" in said.out
    assert "Health of the data" in said.out
    assert "diffrec: best of 2 settings" in said.out
    told = json.loads(Path("my shop/results.json").read_text())
    assert [one["method"] for one in told["results"]] == [*quickstart_shop.METHODS]
    assert told["protocol"]["refit"] == ["train", "valid"]
    assert all(sentence in said.out for sentence in told["verdict"]["sentences"])
    best = max(told["results"], key=lambda one: one["metrics"]["recall@20"]["mean"])["method"].replace(":", "-")
    (line,) = (text.strip() for text in said.out.splitlines() if "rediffuse serve" in text)
    assert line == f"rediffuse serve 'my shop/models/{best}' --data 'my shop/dataset'"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["events.jsonl", "feed.tsv", "my shop"]
    for model in Path("my shop/models").iterdir():
        assert NAME.fullmatch(model.name)
        assert registry.load(model).recommend(["P00", "P04"]).items[0].title.startswith("Thing")
    assert Dataset.read(Path("my shop/dataset")).split is not None


def test_interrupted_it_goes_on_from_what_is_finished(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(quickstart_shop, "METHODS", ("popularity", "ease", "diffrec"))
    fit, fitted = registry.fit, list[str]()

    def interrupted(recipe: registry.Recipe, *args: Any, **more: Any) -> registry.Fitted:
        fitted.append(recipe.label)
        if fitted == ["popularity", "ease", "diffrec"]:
            raise KeyboardInterrupt
        return fit(recipe, *args, **more)

    monkeypatch.setattr(registry, "fit", interrupted)
    words = ("quickstart", "feed.tsv", "events.jsonl", "--trials", 0, "--threads", 1)
    said = command(*words)
    assert said.code != 0
    assert "The same command goes on" in said.out
    assert not Path("quickstart").exists()
    assert command(*words).code == 0
    assert fitted == ["popularity", "ease", "diffrec", "diffrec"]
    assert not Path(".quickstart.work").exists()


def test_serve_goes_on_with_the_leader(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(quickstart_shop, "METHODS", ("popularity", "diffrec"))
    started: list[tuple[Path, Any]] = []
    monkeypatch.setattr(quickstart, "start", lambda model, **more: started.append((model, more)))
    assert command("quickstart", "feed.tsv", "events.jsonl", "--trials", 0, "--serve").code == 0
    assert started == [(Path("quickstart/models/diffrec"), {"data": Path("quickstart/dataset"), "threads": 0})]


def test_an_imported_dataset_and_events_without_a_feed_will_do(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(quickstart_shop, "METHODS", ("popularity", "diffrec"))
    assert command("import", "auto", "events.jsonl", "--to", "data").code == 0
    assert command("quickstart", "data", "--to", "a", "--trials", 0).code == 0
    assert command("quickstart", "events.jsonl", "--to", "b", "--trials", 0).code == 0
    a, b = (json.loads(Path(name, "results.json").read_text())["results"][1]["metrics"] for name in "ab")
    assert a == b


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("feed.tsv",), "'feed.tsv' is a feed of products, which holds no events. Give the log of events as well"),
        (("events.jsonl", "feed.tsv"), "'feed.tsv' is a feed of products, too. Give the feed, then the events"),
        (("feed.tsv", "none.jsonl"), "'none.jsonl' is not there"),
        (("feed.tsv", "cut.jsonl"), "Line 720 of 'cut.jsonl' is not a JSON object"),
        (("feed.tsv", "few.jsonl"), "There are too few events to hold some back for a comparison. Got 4"),
        (("pairs.csv",), "The order of these events is not known"),
        (("feed.tsv", "events.jsonl", "--size", "tiny"), "--size is of the embedded world"),
        (("--trials", "3"), "--trials is of own files"),
        (("feed.tsv", "events.jsonl", "--to", "mine"), "exists already"),
    ],
)
def test_what_is_refused_leaves_nothing(refused: Command, words: tuple[str, ...], message: str) -> None:
    pytest.importorskip("matplotlib")
    Path("cut.jsonl").write_text(Path("events.jsonl").read_text()[:-20])
    write_events(Path("few.jsonl"), users=2, each=2)
    Path("pairs.csv").write_text("user,item\nann,a\nann,b\nben,a\n")
    Path("mine").mkdir()
    assert message in refused("quickstart", *words).err


def test_events_of_one_moment_are_parted_by_each_users_order() -> None:
    frame = pl.DataFrame({"user": [f"u{n % 9}" for n in range(90)], "item": [f"i{n % 7}" for n in range(90)]})
    data = Dataset.from_events("till", frame, order="sequence")
    split = quickstart_shop.parted(data).split
    assert split is not None
    assert split.recipe.recipe == "user-order"
    same = quickstart_shop.parted(quickstart_shop.parted(data))
    assert same.split is not None
    found = quickstart_shop.protocol_of(same, 3)
    assert (found.ks, found.select_by, found.seeds) == ((1, 3), "recall@3", (3,))


def test_work_is_sized_to_the_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quickstart_shop, "_MOST_EPOCHS", 200)
    sizes = [shop(100, 100), shop(2_000, 1_000), shop(20_000, 8_000), shop(200_000, 30_000)]
    settings, trials = zip(*(quickstart_shop.sized(one) for one in sizes), strict=True)
    assert trials == (8, 3, 0, 0)
    epochs = [one["epochs"] for one in settings]
    assert epochs == sorted(epochs, reverse=True)
    assert (epochs[0], epochs[-1]) == (200, 20)
    widths = [max(one["hidden"]) for one in settings]
    assert widths == sorted(widths)
    assert settings[0]["batch_size"] == 20
    for one in sizes:
        methods = quickstart_shop.methods_of(one)
        assert recipes(methods, quickstart_shop.sized(one)[0])
        assert ("ease" in methods) == (len(one.catalog) <= quickstart_shop.MOST_ITEMS)
        assert len(set(methods)) == len(methods)


def shop(users: int, items: int) -> Any:
    """What `sized` looks at."""
    return SimpleNamespace(users=range(users), catalog=range(items))


def test_the_program_is_named_as_it_can_be_called(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(quickstart.sys, "argv", [".venv/bin/rediffuse"])
    monkeypatch.setenv("PATH", str(tmp_path))
    assert quickstart._program() == ".venv/bin/rediffuse"
    monkeypatch.setattr(quickstart.sys, "argv", ["/usr/bin/pytest"])
    assert quickstart._program() == "rediffuse"
