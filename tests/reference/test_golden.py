"""Figures printed in papers and specifications: the network of DiffRec, its embedding, its first weights, metrics."""

import math

import pytest
import torch

from rediffuse.denoisers import MLPDenoiser
from rediffuse.evaluation.accuracy import METRICS
from rediffuse.networks.time_embedding import sinusoids
from rediffuse.types import Ragged, Ranking


def count(width: int, hidden: tuple[int, ...]) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in MLPDenoiser(width, hidden).parameters())


@pytest.mark.parametrize(
    ("width", "hidden", "expected"),
    [
        (2_810, (600, 200, 600), 3_622_320),
        (2_810, (1000,), 5_633_920),
        (3_494, (600, 200, 600), 4_443_804),
        (94_949, (1000,), 190_004_059),
    ],
)
def test_number_of_parameters(width: int, hidden: tuple[int, ...], expected: int) -> None:
    assert count(width, hidden) == expected


def test_time_embedding() -> None:
    found = sinusoids(torch.tensor([0, 1]), 10)
    assert found.dtype == torch.float32
    assert found[0].tolist() == [1] * 5 + [0] * 5
    golden = [0.54030231, 0.98746684, 0.99968454, 0.99999208, 0.99999980]
    golden += [0.84147098, 0.15782664, 0.02511622, 0.00398106, 0.00063096]
    assert found[1].tolist() == pytest.approx(golden, abs=5e-7)
    exact = sinusoids(torch.tensor([1.0], dtype=torch.float64), 10)
    assert exact.dtype == torch.float64
    assert exact[0].tolist() == pytest.approx(golden, abs=0.6e-8)


def test_an_odd_width_is_padded() -> None:
    found = sinusoids(torch.tensor([3]), 5)
    assert found.shape == (1, 5)
    assert found[0, 4] == 0
    assert torch.equal(found[:, :4], sinusoids(torch.tensor([3]), 4))


def test_level_1_is_fed_as_0() -> None:
    denoiser = MLPDenoiser(6, (4,), generator=torch.Generator().manual_seed(0))
    u = torch.zeros(1, 4)
    told = denoiser.time(torch.tensor([[1.0] * 5 + [0.0] * 5]))
    torch.testing.assert_close(denoiser.core(u, torch.tensor([1])), torch.tanh(denoiser.time_lift(told)))


def test_first_weights_have_the_stated_spread() -> None:
    denoiser = MLPDenoiser(500, (300, 200), generator=torch.Generator().manual_seed(0))
    fans = {
        "lift_weight": 500 + 10 + 300,
        "time_lift.weight": 500 + 10 + 300,
        "body.0.weight": 500,
        "out.weight": 700,
        "time.weight": 20,
    }
    parameters = dict(denoiser.named_parameters())
    assert set(fans) == {name for name, p in parameters.items() if p.dim() == 2}
    for name, fan in fans.items():
        weight = parameters[name].detach().double()
        spread = (2 / fan) ** 0.5
        assert float(weight.mean()) == pytest.approx(0, abs=5 * spread / weight.numel() ** 0.5)
        assert float(weight.std()) == pytest.approx(spread, rel=5 / (2 * weight.numel()) ** 0.5)
    biases = torch.cat([p.detach() for p in parameters.values() if p.dim() == 1]).double()
    assert float(biases.std()) == pytest.approx(0.001, rel=5 / (2 * biases.numel()) ** 0.5)


def test_first_weights_come_from_the_generator_alone() -> None:
    a, b, c = (MLPDenoiser(9, (4, 3), generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    for x, y, z in zip(a.parameters(), b.parameters(), c.parameters(), strict=True):
        assert torch.equal(x, y)
        assert not torch.equal(x, z)


@pytest.mark.parametrize(
    ("k", "recall", "precision", "ndcg", "mrr"),
    [
        (1, 0.3333333333, 1.0, 1.0, 1.0),
        (2, 0.3333333333, 0.5, 0.6131471928, 1.0),
        (3, 0.6666666667, 0.6666666667, 0.7039180890, 1.0),
        (5, 0.6666666667, 0.4, 0.7039180890, 1.0),
    ],
)
def test_metrics_of_the_worked_example(k: int, recall: float, precision: float, ndcg: float, mrr: float) -> None:
    ranking = Ranking(torch.tensor([[5, 1, 2, 7, 8]]), torch.arange(5, 0, -1).float().unsqueeze(0))
    relevant = Ragged.of([[2, 5, 9]])
    golden = {"recall": recall, "precision": precision, "ndcg": ndcg, "mrr": mrr, "hit": 1.0}
    for name, expected in golden.items():
        assert float(METRICS[name](ranking, relevant, k)) == pytest.approx(expected, abs=1e-10)
    assert math.isclose(float(METRICS["map"](ranking, relevant, 5)), (1 + 2 / 3) / 3)
