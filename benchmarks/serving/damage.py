"""Model folders that must never answer."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from rediffuse.files import MANIFEST, sha256

WEIGHTS = "weights.safetensors"


def seal(folder: Path) -> None:
    """Write a manifest that is right for what the folder holds now."""
    told = json.loads((folder / MANIFEST).read_text())
    for name, entry in told["files"].items():
        entry.update(bytes=(folder / name).stat().st_size, sha256=sha256(folder / name))
    (folder / MANIFEST).write_text(json.dumps(told))


def flipped(folder: Path) -> None:
    """A byte of the weights is another."""
    content = bytearray((folder / WEIGHTS).read_bytes())
    content[-5] ^= 1
    (folder / WEIGHTS).write_bytes(content)


def other_schema(folder: Path) -> None:
    """Of a format of the future, with a right manifest."""
    facts = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps({**facts, "format_version": 99}))
    seal(folder)


def not_finite(folder: Path) -> None:
    """A weight is NaN, with a right manifest."""
    tensors = load_file(folder / WEIGHTS)
    next(iter(tensors.values())).view(-1)[0] = torch.nan
    save_file(tensors, folder / WEIGHTS)
    seal(folder)
