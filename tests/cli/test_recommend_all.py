"""Lists for many users: whole or not there, the same bytes however often it was interrupted."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from rediffuse import registry
from rediffuse.cli import recommend_all
from rediffuse.data.dataset import Dataset
from rediffuse.errors import InvalidInput
from rediffuse.grounding.steady import BLOCK
from rediffuse.protocols import Recommender
from rediffuse.types import Options, Query, Ranking
from tests.cli.conftest import Command

SCHEMA = {
    "user": pl.String,
    "rank": pl.Int32,
    "item": pl.String,
    "score": pl.Float32,
    "probability": pl.Float32,
    "probability_of": pl.String,
    "fallback": pl.String,
}


def every(shop: Path, to: Path, *more: object) -> tuple[object, ...]:
    return ("--data", shop, "--users", "all", "--to", to, *more)


def test_everybody_gets_the_list_they_would_get_alone(
    command: Command, shop: Path, model: Path, tiny: Dataset, tmp_path: Path
) -> None:
    said = command("recommend", model, *every(shop, tmp_path / "all.parquet", "-k", 5, "--json", tmp_path / "o.json"))
    assert said.code == 0, said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["all.parquet", "o.json"]
    frame = pl.read_parquet(tmp_path / "all.parquet")
    assert frame.schema == SCHEMA
    assert frame["user"].unique(maintain_order=True).to_list() == list(tiny.users.items.ids)
    assert json.loads((tmp_path / "o.json").read_text())["users"] == 160
    for user in tiny.users.items.ids[::40]:
        assert (
            command("recommend", model, "--data", shop, "--user", user, "-k", 5, "--json", tmp_path / "u.json").code
            == 0
        )
        alone = json.loads((tmp_path / "u.json").read_text())["items"]
        rows = frame.filter(pl.col("user") == user)
        assert rows["item"].to_list() == [place["item"] for place in alone]
        assert rows["score"].to_list() == pytest.approx([place["score"] for place in alone], rel=1e-5)
        assert rows["rank"].to_list() == [1, 2, 3, 4, 5]
        assert rows["probability"].to_list() == pytest.approx([place["probability"] for place in alone], rel=1e-5)
    unknown = frame.filter(pl.col("probability").is_null())
    assert unknown["fallback"].is_not_null().all()
    assert frame.filter(pl.col("fallback").is_not_null())["probability"].is_null().all()
    assert frame["probability_of"].is_null().equals(frame["probability"].is_null(), check_names=False)
    assert frame["probability_of"].drop_nulls().unique().to_list() == ["consumption"]
    assert not frame["probability"].is_nan().any()


def test_the_kinds_of_files_hold_the_same(command: Command, shop: Path, model: Path, tmp_path: Path) -> None:
    for suffix in ("parquet", "csv", "jsonl"):
        assert command("recommend", model, *every(shop, tmp_path / f"all.{suffix}", "-k", 3)).code == 0
    whole = pl.read_parquet(tmp_path / "all.parquet")
    assert pl.read_csv(tmp_path / "all.csv", schema=SCHEMA).equals(whole)
    assert pl.read_ndjson(tmp_path / "all.jsonl", schema=SCHEMA).equals(whole)


def test_users_may_be_named_in_a_file(command: Command, shop: Path, model: Path, tiny: Dataset, tmp_path: Path) -> None:
    """In that order."""
    names = [tiny.users.items.ids[number] for number in (150, 3, 77)]
    (tmp_path / "users.txt").write_text("\r\n".join([*names, ""]))
    command("recommend", model, *every(shop, tmp_path / "all.parquet"))
    some = ("--data", shop, "--users", tmp_path / "users.txt", "--to", tmp_path / "some.parquet")
    assert command("recommend", model, *some).code == 0
    frame, whole = (pl.read_parquet(tmp_path / f"{name}.parquet") for name in ("some", "all"))
    assert frame["user"].unique(maintain_order=True).to_list() == names
    other = pl.concat([whole.filter(pl.col("user") == name) for name in names])
    assert frame["item"].to_list() == other["item"].to_list()
    assert frame["score"].to_list() == pytest.approx(other["score"].to_list(), rel=1e-5)


@pytest.fixture
def asked(shop: Path, model: Path) -> recommend_all.Asked:
    dataset = Dataset.read(shop)
    return recommend_all.Asked(registry.load(model, device="cpu"), dataset, torch.arange(160), 4)


@pytest.fixture
def in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Six parts for the 160 users of the tiny world."""
    monkeypatch.setattr(recommend_all, "PART", 30)


class Interrupted:
    """Ends by control-C when it is asked for the n-th time."""

    def __init__(self, inner: Recommender, left: int) -> None:
        self.inner, self.left = inner, left

    def recommend(self, query: Query, k: int, *, options: Options = Options(), seed: int = 0) -> Ranking:
        if self.left == 0:
            raise KeyboardInterrupt
        self.left -= 1
        return self.inner.recommend(query, k, options=options, seed=seed)


