"""The newest state of a run in a folder."""

from pathlib import Path

import pytest
import torch

from rediffuse.errors import ArtifactError, InvalidInput
from rediffuse.training.checkpoint import FolderCheckpoint

TENSORS = {
    "module.weight": torch.tensor([[1.0, 2.0]]),
    "optimizer.0.step": torch.tensor(3.0),
    "generator": torch.Generator().manual_seed(3).get_state(),
}


def test_a_state_comes_back_as_it_was(tmp_path: Path) -> None:
    store = FolderCheckpoint(tmp_path / "run", "abc")
    assert store.load() is None
    store.save(TENSORS, {"epoch": 5, "best": 0.1 + 0.2})
    found = store.load()
    assert found is not None
    tensors, state = found
    assert state == {"epoch": 5, "best": 0.1 + 0.2}
    assert set(tensors) == set(TENSORS)
    for name, tensor in TENSORS.items():
        assert torch.equal(tensors[name], tensor)
        assert tensors[name].dtype == tensor.dtype


def test_only_the_newest_state_is_kept(tmp_path: Path) -> None:
    store = FolderCheckpoint(tmp_path / "run", "abc")
    for epoch in (5, 10):
        store.save({"w": torch.full((2,), float(epoch), requires_grad=True).t()}, {"epoch": epoch})
    found = store.load()
    assert found is not None
    assert found[1] == {"epoch": 10}
    assert found[0]["w"].tolist() == [10, 10]
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_state_of_another_run_is_refused(tmp_path: Path) -> None:
    FolderCheckpoint(tmp_path / "run", "abc").save(TENSORS, {"epoch": 5})
    with pytest.raises(InvalidInput, match=r"keeps an interrupted training with other data or settings\. Give that"):
        FolderCheckpoint(tmp_path / "run", "xyz").load()


def test_a_damaged_state_is_refused(tmp_path: Path) -> None:
    store = FolderCheckpoint(tmp_path / "run", "abc")
    store.save(TENSORS, {"epoch": 5})
    file = tmp_path / "run" / "state.safetensors"
    raw = bytearray(file.read_bytes())
    raw[-1] ^= 1
    file.write_bytes(raw)
    with pytest.raises(ArtifactError, match="differs from its manifest"):
        store.load()


def test_a_run_is_forgotten(tmp_path: Path) -> None:
    store = FolderCheckpoint(tmp_path / "run", "abc")
    store.save(TENSORS, {"epoch": 5})
    store.remove()
    assert store.load() is None
    store.remove()
