"""What a DDRM is, how it is trained, and its loss.

    L = mean_b  w ((1 - alpha) L_rank + alpha L_reconstruction)

    item           x_0 = e_i noised and e_u noised, each denoised given the other: u~ = f_u(x_t^u, e_i, t), i~ = f_i(x_t^i, e_u, t)
                   L_rank = softplus(u~ . j - u~ . i~),   j = e_j as it is, or denoised as i~ was
                   L_reconstruction = (mean_d (u~ - e_u)^2 + mean_d (i~ - e_i)^2) / 2
    history_mean   x_0 = m, the mean of what a user had besides i or before it, as answers begin:  q = f_i(x_t, c, t)
                   L_rank = softplus(q . e_j - q . e_i), or -log of the share of i in a softmax over drawn items
                   L_reconstruction = mean_d (q - e_i)^2
    w              1,   sigmoid(s)^beta   or   B softmax_b(beta s),   s the score of the positive, no gradient through it

Reference: Zhao et al. 2024 (DDRM), section 3.3; the sigmoid is that of its released code, the softmax that of the paper.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal, Self

import torch
from pydantic import Field, PositiveFloat, PositiveInt, model_validator
from torch import Tensor, nn

from rediffuse.data.weighting import RecencyConfig, weigh
from rediffuse.denoisers.conditioning import HISTORY, thinned
from rediffuse.denoisers.point import PointDenoiser
from rediffuse.errors import InvalidInput, say
from rediffuse.models.chain import ChainConfig, ScheduleName, StartName
from rediffuse.models.gaussian import Drawn, Objective
from rediffuse.networks.dropout import drop
from rediffuse.networks.graph import distinct
from rediffuse.noise.process import add_noise
from rediffuse.protocols import FitData
from rediffuse.spaces.embeddings import Embeddings
from rediffuse.spaces.tables import TablesConfig, mean_of
from rediffuse.training.loop import TrainingConfig
from rediffuse.training.pairs import Pairs, bpr, softmax
from rediffuse.training.rows import shuffled
from rediffuse.types import Condition, Query, Ragged, SparseRows


class DDRMConfig(ChainConfig, RecencyConfig, TablesConfig):
    """What a DDRM is. Recency weighs the events of the history whose mean a reverse process begins with."""

    hidden: tuple[PositiveInt, ...] = Field(default=(400,), min_length=1)
    """Widths of the hidden layers of a denoiser; the authors' dims [a, b] read (b, a, b) here."""
    activation: Literal["relu", "sigmoid", "tanh"] = "relu"
    """What follows each hidden layer."""
    time_width: int = Field(default=10, ge=2)
    """Width of the time embedding."""
    skip: bool = True
    """Whether the estimate is the condition and what the network adds, which is nothing at first."""
    unit: bool = True
    """Whether vectors are divided by the root mean square of the items' entries, so that noise is measured against them."""
    subject: Literal["history", "user"] = "history"
    """The condition: the mean of the history, or the vector of the user where the tables know them, else that mean."""
    train_on: Literal["history_mean", "item"] = "history_mean"
    """What is noised in training: the mean of a history, as in an answer; or single items, as published."""
    given: Literal["others", "before"] = "others"
    """history_mean: what a positive item is predicted from, all others of its user or those before it."""
    horizon: PositiveInt = 10
    """history_mean, before: how many events ahead a positive may lie at most."""
    history_dropout: float = Field(default=0.3, ge=0, lt=1)
    """history_mean: share of what is given that is left out in training."""
    user_side: bool = False
    """item: whether the user is noised and denoised too, in training alone."""
    negative: Literal["denoised", "raw"] = "denoised"
    """item: how a negative is scored, like the positive or as it is."""
    ranking: Literal["softmax", "bpr"] = "softmax"
    """history_mean: the ranking loss; that of single items is bpr."""
    negatives: int = Field(default=1024, ge=2)
    """softmax: how many items, drawn anew for each step, stand for the catalog; all of them where there are no more."""
    temperature: PositiveFloat = 1.0
    """What scores are divided by in the ranking loss: smaller looks at the hardest items."""
    reconstruction: float = Field(default=0.1, ge=0, le=1)
    """alpha, the share of the reconstruction in the loss."""
    weight: Literal["none", "sigmoid_pow", "softmax"] = "none"
    """How an example weighs."""
    weight_power: float = Field(default=1.0, ge=0)
    """beta: how strongly; 0 is none."""
    example: Literal["event", "user"] = "event"
    """Whether examples are drawn evenly from events, or from users and then from their events."""
    condition: tuple[str, ...] = (HISTORY,)
    """What steers the reverse process: a vector of who asks, as `subject` says."""
    levels: PositiveInt = 20
    noise_scale: float = Field(default=1.0, ge=0)
    noise_min: float = Field(default=0.01, ge=0)
    noise_max: float = Field(default=0.3, gt=0)
    first_beta: float = Field(default=0.0, ge=0, lt=1)
    """Replaces beta_1 of linear_variance; 0 leaves the prescribed variances. The authors' 1e-5 is most of their noise."""
    schedule: ScheduleName = "linear_variance"
    dropout: float = Field(default=0.1, ge=0, lt=1)
    level_choice: Literal["uniform", "importance"] = "uniform"
    loss_weight: Literal["elbo", "min_snr", "none"] = "none"
    start: StartName = "noised_history"
    draws_start: StartName | None = None

    @model_validator(mode="after")
    def _of_one_vector(self) -> Self:
        if self.condition != (HISTORY,):
            raise ValueError(f"condition must be {HISTORY}; it is {', '.join(self.condition) or 'empty'}")
        return self

    @property
    def thinning(self) -> float:
        """The share of a history that training left out."""
        return self.history_dropout if self.train_on == "history_mean" else 0.0

    def denoiser(self, width: int, generator: torch.Generator | None) -> PointDenoiser:
        """A network over points, its first weights drawn. Args: width: D."""
        return PointDenoiser(
            width,
            self.hidden,
            time_width=self.time_width,
            activation=self.activation,
            skip=self.skip,
            generator=generator,
        )


