"""Errors of diffusions over next items against written-out formulas."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, logsigmoid, softplus

from rediffuse.denoisers.next_item import NextItemNetwork
from rediffuse.models.next_item_training import NextItemTraining, Step
from rediffuse.models.preferdiff import centroid
from rediffuse.noise.predictions import target
from rediffuse.protocols import FitData
from rediffuse.training.prefixes import Prefixes
from rediffuse.types import Condition, Ragged
from tests.models.next_items import ITEMS, METHODS, config

ROWS = [[3, 1, 4], [7, 1], [2, 9, 8, 5, 0], [6, 4], [10, 11, 2]]
BARE: dict[str, Any] = {"condition_drop": 0.0, "encoder_dropout": 0.0, "item_dropout": 0.0, "examples": "last"}


@dataclass
class Bench:
    """A training of one method in float64, and what its error was made of in the last batch."""

    name: str
    changes: dict[str, Any]
    rows: list[list[int]] = field(default_factory=lambda: ROWS)

    def __post_init__(self) -> None:
        self.config = config(self.name, **{**BARE, **self.changes})
        cls = METHODS[self.name]
        self.network = cls.network_of(self.config, ITEMS, torch.Generator().manual_seed(3)).double()
        data = FitData(Ragged.of(self.rows), ITEMS, "sequence")
        self.prefixes = Prefixes.of(data, self.config.history_length, "cpu", self.config.examples)
        self.draws = torch.Generator().manual_seed(8)
        self.after = torch.Generator()
        self.training = NextItemTraining(
            self.config,
            self.network,
            self.prefixes,
            16,
            self._error,
            consistency=self.config.consistency,
            stride=self.config.consistency_stride,
            alignment=self.config.alignment,
        )
        self.schedule = self.config.noise_schedule()

    def _error(self, step: Step) -> Tensor:
        """That of the method; keeps the batch, and the draws that come after it."""
        self.step = step
        self.after.set_state(self.draws.get_state())
        return METHODS[self.name].error(self.config, step)

    def loss(self) -> dict[str, Tensor]:
        return {k: v.detach() for k, v in self.training.loss(self.batch, self.draws).items()}

    @property
    def batch(self) -> Tensor:
        return torch.arange(len(self.prefixes))

    @property
    def cond(self) -> Condition:
        """Of the histories, which nothing draws."""
        return self.network.condition(self.prefixes.examples(self.batch, torch.Generator())[0])

    def noised(self, x0: Tensor, t: Tensor) -> Tensor:
        """alpha_t x_0 + sigma_t eps, with the very eps of the batch."""
        alpha, sigma = self.schedule.alpha[t].unsqueeze(1), self.schedule.sigma[t].unsqueeze(1)
        return alpha * x0 + sigma * self.step.drawn.eps

    def answer(self, x0: Tensor, t: Tensor | None = None) -> Tensor:
        """The network's, after the same histories."""
        t = self.step.drawn.t if t is None else t
        return self.network(self.noised(x0, t), t, self.cond).detach()


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found.double(), expected.detach().double(), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", METHODS)
def test_a_batch_is_the_wanted_items_noised_at_drawn_levels(name: str) -> None:
    bench = Bench(name, {"levels": 3})
    seen: list[int] = []
    for _ in range(20):
        found = bench.loss()
        step, table = bench.step, bench.network.table.detach()
        assert step.target.tolist() == [row[-1] for row in ROWS]
        close(step.x0, table[step.target])
        close(step.drawn.x_t, bench.noised(table[step.target], step.drawn.t))
        close(step.noise(step.x0), step.drawn.x_t)
        assert torch.equal(found["level"], step.drawn.t)
        seen += step.drawn.t.tolist()
    assert set(seen) == {1, 2, 3}


@pytest.mark.parametrize("denoiser", ["linear", "mlp"])
@pytest.mark.parametrize("loss_weight", ["none", "min_snr"])
def test_the_error_of_dreamrec_is_that_of_x0(denoiser: str, loss_weight: str) -> None:
    bench = Bench("dreamrec", {"denoiser": denoiser, "loss_weight": loss_weight})
    found = bench.loss()
    x0 = bench.network.table[bench.step.target]
    weight = bench.training.objective.weights[bench.step.drawn.t]
    if loss_weight == "none":
        assert weight.tolist() == [1.0] * len(ROWS)
    close(found["error"], (bench.answer(x0) - x0).square().mean(1))
    close(found["loss"], weight * found["error"])


