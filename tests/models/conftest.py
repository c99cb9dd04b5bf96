"""A small Gaussian diffusion that was not trained, and what it is asked."""

from dataclasses import replace
from typing import Any

import torch

from rediffuse.models.diffrec import DiffRec, DiffRecConfig, network_of
from rediffuse.training.loop import TrainingConfig
from rediffuse.types import Query, Ragged

ITEMS = 60
SETTINGS: dict[str, Any] = {"hidden": (16, 6, 16), "levels": 5, "noise_scale": 5.0, "noise_max": 0.04}
IDLE = TrainingConfig(epochs=1, learning_rate=1e-30)
"""A training that changes nothing."""
CONDITIONS = ("history", "season", "region")
SIZES = {"history": ITEMS, "season": 0, "region": 3}


def config(**more: object) -> DiffRecConfig:
    return DiffRecConfig.make({**SETTINGS, **more})


def made(dtype: torch.dtype = torch.float32, **more: object) -> DiffRec:
    """An untrained model whose scores differ well from item to item."""
    settings = config(**more)
    generator = torch.Generator().manual_seed(3)
    sizes = {name: SIZES[name] for name in settings.condition}
    groups = torch.arange(ITEMS) % settings.tokens if settings.denoiser == "transformer" else None
    network = network_of(settings, ITEMS, sizes, groups, generator).to(dtype)
    with torch.no_grad():
        for weight in network.parameters():
            weight.mul_(2 if weight.dim() == 2 else 100)
    return DiffRec(settings, network)


def query(conditions: bool = False) -> Query:
    """Nine histories; the last but one holds an item twice, the last has a single one."""
    generator = torch.Generator().manual_seed(5)
    lists = [torch.randperm(ITEMS, generator=generator)[: 4 + row].tolist() for row in range(7)]
    asked = Query.from_history(Ragged.of([*lists, [9, 40, 9, 3], [17]]))
    season = torch.linspace(0, 0.9, 9)
    season[3] = float("nan")
    told = {"season": season, "region": torch.tensor([0, 1, 2, -1, 0, 1, 2, -1, 0])}
    return replace(asked, context=told if conditions else {})
