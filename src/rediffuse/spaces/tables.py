"""Frozen tables of vectors that a method is built over: of another method, fitted first, or of a file."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from rediffuse.config import FrozenConfig
from rediffuse.data.importers.vectors import read_vectors
from rediffuse.errors import InvalidConfig, InvalidInput, say
from rediffuse.networks.graph import BipartiteGraph, distinct
from rediffuse.protocols import Embeds, FitContext, FitData
from rediffuse.spaces.embeddings import Embeddings
from rediffuse.types import Query, Ragged, SparseRows


class TablesConfig(FrozenConfig):
    """Where the vectors come from."""

    backbone: str = "lightgcn"
    """Whose vectors: NAME or NAME:PRESET of a method whose scores are inner products, fitted first on the same data."""
    backbone_settings: Mapping[str, Any] = Field(default_factory=dict)
    """Settings of the backbone that differ from its own."""
    tables: str | None = None
    """File or folder of vectors in its place: what `rediffuse export` writes, .npy arrays or a torch checkpoint."""
    hops: int = Field(default=0, ge=0)
    """tables: how far they are spread over the graph of who took what, where the file holds them as they were before."""
    spreading: Literal["mean", "normalised_sum"] = "mean"
    """hops: LightGCN's average over the hops, or SGL's sum of hops whose rows have length 1."""

    @model_validator(mode="after")
    def _of_a_file(self) -> Self:
        if self.hops and self.tables is None:
            raise ValueError(f"hops = {self.hops} goes with tables of a file; a backbone has spread its own")
        return self

    @property
    def fitted_first(self) -> bool:
        """Whether a backbone is fitted before the method."""
        return self.tables is None


def frozen_tables(config: TablesConfig, data: FitData, context: FitContext) -> Embeddings:
    """The tables that settings name, the rows of items in the order of the catalog, on the run's device.

    Raises: InvalidInput when a file is no table, or an item has no row in it; InvalidConfig when the backbone has none.
    """
    found = (
        _fitted(config, context) if config.tables is None else _spread(config, _read(Path(config.tables), data), data)
    )
    device, dtype = context.run.device, getattr(torch, context.run.dtype)
    # Copies: they may be parts of one table, which is neither kept whole nor saved twice.
    items = found.items.detach().to(device, dtype).clone()
    if found.users is None or found.keys is None:
        return Embeddings(items)
    return Embeddings(items, found.users.detach().to(device, dtype).clone(), found.keys.to(device).clone())


def tensors_of(tables: Embeddings) -> dict[str, Tensor]:
    """The tables by name, for a method's state."""
    # A table alone cannot tell that some of it is missing.
    width = torch.tensor(tables.width)
    parts = {"items": tables.items, "users": tables.users, "keys": tables.keys, "width": width}
    return {f"tables.{name}": part for name, part in parts.items() if part is not None}


def tables_in(state: Mapping[str, Tensor], device: str) -> Embeddings:
    """What `tensors_of` was given. Raises: KeyError or RuntimeError when a tensor is missing or misshapen."""
    names = ("users", "keys") if {"tables.users", "tables.keys"} & state.keys() else ()
    try:
        found = Embeddings(*(state[f"tables.{name}"].to(device) for name in ("items", *names)))
    except InvalidInput as error:
        raise RuntimeError(str(error)) from None
    if found.width != int(state["tables.width"]):
        raise RuntimeError(f"the tables are {found.width} wide, they were {int(state['tables.width'])}")
    return found


def mean_of(rows: SparseRows, table: Tensor) -> Tensor:
    """The weighted mean of the vectors of each history, (B, D); zeros where there is none.

    Args: rows: weights of the items, (B, I).   table: (I, D).
    """
    total = rows.project(table)
    weight = rows.project(torch.ones_like(table[:, :1]))
    return torch.where(weight > 0, total / weight, 0)


def _fitted(config: TablesConfig, context: FitContext) -> Embeddings:
    if context.part is None:
        raise InvalidConfig(
            say(
                f"backbone = {config.backbone!r} cannot be fitted here",
                remedy="Fit through the registry, or give tables",
            )
        )
    method = context.part(config.backbone, config.backbone_settings)
    if not isinstance(method, Embeds):
        remedy = "Take one whose scores are inner products, such as lightgcn, mf or als"
        raise InvalidConfig(say(f"backbone = {config.backbone!r} has no tables of vectors", remedy=remedy))
    found = method.embeddings()
    return Embeddings(found.items, found.users, found.keys)


def _read(source: Path, data: FitData) -> Embeddings:
    found = read_vectors(source)
    if data.item_keys is not None:
        items = found.of_items(data.item_keys.cpu())
    elif len(found.items) == data.n_items:
        items = found.items
    else:
        raise InvalidInput(say("The table has not a row for each item", got=len(found.items), allowed=data.n_items))
    if found.users is None or found.user_keys is None:
        return Embeddings(items)
    return Embeddings.named(items, found.users, found.user_keys)


def _spread(config: TablesConfig, tables: Embeddings, data: FitData) -> Embeddings:
    """As far as the settings say, over the users of the data; one without a row begins at 0."""
    if not config.hops:
        return tables
    if tables.users is None or data.keys is None:
        raise InvalidInput(say("hops needs a table of users, and users with names", remedy="Leave hops out"))
    users, _ = tables.of_users(replace(Query.from_history(Ragged.empty(len(data.keys))), key=data.keys))
    graph = BipartiteGraph.of(distinct(data.history.to("cpu"), data.n_items), data.n_items, tables.items.dtype)
    spread = graph.mean if config.spreading == "mean" else graph.normalised_sum
    users, items = spread(users, tables.items, config.hops)
    return Embeddings.named(items, users, data.keys)
