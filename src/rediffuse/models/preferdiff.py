"""PreferDiff: DreamRec's chain, trained to come nearer to the item wanted than to a noised negative.

| part of the paper | here |
|---|---|
| encoder, null, denoiser | `denoisers/next_item.py::GuidedNetwork`, as in `models/dreamrec.py` |
| distance to the positive, by cosine | `distance` |
| negative: the centroid of the others' items, noised alike, denoised after the same history | `PreferDiff.error` |
| L = lambda d+ - (1 - lambda) log sigmoid(-gamma (d+ - d-)) | `PreferDiff.error` |
| guidance, DDIM in few steps | `samplers/guidance.py::guided`, `samplers/ddim.py` |

Liu et al. 2025, "Preference Diffusion for Recommendation".
Mended: the preference is of each example, and no positive is in its own centroid; `batch_preference` takes the mean of the
batch before the logarithm and leaves only an example's own copy out.
"""

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from rediffuse.config import FrozenConfig
from rediffuse.models.dreamrec import OVER_SASREC, DreamRecConfig, Guided
from rediffuse.models.next_item_training import Step
from rediffuse.protocols import Range, Tunable


class PreferDiffConfig(DreamRecConfig):
    """What a PreferDiff is."""

    distance: Literal["cosine", "mse"] = "mse"
    """How far an estimate is from its item: (cos - 1)^2, as released, or the mean squared error,
    which alone gives the estimate the length that the chain goes on with."""
    reconstruction: float = Field(default=0.4, ge=0, le=1)
    """lambda: share of the distance to the positive; the rest is preference."""
    gamma: float = Field(default=5.0, gt=0)
    """How sharp the preference is."""
    batch_preference: bool = False
    """The released form: one preference for the whole batch, whose negatives may hold the positive item."""
    sampler: Literal["ancestral", "ddim", "heun", "dpmpp"] = "ddim"


class PreferDiff(Guided):
    """Positive and negative run through one chain; the further the negative, the smaller the loss."""

    name = "preferdiff"
    Config: ClassVar[type[FrozenConfig]] = PreferDiffConfig
    presets: ClassVar[Mapping[str, Mapping[str, object]]] = {
        # The authors' settings; batch 256, one example a user, histories of 10.
        name: {
            "levels": 2000,
            "steps": 20,
            "schedule": "linear",
            "distance": "cosine",
            "start": "pure_noise",
            "width": 3072,
            "encoder_heads": 2,
            "history_length": 10,
            "examples": "last",
            "batch_preference": True,
            "guidance_scale": scale,
            "reconstruction": share,
            "learning_rate": 1e-4,
            "batch_size": 256,
            "epochs": 150,
        }
        for name, scale, share in (("sports", 3.0, 0.4), ("beauty", 9.0, 0.4), ("toys", 7.0, 0.6))
    } | {"amazon": {**OVER_SASREC, "distance": "cosine"}}
    tunable: ClassVar[Mapping[str, Tunable]] = {
        "learning_rate": Range(1e-4, 5e-3, log=True),
        "guidance_scale": (1.0, 2.0, 3.0, 5.0, 9.0),
        "reconstruction": (0.2, 0.4, 0.6, 0.8),
        "encoder_dropout": Range(0.0, 0.5),
        "width": (64, 128, 256),
    }

    @classmethod
    def error(cls, config: FrozenConfig, step: Step) -> Tensor:
        """The loss, lambda d+ - (1 - lambda) log sigmoid(-gamma (d+ - d-)), (B,)."""
        assert isinstance(config, PreferDiffConfig)
        negative = centroid(step.x0, step.target, own_copy_only=config.batch_preference)
        near = distance(step.estimate, step.x0, config.distance)
        far = distance(step.denoise(step.noise(negative)), negative, config.distance)
        ahead = near.mean() - far.mean() if config.batch_preference else near - far
        return config.reconstruction * near + (1 - config.reconstruction) * functional.softplus(config.gamma * ahead)


def distance(estimate: Tensor, x0: Tensor, kind: str) -> Tensor:
    """(cos(x0_hat, x_0) - 1)^2 or mean_d (x0_hat - x_0)^2, (B,). Args: estimate, x0: (B, D)."""
    if kind == "mse":
        return (estimate - x0).square().mean(1)
    return (functional.cosine_similarity(estimate, x0) - 1).square()


def centroid(x0: Tensor, target: Tensor, *, own_copy_only: bool) -> Tensor:
    """The mean vector of what others in the batch want, (B, D); 0 where nobody wants anything else.

    Args: x0: (B, D).   target: (B,) int64.   own_copy_only: leave an example's own copy out, not all of its item.
    """
    same = torch.eye(len(target), device=target.device, dtype=torch.bool)
    if not own_copy_only:
        same = target.unsqueeze(1) == target
    others = (~same).to(x0.dtype)
    return others @ x0 / others.sum(1, keepdim=True).clamp(min=1)
