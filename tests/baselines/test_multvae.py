"""Mult-VAE: its loss and its answer worked by hand, the annealing, and what training may not depend on."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from rediffuse.baselines.multvae import MultVAE, MultVAEConfig, RowVAE, _RowTraining, unit
from rediffuse.config import RunConfig
from rediffuse.data.weighting import RecencyConfig, weigh
from rediffuse.errors import InvalidInput, UnsupportedOption
from rediffuse.protocols import FitContext, FitData, Progress
from rediffuse.training.loop import TrainingConfig
from rediffuse.types import Options, Query, Ragged

ITEMS = 12
CPU = RunConfig(device="cpu", threads=1)


def histories() -> Ragged:
    generator = torch.Generator().manual_seed(0)
    return Ragged.of([torch.randperm(ITEMS, generator=generator)[: 2 + user % 5].tolist() for user in range(30)])


DATA = FitData(histories(), ITEMS, "sequence")


def fitted(data: FitData = DATA, context: FitContext | None = None, epochs: int = 3, **settings: object) -> MultVAE:
    config = MultVAEConfig.make({"hidden": (8,), "latent": 3, **settings})
    training = TrainingConfig(epochs=epochs, batch_size=7, validate_every=2)
    return MultVAE.fit(config, training, data, context or FitContext(CPU))


def all_scores(model: MultVAE, history: Ragged) -> Tensor:
    ranking = model.recommend(Query.from_history(history, exclude=Ragged.empty(len(history))), model.n_items)
    return torch.zeros(len(history), model.n_items).scatter(1, ranking.items, ranking.scores)


def test_the_loss_worked_by_hand() -> None:
    """Weights of 0 leave the biases: pi = (1/4, 1/2, 1/4), mu = (1, 2), sigma^2 = (1, 4), whatever z is drawn."""
    config = MultVAEConfig(hidden=(2,), latent=2, beta=0.2, annealing_steps=4)
    network = RowVAE(3, (2,), 2)
    with torch.no_grad():
        for weight in network.parameters():
            weight.zero_()
        network.out.bias.copy_(torch.tensor([1.0, 2.0, 1.0]).log())
        network.encoder[0].bias.copy_(torch.tensor([1.0, 2.0, 0.0, math.log(4)]))  # pyright: ignore[reportArgumentType]
    rows = weigh(Ragged.of([[0, 1], [2]]), config, 3)
    task, generator = _RowTraining(config, network, rows, 2), torch.Generator().manual_seed(0)
    error = torch.tensor([math.log(4) + math.log(2), math.log(4)])
    divergence = (1 + 7 - math.log(4)) / 2
    for beta in (0.0, 0.05, 0.1, 0.15, 0.2, 0.2):
        found = task.loss(torch.tensor([0, 1]), generator)
        torch.testing.assert_close(found["error"], error)
        torch.testing.assert_close(found["divergence"], torch.full((2,), divergence))
        torch.testing.assert_close(found["loss"], error + beta * divergence)


def test_how_far_the_annealing_has_come_is_state() -> None:
    task = _RowTraining(MultVAEConfig(), RowVAE(3, (2,), 2), weigh(Ragged.of([[0]]), RecencyConfig(), 3), 1)
    assert "annealing.step" in task.module.state_dict()


def test_an_answer_is_the_decoded_mean() -> None:
    """Numpy, layer by layer; weighted rows are divided by their length."""
    model = fitted(hidden=(8, 5), recency="linear", weight_min=0.2)
    w = {name: tensor.double().numpy() for name, tensor in model.state().items()}
    row = np.zeros(ITEMS)
    row[[3, 0, 7]] = [0.2, 0.6, 1.0]
    h = np.tanh(row / np.linalg.norm(row) @ w["lift_weight"] + w["lift_bias"])
    h = np.tanh(w["encoder.0.weight"] @ h + w["encoder.0.bias"])
    z = (w["encoder.1.weight"] @ h + w["encoder.1.bias"])[:3]
    for layer in range(2):
        z = np.tanh(w[f"decoder.{layer}.weight"] @ z + w[f"decoder.{layer}.bias"])
    expected = w["out.weight"] @ z + w["out.bias"]
    np.testing.assert_allclose(all_scores(model, Ragged.of([[3, 0, 7]]))[0], expected, rtol=1e-4, atol=1e-6)


def test_rows_are_divided_by_their_length() -> None:
    linear = RecencyConfig(recency="linear", weight_min=0.0)
    rows = unit(weigh(Ragged.of([[0, 1], [], [2], [4, 1, 3, 0]]), linear, 5))
    lengths = rows.dense().norm(dim=1)
    torch.testing.assert_close(lengths, torch.tensor([1.0, 0.0, 0.0, 1.0]))  # a single event weighs weight_min


def test_the_clean_row_is_never_seen_in_training() -> None:
    """Dropout falls on the input alone: with the draws of the run's generator, the target stays whole."""
    config = MultVAEConfig(hidden=(4,), latent=2, dropout=0.9)
    rows = weigh(Ragged.of([list(range(ITEMS))]), config, ITEMS)
    network = RowVAE(ITEMS, (4,), 2, generator=torch.Generator().manual_seed(1))
    task, generator = _RowTraining(config, network, rows, 1), torch.Generator().manual_seed(0)
    errors = torch.cat([task.loss(torch.tensor([0]), generator)["error"] for _ in range(20)])
    assert float(errors.detach().std()) > 0
    assert float(errors.detach().min()) > ITEMS * math.log(ITEMS) * 0.9  # the sum over all items, not those kept