class DDRMTraining(TrainingConfig):
    """How the denoisers are trained; the backbone is trained as its own settings say."""

    batch_size: PositiveInt = 2048
    """Examples per step."""


@dataclass(frozen=True)
class Points:
    """A `Space`: histories <-> points, over the tables in the unit in which noise is added."""

    tables: Embeddings
    items: Tensor
    """(I, D), divided by `scale`."""
    scale: float

    @classmethod
    def of(cls, tables: Embeddings, *, unit: bool) -> Self:
        """Args: unit: divide by the root mean square of the items' entries."""
        scale = float(tables.items.to(torch.float64).square().mean().sqrt()) if unit else 1.0
        return cls(tables, tables.items / (scale or 1.0), scale or 1.0)

    def encode(self, batch: SparseRows) -> Tensor:
        """The mean of each history. Args: batch: weights of its items, (B, I). Returns: (B, D)."""
        return mean_of(batch, self.items)

    def subject(self, query: Query, mean: Tensor, *, user: bool) -> Condition:
        """Who asks. Args: mean: of their histories, (B, D).   user: prefer the vector of the user, where it is known."""
        there = query.history.lengths > 0
        if not user:
            return Condition({HISTORY: mean}, {HISTORY: there})
        own, known = self.tables.of_users(query)
        return Condition({HISTORY: torch.where(known.unsqueeze(1), own / self.scale, mean)}, {HISTORY: known | there})

    def decode(self, x0: Tensor, items: Tensor | None = None) -> Tensor:
        """Inner products in the unit of the tables. Args: x0: (B, D).   items: (n,) or (B, n). Returns: (B, I) or (B, n)."""
        return self.tables.score(x0 * self.scale, items)


