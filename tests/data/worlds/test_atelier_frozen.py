"""Atelier changes only by version: what was drawn yesterday is drawn today, and a dataset finds its world again."""

import hashlib
import json
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from rediffuse.data.importers.atelier import load
from rediffuse.data.worlds import atelier
from rediffuse.data.worlds.atelier import SIZES, generate, regenerate
from rediffuse.data.worlds.atelier_items import item_ids
from rediffuse.data.worlds.atelier_users import user_ids
from rediffuse.errors import InvalidInput

GOLDEN = {
    ("tiny", "events"): "d33fe59215669538e9d533764fad69236ed09487e72fca42d4c1d3a20ba876be",
    ("tiny", "items"): "08cde88c36833c5c900956cef2ef1f62fdf0f9348c908a7bcd7bdedc902add89",
    ("tiny", "users"): "0c0933896fa6d277454ec2770e1ec10ab79f680376185e86dccd2eba2cf81872",
    ("small", "events"): "bbb1dbd8d7cabf66fd0a5da10e5ef15bf32c70a6f0326f5f319a0b7880e00bdb",
    ("small", "items"): "acf01f9cd9cb7f15a9056d340de34affea2f7296d220aaed70e44f6b47b4371a",
    ("small", "users"): "a4e2f9deae0436c6edb2558f9cf011a0e7d4f183b03d8a12d42e886c60f03483",
}
"""Of version 1, seed 1. A change here is a new version of the world."""


def fingerprint(frame: pl.DataFrame) -> str:
    """SHA-256 of names and values; fractions to six digits, so that the last bit of a processor does not count."""
    out = hashlib.sha256()
    for column in frame.get_columns():
        out.update(column.name.encode())
        if column.dtype == pl.String:
            out.update("\x1f".join(column).encode())
        else:
            values = column.to_numpy()
            out.update((values if values.dtype == np.int64 else np.round(values * 1e6).astype(np.int64)).tobytes())
    return out.hexdigest()


@pytest.mark.parametrize("size", ["tiny", "small"])
def test_version_1_is_frozen(size: str) -> None:
    world = generate(size, seed=1)
    assert world.recipe["version"] == "1"
    for name in ("events", "items", "users"):
        assert fingerprint(getattr(world, name)) == GOLDEN[size, name], name


def test_the_recipe_carries_its_own_hash() -> None:
    recipe = generate("tiny", seed=1).recipe
    content = {key: value for key, value in recipe.items() if key != "sha256"}
    assert recipe["sha256"] == hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    assert recipe["sha256"] != generate("tiny", seed=2).recipe["sha256"]


def test_a_dataset_finds_its_world_again() -> None:
    world = regenerate(json.loads(json.dumps(dict(load("tiny", seed=3).facts))))
    assert world.events.equals(generate("tiny", seed=3).events)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"world": None}, "no world whose truth is known. Allowed: atelier"),
        ({"version": "0"}, "another version. Got '0'. Allowed: 1. Import the world anew"),
        ({"seed": 2}, "not that of atelier tiny, seed 2. Got "),
        ({"sha256": None}, "not that of atelier tiny, seed 1. Allowed: [0-9a-f]{64}"),
        ({"size": "tinny"}, "Unknown size 'tinny'. Nearest known size: 'tiny'"),
    ],
)
def test_another_recipe_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        regenerate({**load("tiny").facts, **change})


def test_changed_knobs_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = load("tiny").facts
    monkeypatch.setattr(atelier, "SIZES", {"tiny": replace(SIZES["tiny"], drift=0.3)})
    with pytest.raises(InvalidInput, match="not that of atelier tiny, seed 1"):
        regenerate(facts)


def test_ids_sort_like_their_numbers() -> None:
    assert item_ids(3) == ["A00000", "A00001", "A00002"]
    assert item_ids(100_000)[-1] == "A99999"
    ids = user_ids(100_001)
    assert (ids[0], ids[-1]) == ("U000000", "U100000")
    assert ids == sorted(ids)


def test_blocks_are_the_log_in_slices() -> None:
    world = generate("tiny", seed=1)
    blocks = list(world.blocks(1_000))
    assert max(block.height for block in blocks) == 1_000
    assert pl.concat(blocks).equals(world.log)
    assert world.log.schema["user"] == world.log.schema["item"] == pl.UInt32
    assert world.events["user"].to_list() == [f"U{n:05d}" for n in world.log["user"]]
    assert world.events["kind"].to_list() == world.log["kind"].to_list()