def test_an_epoch_is_every_row_number_once() -> None:
    task = _RowTraining(MultVAEConfig(), RowVAE(ITEMS, (2,), 2), weigh(histories(), RecencyConfig(), ITEMS), 7)
    one, two = (list(task.batches(torch.Generator().manual_seed(seed))) for seed in (1, 2))
    assert [len(batch) for batch in one] == [7, 7, 7, 7, 2]
    assert all(batch.dtype == torch.int64 for batch in one)
    assert sorted(torch.cat(one).tolist()) == list(range(30))
    assert not torch.equal(torch.cat(one), torch.cat(two))


class Store:
    """Keeps the newest state; breaks off a run after so many."""

    def __init__(self, breaks_after: int) -> None:
        self.left, self.kept = breaks_after, None

    def due(self) -> bool:
        return True

    def save(self, tensors: Mapping[str, Tensor], state: Mapping[str, object]) -> None:
        if self.left == 0:
            raise KeyboardInterrupt
        self.left -= 1
        self.kept = {name: tensor.clone() for name, tensor in tensors.items()}, dict(state)

    def load(self) -> Any:
        return self.kept


@pytest.mark.parametrize("breaks_after", [1, 8])
def test_an_interrupted_training_ends_as_if_it_had_not_been(breaks_after: int) -> None:
    """Inside an epoch and with the annealing on its way."""
    whole = fitted(epochs=4, annealing_steps=15).state()
    store = Store(breaks_after)
    with pytest.raises(KeyboardInterrupt):
        fitted(context=FitContext(CPU, checkpoint=store), epochs=4, annealing_steps=15)
    store.left = -1
    resumed = fitted(context=FitContext(CPU, checkpoint=store), epochs=4, annealing_steps=15).state()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_it_learns_and_goes_on_from_an_earlier_model() -> None:
    losses: list[float] = []

    def report(progress: Progress) -> None:
        losses.append(progress.loss)

    first = fitted(context=FitContext(CPU, report=report), epochs=30)
    assert losses[-1] < losses[0]
    wider = FitData(DATA.history, ITEMS + 2, "sequence")
    second = fitted(wider, FitContext(CPU, report=report, initial=first.state()), epochs=1)
    assert second.n_items == ITEMS + 2
    moved = (second.state()["lift_weight"][:ITEMS] - first.state()["lift_weight"]).abs().max()
    assert float(moved) < 0.02


def test_refusals() -> None:
    with pytest.raises(InvalidInput, match="needs events in a known order"):
        fitted(FitData(histories(), ITEMS, "none"), recency="linear")
    with pytest.raises(UnsupportedOption, match="multvae cannot use 'draws'"):
        fitted().recommend(Query.from_history(histories()), 2, options=Options(draws=2))


@pytest.mark.gpu
def test_it_trains_and_answers_on_a_gpu() -> None:
    model = fitted(context=FitContext(RunConfig(device="cuda")))
    again = MultVAE.restore(model.config, model.state(), "cpu")
    torch.testing.assert_close(all_scores(again, histories()), all_scores(model, histories()), rtol=1e-4, atol=1e-5)