class DDRMTask:
    """The `Trainable`: an example is one event of a user."""

    def __init__(self, config: DDRMConfig, batch_size: int, points: Points, item: PointDenoiser, data: FitData) -> None:
        """Args: item: f_i; f_u, which no answer uses, is made by `with_user_side`.

        Raises: InvalidInput when there is no example.
        """
        self.config, self.batch_size, self.points, self.item = config, batch_size, points, item
        device = points.items.device
        self.history = data.history.to(device)
        self.keys = None if data.keys is None else data.keys.to(device)
        self.pairs = Pairs.of(distinct(self.history, data.n_items), data.n_items)
        self.examples = self._examples()
        self.objective = Objective(config, device)
        self.user: PointDenoiser | None = None
        self.module = nn.ModuleDict({"item": item, "levels": self.objective.levels})

    def with_user_side(self, user: PointDenoiser) -> Self:
        """Train f_u beside f_i."""
        self.user = user
        self.module["user"] = user
        return self

    def batches(self, generator: torch.Generator) -> Iterator[Tensor]:
        """The numbers of the examples, each once, in a new order, (B,)."""
        return shuffled(self.examples.items, self.batch_size, generator)

    def loss(self, batch: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """As at the head of this file. Args: batch: numbers of examples (B,). Returns: loss, its parts and level, (B,) each."""
        events = self.examples.items[self._chosen(batch, generator)]
        of = self._means if self.config.train_on == "history_mean" else self._items
        values, positive, rank = of(events, generator)
        alpha, beta = self.config.reconstruction, self.config.weight_power
        score = positive.detach()
        weight: Tensor | float = 1.0
        if self.config.weight == "sigmoid_pow":
            weight = torch.sigmoid(score) ** beta
        elif self.config.weight == "softmax":
            weight = len(score) * torch.softmax(beta * score, dim=0)
        return {**values, "rank": rank, "loss": weight * ((1 - alpha) * rank + alpha * values["loss"])}

    def _examples(self) -> Ragged:
        """Places of events that may be positive, by user."""
        rows, ranks = self.history.rows, self.history.ranks
        able = self.pairs.met.lengths[rows] < self.pairs.n_items
        if self.config.train_on == "history_mean":
            able &= (self.history.lengths[rows] > 1) if self.config.given == "others" else (ranks > 0)
        if not bool(able.any()):
            raise InvalidInput(say("There is nothing to learn from: nobody has two events"))
        kept = self.history.keep(able)
        return Ragged(kept.indptr, able.nonzero().squeeze(1))

    def _chosen(self, batch: Tensor, generator: torch.Generator) -> Tensor:
        """Which examples, (B,): those of the batch, or as many of users drawn evenly."""
        if self.config.example == "event":
            return batch
        lengths = self.examples.lengths
        some = lengths.nonzero().squeeze(1)
        users = some[torch.randint(len(some), batch.shape, generator=generator, device=batch.device)]
        share = torch.rand(len(batch), generator=generator, device=batch.device, dtype=torch.float64)
        return self.examples.indptr[users] + (share * lengths[users]).long()

    def _query(self, users: Tensor, history: Ragged) -> Query:
        """Users as they would ask. Args: users: (B,).   history: of each."""
        query = Query.from_history(history)
        return query if self.keys is None else replace(query, key=self.keys[users])

    def _subject(self, users: Tensor, history: Ragged) -> tuple[Tensor, Condition]:
        """The mean of a history, (B, D), and who asks."""
        mean = self.points.encode(weigh(history, self.config, len(self.points.items)))
        return mean, self.points.subject(self._query(users, history), mean, user=self.config.subject == "user")

    def _means(self, events: Tensor, generator: torch.Generator) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """One side: from the mean of what is given to the positive. Returns: values, score and ranking loss."""
        config, items = self.config, self.points.items
        users = torch.searchsorted(self.history.indptr, events, right=True) - 1
        positive, rank = self.history.items[events], events - self.history.indptr[users]
        own = self.history.select(users)
        if config.given == "before":
            share = torch.rand(len(events), generator=generator, device=events.device, dtype=torch.float64)
            moment = rank - (share * rank.clamp(max=config.horizon)).long()
            own = own.keep(own.ranks < moment[own.rows])
        else:
            own = own.keep(own.ranks != rank[own.rows])
        if config.history_dropout:
            kept = torch.rand(own.items.shape, generator=generator, device=events.device) >= config.history_dropout
            own = own.keep(kept)
        mean, cond = self._subject(users, own)
        cond = thinned(cond, config.condition_drop, generator)
        wanted = items[positive]
        values, estimate = self.objective.loss(self.item, mean, cond, generator, wanted=wanted)
        query = estimate * (self.points.scale**2 / config.temperature)
        score = (query * wanted).sum(1)
        if config.ranking == "bpr":
            drawn = self.pairs.negatives(users, generator)
            return values, score, bpr(score, (query * items[drawn]).sum(1))
        drawn = torch.randperm(len(items), generator=generator, device=events.device)[: config.negatives]
        same = drawn == positive.unsqueeze(1)
        return values, score, softmax(score, query @ items[drawn].t(), same, len(items))

    def _items(self, events: Tensor, generator: torch.Generator) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """Both sides: single items, given their user, and the user, given the item. Returns: as `_means`."""
        config, items, objective = self.config, self.points.items, self.objective
        users = torch.searchsorted(self.history.indptr, events, right=True) - 1
        _, whole = self._subject(users, self.history.select(users))
        query, e_i = whole.values[HISTORY], items[self.history.items[events]]
        cond = thinned(whole, config.condition_drop, generator)
        drawn = objective.draw(e_i, generator)
        values, positive = objective.loss(self.item, e_i, cond, generator, drawn=drawn)
        e_j = items[self.pairs.negatives(users, generator)]
        if config.negative == "denoised":
            x_t = self._noised(e_j, drawn, generator).x_t
            e_j = self.item(drop(x_t, config.dropout, generator), drawn.t, cond)
        if self.user is not None:
            of_item = Condition({HISTORY: e_i}, {HISTORY: torch.ones_like(events, dtype=torch.bool)})
            noised = self._noised(query, drawn, generator)
            side, query = objective.loss(self.user, query, of_item, generator, drawn=noised)
            values = {**values, "loss": (values["loss"] + side["loss"]) / 2}
        query = query * (self.points.scale**2 / config.temperature)
        score = (query * positive).sum(1)
        return values, score, bpr(score, (query * e_j).sum(1))

    def _noised(self, x0: Tensor, drawn: Drawn, generator: torch.Generator) -> Drawn:
        """Another x_0 at the levels already drawn, under noise of its own."""
        eps = torch.empty_like(x0).normal_(generator=generator)
        return drawn._replace(x_t=add_noise(x0, drawn.t, eps, self.objective.schedule), eps=eps)
