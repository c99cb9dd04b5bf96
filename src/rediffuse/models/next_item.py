"""What every diffusion over next items shares: x_0 is the vector of the item that comes next.

| part | where |
|---|---|
| forward process, schedule, prediction | `models/chain.py`, `noise/` |
| network, its history and its null | `denoisers/next_item.py` |
| examples, the published error, consistency and alignment | `models/next_item_training.py` |
| the whole chain at once where the network is affine | `NextItem._whole`, `denoisers/affine.py` |
| reverse process, guidance, draws, ranking by inner product | `models/answering.py` over `denoisers/latent.py::Latent` |

A method names its network and its error; that is all in which `dreamrec.py`, `preferdiff.py` and `diffurec.py` differ.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal, Self

import torch
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn

from rediffuse.config import FrozenConfig
from rediffuse.denoisers.affine import Affine, affine_map
from rediffuse.denoisers.conditioning import HISTORY
from rediffuse.denoisers.latent import Latent
from rediffuse.denoisers.next_item import GuidedNetwork, NextItemNetwork
from rediffuse.errors import InvalidInput, say
from rediffuse.models.answering import Answered, Answering, Plan
from rediffuse.models.chain import FREE, ChainConfig, ScheduleName, StartName
from rediffuse.models.next_item_training import NextItemTraining, Step
from rediffuse.networks.sequence import SequenceEncoder, padded
from rediffuse.noise.predictions import as_denoiser
from rediffuse.protocols import FitContext, FitData, Noise, Tunable
from rediffuse.spaces.embeddings import NextVector
from rediffuse.spaces.item_vectors import item_vectors
from rediffuse.spaces.tables import TablesConfig, frozen_tables
from rediffuse.training.loop import TrainingConfig, learn, take_over
from rediffuse.training.prefixes import Prefixes, Which
from rediffuse.training.rows import generators
from rediffuse.types import Condition, Query

_AFFORDABLE = 1 << 36
"""Multiply-adds that making an affine map may cost: some seconds."""


class NextItemConfig(ChainConfig, TablesConfig):
    """What a diffusion over next items is. `backbone` and `tables` count where `items` = "tables"."""

    condition: tuple[str, ...] = (HISTORY,)
    """What steers the reverse process: the history."""
    width: PositiveInt = 64
    """D, the width of the vectors of items."""
    encoder_layers: PositiveInt = 1
    """Blocks of the transformer over the history."""
    encoder_heads: PositiveInt = 1
    """Attention heads of a block."""
    encoder_dropout: float = Field(default=0.1, ge=0, lt=1)
    """Share of what enters the encoder, and of what each block adds, that is set to 0 in training."""
    item_dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of the entries of a history's vectors that is set to 0 in training."""
    items: Literal["drawn", "spectral", "tables"] = "drawn"
    """The first vectors of the items: normal draws, those by which the data tells who is taken with whom, or tables."""
    items_learned: bool = True
    """Whether they change in training; what x_0 is then changes with them."""
    item_scale: float = Field(default=1.0, gt=0)
    """Standard deviation of the first vectors of the items."""
    positions: bool = True
    """Whether the encoder is told the place of an event."""
    examples: Which = "drawn"
    """What an epoch shows: of each user one event, drawn anew, or every event after the first, or the last alone."""
    consistency: float = Field(default=0.0, ge=0)
    """Weight of the distance between estimates at two levels of one trajectory: one step then gives what many gave."""
    consistency_stride: PositiveInt = 1
    """How many levels apart the two are."""
    alignment: float = Field(default=0.0, ge=0)
    """Weight of the preference of the item wanted over another, by the estimate of a single step."""
    levels: PositiveInt = 100
    schedule: ScheduleName = "cosine"
    noise_scale: float = Field(default=1.0, ge=0)
    noise_min: float = Field(default=1e-4, ge=0)
    noise_max: float = Field(default=0.02, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    level_choice: Literal["uniform", "importance"] = "uniform"
    loss_weight: Literal["elbo", "min_snr", "none"] = "none"
    start: StartName = "origin"
    draws_start: StartName | None = "pure_noise"

    @model_validator(mode="after")
    def _of_histories(self) -> Self:
        if self.condition != (HISTORY,):
            raise ValueError(f"condition must be {HISTORY}; it is {', '.join(self.condition) or 'empty'}")
        if self.width % self.encoder_heads:
            raise ValueError(f"width = {self.width} must be a multiple of encoder_heads = {self.encoder_heads}")
        if self.start not in FREE:
            raise ValueError(f"start must be one of {', '.join(FREE)}; it is {self.start}")
        if self.consistency_stride > self.levels:
            raise ValueError(f"consistency_stride = {self.consistency_stride} exceeds levels = {self.levels}")
        return self

    @property
    def fitted_first(self) -> bool:
        """Whether a backbone is fitted before the method."""
        return self.items == "tables" and self.tables is None

    @property
    def starts(self) -> tuple[StartName, ...]:
        """Where a reverse process may begin: x_0 is no history."""
        return FREE

    def encoder(self, generator: torch.Generator | None, *, causal: bool) -> SequenceEncoder:
        """The transformer over the history, its first weights drawn."""
        return SequenceEncoder(
            self.width,
            self.encoder_layers,
            self.encoder_heads,
            self.history_length,
            causal=causal,
            positions=self.positions,
            dropout=self.encoder_dropout,
            generator=generator,
        )


def first_vectors(config: NextItemConfig, data: FitData, context: FitContext) -> Tensor:
    """The first vectors of the items, (I, D), of standard deviation `item_scale`; what is not told is 0.

    Raises: InvalidInput when the tables are wider than D.
    """
    if config.items == "spectral":
        found = item_vectors(data.history, data.n_items, config.width, seed=context.run.seed)
    else:
        found = frozen_tables(config, data, context).items.cpu()
    if found.shape[1] > config.width:
        wide = found.shape[1]
        raise InvalidInput(
            say(f"The vectors of the items are {wide} wide", got=config.width, remedy=f"Set width={wide}")
        )
    scale = config.item_scale / max(float(found.square().mean().sqrt()), 1e-12)
    return nn.functional.pad(scale * found, (0, config.width - found.shape[1]))


class NextItem(Answered, ABC):
    """Scores are inner products of the last x_0 estimate with the vectors of the items.

    A new user is a posted history; nothing is stored per user. Scores are unbounded reals, no probabilities.
    """

    name: ClassVar[str]
    Config: ClassVar[type[FrozenConfig]]
    Training: ClassVar[type[FrozenConfig]] = TrainingConfig
    presets: ClassVar[Mapping[str, Mapping[str, object]]]
    controls: ClassVar[Mapping[str, Sequence[str]]] = {}
    tunable: ClassVar[Mapping[str, Tunable]]

    def __init__(self, config: NextItemConfig, network: NextItemNetwork) -> None:
        """Wrap a network."""
        self.config, self.network = config, network
        denoiser = as_denoiser(network, config.prediction, config.noise_schedule())
        chain = Latent(NextVector(network.table), denoiser)
        self._maps: dict[tuple[object, ...], Affine] = {}
        self.answering = Answering(self.name, config, chain, network.table, known=self._known, whole=self._whole)

    @classmethod
    @abstractmethod
    def network_of(cls, config: FrozenConfig, n_items: int, generator: torch.Generator | None) -> NextItemNetwork:
        """The network that settings name, its first weights drawn."""

    @classmethod
    @abstractmethod
    def error(cls, config: FrozenConfig, step: Step) -> Tensor:
        """The published training error of each example, (B,)."""

    @classmethod
    def fit(cls, config: FrozenConfig, training: FrozenConfig, data: FitData, context: FitContext) -> Self:
        """Train on what users took next. Raises: InvalidInput for data without order; TrainingDiverged."""
        assert isinstance(config, NextItemConfig)
        assert isinstance(training, TrainingConfig)
        run = context.run
        prefixes = Prefixes.of(data, config.history_length, run.device, config.examples, cls.name)
        first, generator = generators(run)
        network = cls.network_of(config, data.n_items, first)
        if context.initial is not None:
            take_over(network, context.initial)
        elif config.items != "drawn":
            network.table.data.copy_(first_vectors(config, data, context))
        network.table.requires_grad_(config.items_learned)
        network.to(run.device, getattr(torch, run.dtype))
        task = NextItemTraining(
            config,
            network,
            prefixes,
            training.batch_size,
            lambda step: cls.error(config, step),
            consistency=config.consistency,
            stride=config.consistency_stride,
            alignment=config.alignment,
        )
        # A model keeps the maps of the weights it has answered with, so each validation and the answer have one of their own.
        learn(task, training, generator, context, lambda: cls(config, network))
        return cls(config, network)

    def state(self) -> dict[str, Tensor]:
        """The network's weights by name."""
        return {name: tensor.detach() for name, tensor in self.network.state_dict().items()}

    @classmethod
    def restore(cls, config: FrozenConfig, state: Mapping[str, Tensor], device: str) -> Self:
        """Rebuild from `state`."""
        assert isinstance(config, NextItemConfig)
        network = cls.network_of(config, len(state["table"]), None)
        network.to(device, state["table"].dtype).load_state_dict(dict(state))
        network.eval()
        return cls(config, network)

    def _whole(self, plan: Plan, x: Tensor, cond: Condition | None, noise: Noise) -> Tensor | None:
        """x_0 of a whole walk by one affine map, where the network is affine and guided at all levels alike.

        The map is made once for each walk and belongs to the weights as they were: a training asks a new `NextItem`.
        """
        config, network, scale = self.config, self.network, plan.scale
        everywhere = config.guidance_low == 1 and config.guidance_high in (None, config.levels)
        cheap = len(plan.levels) * config.width**3 <= _AFFORDABLE
        if not isinstance(network, GuidedNetwork) or network.deep or not cheap or config.prediction != "x0":
            return None
        if isinstance(scale, dict):
            scale = scale.get(HISTORY, 1.0)
        if scale != 1 and not everywhere:
            return None
        key = (plan.fresh, *plan.levels.tolist())
        if key not in self._maps:
            vectors = network.vectors()
            assert vectors is not None
            self._maps[key] = affine_map(
                vectors,
                config.width,
                plan.levels,
                plan.schedule,
                plan.sampler,
                cond_width=config.width,
                fresh=plan.fresh,
                device=x.device,
            )
        none = network.null.expand(len(x), -1)
        return self._maps[key].draw(x, torch.lerp(none, network.steering(cond, len(x)), scale), noise)

    def _known(self, query: Query) -> Condition:
        """What the histories of a query tell the network."""
        return self.network.condition(padded(query.history, self.config.history_length))
