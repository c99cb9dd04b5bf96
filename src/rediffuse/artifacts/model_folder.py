"""The folder of a trained model.

    model.json            method, settings, protocol, metrics, calibrator, data, versions, format_version
    weights.safetensors   all that was learned
    vectors.safetensors   what items are alike, where the data told (`spaces/item_vectors.py`)
    vocabulary.parquet    item ids in the order of their numbers, title, users per item
    attributes.parquet    what is known of the items beside, in that order, where anything is
    README.md             the model card
    manifest.json         bytes and SHA-256 of the others

No pickle, no code, and no name of a module: a folder can only name a registered method.
"""

import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from rediffuse.artifacts.card import card
from rediffuse.errors import ArtifactError, InvalidInput, say
from rediffuse.evaluation.calibration import Calibrator
from rediffuse.evaluation.consumption import KNOWN
from rediffuse.files import new_folder, open_folder, write_json, write_text

FORMAT_VERSION = 1
VECTORS, ATTRIBUTES = "vectors.safetensors", "attributes.parquet"
REQUIRED = {
    "method": str,
    "config": dict,
    "training": dict,
    "run": dict,
    "protocol": dict,
    "metrics": dict,
    "data": dict,
}


@dataclass(frozen=True)
class ModelFolder:
    """What the folder holds."""

    method: str
    """A registered name."""
    config: Mapping[str, Any]
    training: Mapping[str, Any]
    run: Mapping[str, Any]
    protocol: Mapping[str, Any]
    metrics: Mapping[str, Any]
    """Of the selection part: name -> value."""
    data: Mapping[str, Any]
    """Name and content hash of the dataset, parts learned from."""
    items: tuple[str, ...]
    titles: tuple[str, ...]
    popularity: Tensor
    """(I,) float32, users per item."""
    tensors: Mapping[str, Tensor]
    made: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Versions, seconds, and what else the card tells (`card`)."""
    vectors: Tensor | None = None
    """(I, D) float32, rows of length 1 or 0: inner products tell how alike two items are."""
    calibrator: Calibrator | None = None
    """What the places of a list are worth (`evaluation/consumption.py`); None where the selection part told too little."""
    attributes: pl.DataFrame = field(default_factory=pl.DataFrame)
    """One row per item: what conditions on a list can be put on."""
    golden: Sequence[Mapping[str, Any]] = ()
    """Questions with the answers that the model gave when it was made: history, times_us, items, scores."""


def write_model(folder: Path, model: ModelFolder) -> None:
    """Publish the folder, whole or not at all.

    Raises: InvalidInput when it exists already; ArtifactError when a weight is not finite.
    """
    for name, tensor in model.tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise ArtifactError(say(f"Weight {name!r} is not finite", remedy="Train anew with a lower learning_rate"))
    with new_folder(folder, kind="model") as place:
        _save({name: t.detach() for name, t in model.tensors.items()}, place / "weights.safetensors")
        if model.vectors is not None:
            _save({"vectors": model.vectors}, place / VECTORS)
        table = {"item": list(model.items), "title": list(model.titles), "users": model.popularity.tolist()}
        pl.DataFrame(table, schema={"item": pl.String, "title": pl.String, "users": pl.Float32}).write_parquet(
            place / "vocabulary.parquet"
        )
        if model.attributes.width:
            model.attributes.write_parquet(place / ATTRIBUTES)
        facts = {
            "format_version": FORMAT_VERSION,
            **{key: getattr(model, key) for key in (*REQUIRED, "made")},
            "calibrator": model.calibrator and model.calibrator.to_json(),
            "golden": list(model.golden),
        }
        write_json(place / "model.json", facts)
        numbers = sum(tensor.numel() for tensor in model.tensors.values())
        write_text(place / "README.md", card(facts, items=model.items, numbers=numbers))


def read_model(folder: Path) -> ModelFolder:
    """Load a folder after checking manifest, format, fields, weights and vocabulary.

    Raises: ArtifactError naming what is wrong.
    """
    try:
        facts = open_folder(
            folder, "model", FORMAT_VERSION, "Make one with: rediffuse train METHOD --data DATASET --to MODEL"
        )
    except PermissionError as error:
        raise _closed(folder, error) from None
    for key, kind in REQUIRED.items():
        if not isinstance(facts.get(key), kind):
            raise ArtifactError(say(f"model.json of {str(folder)!r} lacks {key!r}", remedy="Train the model anew"))
    try:
        tensors = load_file(folder / "weights.safetensors")
        vectors = load_file(folder / VECTORS)["vectors"] if (folder / VECTORS).is_file() else None
        table = pl.read_parquet(folder / "vocabulary.parquet", columns=["item", "title", "users"], glob=False)
        known = (folder / ATTRIBUTES).is_file()
        attributes = pl.read_parquet(folder / ATTRIBUTES, glob=False) if known else pl.DataFrame()
    except (OSError, SafetensorError, pl.exceptions.PolarsError) as error:
        raise ArtifactError(
            say(f"{str(folder)!r} cannot be read", got=str(error), remedy="Train the model anew")
        ) from None
    if attributes.width and attributes.height != table.height:
        found = f"{attributes.height} rows of attributes"
        raise ArtifactError(say(f"{str(folder)!r} has {table.height} items", got=found, remedy="Train the model anew"))
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise ArtifactError(say(f"Weight {name!r} in {str(folder)!r} is not finite", remedy="Train the model anew"))
    return ModelFolder(
        **{key: facts[key] for key in REQUIRED},
        items=tuple(table["item"]),
        titles=tuple(table["title"]),
        popularity=torch.tensor(table["users"].to_list(), dtype=torch.float32),
        tensors=tensors,
        made=facts.get("made", {}),
        vectors=vectors,
        calibrator=_calibrator(folder, facts.get("calibrator")),
        attributes=attributes,
        golden=facts.get("golden", ()),
    )


def _save(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write tensors into a file that is open to whom any new file is: safetensors shuts its files to all but their owner."""
    path.touch()
    mode = stat.S_IMODE(path.stat().st_mode)
    save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, path)
    path.chmod(mode)


def _closed(folder: Path, error: PermissionError) -> ArtifactError:
    """Word that we may not read a model: whose the file is, and who asks."""
    path = Path(error.filename or folder)
    try:
        found = path.stat()
        whose = f"of user {found.st_uid} and group {found.st_gid}, mode {stat.S_IMODE(found.st_mode):04o}"
    except OSError:  # nor what it lies in
        whose = None
    return ArtifactError(
        say(
            f"{str(path)!r} is closed to user {os.geteuid()}, who reads it",
            got=whose,
            remedy=f"Let that user read it, for example: chmod -R a+rX {folder}",
        )
    )


def _calibrator(folder: Path, values: Any) -> Calibrator | None:
    """What `Calibrator.to_json` wrote, once it is clear that it works. Raises: ArtifactError."""
    if values is None:
        return None
    try:
        found = Calibrator.from_json(values)
        told = found({name: np.zeros(1) for name in KNOWN})
        if np.all(np.isfinite(told)):
            return found
        reason = "it tells no numbers"
    except (InvalidInput, KeyError, TypeError, ValueError) as error:
        reason = str(error)
    raise ArtifactError(
        say(f"The calibrator in {str(folder)!r} cannot be used", got=reason, remedy="Train the model anew")
    )
