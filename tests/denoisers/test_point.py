"""The perceptron over points: its size, its condition, where it begins."""

import pytest
import torch

from rediffuse.denoisers.conditioning import HISTORY
from rediffuse.denoisers.point import PointDenoiser
from rediffuse.types import Condition


def told(c: torch.Tensor, *there: bool) -> Condition:
    return Condition({HISTORY: c}, {HISTORY: torch.tensor(there)})


@pytest.mark.parametrize(
    ("dims", "numbers"),
    [
        ([200, 1100], 664_774),
        ([200, 1000], 604_374),
        ([100, 1000], 404_274),
        ([300, 1000], 804_474),
        ([200, 600], 362_774),
    ],
)
def test_it_has_as_many_weights_as_the_authors(dims: list[int], numbers: int) -> None:
    a, b = dims
    network = PointDenoiser(64, (b, a, b))
    assert sum(p.numel() for p in network.parameters()) == numbers + 64  # and the null


def test_the_order_of_its_input_is_state_time_condition() -> None:
    generator = torch.Generator().manual_seed(1)
    network = PointDenoiser(3, (5,), time_width=4, activation="tanh", generator=generator).double()
    x, c, t = torch.randn(2, 3).double(), torch.randn(2, 3).double(), torch.tensor([1, 6])
    first, _, last = network.body
    angle = (t - 1).double().unsqueeze(1) * torch.tensor([1.0, 1e-2]).double()
    e_t = network.time(torch.cat((angle.cos(), angle.sin()), 1))
    wanted = last(torch.tanh(first(torch.cat((x, e_t, c), 1))))
    torch.testing.assert_close(network(x, t, told(c, True, True)), wanted)


def test_a_null_stands_in_for_whoever_is_unknown() -> None:
    network = PointDenoiser(3, (5,), generator=torch.Generator().manual_seed(1))
    torch.nn.init.normal_(network.null)
    x, t = torch.randn(2, 3), torch.tensor([1, 2])
    half = network(x, t, told(torch.randn(2, 3), False, True))
    torch.testing.assert_close(half[0], network(x, t)[0])
    assert not torch.allclose(half[1], network(x, t)[1])


def test_with_a_skip_an_untrained_network_answers_its_condition() -> None:
    network = PointDenoiser(3, (5,), skip=True, generator=torch.Generator().manual_seed(1))
    c = torch.randn(2, 3)
    assert torch.equal(network(torch.randn(2, 3), torch.tensor([1, 2]), told(c, True, True)), c)
