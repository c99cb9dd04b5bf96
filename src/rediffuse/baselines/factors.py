"""What methods of vectors for users and items share: settings, training on pairs, answers by inner products."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import ClassVar, Literal, Self

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn.functional import embedding, normalize

from rediffuse.config import FrozenConfig, RunConfig
from rediffuse.errors import InvalidInput, refuse_options, say
from rediffuse.grounding.topk import TopK
from rediffuse.networks.graph import distinct
from rediffuse.protocols import FitContext, FitData, Range, Trainable, Tunable
from rediffuse.spaces.embeddings import Embeddings
from rediffuse.training.loop import TrainingConfig, learn
from rediffuse.training.pairs import Pairs, bpr, softmax
from rediffuse.training.rows import generators, shuffled
from rediffuse.types import Options, Query, Ragged, Ranking, SparseRows


class FactorsConfig(FrozenConfig):
    """What the vectors are, and what they are learned for."""

    embedding_size: PositiveInt = 64
    """D: length of the vector of a user and of an item."""
    loss: Literal["softmax", "bpr"] = "softmax"
    """softmax: the item among all others; learns in far fewer epochs. bpr: the item above one that is drawn, as first published."""
    negatives: int = Field(default=1024, ge=2)
    """softmax: how many items, drawn anew for each step, stand for the catalog; all of them where there are no more."""
    similarity: Literal["cosine", "inner"] = "cosine"
    """What scores: the product of the vectors at length 1, or as they are, which wants a temperature near 1."""
    temperature: PositiveFloat = 0.15
    """tau, which divides scores in the loss: smaller looks at the hardest items."""
    penalty: float = Field(default=1e-4, ge=0)
    """lambda: half the squares of the first vectors of an example, so often, are added to its loss."""
    fold_in: bool = False
    """Answer everybody from the history they post, also those whose vector was learned: for users who move on."""


class FactorsTraining(TrainingConfig):
    """How vectors are trained; an example is one item of one user."""

    batch_size: PositiveInt = 2048
    """Examples per step; a step spreads vectors over the whole graph, where there is one, so larger is faster."""


AS_PUBLISHED: Mapping[str, object] = {"loss": "bpr", "similarity": "inner", "temperature": 1.0}
"""The objective that the three papers share."""

TUNABLE: Mapping[str, Tunable] = {
    "learning_rate": Range(3e-4, 1e-2, log=True),
    "penalty": Range(1e-6, 1e-1, log=True),
    "temperature": Range(0.05, 0.5, log=True),
}
"""What tuning may vary in all of them."""


class Network(nn.Module, ABC):
    """First vectors, and the function that makes of them what scores."""

    def __init__(self, met: Ragged, n_items: int, config: FactorsConfig, run: RunConfig) -> None:
        """Draw the first vectors, N(0, .1^2). Args: met: U rows of distinct items, where training runs.   n_items: I."""
        super().__init__()
        self.met, self.config = met, config
        first, dtype = generators(run)[0], getattr(torch, run.dtype)
        drawn = (
            torch.empty(rows, config.embedding_size).normal_(0, 0.1, generator=first) for rows in (len(met), n_items)
        )
        self.users, self.items = (nn.Parameter(table.to(met.items.device, dtype)) for table in drawn)

    @abstractmethod
    def vectors(self) -> tuple[Tensor, Tensor]:
        """Of users (U, D) and items (I, D), before `similarity`."""

    @abstractmethod
    def newcomer(self) -> Tensor:
        """What an item gives to the vector of a user who is known by their history alone, (I, D)."""

    def forward(self) -> tuple[Tensor, Tensor]:
        """Vectors of users (U, D) and items (I, D) whose inner products are the scores."""
        users, items = self.vectors()
        return (normalize(users), normalize(items)) if self.config.similarity == "cosine" else (users, items)


class PairTraining:
    """A `Trainable`: pairs in a new order each epoch."""

    def __init__(self, network: Network, batch_size: int) -> None:
        """Args: batch_size: pairs per step."""
        self.module, self.network, self.batch_size = network, network, batch_size
        self.pairs = Pairs.of(network.met, len(network.items))

    def batches(self, generator: torch.Generator) -> Iterator[Tensor]:
        """The numbers of all pairs once, in a new order, (B,) int64."""
        return shuffled(self.pairs, self.batch_size, generator)

    def loss(self, batch: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """The loss of the settings, and lambda / 2 times the squares. Args: batch: (B,) int64. Returns: (B,) each."""
        config, network = self.network.config, self.network
        user, item = self.pairs.users[batch], self.pairs.items[batch]
        users, items = network()
        u = embedding(user, users) / config.temperature
        # The lookup of torch adds gradients in one order on every run; indexing does not.
        positive = (u * embedding(item, items)).sum(1)
        square = embedding(user, network.users).square().sum(1) + embedding(item, network.items).square().sum(1)
        if config.loss == "bpr":
            drawn = self.pairs.negatives(user, generator)
            error = bpr(positive, (u * embedding(drawn, items)).sum(1))
            square = square + embedding(drawn, network.items).square().sum(1)
        else:
            drawn = torch.randperm(len(items), generator=generator, device=user.device)[: config.negatives]
            same = drawn == item.unsqueeze(1)
            error = softmax(positive, u @ embedding(drawn, items).t(), same, len(items))
        return {"loss": error + config.penalty / 2 * square, "error": error}


class FactorMethod(ABC):
    """A `Method` and an `Embeds`: score = inner product of the vector of a subject and that of an item.

    A user who was learned from, found by their name, has the learned vector. Anybody else is known by their history:
    the sum of what its items give to a newcomer, over the square root of their number.
    Limits: (U + I) D numbers, a user's among them.
    """

    name: ClassVar[str]
    Config: ClassVar[type[FrozenConfig]]
    Training: ClassVar[type[FrozenConfig]] = FactorsTraining
    presets: ClassVar[Mapping[str, Mapping[str, object]]] = {"published": AS_PUBLISHED}
    controls: ClassVar[Mapping[str, Sequence[str]]] = {}
    tunable: ClassVar[Mapping[str, Tunable]] = TUNABLE

    def __init__(self, config: FactorsConfig, tables: Embeddings, newcomer: Tensor) -> None:
        """Args: newcomer: what each item gives to the vector of a user who was not learned from, (I, D)."""
        self.config, self.tables, self.newcomer = config, tables, newcomer

    @classmethod
    @abstractmethod
    def network(cls, config: FactorsConfig, met: Ragged, n_items: int, run: RunConfig) -> Network:
        """With first vectors. Args: met: U rows of distinct items, where training runs.   n_items: I."""

    @classmethod
    def trainable(cls, network: Network, batch_size: int) -> Trainable[Tensor]:
        """What is minimised."""
        return PairTraining(network, batch_size)

    @classmethod
    def fit(cls, config: FrozenConfig, training: FrozenConfig, data: FitData, context: FitContext) -> Self:
        """Train on who took what.

        Raises: InvalidInput when nobody has some items but not all, or an earlier model has other widths;
            TrainingDiverged.
        """
        assert isinstance(config, FactorsConfig)
        assert isinstance(training, FactorsTraining)
        run = context.run
        met = distinct(data.history, data.n_items)
        there = met.lengths.nonzero().squeeze(1)
        keys = None if data.keys is None else data.keys[there].to(run.device)
        network = cls.network(config, met.select(there).to(run.device), data.n_items, run)
        if context.initial is not None:
            _take_over(network, keys, context.initial)

        def model() -> Self:
            with torch.no_grad():
                users, items = network()
                named = Embeddings(items.clone()) if keys is None else Embeddings.named(items.clone(), users, keys)
                return cls(config, named, network.newcomer().clone())

        learn(cls.trainable(network, training.batch_size), training, generators(run)[1], context, model)
        return model()

    @property
    def n_items(self) -> int:
        """Size of the catalog, I."""
        return len(self.tables.items)

    def embeddings(self) -> Embeddings:
        """The tables as they score."""
        return self.tables

    def recommend(self, query: Query, k: int, *, options: Options = Options(), seed: int = 0) -> Ranking:
        """As `Recommender.recommend`."""
        del seed
        refuse_options(self.name, options.asked())
        query = query.to(self.tables.items.device)
        grounding = TopK(self.tables.score, self.n_items)
        return grounding(self.points(query), k, seen=query.exclude, candidates=query.candidates).cpu()

    def points(self, query: Query) -> Tensor:
        """The vector of each subject, (B, D); zeros without a name that is known and a history."""
        met = distinct(query.history, self.n_items)
        shares = met.lengths[met.rows].to(self.newcomer.dtype).rsqrt()
        folded = SparseRows(met.indptr, met.items, shares, self.n_items).project(self.newcomer)
        if self.config.fold_in:
            return folded
        learned, known = self.tables.of_users(query)
        return torch.where(known.unsqueeze(1), learned, folded)

    def state(self) -> dict[str, Tensor]:
        """Vectors of items, and what these give to newcomers, (I, D) each; of users who have names, (U, D), and their keys."""
        users = {} if self.tables.users is None else {"users": self.tables.users}
        keys = {} if self.tables.keys is None else {"keys": self.tables.keys}
        return {"items": self.tables.items, "newcomer": self.newcomer, **users, **keys}

    @classmethod
    def restore(cls, config: FrozenConfig, state: Mapping[str, Tensor], device: str) -> Self:
        """Rebuild from `state`."""
        assert isinstance(config, FactorsConfig)
        at = {name: tensor.to(device) for name, tensor in state.items()}
        items, newcomer, users, keys = at["items"], at["newcomer"], at.get("users"), at.get("keys")
        size = config.embedding_size
        fits = users is keys if users is None or keys is None else users.shape == (len(keys), size)
        if not fits or newcomer.shape != items.shape or items.shape[1] != size:
            shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
            raise RuntimeError(f"tables are {shapes}, the settings say vectors of {size}")
        return cls(config, Embeddings(items, users, keys), newcomer)


def _take_over(network: Network, keys: Tensor | None, initial: Mapping[str, Tensor]) -> None:
    """Begin with the vectors of an earlier model as they scored: its items come first, its users are found by name.

    Args: keys: (U,) int64, of the users of the network.
    Raises: InvalidInput when its vectors have another width, or its items are more.
    """
    earlier = Embeddings(initial["items"], initial.get("users"), initial.get("keys"))
    if earlier.width != network.items.shape[1] or len(earlier.items) > len(network.items):
        raise InvalidInput(
            say("The earlier model has other vectors", got=tuple(earlier.items.shape), remedy="Train from scratch")
        )
    with torch.no_grad():
        network.items[: len(earlier.items)] = earlier.items
        if keys is not None:
            asked = replace(Query.from_history(Ragged.empty(len(keys))), key=keys)
            learned, known = earlier.of_users(asked)
            network.users.copy_(torch.where(known.unsqueeze(1).to(keys.device), learned.to(keys.device), network.users))
