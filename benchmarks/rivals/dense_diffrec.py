"""DiffRec (Wang et al., SIGIR 2023) as the paper and its released settings describe it, in dense rows.

Written from the paper's description, without rediffuse, as its rival in the same run and as an oracle for its tests:
a users x items float32 matrix, the whole reverse chain over item space, the losses of the levels kept in a loop.
Levels run t = 1 .. T; everything below is indexed by i = t - 1, which is also what the network is told.
"""

import math
import time
from dataclasses import dataclass
from itertools import pairwise
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.rivals.ranking import CUTOFFS, mean_metrics

Pairs = NDArray[np.int64]
"""(n, 2) rows of user and item, ids from 0."""

TIME_SIZE = 10
HISTORY_SIZE = 10
UNIFORM_SHARE = 0.001
EVALUATION_BATCH = 400
LIST_SIZE = 100


@dataclass(frozen=True)
class Settings:
    """One released configuration: linear-variance noise, x_0 prediction, no noise at inference."""

    dims: tuple[int, ...]
    """Hidden widths from the narrowest layer out to the output; mirrored on the way in."""
    T: int
    noise_scale: float
    noise_min: float
    noise_max: float
    learning_rate: float
    batch_size: int
    first_beta: float | None = 1e-5
    """Replaces beta_1 before the products are taken; None leaves the schedule as it is."""
    reweight: bool = True
    dropout: float = 0.5

    def __post_init__(self) -> None:
        if not self.dims or self.T < 1:
            raise ValueError(f"dims and T must name at least one layer and one level. Got {self.dims}, {self.T}.")
        if not (self.noise_scale > 0 and 0 < self.noise_min < self.noise_max):
            raise ValueError(
                "noise_scale must be above 0 and 0 < noise_min < noise_max. "
                f"Got {self.noise_scale}, {self.noise_min}, {self.noise_max}."
            )


ML_1M_CLEAN = Settings((200, 600), 40, 0.005, 0.005, 0.01, 1e-3, 400)


@dataclass(frozen=True)
class Schedule:
    """Tables over the levels, each (T,) float64; level t stands at t - 1."""

    beta: Tensor
    alpha_bar: Tensor
    variance: Tensor
    """1 - alpha_bar: the variance of x_t around sqrt(alpha_bar) x_0."""
    snr: Tensor
    weight: Tensor
    """w_1 = 1, w_t = snr(t-1) - snr(t): what the squared error of a level counts in the loss."""
    from_x0: Tensor
    """c1 of the posterior mean c1 x_0 + c2 x_t."""
    from_xt: Tensor
    """c2 of the posterior mean."""
    posterior_variance: Tensor


def linear_variance_betas(settings: Settings) -> Tensor:
    """The betas (T,) float64 for which 1 - alpha_bar is linear in t, then the override of the first one."""
    variance = settings.noise_scale * torch.linspace(
        settings.noise_min, settings.noise_max, settings.T, dtype=torch.float64
    )
    alpha_bar = 1 - variance
    beta = torch.cat([variance[:1], (1 - alpha_bar[1:] / alpha_bar[:-1]).clamp(max=0.999)])
    if settings.first_beta is not None:
        beta[0] = settings.first_beta
    return beta


def make_schedule(beta: Tensor) -> Schedule:
    """All tables that follow from beta (T,) float64.

    c1 = beta_t sqrt(abar_{t-1}) / (1 - abar_t);   c2 = (1 - abar_{t-1}) sqrt(1 - beta_t) / (1 - abar_t)
    """
    alpha_bar = torch.cumprod(1 - beta, 0)
    before = torch.cat([torch.ones_like(beta[:1]), alpha_bar[:-1]])
    # Summed, not subtracted from 1: near 1e-5 the subtraction loses digits, and c1_1 = 1 would not be exact.
    variance = torch.cumsum(before * beta, 0)
    variance_before = torch.cat([torch.zeros_like(beta[:1]), variance[:-1]])
    snr = alpha_bar / variance
    return Schedule(
        beta=beta,
        alpha_bar=alpha_bar,
        variance=variance,
        snr=snr,
        weight=torch.cat([torch.ones_like(beta[:1]), snr[:-1] - snr[1:]]),
        from_x0=beta * before.sqrt() / variance,
        from_xt=variance_before * (1 - beta).sqrt() / variance,
        posterior_variance=beta * variance_before / variance,
    )


def q_sample(schedule: Schedule, x0: Tensor, index: Tensor, noise: Tensor) -> Tensor:
    """x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) noise.   Args: x0, noise: (B, I).   index: (B,) int64, t - 1."""
    scale = schedule.alpha_bar[index].sqrt().to(x0.dtype)[:, None]
    std = schedule.variance[index].sqrt().to(x0.dtype)[:, None]
    return scale * x0 + std * noise


