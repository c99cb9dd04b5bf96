"""L-DiffRec: denoise a user's row in a latent space of few numbers. LT-DiffRec is the same under recency weights.

| equation of the paper | here |
|---|---|
| clusters of items, their encoders and the decoder, section 3.5 | `spaces/latent.py::LatentRows` |
| diffusion on z_0, eq. 2-14 | `models/gaussian.py::Objective`, as in `models/diffrec.py` |
| network, z_t -> z_0 | `denoisers/mlp.py::MLPDenoiser` |
| loss of the auto-encoder, eq. 16, and of both, section 3.5.3 | `models/l_diffrec_training.py::LatentTraining.loss` |
| inference, figure 3 | `models/answering.py::Plan.descend` over `denoisers/latent.py::Latent` |

Wang, Xu, Feng, Lin, He, Chua 2023, "Diffusion Recommender Model", section 3.5.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from rediffuse.config import FrozenConfig
from rediffuse.denoisers.latent import Latent
from rediffuse.denoisers.mlp import MLPDenoiser
from rediffuse.models.answering import Answered, Answering
from rediffuse.models.gaussian import part_of
from rediffuse.models.l_diffrec_training import LatentTraining, LDiffRecConfig, LDiffRecTraining
from rediffuse.noise.predictions import as_denoiser
from rediffuse.protocols import FitContext, FitData, Range, Tunable
from rediffuse.spaces.item_vectors import clusters, item_vectors
from rediffuse.spaces.latent import LatentRows, joined_groups
from rediffuse.training.loop import learn, take_over
from rediffuse.training.moments import examples, sizes_for
from rediffuse.training.rows import generators

TUNED: Mapping[str, object] = {"row_dropout": 0.5, "beta": 0.1, "average": 0.98}
"""What the selection part of both worlds below prefers: more of the row dropped, less divergence, the mean of the weights."""
LARGE: Mapping[str, object] = {"clusters": 1, "latent": 600, "hidden": (600,), "steps": 5}
SMALL: Mapping[str, object] = {"clusters": 2, "latent": 200, "hidden": (200,), "patience": 25}


class LDiffRec(Answered):
    """Scores of all items for a user are decoded from the last z_0 estimate of a reverse chain started at their z.

    A new user is a posted history; nothing is stored per user. Scores are logits, no probabilities.
    Limits: parameters grow with at most 3 I D, D the latent width; the scores of a batch (B, I) are dense in training.
    """

    Config: ClassVar[type[FrozenConfig]] = LDiffRecConfig
    Training: ClassVar[type[FrozenConfig]] = LDiffRecTraining
    presets: ClassVar[Mapping[str, Mapping[str, object]]] = {
        name: {
            "learning_rate": rate,
            "denoiser_rate": denoiser_rate,
            "diffusion_weight": weight,
            # The authors' lambda falls by 1 / 500 of its beginning an epoch, down to .005.
            "diffusion_weight_epochs": round(500 * (1 - 0.005 / weight)),
            "levels": levels,
            "noise_scale": scale,
            "noise_min": low,
            "noise_max": high,
            **more,
        }
        # The authors' settings, their table in the released scripts; batch 400 and no weight decay throughout.
        for name, rate, denoiser_rate, weight, levels, scale, low, high, more in (
            ("ml-1m-clean", 1e-3, 0.5, 0.03, 40, 0.005, 0.005, 0.02, {}),
            ("ml-1m-noisy", 1e-3, 0.5, 0.03, 100, 0.005, 0.005, 0.02, {}),
            ("yelp-clean", 5e-4, 0.2, 0.03, 5, 0.01, 0.005, 0.01, {}),
            ("yelp-noisy", 5e-4, 0.2, 0.03, 5, 0.01, 0.005, 0.01, {}),
            ("amazon-book-clean", 5e-4, 0.2, 0.05, 5, 0.5, 0.001, 0.005, {}),
            ("amazon-book-noisy", 5e-4, 0.2, 0.07, 10, 0.5, 0.001, 0.005, {}),
            ("t-amazon-book-clean", 5e-4, 0.2, 0.03, 5, 0.7, 0.001, 0.005, {"recency": "linear", "weight_min": 0.1}),
            ("t-yelp-clean", 5e-4, 0.1, 0.03, 5, 0.01, 0.005, 0.01, {"recency": "linear", "batch_size": 200}),
            # Chosen on the selection part of that data, and of the embedded world.
            ("ml-1m-clean-tuned", 1e-3, 0.5, 0.03, 40, 0.005, 0.005, 0.02, {**TUNED, **LARGE}),
            ("atelier", 2e-3, 0.5, 0.005, 5, 0.005, 0.005, 0.02, {**TUNED, **SMALL}),
        )
    }
    controls: ClassVar[Mapping[str, Sequence[str]]] = {}
    tunable: ClassVar[Mapping[str, Tunable]] = {
        "learning_rate": Range(3e-4, 3e-3, log=True),
        "levels": (5, 10, 40),
        "noise_scale": Range(1e-3, 0.5, log=True),
        "row_dropout": Range(0.1, 0.8),
        "dropout": Range(0.0, 0.6),
        "beta": Range(0.03, 1.0, log=True),
        "clusters": (1, 2, 4),
        "latent": (200, 300, 600),
    }

    def __init__(self, config: LDiffRecConfig, space: LatentRows, denoiser: MLPDenoiser) -> None:
        """Wrap trained networks."""
        self.config, self.space, self.denoiser = config, space, denoiser
        chain = Latent(space, as_denoiser(denoiser, config.prediction, config.noise_schedule()))
        self.answering = Answering("l-diffrec", config, chain, space.out.weight, config.row_dropout)

    @classmethod
    def fit(
        cls,
        config: FrozenConfig,
        training: FrozenConfig,
        data: FitData,
        context: FitContext,
        *,
        vectors: Tensor | None = None,
    ) -> Self:
        """Train on rows of the given events.

        Args: vectors: (I, ..) what tells which items are alike; None: from the events themselves.
        Raises: InvalidInput when recency or a condition is asked of data without order; TrainingDiverged.
        """
        assert isinstance(config, LDiffRecConfig)
        assert isinstance(training, LDiffRecTraining)
        first, generator = generators(context.run)
        groups = _groups(config, data, context, vectors)
        if context.initial is None:
            space = LatentRows.of(groups, config.latent, config.encoder_hidden, generator=first)
        else:
            space = LatentRows.like(part_of(context.initial, "space."), groups, generator=first)
        denoiser = _denoiser(config, sizes_for(config.condition, data), first)
        if context.initial is not None:
            take_over(_both(space, denoiser), context.initial)
        _both(space, denoiser).to(context.run.device, getattr(torch, context.run.dtype))
        task = LatentTraining(config, training, space, denoiser, examples(data, config, context.run))
        model = cls(config, space, denoiser)
        learn(task, training, generator, context, lambda: model, rates={"denoiser": training.denoiser_rate})
        return model

    def state(self) -> dict[str, Tensor]:
        """The weights of both networks by name."""
        return {name: tensor.detach() for name, tensor in _both(self.space, self.denoiser).state_dict().items()}

    @classmethod
    def restore(cls, config: FrozenConfig, state: Mapping[str, Tensor], device: str) -> Self:
        """Rebuild from `state`."""
        assert isinstance(config, LDiffRecConfig)
        space = LatentRows.like(part_of(state, "space."), state["space.groups"])
        denoiser = _denoiser(config, config.sizes_in(part_of(state, "denoiser."), space.n_items), None)
        both = _both(space, denoiser)
        both.to(device, state["space.out.weight"].dtype).load_state_dict(dict(state))
        both.eval()
        return cls(config, space, denoiser)


def _groups(config: LDiffRecConfig, data: FitData, context: FitContext, vectors: Tensor | None) -> Tensor:
    """The cluster of each item, (I,) int64; with an earlier model, its items stay where they are."""
    known = None if context.initial is None else context.initial["space.groups"].cpu()
    if config.clusters == 1 or data.n_items == 1:
        return torch.zeros(data.n_items, dtype=torch.int64)
    if vectors is None:
        vectors = item_vectors(data.history, data.n_items, seed=context.run.seed)
    return clusters(vectors, config.clusters) if known is None else joined_groups(known, vectors)


def _denoiser(config: LDiffRecConfig, sizes: Mapping[str, int], generator: torch.Generator | None) -> MLPDenoiser:
    """The network over z, its first weights drawn. Args: sizes: as `Conditioner`'s."""
    conditioner = config.make_conditioner(sizes, generator)
    return MLPDenoiser(
        config.latent, config.hidden, time_width=config.time_width, conditioner=conditioner, generator=generator
    )


def _both(space: LatentRows, denoiser: MLPDenoiser) -> nn.ModuleDict:
    return nn.ModuleDict({"space": space, "denoiser": denoiser})
