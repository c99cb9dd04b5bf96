"""`export` and `--set tables=..`: the vectors of one model under another, found by their ids."""

from pathlib import Path

import pytest
import torch

from rediffuse import registry
from rediffuse.artifacts import read_model
from rediffuse.data.importers.vectors import read_vectors
from tests.cli.conftest import Command


@pytest.fixture(scope="module")
def als(shop: Path) -> Path:
    """The folder of a small ALS: the shop's vectors, without users."""
    from rediffuse.config import RunConfig
    from rediffuse.data.dataset import Dataset
    from rediffuse.evaluation.protocol import protocol_for

    folder, data = shop.parent / "als", Dataset.read(shop)
    chosen = registry.recipe("als", settings={"factors": 8, "iterations": 2})
    registry.fit(chosen, data, protocol_for(data), RunConfig(device="cpu", threads=1)).write(folder)
    return folder


def test_exported_vectors_are_those_of_the_model(command: Command, als: Path, tmp_path: Path) -> None:
    said = command("export", als, "--to", tmp_path / "t.safetensors")
    assert said.code == 0, said
    assert "items and no users, 8 numbers each" in said.out
    folder, found = read_model(als), read_vectors(tmp_path / "t.safetensors")
    assert torch.equal(found.items, folder.tensors["factors"])


def test_a_method_is_built_over_exported_vectors(command: Command, als: Path, shop: Path, tmp_path: Path) -> None:
    tables = tmp_path / "t.safetensors"
    assert command("export", als, "--to", tables).code == 0
    said = command(
        "train", "ddrm", "--data", shop, "--to", tmp_path / "m", "--set", f"tables={tables}",
        "--set", "epochs=1", "--set", "hidden=[8]",
    )  # fmt: skip
    assert said.code == 0, said
    tables.unlink()  # the model holds what it needs
    loaded = registry.load(tmp_path / "m", device="cpu")
    assert loaded.recommend(list(loaded.items.ids[:3]), 4).items
    kept = read_model(tmp_path / "m").tensors["tables.items"]
    assert torch.equal(kept, read_model(als).tensors["factors"])


def test_what_cannot_be_exported_is_refused(refused: Command, als: Path, model: Path, tmp_path: Path) -> None:
    assert "no tables of vectors" in refused("export", model, "--to", tmp_path / "t.safetensors").err
    assert "unknown suffix" in refused("export", als, "--to", tmp_path / "t.npy").err
    (tmp_path / "there.safetensors").write_text("x")
    assert "exists already" in refused("export", als, "--to", tmp_path / "there.safetensors").err