def broken(asked: recommend_all.Asked, left: int) -> recommend_all.Asked:
    model = asked.model
    inner = Interrupted(model.recommender, left)
    other = type(model)(model.method, inner, model.items, model.titles, model.folder)
    return recommend_all.Asked(other, asked.dataset, asked.users, asked.k)


@pytest.mark.usefixtures("in_parts")
@pytest.mark.parametrize("suffix", ["parquet", "csv", "jsonl"])
def test_an_interrupted_command_goes_on_to_the_same_bytes(
    asked: recommend_all.Asked, tmp_path: Path, suffix: str
) -> None:
    whole, target = tmp_path / f"whole.{suffix}", tmp_path / f"target.{suffix}"
    recommend_all.recommend_all(asked, whole, {})
    for left in (2, 1):
        with pytest.raises(KeyboardInterrupt):
            recommend_all.recommend_all(broken(asked, left), target, {})
        assert not target.exists()
    told: list[str] = []
    last = broken(asked, 3)  # three parts of six are left to do
    recommend_all.recommend_all(last, target, {}, tell=told.append)
    assert told == ["Going on after 90 of 160 users"]
    assert target.read_bytes() == whole.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"target.{suffix}", f"whole.{suffix}"]


@pytest.mark.usefixtures("in_parts")
def test_an_interruption_before_the_first_part_leaves_nothing(asked: recommend_all.Asked, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        recommend_all.recommend_all(broken(asked, 0), tmp_path / "a.parquet", {})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("in_parts")
def test_a_part_that_was_altered_is_made_again(asked: recommend_all.Asked, tmp_path: Path) -> None:
    recommend_all.recommend_all(asked, tmp_path / "whole.parquet", {})
    with pytest.raises(KeyboardInterrupt):
        recommend_all.recommend_all(broken(asked, 4), tmp_path / "a.parquet", {})
    parts = tmp_path / ".a.parquet.parts"
    assert len(list(parts.glob("*.parquet"))) == 4
    (parts / "000001.parquet").write_bytes(b"half")
    (parts / "000002.sha256").unlink()
    told: list[str] = []
    recommend_all.recommend_all(asked, tmp_path / "a.parquet", {}, tell=told.append)
    assert told == ["Going on after 60 of 160 users"]
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes()


@pytest.mark.usefixtures("in_parts")
def test_another_command_does_not_mix_with_the_parts_of_the_first(asked: recommend_all.Asked, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        recommend_all.recommend_all(broken(asked, 2), tmp_path / "a.parquet", {"model": "m"})
    fewer = recommend_all.Asked(asked.model, asked.dataset, asked.users[:90], asked.k)
    longer = recommend_all.Asked(asked.model, asked.dataset, asked.users, 9)
    seeded = recommend_all.Asked(asked.model, asked.dataset, asked.users, asked.k, seed=3)
    stepped = recommend_all.Asked(asked.model, asked.dataset, asked.users, asked.k, Options(steps=2))
    cases = [(fewer, "m", "users"), (longer, "m", "k"), (seeded, "m", "seed"), (stepped, "m", "options")]
    for other, model, key in [*cases, (asked, "other", "model")]:
        with pytest.raises(InvalidInput, match=f"another command, whose {key} differs"):
            recommend_all.recommend_all(other, tmp_path / "a.parquet", {"model": model})
    assert len(list((tmp_path / ".a.parquet.parts").glob("*.sha256"))) == 2


@pytest.mark.usefixtures("in_parts")
def test_a_file_that_exists_stays(asked: recommend_all.Asked, tmp_path: Path) -> None:
    target = tmp_path / "a.parquet"
    target.write_text("mine")
    with pytest.raises(InvalidInput, match="exists already"):
        recommend_all.recommend_all(asked, target, {})
    assert target.read_text() == "mine"
    # Killed after the file got its name and before the parts went: the same command only clears up.
    parts = tmp_path / ".a.parquet.parts"
    parts.mkdir()
    (parts / "plan.json").write_text(json.dumps(asked.plan({})))
    told: list[str] = []
    recommend_all.recommend_all(asked, target, {}, tell=told.append)
    assert told == [f"{target} was whole already"]
    assert [path.name for path in tmp_path.iterdir()] == ["a.parquet"]


def test_two_commands_do_not_write_the_same_file(asked: recommend_all.Asked, tmp_path: Path) -> None:
    with recommend_all._owned(tmp_path / ".a.parquet.parts"), pytest.raises(InvalidInput, match="is at work"):
        recommend_all.recommend_all(asked, tmp_path / "a.parquet", {})


def test_items_are_translated_by_their_ids(asked: recommend_all.Asked, tiny: Dataset, tmp_path: Path) -> None:
    """Data with an item more in front and two fewer numbers its items otherwise than the model."""
    ids = np.array(tiny.catalog.items.ids)
    frame = tiny.events.frame.select(
        user=pl.Series(np.array(tiny.users.items.ids)[tiny.events.frame["user"].to_numpy()]),
        item=pl.Series(ids[tiny.events.frame["item"].to_numpy()]),
        time_us="time_us",
    )
    new = pl.DataFrame({"user": ["U00000", "nobody before"], "item": ["A", "A"], "time_us": [1, 1]})
    dataset = Dataset.from_events("other", pl.concat([frame.filter(~pl.col("item").is_in(ids[:2])), new]))
    assert dataset.catalog.items.ids[:2] == ("A", ids[2])
    users = torch.arange(len(dataset.users))
    recommend_all.recommend_all(recommend_all.Asked(asked.model, dataset, users, 300), tmp_path / "a.parquet", {})
    found = pl.read_parquet(tmp_path / "a.parquet")
    for number, name in enumerate(dataset.users.items.ids):
        row = dataset.history().select(torch.tensor([number]))
        history, times = dataset.catalog.items.decode(row.items.tolist()), row.time_us
        assert times is not None
        if number % 40 == 0 or name == "nobody before":
            alone = asked.model.recommend(history, 300, times_us=times.tolist())
            mine = found.filter(pl.col("user") == name)
            assert mine["item"].to_list() == [place.item for place in alone.items]
            assert len(mine) == 240 - len(set(history) - {"A"})
            assert mine["fallback"].unique().to_list() == [alone.fallback]
    assert alone.fallback == "empty_history"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--users", "all"), "Give either --items, or --data and --user."),
        (("--users", "all", "--to", "a.parquet", "--items", "x"), "Give either --items, or --data and --user."),
        (("--to", "a.parquet", "--items", "x"), "Give either --items, or --data and --user."),
        (("--items", "x", "--item", "y"), "Give either --items, or --data and --user."),
    ],
)
def test_half_questions_are_refused(refused: Command, model: Path, words: tuple[str, ...], sentence: str) -> None:
    assert sentence in refused("recommend", model, *words).err


