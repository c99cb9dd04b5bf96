"""`rediffuse import` of what shops export: a feed and its events, a feed alone, refusals that leave nothing."""

from pathlib import Path

import pytest

from rediffuse.data import importers
from rediffuse.data.dataset import Dataset
from rediffuse.data.importers import child
from tests.cli.conftest import Command
from tests.data.importers.shops import FILES, put


@pytest.fixture
def near(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read in this process: starting another takes seconds."""
    monkeypatch.setattr(child, "read", importers.read)
    monkeypatch.setattr(child, "products", importers.products)


def test_a_feed_is_joined_with_events(tmp_path: Path, command: Command) -> None:
    events, feed = put(tmp_path, "events.jsonl"), put(tmp_path, "feed.tsv")
    assert command("import", "auto", feed, events, "--to", tmp_path / "shop").code == 0
    assert Dataset.read(tmp_path / "shop").catalog.items.ids == ("H1", "SHIRT")
    table = put(tmp_path, "e.csv", "user,item\nann,007\nben,7\n")
    assert command("import", "merchant", feed, table, "--to", tmp_path / "t").code == 0
    data = Dataset.read(tmp_path / "t")
    assert (data.facts["format"], data.facts["events_not_in_the_feed"]) == ("csv", 0)


@pytest.mark.usefixtures("near")
def test_a_feed_alone_becomes_a_table_that_events_take(tmp_path: Path, command: Command) -> None:
    events, items = put(tmp_path, "events.jsonl"), tmp_path / "items.parquet"
    said = command("import", "auto", put(tmp_path, "feed.xml"), "--to", items)
    assert said.code == 0
    assert "items.parquet EVENTS" in said.out + said.err
    assert command("import", "auto", items, events, "--to", tmp_path / "d", "--level", "item_id").code == 0
    assert set(Dataset.read(tmp_path / "d").catalog.items.ids) == {"007", "7", "H1"}


@pytest.mark.usefixtures("near")
def test_event_types_are_named(tmp_path: Path, command: Command) -> None:
    path = put(tmp_path, "i.csv", FILES["interactions.csv"][1].replace("View", "Streamed"))
    assert "--event-type Streamed=view" in command("import", "auto", path, "--to", tmp_path / "d").err
    assert command("import", "auto", path, "--event-type", "Streamed=view", "--to", tmp_path / "d").code == 0


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("auto", "cut.jsonl"), "Line 10 of 'cut.jsonl' is not a JSON object."),
        (("merchant", "feed.tsv", "cut.jsonl"), "Line 10 of 'cut.jsonl' is not a JSON object."),
        (("merchant", "feed.tsv", "--level", "item_id"), "cannot use 'level'"),
        (("table", "t.csv", "--level", "item_id"), "cannot use 'level'"),
        (("personalize", "interactions.csv", "--event-type", "x"), "--event-type takes theirs=kind. Got 'x'."),
        (("marchant", "feed.tsv"), "Unknown format 'marchant'. Nearest known format: 'merchant'."),
    ],
)
@pytest.mark.usefixtures("near")
def test_what_is_refused_leaves_nothing(
    tmp_path: Path, refused: Command, monkeypatch: pytest.MonkeyPatch, args: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("feed.tsv", "interactions.csv"):
        put(tmp_path, name)
    put(tmp_path, "cut.jsonl", FILES["events.jsonl"][1][:-9])
    put(tmp_path, "t.csv", "user,item\na,b\n")
    assert message in refused("import", *args, "--to", tmp_path / "d").err


def test_a_table_of_items_never_takes_the_place_of_a_file(tmp_path: Path, refused: Command) -> None:
    feed = put(tmp_path, "feed.tsv")
    assert "exists already" in refused("import", "merchant", feed, "--to", feed).err