@pytest.mark.parametrize("prediction", ["eps", "v"])
def test_other_predictions_are_compared_as_they_are(prediction: str) -> None:
    bench = Bench("dreamrec", {"prediction": prediction})
    found, step = bench.loss(), bench.step
    wanted = target(prediction, step.drawn.x_t, step.x0, step.drawn.t, bench.schedule)
    close(found["loss"], (bench.answer(step.x0) - wanted).square().mean(1))


def test_the_wanted_vector_itself_learns() -> None:
    """As published: the target is not held fixed."""
    bench = Bench("dreamrec", {})
    bench.training.loss(bench.batch, bench.draws)["loss"].sum().backward()
    grad = bench.network.table.grad
    assert grad is not None
    assert {row[-1] for row in ROWS} <= set((grad.abs().amax(1) > 0).nonzero().flatten().tolist())


def test_a_dropped_history_is_the_null() -> None:
    bench = Bench("dreamrec", {"condition_drop": 0.5, "examples": "every"})
    absent = []
    for _ in range(20):
        found = bench.loss()["loss"]
        step = bench.step
        with torch.no_grad():
            told, null = (
                (bench.network(step.drawn.x_t, step.drawn.t, cond) - step.x0).square().mean(1)
                for cond in (bench.cond, None)
            )
        is_told, is_null = (torch.isclose(found, other.double(), rtol=1e-9) for other in (told, null))
        assert bool((is_told ^ is_null).all())
        absent.append(is_null.double().mean())
    assert float(torch.stack(absent).mean()) == pytest.approx(0.5, abs=0.15)


def squared(a: Tensor, b: Tensor) -> Tensor:
    return (a - b).square().mean(-1)


def by_cosine(a: Tensor, b: Tensor) -> Tensor:
    return (1 - (a * b).sum(-1) / (a.norm(dim=-1) * b.norm(dim=-1))).square()


DISTANCES = {"mse": squared, "cosine": by_cosine}
PREFERENCE = {"reconstruction": 0.3, "gamma": 2.0}


def distances(bench: Bench, far: Callable[[int, int], bool]) -> tuple[Tensor, Tensor]:
    """d+ and d- of each example, one at a time. Args: far: whether j is a negative of i."""
    step, kind = bench.step, DISTANCES[bench.config.distance]  # type: ignore[attr-defined]
    x0 = step.x0.detach()
    rows = range(len(x0))
    negative = torch.stack([torch.stack([x0[j] for j in rows if far(i, j)]).mean(0) for i in rows])
    return kind(bench.answer(x0), x0), kind(bench.answer(negative), negative)


@pytest.mark.parametrize("distance", DISTANCES)
def test_the_error_of_preferdiff_is_a_preference_of_each_example(distance: str) -> None:
    """Two examples want item 4: neither is a negative of the other."""
    bench = Bench("preferdiff", {"distance": distance, **PREFERENCE})
    found, wanted = bench.loss(), [row[-1] for row in ROWS]
    assert wanted.count(4) == 2
    near, far = distances(bench, lambda i, j: wanted[i] != wanted[j])
    close(found["error"], 0.3 * near - 0.7 * logsigmoid(-2.0 * (near - far)))


@pytest.mark.parametrize("distance", DISTANCES)
def test_of_a_batch_it_is_the_released_form(distance: str) -> None:
    """One preference of the means; only an example's own copy stays out of its centroid."""
    bench = Bench("preferdiff", {"distance": distance, "batch_preference": True, **PREFERENCE})
    found = bench.loss()
    near, far = distances(bench, lambda i, j: i != j)
    close(found["error"].mean(), 0.3 * near.mean() - 0.7 * logsigmoid(-2.0 * (near.mean() - far.mean())))


def test_no_positive_is_in_its_own_centroid() -> None:
    x0, wanted = torch.eye(4, dtype=torch.float64)[[0, 1, 0, 2]], torch.tensor([0, 1, 0, 2])
    found = centroid(x0, wanted, own_copy_only=False)
    expected = [[0, 1 / 2, 1 / 2, 0], [2 / 3, 0, 1 / 3, 0], [0, 1 / 2, 1 / 2, 0], [2 / 3, 1 / 3, 0, 0]]
    close(found, torch.tensor(expected, dtype=torch.float64))
    released = centroid(x0, wanted, own_copy_only=True)
    close(released[0], torch.tensor([1, 1, 1, 0], dtype=torch.float64) / 3)


