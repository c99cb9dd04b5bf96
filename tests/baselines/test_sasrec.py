"""SASRec: its loss worked by hand, what a horizon asks, and what training may not depend on."""

import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from rediffuse.baselines import sasrec
from rediffuse.baselines.sasrec import NextItem, SASRec, SASRecConfig, SASRecTraining, _SequenceTraining
from rediffuse.config import RunConfig
from rediffuse.errors import InvalidConfig, InvalidInput, UnsupportedOption
from rediffuse.protocols import FitContext, FitData, Progress
from rediffuse.types import Options, Query, Ragged

ITEMS = 12
CPU = RunConfig(device="cpu", threads=1)
SMALL = {"width": 8, "heads": 2, "layers": 1, "history_length": 4}


def rounds(users: int = 30) -> Ragged:
    """Whoever had item i has i + 1 next, from different beginnings on."""
    return Ragged.of([[(user + step) % ITEMS for step in range(2 + user % 6)] for user in range(users)])


DATA = FitData(rounds(), ITEMS, "sequence")


def fitted(data: FitData = DATA, context: FitContext | None = None, epochs: int = 3, **settings: object) -> SASRec:
    config = SASRecConfig.make({**SMALL, **settings})
    training = SASRecTraining(epochs=epochs, batch_size=7, validate_every=2, learning_rate=0.01)
    return SASRec.fit(config, training, data, context or FitContext(CPU))


def task(history: Ragged, **settings: object) -> _SequenceTraining:
    config = SASRecConfig.make({**SMALL, **settings})
    return _SequenceTraining(config, NextItem(config, ITEMS, generator=torch.Generator().manual_seed(0)), history, 7)


def test_the_loss_worked_by_hand() -> None:
    """-(1 - s) log p - s / I sum log p at each place, with the logits of the states that the places have."""
    one = task(Ragged.of([[3, 1, 2], [5, 4]]), dropout=0.0, label_smoothing=0.2)
    found = one.loss(torch.tensor([0, 1]), torch.Generator().manual_seed(0))["loss"]
    logs = []
    for history, target in (([3], 1), ([3, 1], 2), ([5], 4)):
        logits = one.module.head(one.module.states(torch.tensor([history]))[0, -1:])[0].detach().double()
        log = logits - logits.exp().sum().log()
        logs.append(-(0.8 * log[target] + 0.2 * log.mean()))
    torch.testing.assert_close(found.detach().double(), torch.stack(logs), rtol=1e-5, atol=1e-6)


def test_parts_give_the_loss_and_gradient_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[tuple[Tensor, Tensor]] = []
    for scored in (1 << 26, 5 * ITEMS, 1):
        monkeypatch.setattr(sasrec, "_SCORED", scored)
        one = task(rounds(), horizon=3)
        loss = one.loss(torch.arange(20), torch.Generator().manual_seed(1))["loss"]
        loss.mean().backward()
        assert one.module.table.grad is not None
        found.append((loss.detach(), one.module.table.grad))
    for loss, gradient in found[1:]:
        torch.testing.assert_close(loss, found[0][0])
        torch.testing.assert_close(gradient, found[0][1])


def test_it_learns_what_comes_next_and_goes_on_from_an_earlier_model() -> None:
    losses: list[float] = []

    def report(progress: Progress) -> None:
        losses.append(progress.loss)

    context = FitContext(CPU, report=report)
    first = fitted(context=context, epochs=60, dropout=0.1)
    assert losses[-1] < losses[0] / 2
    query = Query.from_history(Ragged.of([[1, 2], [7, 8, 9]]))
    assert first.recommend(query, 1).items.tolist() == [[3], [10]]
    wider = FitData(DATA.history, ITEMS + 2, "sequence")
    second = fitted(wider, FitContext(CPU, initial=first.state()), epochs=1, dropout=0.1)
    assert second.n_items == ITEMS + 2
    assert second.recommend(query, 1).items.tolist() == [[3], [10]]


def test_a_longer_horizon_asks_for_what_comes_later() -> None:
    """One of the next four events, of which the next is as likely as those after it."""
    data = FitData(Ragged.of([[(user + step) % ITEMS for step in range(9)] for user in range(24)]), ITEMS, "sequence")
    model = fitted(data, epochs=200, dropout=0.0, history_length=8, horizon=4, width=16)
    query = Query.from_history(Ragged.of([[4, 5]]))
    far = model.recommend(query, 4, options=Options(horizon=4))
    assert sorted(far.items[0].tolist()) == [6, 7, 8, 9]
    assert torch.equal(far.scores, model.recommend(query, 4).scores), "as configured"
    near = model.recommend(query, 4, options=Options(horizon=1))
    assert int(near.items[0, 0]) == 6
    assert float(near.scores[0, 0] - near.scores[0, 1]) > 2 * float(far.scores[0, 0] - far.scores[0, 3])


def test_only_the_newest_events_are_read() -> None:
    model = fitted()
    long, short = (
        Query.from_history(Ragged.of([row]), exclude=Ragged.empty(1)) for row in ([9, 9, 1, 2, 3, 4], [1, 2, 3, 4])
    )
    assert torch.equal(model.recommend(long, 5).scores, model.recommend(short, 5).scores)


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
    """Inside an epoch, with windows, horizons and dropout drawn."""
    settings = {"epochs": 4, "horizon": 3}
    whole = fitted(**settings).state()
    store = Store(breaks_after)
    with pytest.raises(KeyboardInterrupt):
        fitted(context=FitContext(CPU, checkpoint=store), **settings)
    store.left = -1
    resumed = fitted(context=FitContext(CPU, checkpoint=store), **settings).state()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_the_first_loss_is_that_of_guessing() -> None:
    loss = task(rounds(), dropout=0.0).loss(torch.arange(30), torch.Generator().manual_seed(0))["loss"]
    assert float(loss.mean().detach()) == pytest.approx(math.log(ITEMS), rel=0.4)


def test_refusals() -> None:
    query = Query.from_history(rounds(2))
    with pytest.raises(InvalidInput, match="sasrec needs events in a known order; this data has none"):
        fitted(FitData(rounds(), ITEMS, "none"))
    with pytest.raises(InvalidConfig, match="heads must divide the width"):
        fitted(heads=3)
    with pytest.raises(UnsupportedOption, match="sasrec cannot use 'horizon'"):
        fitted().recommend(query, 2, options=Options(horizon=2))
    model = fitted(horizon=3)
    for horizon in (0, 4):
        with pytest.raises(UnsupportedOption, match=f"sasrec cannot use this 'horizon'. Got {horizon}. Allowed: 1..3"):
            model.recommend(query, 2, options=Options(horizon=horizon))


@pytest.mark.gpu
def test_it_trains_and_answers_on_a_gpu() -> None:
    model = fitted(context=FitContext(RunConfig(device="cuda")), horizon=3)
    again = SASRec.restore(model.config, model.state(), "cpu")
    query = Query.from_history(rounds(5))
    torch.testing.assert_close(again.recommend(query, 5).scores, model.recommend(query, 5).scores, rtol=1e-3, atol=1e-4)