def test_bad_files_and_options_are_refused(refused: Command, shop: Path, model: Path, tmp_path: Path) -> None:
    out, users = tmp_path / "a.parquet", tmp_path / "users.txt"
    assert "unknown suffix" in refused("recommend", model, *every(shop, tmp_path / "a.xlsx")).err
    assert "steps must be" in refused("recommend", model, *every(shop, out, "--steps", 99)).err
    for text, sentence in (
        ("\n", "names no user"),
        ("U00001\nU00001\n", "stands twice"),
        ("U1\n", "Unknown user 'U1'"),
    ):
        users.write_text(text)
        assert sentence in refused("recommend", model, "--data", shop, "--users", users, "--to", out).err
    assert "No such file" in refused("recommend", model, "--data", shop, "--users", tmp_path / "none", "--to", out).err


def test_an_item_id_may_hold_commas(command: Command, model: Path, tmp_path: Path) -> None:
    words = ("--item", "A00042", "--item", "a,b", "--json", tmp_path / "o.json")
    said = command("recommend", model, *words)
    assert said.code == 0
    assert "left out: a,b" in said.out
    assert json.loads((tmp_path / "o.json").read_text())["history"] == ["A00042", "a,b"]


@pytest.fixture(scope="module")
def crowd(tiny: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of many users with short histories."""
    rng = np.random.default_rng(0)
    ids = np.array(tiny.catalog.items.ids)
    users = np.repeat(np.arange(24 * 16 * BLOCK // 4), 4)
    frame = pl.DataFrame({"user": users, "item": ids[rng.integers(0, len(ids), len(users))]})
    folder = tmp_path_factory.mktemp("crowd") / "crowd"
    Dataset.from_events("crowd", frame.with_columns(pl.col("user").cast(pl.String))).write(folder)
    return folder


def running(model: Path, crowd: Path, to: Path) -> subprocess.Popen[bytes]:
    words = ["recommend", str(model), *map(str, every(crowd, to)), "--threads", "1", "--device", "cpu"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen([sys.executable, "-m", "rediffuse.cli.main", *words], env=dict(os.environ), **quiet)


@pytest.mark.slow
def test_killed_again_and_again_it_ends_in_the_same_bytes(model: Path, crowd: Path, tmp_path: Path) -> None:
    assert running(model, crowd, tmp_path / "whole.parquet").wait() == 0
    target, parts = tmp_path / "killed.parquet", tmp_path / ".killed.parquet.parts"
    moments, kills = random.Random(0), 0
    for _ in range(4):
        before = len(list(parts.glob("*.sha256")))
        process = running(model, crowd, target)
        while process.poll() is None and len(list(parts.glob("*.sha256"))) <= before:
            time.sleep(0.002)
        time.sleep(moments.uniform(0, 0.1))
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.wait()
    assert kills >= 2
    assert not target.exists()
    assert running(model, crowd, target).wait() == 0
    assert target.read_bytes() == (tmp_path / "whole.parquet").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["killed.parquet", "whole.parquet"]
