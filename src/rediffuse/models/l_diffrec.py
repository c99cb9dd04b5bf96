"""L-DiffRec: denoise a user's row in a latent space of few numbers. LT-DiffRec is the same under recency weights.

| equation of the paper | here |
|---|---|
| clusters of items, their encoders and the decoder, section 3.5 | `spaces/latent.py::LatentRows` |
| diffusion on z_0, eq. 2-14 | `models/gaussian.py::Objective`, as in `models/diffrec.py` |
| network, z_t -> z_0 | `denoisers/mlp.py::MLPDenoiser` |
| loss of the auto-encoder, eq. 16, and of both, section 3.5.3 | `models/l_diffrec_training.py::LatentTraining.loss` |
| inference, figure 3 | `LDiffRec.recommend` |

Wang, Xu, Feng, Lin, He, Chua 2023, "Diffusion Recommender Model", section 3.5.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from rediffuse.config import FrozenConfig
from rediffuse.data.weighting import weigh
from rediffuse.denoisers.conditioning import Conditioner, sizes_of
from rediffuse.denoisers.dense import Dense
from rediffuse.denoisers.mlp import MLPDenoiser
from rediffuse.models.gaussian import THINNED, Plan, grounded, in_blocks, planned
from rediffuse.models.l_diffrec_training import LatentTraining, LDiffRecConfig, LDiffRecTraining
from rediffuse.noise.predictions import as_denoiser
from rediffuse.protocols import Denoiser, FitContext, FitData, OnStep, Range, Tunable
from rediffuse.samplers.starts import thinned_history
from rediffuse.spaces.item_vectors import clusters, item_vectors
from rediffuse.spaces.latent import LatentRows, joined_groups
from rediffuse.training.loop import learn, take_over
from rediffuse.training.moments import condition_of, examples, sizes_for
from rediffuse.training.rows import generators
from rediffuse.types import Condition, Options, Query, Ranking

TUNED: Mapping[str, object] = {"row_dropout": 0.5, "beta": 0.1, "average": 0.98}
"""What the selection part of both worlds below prefers: more of the row dropped, less divergence, the mean of the weights."""
LARGE: Mapping[str, object] = {"clusters": 1, "latent": 600, "hidden": (600,), "steps": 5}
SMALL: Mapping[str, object] = {"clusters": 2, "latent": 200, "hidden": (200,), "patience": 25}


class LDiffRec:
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
        self.chain = Dense(as_denoiser(denoiser, config.prediction, config.noise_schedule()))

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
            space = LatentRows.like(_part(context.initial, "space."), groups, generator=first)
        denoiser = _denoiser(config, sizes_for(config.condition, data), first)
        if context.initial is not None:
            take_over(_both(space, denoiser), context.initial)
        _both(space, denoiser).to(context.run.device, getattr(torch, context.run.dtype))
        task = LatentTraining(config, training, space, denoiser, examples(data, config, context.run))
        model = cls(config, space, denoiser)
        learn(task, training, generator, context, lambda: model, rates={"denoiser": training.denoiser_rate})
        return model

    @property
    def n_items(self) -> int:
        """Size of the catalog, I."""
        return self.space.n_items

    @property
    def steps(self) -> int:
        """Reverse steps of an ordinary answer."""
        return self.config.steps or self.config.levels

    def recommend(self, query: Query, k: int, *, options: Options = Options(), seed: int = 0) -> Ranking:
        """As `Recommender.recommend`; honours steps, start, with conditions guidance_scale, and where noise is drawn

        draws and temperature.
        """
        plan = planned("l-diffrec", self.config, options)

        def answer(some: Query) -> Ranking:
            u, points, cond = self._descend(plan, some, seed)
            return self._ground(plan, u, plan.last, points, cond, some, k)

        with torch.inference_mode():
            width = self.n_items if options.draws > 1 else 1
            return in_blocks(query.to(self.space.out.weight.device), options.draws, width, answer)

    def walk(self, query: Query, k: int, *, options: Options = Options(), seed: int = 0) -> list[tuple[int, Ranking]]:
        """As `Stepwise.walk`."""
        plan, states = planned("l-diffrec", self.config, options), list[tuple[int, Tensor]]()
        with torch.inference_mode():
            query = query.to(self.space.out.weight.device)
            seen: OnStep = lambda t, u, _: states.append((t, u.clone()))  # noqa: E731
            u, points, cond = self._descend(plan, query, seed, seen)
            levels = {t: state for t, state in states if t > plan.last}  # a second look at a level is the later one
            levels[plan.last] = u
            return [(t, self._ground(plan, state, t, points, cond, query, k)) for t, state in levels.items()]

    def _descend(
        self, plan: Plan, query: Query, seed: int, on_step: OnStep | None = None
    ) -> tuple[Tensor, Denoiser, Condition | None]:
        """Run the chain of every draw, from the mean of q(z given the row): as `Plan.descend`."""
        config, weight = self.config, self.space.out.weight
        everyone = query.fanned(plan.options.draws) if plan.options.draws > 1 else query
        rows = weigh(everyone.history, config, self.n_items, everyone.at_us).to(weight.device, weight.dtype)
        source = plan.source(query, seed)
        if plan.start == THINNED:
            rows = thinned_history(rows, config.row_dropout, source)
        cond = condition_of(config.condition, everyone, config.history_length)
        return plan.descend(self.chain, self.space.encode(rows), cond, source, on_step)

    def _ground(
        self, plan: Plan, u: Tensor, t: int, points: Denoiser, cond: Condition | None, query: Query, k: int
    ) -> Ranking:
        """The items that the decoded estimate of z_0 at level t ranks highest. Args: u: (B S, D)."""
        z = points(u, torch.full((len(u),), t, device=u.device), cond)
        return grounded(z, self.space.decode, self.n_items, query, k, plan.options.draws)

    def state(self) -> dict[str, Tensor]:
        """The weights of both networks by name."""
        return {name: tensor.detach() for name, tensor in _both(self.space, self.denoiser).state_dict().items()}

    @classmethod
    def restore(cls, config: FrozenConfig, state: Mapping[str, Tensor], device: str) -> Self:
        """Rebuild from `state`."""
        assert isinstance(config, LDiffRecConfig)
        space = LatentRows.like(_part(state, "space."), state["space.groups"])
        sizes = sizes_of(_part(state, "denoiser.conditioner."), config.condition)
        denoiser = _denoiser(config, sizes, None)
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
    conditioner = None
    if sizes:
        conditioner = Conditioner(
            sizes, config.condition_width, history_length=config.history_length, generator=generator
        )
    return MLPDenoiser(
        config.latent, config.hidden, time_width=config.time_width, conditioner=conditioner, generator=generator
    )


def _both(space: LatentRows, denoiser: MLPDenoiser) -> nn.ModuleDict:
    return nn.ModuleDict({"space": space, "denoiser": denoiser})


def _part(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