def time_embedding(index: Tensor) -> Tensor:
    """[cos, sin](i 10000^(-k/5)), k = 0 .. 4.   Args: index: (B,) int64, t - 1.   Returns: (B, 10) float64."""
    half = TIME_SIZE // 2
    exponent = torch.arange(half, dtype=torch.float64, device=index.device) / half
    angles = index[:, None] * torch.exp(-math.log(10_000) * exponent)
    return torch.cat([angles.cos(), angles.sin()], dim=1)


class DenseDiffRec(nn.Module):
    """The denoiser over whole rows, items + 10 -> reversed dims -> items, and its reverse chain.

    Limits: one reverse step costs 2 B I H multiply-adds and holds a few (B, I) tensors.
    """

    def __init__(self, settings: Settings, items: int) -> None:
        super().__init__()
        self.settings = settings
        self.schedule = make_schedule(linear_variance_betas(settings))
        inward = tuple(reversed(settings.dims))
        widths = [items + TIME_SIZE, *inward, *settings.dims[1:], items]
        self.time_layer = nn.Linear(TIME_SIZE, TIME_SIZE)
        self.layers = nn.ModuleList(nn.Linear(fan_in, fan_out) for fan_in, fan_out in pairwise(widths))
        self.dropout = nn.Dropout(settings.dropout)
        for layer in (self.time_layer, *self.layers):
            linear = cast("nn.Linear", layer)
            nn.init.xavier_normal_(linear.weight)
            nn.init.normal_(linear.bias, std=0.001)

    def forward(self, x: Tensor, index: Tensor) -> Tensor:
        """The estimate of x_0, (B, I).   Args: x: x_t, (B, I).   index: (B,) int64, t - 1."""
        told = self.time_layer(time_embedding(index).to(x.dtype))
        hidden = torch.cat([self.dropout(x), told], dim=1)
        for layer in self.layers[:-1]:
            hidden = torch.tanh(layer(hidden))
        return self.layers[-1](hidden)

    @torch.no_grad()
    def reverse_chain(self, x: Tensor, steps: int | None = None) -> Tensor:
        """Walk from level `steps` down to the scores, x <- c1_t f(x, t) + c2_t x, without any noise.

        Args: x: the history, taken as the state at the first level, (B, I).   steps: 1 .. T; None is all T.
        Returns: scores, (B, I); unbounded.
        Raises: ValueError for other steps, RuntimeError in training mode (dropout would act).
        """
        steps = self.settings.T if steps is None else steps
        if not 1 <= steps <= self.settings.T:
            raise ValueError(f"steps must be 1..{self.settings.T}. Got {steps}. Leave it out for all levels.")
        if self.training:
            raise RuntimeError("The model is in training mode, so dropout would act. Call eval() first.")
        for i in reversed(range(steps)):
            x0 = self(x, torch.full((len(x),), i, device=x.device))
            x = float(self.schedule.from_x0[i]) * x0 + float(self.schedule.from_xt[i]) * x
        return x


class LossHistory:
    """The last 10 losses of every level, (T, 10) float64, and the levels drawn from them."""

    def __init__(self, levels: int) -> None:
        self.losses = torch.zeros(levels, HISTORY_SIZE, dtype=torch.float64)
        self.count = torch.zeros(levels, dtype=torch.int64)

    def probabilities(self) -> Tensor | None:
        """q_t ~ sqrt(mean of squared losses), mixed with a thousandth of uniform, (T,); None until all are full."""
        if bool((self.count < HISTORY_SIZE).any()):
            return None
        size = self.losses.square().mean(dim=1).sqrt()
        return (1 - UNIFORM_SHARE) * size / size.sum() + UNIFORM_SHARE / len(size)

    def sample(self, batch_size: int) -> tuple[Tensor, Tensor]:
        """Indices t - 1 (B,) int64 and the correction p_t = q_t T (B,) float64, by which a loss is divided."""
        q = self.probabilities()
        if q is None:
            return torch.randint(len(self.count), (batch_size,)), torch.ones(batch_size, dtype=torch.float64)
        index = torch.multinomial(q, batch_size, replacement=True)
        return index, q[index] * len(q)

    def update(self, index: Tensor, losses: Tensor) -> None:
        """Put in each example's weighted loss, in batch order, one at a time.   Args: index, losses: (B,)."""
        for i, loss in zip(index.tolist(), losses.tolist(), strict=True):
            filled = int(self.count[i])
            if filled == HISTORY_SIZE:
                self.losses[i, :-1] = self.losses[i, 1:].clone()
                self.losses[i, -1] = loss
            else:
                self.losses[i, filled] = loss
                self.count[i] += 1