@pytest.mark.parametrize("batch_preference", [False, True])
@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("rows", [[[3, 1, 4]], [[3, 4], [1, 4], [2, 4]]])
def test_who_has_no_negative_learns_all_the_same(rows: list[list[int]], distance: str, batch_preference: bool) -> None:
    bench = Bench("preferdiff", {"distance": distance, "batch_preference": batch_preference}, rows)
    loss = bench.training.loss(bench.batch, bench.draws)["loss"]
    loss.sum().backward()
    assert bool(torch.isfinite(loss).all())
    assert all(bool(torch.isfinite(p.grad).all()) for p in bench.network.parameters() if p.grad is not None)


def test_the_error_of_diffurec_is_cross_entropy_over_the_catalog() -> None:
    bench = Bench("diffurec", {"strength": 0.5, "strength_spread": 0.0})
    found, step = bench.loss(), bench.step
    logits = bench.answer(step.x0) @ bench.network.table.detach().t()
    probability = logits.exp() / logits.exp().sum(1, keepdim=True)
    close(found["error"], -probability[torch.arange(len(ROWS)), step.target].log())
    spread = Bench("diffurec", {"strength": 0.5, "strength_spread": 0.3})
    spread.loss()
    assert not torch.allclose(spread.step.estimate, spread.answer(spread.step.x0))


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("stride", [1, 3])
def test_consistency_compares_with_a_lower_level_of_the_same_trajectory(name: str, stride: int) -> None:
    more = {"strength": 0.4, "strength_spread": 0.0} if name == "diffurec" else {}
    bench = Bench(name, {"consistency": 0.6, "consistency_stride": stride, **more})
    found, step = bench.loss(), bench.step
    s = (step.drawn.t - stride).clamp(min=0)
    below = torch.where((s > 0).unsqueeze(1), bench.answer(step.x0, s.clamp(min=1)), step.x0)
    close(found["consistency"], (step.estimate - below).square().mean(1))
    close(found["loss"], found["error"] + 0.6 * found["consistency"])
    assert {0, 1} <= set((s > 0).long().tolist()), "both kinds are met"


def test_alignment_prefers_the_wanted_item_by_one_step() -> None:
    bench = Bench("dreamrec", {"alignment": 0.7, "levels": 4})
    found, step, table = bench.loss(), bench.step, bench.network.table.detach()
    pure = float(bench.schedule.sigma[-1]) * torch.empty_like(step.x0).normal_(generator=bench.after)
    other = step.target[torch.randperm(len(ROWS), generator=bench.after)]
    with torch.no_grad():
        estimate = bench.network(pure, torch.full((len(ROWS),), 4), bench.cond)
    mine, rival = table[step.target], table[other]
    unlike = (1 - cosine_similarity(mine, rival)) / 2
    expected = unlike * softplus((estimate * (rival - mine)).sum(1))
    expected[other == step.target] = 0
    close(found["alignment"], expected)
    close(found["loss"], found["error"] + 0.7 * found["alignment"])
    assert float(expected.max()) > 0


def test_alignment_says_nothing_of_an_item_and_itself() -> None:
    found = Bench("dreamrec", {"alignment": 0.7}, [[3, 4], [1, 4], [2, 4]]).loss()
    assert found["alignment"].tolist() == [0.0, 0.0, 0.0]
    bench = Bench("dreamrec", {"alignment": 0.7}, [[3, 4], [1, 4]])
    with torch.no_grad():
        bench.network.table[4] = 0  # a vector without a direction is unlike itself by its cosine
    assert bench.loss()["alignment"].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("name", METHODS)
def test_every_example_is_seen_once_an_epoch(name: str) -> None:
    bench = Bench(name, {"examples": "every"}, [list(range(9)), list(range(5)), [1, 2, 3]] * 3)
    parts = list(bench.training.batches(bench.draws))
    assert [len(part) for part in parts] == [16, 16, 10]
    assert sorted(torch.cat(parts).tolist()) == list(range(42)) != torch.cat(parts).tolist()


def test_a_network_is_what_the_loss_trains() -> None:
    bench = Bench("dreamrec", {"level_choice": "importance"})
    assert isinstance(bench.network, NextItemNetwork)
    names = set(bench.training.module.state_dict())
    assert {"network.table", "network.null", "levels.losses"} <= names


@pytest.mark.parametrize("name", ["preferdiff", "diffurec"])
def test_every_error_weighs_as_its_level_says(name: str) -> None:
    bench = Bench(name, {"loss_weight": "min_snr"})
    found = bench.loss()
    weight = bench.training.objective.weights[bench.step.drawn.t]
    assert len(weight.unique()) > 1
    close(found["loss"], weight * found["error"])
