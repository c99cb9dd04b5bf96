"""SASRec: a causal transformer over the history, trained on every next item against the whole catalog.

| equation | here |
|---|---|
| tokens = rows of the item table E and places (section 3.1) | `NextItem.states`, `networks/sequence.py::SequenceEncoder` |
| causal self-attention and a layer for each token, in blocks (sections 3.2, 3.3) | `networks/transformer.py::TransformerBlock` |
| scores = h E^T, the same table (section 3.4) | `NextItem.head` |
| loss = -sum_i q_i log softmax(h E^T)_i, q = (1 - s) [i is the target] + s / I at every place | `_SequenceTraining.loss` |
| asked for one of the next H events: h (1 + s_H) + r_H, elementwise | `NextItem.towards` |

The published loss has one drawn negative for each target; the whole catalog is worth a third more in ndcg and is the floor.
Reference: Kang & McAuley 2018, "Self-attentive sequential recommendation"; Klenitskiy & Vasilev 2023, "Turning dross into gold
loss: is BERT4Rec really better than SASRec?" (cross-entropy over the catalog); Szegedy et al. 2016, section 7 (smoothing).
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, Self

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from rediffuse.config import FrozenConfig
from rediffuse.errors import UnsupportedOption, refuse_options, say
from rediffuse.grounding.topk import TopK
from rediffuse.networks.sequence import SequenceEncoder, final, padded
from rediffuse.protocols import FitContext, FitData, Range, Tunable
from rediffuse.spaces.embeddings import Embeddings
from rediffuse.training.loop import TrainingConfig, learn, take_over
from rediffuse.training.rows import generators, shuffled
from rediffuse.training.sequences import continued, later, windows
from rediffuse.types import Options, Query, Ragged, Ranking


class SASRecConfig(FrozenConfig):
    """Settings of SASRec."""

    width: PositiveInt = 128
    """D: width of a token and of a row of the item table."""
    layers: PositiveInt = 2
    """Blocks of the transformer."""
    heads: PositiveInt = 2
    """Heads of attention; they divide the width."""
    history_length: PositiveInt = 50
    """How many of the newest events of a history are read."""
    dropout: float = Field(default=0.5, ge=0, lt=1)
    """Share of the tokens' entries, and of what each block adds, set to 0 in training."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """s: share of the target that is spread over the whole catalog."""
    horizon: PositiveInt = 1
    """H: an answer is about the next H events. Beyond 1 any number up to it may be asked for, `Options.horizon`."""


class SASRecTraining(TrainingConfig):
    """How the network is trained; an example of a batch is a user, one of the loss a place of theirs."""

    batch_size: PositiveInt = 128
    """Users per step."""


