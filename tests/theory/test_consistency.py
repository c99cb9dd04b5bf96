"""Training for consistency makes one pass say what the whole walk down the flow says."""

import pytest
import torch
from torch import Tensor

from rediffuse.denoisers.affine import affine_map
from rediffuse.denoisers.ideal import GaussianDenoiser
from rediffuse.noise import add_noise, cosine
from rediffuse.samplers import ddim
from rediffuse.training.consistency import consistency, estimate_below
from rediffuse.types import Condition

T, D, N = 8, 2, 64
SCHEDULE = cosine(T)
MEAN = torch.tensor([0.5, -1.0], dtype=torch.float64)
COVARIANCE = torch.tensor([[1.0, 0.6], [0.6, 0.5]], dtype=torch.float64)


def trajectories() -> tuple[Tensor, Tensor]:
    """x_0 and eps, (N, D) each, whose first two moments are exactly those of the data and of the noise."""
    z = torch.randn(N, 2 * D, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    z = z - z.mean(0)
    white = z @ torch.linalg.inv(torch.linalg.cholesky(z.t() @ z / N)).t()
    return MEAN + white[:, :D] @ torch.linalg.cholesky(COVARIANCE).t(), white[:, D:]


class Levelwise(torch.nn.Module):
    """An affine denoiser with weights of its own at each level."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(T + 1, D, D, dtype=torch.float64))
        self.bias = torch.nn.Parameter(torch.zeros(T + 1, D, dtype=torch.float64))

    def forward(self, x: Tensor, t: Tensor, cond: Condition | None = None) -> Tensor:
        return (self.weight[t] @ x.unsqueeze(-1)).squeeze(-1) + self.bias[t]


def trained(share: float, stride: int = 1) -> Levelwise:
    """Level by level, from clean to noisy: the squared error, and `share` of consistency."""
    network, (x0, eps) = Levelwise(), trajectories()
    for level in range(1, T + 1):
        t = torch.full((N,), level)
        x_t, below = add_noise(x0, t, eps, SCHEDULE), estimate_below(network, x0, eps, t, SCHEDULE, stride=stride)
        optimizer = torch.optim.LBFGS(
            network.parameters(),
            max_iter=100,
            line_search_fn="strong_wolfe",
            tolerance_grad=1e-12,
            tolerance_change=1e-15,
        )

        def closure(
            x_t: Tensor = x_t, t: Tensor = t, below: Tensor = below, opt: torch.optim.Optimizer = optimizer
        ) -> Tensor:
            opt.zero_grad()
            answer = network(x_t, t)
            loss = ((1 - share) * (answer - x0).square().mean(1) + share * consistency(answer, below)).mean()
            loss.backward()
            return loss

        optimizer.step(closure)
    return network


def walked(x: Tensor, stride: int = 1) -> Tensor:
    """The end of DDIM with the ideal denoiser, over all levels or in strides from T."""
    ideal = GaussianDenoiser(MEAN, COVARIANCE, SCHEDULE)
    levels = torch.tensor([*range(T, 0, -stride), 0])
    return affine_map(lambda x, t, h: ideal(x, t), D, levels, SCHEDULE, ddim, cond_width=0).mean(x, x[:, :0])


def gap(share: float, stride: int = 1) -> tuple[float, float]:
    """How far the one-step answer is from the walk's, on average and in the root of the mean square."""
    x = torch.randn(500, D, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with torch.no_grad():
        difference = trained(share, stride)(x, torch.full((500,), T)) - walked(x, stride)
    return float(difference.mean(0).abs().max()), float(difference.square().mean().sqrt())


@pytest.mark.parametrize("stride", [1, 3, T])
def test_consistency_alone_is_the_walk_of_ddim(stride: int) -> None:
    mean, rms = gap(1.0, stride)
    assert mean < 1e-6
    assert rms < 1e-6


def test_its_share_draws_one_step_towards_the_walk() -> None:
    """Without it one step answers the mean of the data; with TA-Rec's .4 to .8 it lies between, the mean being the same."""
    found = {share: gap(share) for share in (0.0, 0.4, 0.8, 1.0)}
    apart = [rms for _, rms in found.values()]
    assert apart == sorted(apart, reverse=True)
    assert apart[0] > 0.5
    assert max(mean for mean, _ in found.values()) < 0.1


def test_level_0_is_the_data_and_the_target_has_no_gradient() -> None:
    network, (x0, eps) = Levelwise(), trajectories()
    torch.nn.init.normal_(network.weight, generator=torch.Generator().manual_seed(2))
    t = torch.arange(N) % 3 + 1
    below = estimate_below(network, x0, eps, t, SCHEDULE)
    assert not below.requires_grad
    assert torch.equal(below[t == 1], x0[t == 1])
    expected = network(add_noise(x0, t - 1, eps, SCHEDULE), (t - 1).clamp(min=1))
    assert torch.equal(below[t > 1], expected[t > 1])
    one, other = (torch.ones(3, 2, 5, requires_grad=True), torch.zeros(3, 2, 5, requires_grad=True))
    loss = consistency(one, other)
    assert loss.tolist() == pytest.approx([1.0, 1.0, 1.0])
    loss.sum().backward()
    assert one.grad is not None
    assert other.grad is None
