"""DiffuRec: the noised next item inside every token of the history; the last state is its estimate.

| part of the paper | here |
|---|---|
| forward process under a truncated linear schedule | `noise/schedules.py::truncated_linear` |
| approximator: tokens e_i + lambda (x_t + tau(t)), eq. 9-10 | `denoisers/next_item.py::InjectedNetwork` |
| loss: cross-entropy of x0_hat . e over all items, eq. 13 | `DiffuRec.error` |
| reverse process, algorithm 2 | `models/answering.py::Plan.descend`, `samplers/ancestral.py` |

Li, Sun, Li 2023, "DiffuRec: A Diffusion Model for Sequential Recommendation".
Mended: padding is hidden as a key, no padding row is recommended, lambda is its mean in answers, metrics are of users and
not of batches. Equation numbers were set from the structure of the paper and are to be checked against it.
"""

from collections.abc import Mapping
from typing import ClassVar

import torch
from pydantic import Field, PositiveInt
from torch import Tensor
from torch.nn import functional

from rediffuse.config import FrozenConfig
from rediffuse.denoisers.next_item import InjectedNetwork
from rediffuse.models.chain import ScheduleName
from rediffuse.models.dreamrec import RELEASED
from rediffuse.models.next_item import NextItem, NextItemConfig
from rediffuse.models.next_item_training import Step
from rediffuse.protocols import Range, Tunable


class DiffuRecConfig(NextItemConfig):
    """What a DiffuRec is."""

    strength: float = Field(default=0.001, ge=0)
    """Mean of lambda: how much of x_t enters a token."""
    strength_spread: float = Field(default=0.001, ge=0)
    """Standard deviation of lambda over the entries, in training."""
    condition_drop: float = Field(default=0.0, ge=0, lt=1)
    width: PositiveInt = 128
    encoder_layers: PositiveInt = 2
    encoder_heads: PositiveInt = 2
    item_dropout: float = Field(default=0.3, ge=0, lt=1)
    item_scale: float = Field(default=0.1, gt=0)
    levels: PositiveInt = 32
    schedule: ScheduleName = "truncated_linear"


class DiffuRec(NextItem):
    """Learned by ranking: cross-entropy over the whole catalog."""

    name = "diffurec"
    Config: ClassVar[type[FrozenConfig]] = DiffuRecConfig
    presets: ClassVar[Mapping[str, Mapping[str, object]]] = {
        # The authors' settings, the same for all their data; batch 512.
        "published": {
            **RELEASED,
            "encoder_layers": 4,
            "encoder_heads": 4,
            "positions": False,
            "examples": "every",
            "batch_size": 512,
            "learning_rate": 1e-3,
            "epochs": 500,
            "validate_every": 20,
            "patience": 100,
        },
        # One step says what 32 do, so one is taken.
        "amazon": {
            "steps": 1,
            "examples": "every",
            "batch_size": 512,
            "epochs": 40,
            "validate_every": 2,
            "patience": 8,
        },
    }
    tunable: ClassVar[Mapping[str, Tunable]] = {
        "learning_rate": Range(3e-4, 3e-3, log=True),
        "encoder_dropout": Range(0.0, 0.5),
        "item_dropout": Range(0.0, 0.6),
        "width": (64, 128, 256),
        "encoder_layers": (1, 2, 4),
        "strength": (0.001, 0.01, 0.1, 1.0),
    }

    @classmethod
    def network_of(cls, config: FrozenConfig, n_items: int, generator: torch.Generator | None) -> InjectedNetwork:
        """As `NextItem.network_of`."""
        assert isinstance(config, DiffuRecConfig)
        return InjectedNetwork(
            n_items,
            config.encoder(generator, causal=False),
            config.width,
            strength=config.strength,
            spread=config.strength_spread,
            item_scale=config.item_scale,
            item_dropout=config.item_dropout,
            generator=generator,
        )

    @classmethod
    def error(cls, config: FrozenConfig, step: Step) -> Tensor:
        """-log softmax(x0_hat E^T) of the item wanted, (B,)."""
        del config
        return functional.cross_entropy(step.estimate @ step.table.t(), step.target, reduction="none")