class NextItem(nn.Module):
    """Histories -> a state for each place -> logits of all items."""

    def __init__(self, config: SASRecConfig, n_items: int, *, generator: torch.Generator | None = None) -> None:
        """Draw the weights: E ~ N(0, 1 / D); r and s are 0. Raises: InvalidConfig when the heads do not divide the width."""
        super().__init__()
        width = config.width
        self.table = nn.Parameter(torch.empty(n_items, width).normal_(0, width**-0.5, generator=generator))
        self.encoder = SequenceEncoder(
            width, config.layers, config.heads, config.history_length, dropout=config.dropout, generator=generator
        )
        self.ahead = nn.Parameter(torch.zeros(config.horizon, 2, width)) if config.horizon > 1 else None

    def states(self, items: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Args: items: (B, L) int64, oldest first, -1 padded on the right.   generator: draws the dropout. Returns: (B, L, D)."""
        return self.encoder(functional.embedding(items.clamp(min=0), self.table), items >= 0, generator)

    def towards(self, h: Tensor, horizon: int | Tensor) -> Tensor:
        """States that ask for one of the next H events. Args: h: (n, D).   horizon: H >= 1, (n,) or for all alike."""
        if self.ahead is None:
            return h
        # A shift alone would add the same to the scores of all histories.
        shift, scale = self.ahead[horizon - 1].unbind(-2)
        return h * (1 + scale) + shift

    def head(self, h: Tensor, items: Tensor | None = None) -> Tensor:
        """Logits. Args: h: (n, D).   items: (m,) to score alone. Returns: (n, I) or (n, m)."""
        return h @ (self.table if items is None else self.table[items]).t()


class SASRec:
    """score = h E^T with h the state of the newest event: an inner product with the item table.

    A new user is a posted history; nothing is stored per user. Scores are logits, no probabilities.
    Limits: an answer takes L^2 D + 12 L D^2 multiply-adds a block and I D once, L = `history_length`. A step holds the
    logits of some 64 million pairs of place and item; where a batch has more, they are computed twice, part by part.
    """

    Config: ClassVar[type[FrozenConfig]] = SASRecConfig
    Training: ClassVar[type[FrozenConfig]] = SASRecTraining
    presets: ClassVar[Mapping[str, Mapping[str, object]]] = {
        "amazon": {
            "width": 256,
            "dropout": 0.5,
            "label_smoothing": 0.1,
            "average": 0.995,
            "validate_every": 2,
            "patience": 8,
        },
        "ml-1m-clean": {"width": 128, "history_length": 200, "dropout": 0.2, "average": 0.995},
    }
    controls: ClassVar[Mapping[str, Sequence[str]]] = {}
    tunable: ClassVar[Mapping[str, Tunable]] = {
        "learning_rate": Range(1e-4, 3e-3, log=True),
        "width": (64, 128, 256),
        "layers": (1, 2, 3),
        "dropout": Range(0.1, 0.6),
        "label_smoothing": Range(0.0, 0.2),
    }

    def __init__(self, config: SASRecConfig, network: NextItem) -> None:
        """Wrap a trained network."""
        self.config, self.network = config, network

    @classmethod
    def fit(cls, config: FrozenConfig, training: FrozenConfig, data: FitData, context: FitContext) -> Self:
        """Train on windows of the given histories.

        Raises: InvalidInput when no order of events is known, or no user has two of them; TrainingDiverged.
        """
        assert isinstance(config, SASRecConfig)
        assert isinstance(training, SASRecTraining)
        run, history = context.run, continued(data, "sasrec")
        first, generator = generators(run)
        network = NextItem(config, data.n_items, generator=first)
        if context.initial is not None:
            take_over(network, context.initial)
        model = cls(config, network.to(run.device, getattr(torch, run.dtype)))
        task = _SequenceTraining(config, network, history.to(run.device), training.batch_size)
        learn(task, training, generator, context, lambda: model)
        return model

    @property
    def n_items(self) -> int:
        """Size of the catalog, I."""
        return self.network.table.shape[0]

    def recommend(self, query: Query, k: int, *, options: Options = Options(), seed: int = 0) -> Ranking:
        """As `Recommender.recommend`."""
        del seed
        horizon = self._horizon(options)
        query = query.to(self.network.table.device)
        with torch.inference_mode():
            items = padded(query.history, self.config.history_length)
            h = self.network.towards(final(self.network.states(items), items >= 0), horizon)
            return TopK(self.network.head, self.n_items)(h, k, seen=query.exclude, candidates=query.candidates).cpu()

    def embeddings(self) -> Embeddings:
        """The vectors of the items alone: a user is their history."""
        return Embeddings(self.network.table.detach())

    def _horizon(self, options: Options) -> int:
        """How many of the next events count. Raises: UnsupportedOption."""
        refuse_options("sasrec", options.asked(), ("horizon",) if self.config.horizon > 1 else ())
        horizon = self.config.horizon if options.horizon is None else options.horizon
        if not 1 <= horizon <= self.config.horizon:
            raise UnsupportedOption(
                say(
                    "sasrec cannot use this 'horizon'",
                    got=horizon,
                    allowed=f"1..{self.config.horizon}",
                    remedy="Ask within it, or train with a larger horizon",
                )
            )
        return horizon

    def state(self) -> dict[str, Tensor]:
        """The network's weights by name."""
        return {name: tensor.detach() for name, tensor in self.network.state_dict().items()}

    @classmethod
    def restore(cls, config: FrozenConfig, state: Mapping[str, Tensor], device: str) -> Self:
        """Rebuild from `state`."""
        assert isinstance(config, SASRecConfig)
        table = state["table"]
        network = NextItem(config, len(table)).to(device, table.dtype)
        network.load_state_dict(dict(state))
        return cls(config, network.eval())


class _SequenceTraining:
    """The `Trainable`: tell at every place of a window what comes later."""

    def __init__(self, config: SASRecConfig, network: NextItem, history: Ragged, batch_size: int) -> None:
        self.config, self.module, self.history, self.batch_size = config, network, history, batch_size

    def batches(self, generator: torch.Generator) -> Iterator[Tensor]:
        """The numbers of all users once, in a new order, (B,) int64."""
        return shuffled(self.history, self.batch_size, generator)

    def loss(self, batch: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Smoothed cross-entropy of each place that has a target. Args: batch: (B,) int64. Returns: loss, (n,)."""
        items = windows(self.history.select(batch), self.config.history_length + 1, generator)
        places = later(items, self.config.horizon, generator)
        h = self.module.states(items[:, :-1], generator)[places.at]
        h, step = self.module.towards(h, places.horizon), max(1, _SCORED // len(self.module.table))
        if len(h) <= step:
            return {"loss": self._errors(h, places.target)}
        # What a part would keep for its gradient is as large as its logits: they are made again instead.
        parts = [
            checkpoint(self._errors, *part, use_reentrant=False, preserve_rng_state=False)
            for part in zip(h.split(step), places.target.split(step), strict=True)
        ]
        return {"loss": torch.cat(parts)}

    def _errors(self, h: Tensor, target: Tensor) -> Tensor:
        """-sum_i q_i log softmax(h E^T)_i. Args: h: (n, D).   target: (n,) int64. Returns: (n,)."""
        smoothing = self.config.label_smoothing
        return functional.cross_entropy(self.module.head(h), target, reduction="none", label_smoothing=smoothing)


_SCORED = 1 << 26
"""Logits that are held at a time: 256 MiB."""