def training_loss(model: DenseDiffRec, x0: Tensor, history: LossHistory) -> Tensor:
    """The mean over the batch of w_t mse / p_t, a float64 scalar; the history is updated.   Args: x0: (B, I)."""
    index, p = history.sample(len(x0))
    estimate = model(q_sample(model.schedule, x0, index, torch.randn_like(x0)), index)
    losses = (x0 - estimate).square().mean(dim=1).double()
    if model.settings.reweight:
        losses = model.schedule.weight[index] * losses
    history.update(index, losses.detach())
    return (losses / p).mean()


def evaluate(model: DenseDiffRec, rows: Tensor, seen: Tensor, relevant: list[set[int]]) -> dict[str, float]:
    """Mean metrics of the top 100 of the whole chain.   Args: rows, seen: histories and what is masked, (U, I)."""
    model.eval()
    size = min(LIST_SIZE, rows.shape[1])
    rankings: list[list[int]] = []
    for batch in torch.arange(len(rows)).split(EVALUATION_BATCH):
        scores = model.reverse_chain(rows[batch])
        scores[seen[batch] > 0] = -math.inf
        rankings.extend(torch.topk(scores, size).indices.tolist())
    return mean_metrics(rankings, relevant, CUTOFFS)


def dense_rows(pairs: Pairs, users: int, items: int) -> Tensor:
    """The 0/1 matrix of the pairs, (U, I) float32; a repeated pair counts once."""
    rows = torch.zeros(users, items)
    rows[torch.from_numpy(pairs[:, 0]), torch.from_numpy(pairs[:, 1])] = 1.0
    return rows


def item_sets(pairs: Pairs, users: int) -> list[set[int]]:
    """The items of every user."""
    sets: list[set[int]] = [set() for _ in range(users)]
    for user, item in pairs.tolist():
        sets[user].add(item)
    return sets


@dataclass(frozen=True)
class Report:
    """What a training cost and reached."""

    epochs: int
    train_seconds: float
    evaluate_seconds: float
    """Both parts, at every evaluation; not in train_seconds."""
    valid: list[dict[str, float]]
    """Metrics such as "recall@20" after every `evaluate_every`-th epoch; train items are masked."""
    test: list[dict[str, float]]
    """The same; train and valid items are masked. The history is train in both."""


def train(
    settings: Settings,
    train_pairs: Pairs,
    valid_pairs: Pairs,
    test_pairs: Pairs,
    *,
    epochs: int,
    evaluate_every: int = 5,
    seed: int,
) -> tuple[DenseDiffRec, Report]:
    """Train for all the epochs, without early stopping; the caller's random state is left as it was.

    Raises: ValueError if valid or test hold a user or item beyond the largest in train.
    Limits: two dense users x items float32 matrices. As published, the two parts are inferred apart,
    although they share the history: that is half of evaluate_seconds.
    """
    users, items = (int(largest) + 1 for largest in train_pairs.max(axis=0))
    for name, pairs in (("valid", valid_pairs), ("test", test_pairs)):
        if len(pairs) and ((pairs < 0) | (pairs >= (users, items))).any():
            raise ValueError(f"{name}_pairs must lie within the {users} users and {items} items of train_pairs.")
    rows = dense_rows(train_pairs, users, items)
    seen_at_test = rows + dense_rows(valid_pairs, users, items)
    valid_items, test_items = item_sets(valid_pairs, users), item_sets(test_pairs, users)

    train_seconds = evaluate_seconds = 0.0
    valid: list[dict[str, float]] = []
    test: list[dict[str, float]] = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = DenseDiffRec(settings, items)
        optimizer = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, weight_decay=0.0)
        history = LossHistory(settings.T)
        for epoch in range(1, epochs + 1):
            start = time.perf_counter()
            model.train()
            for batch in torch.randperm(users).split(settings.batch_size):
                optimizer.zero_grad()
                training_loss(model, rows[batch], history).backward()
                optimizer.step()
            train_seconds += time.perf_counter() - start
            if epoch % evaluate_every == 0:
                start = time.perf_counter()
                valid.append(evaluate(model, rows, rows, valid_items))
                test.append(evaluate(model, rows, seen_at_test, test_items))
                evaluate_seconds += time.perf_counter() - start
    return model.eval(), Report(epochs, train_seconds, evaluate_seconds, valid, test)
