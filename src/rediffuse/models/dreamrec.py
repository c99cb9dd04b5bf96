"""DreamRec: generate the vector of an ideal next item under guidance of the history, then rank by nearness.

| part of the paper | here |
|---|---|
| forward process, eq. 4-5 | `noise/process.py::add_noise` |
| encoder of the history, eq. 8, and its null | `denoisers/next_item.py::GuidedNetwork.condition` |
| denoiser x0_hat(x_t, c, t), eq. 9 | `denoisers/next_item.py::GuidedNetwork.forward` |
| loss, eq. 10: the error of x_0, nothing else | `DreamRec.error` |
| guidance, eq. 11 (its w is s - 1) | `samplers/guidance.py::guided` |
| generation, algorithm 2 | `models/answering.py::Plan.descend`, `samplers/ancestral.py` |

Yang et al. 2023, "Generate What You Prefer: Reshaping Sequential Recommendation via Guided Diffusion".
Mended: dropout is off in answers, padding is no item, every example is seen once an epoch, epochs are chosen on the
selection part. Equation numbers were set from the structure of the paper and are to be checked against it.
"""

from abc import ABC
from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from torch import Tensor

from rediffuse.config import FrozenConfig
from rediffuse.denoisers.next_item import GuidedNetwork
from rediffuse.models.next_item import NextItem, NextItemConfig
from rediffuse.models.next_item_training import Step
from rediffuse.protocols import Range, Tunable

RELEASED: Mapping[str, object] = {"start": "pure_noise", "sampling_noise": True}
"""Answers are drawn: from pure noise, with fresh noise at every step."""


OVER_SASREC: Mapping[str, object] = {
    "items": "tables",
    "backbone": "sasrec:amazon",
    "items_learned": False,
    "width": 256,
    "encoder_heads": 2,
    "encoder_dropout": 0.3,
    "history_length": 20,
    "examples": "every",
    "consistency": 0.6,
    "consistency_stride": 10,
    "alignment": 1.0,
    "steps": 2,
    "batch_size": 1024,
    "average": 0.995,
    "epochs": 40,
    "validate_every": 3,
    "patience": 6,
}
"""Mended, for few steps: vectors that another method learned and that stay, consistency, and a preference."""


class DreamRecConfig(NextItemConfig):
    """What a DreamRec is."""

    denoiser: Literal["linear", "mlp"] = "linear"
    """One affine layer, as in every released command, or one hidden layer."""


class Guided(NextItem, ABC):
    """A causal encoder of the history, and one layer or two that read its state beside x_t; the error is left open."""

    @classmethod
    def network_of(cls, config: FrozenConfig, n_items: int, generator: torch.Generator | None) -> GuidedNetwork:
        """As `NextItem.network_of`."""
        assert isinstance(config, DreamRecConfig)
        return GuidedNetwork(
            n_items,
            config.encoder(generator, causal=True),
            config.width,
            deep=config.denoiser == "mlp",
            item_scale=config.item_scale,
            item_dropout=config.item_dropout,
            generator=generator,
        )


class DreamRec(Guided):
    """x_0 is learned by its squared error alone: no negatives, no ranking."""

    name = "dreamrec"
    Config: ClassVar[type[FrozenConfig]] = DreamRecConfig
    presets: ClassVar[Mapping[str, Mapping[str, object]]] = {
        # The authors' settings for their three data sets; batch 256.
        name: {
            "history_length": 10,
            "levels": levels,
            "schedule": schedule,
            "guidance_scale": scale,
            "examples": "every",
            **RELEASED,
            **more,
        }
        for name, levels, schedule, scale, more in (
            ("yoochoose", 500, "exponential", 3.0, {"learning_rate": 1e-3, "batch_size": 256}),
            ("kuairec", 2000, "clipped_cosine", 3.0, {"learning_rate": 5e-5, "batch_size": 256}),
            ("zhihu", 500, "linear", 5.0, {"learning_rate": 1e-2, "batch_size": 256}),
        )
    } | {"amazon": {**OVER_SASREC, "steps": 1}}
    tunable: ClassVar[Mapping[str, Tunable]] = {
        "learning_rate": Range(1e-4, 5e-3, log=True),
        "levels": (100, 500, 1000),
        "guidance_scale": (1.0, 2.0, 3.0, 5.0),
        "encoder_dropout": Range(0.0, 0.5),
        "width": (64, 128, 256),
    }

    @classmethod
    def error(cls, config: FrozenConfig, step: Step) -> Tensor:
        """mean_d (x0_hat - x_0)^2; gradients flow into the vector of the item wanted, as published."""
        del config
        return step.mse
