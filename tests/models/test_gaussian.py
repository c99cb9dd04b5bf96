"""What every Gaussian diffusion over users shares: settings, the loss, conditions and guidance in whole trainings."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from rediffuse.config import RunConfig
from rediffuse.data.weighting import weigh
from rediffuse.denoisers import MLPDenoiser, TransformerDenoiser
from rediffuse.denoisers.conditioning import Conditioner
from rediffuse.errors import InvalidConfig, InvalidInput
from rediffuse.models.diffrec import DiffRec, RowTraining, network_of
from rediffuse.models.gaussian import Objective
from rediffuse.noise.predictions import as_denoiser, gain
from rediffuse.noise.process import add_noise
from rediffuse.protocols import Context, FitContext, FitData
from rediffuse.training.loop import TrainingConfig
from rediffuse.training.moments import examples
from rediffuse.types import Condition, Options, Query, Ragged, Ranking
from tests.models.conftest import CONDITIONS, IDLE, ITEMS, SIZES, config, made, query


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"guidance_low": 4, "guidance_high": 3}, "is no part of 1..5"),
        ({"guidance_high": 6}, "is no part of 1..5"),
        ({"guidance_low": 6}, "is no part of 1..5"),
        ({"condition": "season,season"}, "a condition stands twice"),
        ({"target": "next", "start": "origin"}, "needs the condition history"),
        ({"target": "next", "condition": "history"}, "start = 'origin' or 'pure_noise'"),
        ({"prediction": "eps", "noise_scale": 0.0}, "needs noise"),
        ({"eta": 0.5}, "eta goes with sampler"),
        ({"denoiser": "transformer", "token_width": 10, "heads": 4}, "must be a multiple of heads"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidConfig, match=message):
        config(**values)


@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize("loss_weight", ["elbo", "min_snr"])
@pytest.mark.parametrize("prediction", ["eps", "v"])
def test_an_error_weighs_the_same_whatever_is_predicted(prediction: str, loss_weight: str, dropout: float) -> None:
    """The loss of a network that predicts eps or v is that of its estimate of x_0, whatever that is compared with."""
    more = {"dropout": dropout, "level_choice": "uniform", "loss_weight": loss_weight}
    network, settings = made(torch.float64).denoiser, config(prediction=prediction, **more)
    x0 = weigh(query().history, config(), ITEMS).dense().double()
    wanted = x0 * torch.rand(x0.shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    schedule = settings.noise_schedule()
    for compared in (None, wanted):
        generator = torch.Generator().manual_seed(1)
        found, estimate = Objective(settings, "cpu").loss(network, x0, None, generator, wanted=compared)
        apart = (estimate - (x0 if compared is None else compared)).square().mean(1)
        grown = gain(prediction, schedule)[found["level"]] ** 2 * found["mse"]
        torch.testing.assert_close(grown, apart, rtol=1e-9, atol=1e-12)
        weight = Objective(config(**more), "cpu").weights[found["level"]]
        torch.testing.assert_close(found["loss"], weight * apart, rtol=1e-9, atol=1e-12)
        if dropout == 0:
            twin = torch.Generator().manual_seed(1)
            t = torch.randint(1, 6, (9,), generator=twin)
            x_t = add_noise(x0, t, torch.empty_like(x0).normal_(generator=twin), schedule)
            torch.testing.assert_close(estimate, as_denoiser(network, prediction, schedule)(x_t, t))


def test_what_is_wanted_is_not_what_is_noised() -> None:
    network, settings = made(torch.float64).denoiser, config(level_choice="uniform")
    x0 = weigh(query().history, config(), ITEMS).dense().double()
    (_, plain), (found, estimate) = (
        Objective(settings, "cpu").loss(network, x0, None, torch.Generator().manual_seed(1), wanted=wanted)
        for wanted in (None, 2 * x0)
    )
    assert torch.equal(estimate, plain)
    torch.testing.assert_close(found["mse"], (plain - 2 * x0).square().mean(1))


def test_what_the_network_is_shown_is_x_t_with_some_left_out() -> None:
    seen: list[Tensor] = []
    x0 = weigh(query().history, config(), ITEMS).dense().double()

    def network(x_t: Tensor, t: Tensor, cond: Condition | None = None) -> Tensor:
        seen.append(x_t)
        return x_t

    settings = config(dropout=0.4, level_choice="uniform")
    values, _ = Objective(settings, "cpu").loss(network, x0, None, torch.Generator().manual_seed(2))
    twin = torch.Generator().manual_seed(2)
    t = torch.randint(1, 6, (9,), generator=twin)
    assert torch.equal(values["level"], t)
    x_t = add_noise(x0, t, torch.empty_like(x0).normal_(generator=twin), settings.noise_schedule())
    kept = seen[0] != 0
    assert float(kept.double().mean()) == pytest.approx(0.6, abs=0.08)
    torch.testing.assert_close(seen[0][kept], x_t[kept] / 0.6)


def data(users: int = 40) -> FitData:
    """Users who take the items below 30 in the first half of the year and the others in the second, in any order."""
    generator = torch.Generator().manual_seed(0)
    late = torch.rand(users, 6, generator=generator) < 0.5
    items = torch.stack([torch.randperm(30, generator=generator)[:6] for _ in range(users)]) + 30 * late
    season = torch.where(late, 0.75, 0.25) + (torch.rand(users, 6, generator=generator) - 0.5) / 5
    region = Context("user", torch.arange(users) % 3, ("a", "b", "c"))
    contexts = {"season": Context("event", season.flatten()), "region": region}
    return FitData(Ragged.of(items.tolist()), ITEMS, "sequence", contexts)


@pytest.mark.parametrize(
    "changes",
    [
        {"denoiser": "mlp"},
        {"denoiser": "transformer", "token_width": 8, "layers": 1},
        {"denoiser": "transformer", "token_width": 8, "layers": 1, "condition_width": 12},
        {"prediction": "v"},
    ],
)
def test_a_step_in_mixed_precision_learns_like_one_in_full(changes: dict[str, object]) -> None:
    settings = config(condition=CONDITIONS, **changes)
    groups = torch.arange(ITEMS) % 4 if settings.denoiser == "transformer" else None
    network = network_of(settings, ITEMS, SIZES, groups, torch.Generator().manual_seed(0))
    assert isinstance(network, MLPDenoiser | TransformerDenoiser)
    with torch.no_grad():
        for weight in network.parameters():  # a transformer begins with blocks that do nothing
            weight.add_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)), alpha=0.1)
    task = RowTraining(settings, network, examples(data(), settings, RunConfig(device="cpu")), 16)
    losses = []
    for mixed in (False, True):
        network.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            loss = task.loss(torch.arange(40), torch.Generator().manual_seed(3))["loss"].mean()
        loss.backward()
        assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in network.parameters())
        assert network.conditioner is not None
        assert isinstance(network.conditioner, Conditioner)
        assert float(network.conditioner.nulls.grad.abs().sum()) > 0  # type: ignore[union-attr]
        losses.append(float(loss.detach()))
    assert losses[1] == pytest.approx(losses[0], rel=0.05)


def late_share(ranking: Ranking) -> Tensor:
    """Share of the list that belongs to the second half of the year, (B,)."""
    return (ranking.items >= 30).double().mean(1)


@pytest.fixture(scope="module")
def seasonal() -> DiffRec:
    """Learned what comes next, given the season and the history."""
    more = {"target": "next", "start": "origin", "horizon": 1, "schedule": "cosine", "loss_weight": "none"}
    settings = config(condition=("history", "season"), condition_drop=0.2, hidden=(32,), levels=4, **more)
    training = TrainingConfig(learning_rate=1e-2, batch_size=100, epochs=60)
    return DiffRec.fit(settings, training, data(400), FitContext(RunConfig(device="cpu")))


def test_a_season_moves_the_list_and_guidance_moves_it_further(seasonal: DiffRec) -> None:
    asked = Query.from_history(Ragged.of([[1, 2, 31, 32], [40, 41, 10, 11], [5, 50]]))

    def found(season: float, k: int = 10, scale: float = 1.0) -> Ranking:
        told = replace(asked, context={"season": torch.full((3,), season)})
        return seasonal.recommend(told, k, options=Options(guidance_scale={"season": scale}))

    def margin(ranking: Ranking) -> Tensor:
        """How far the mean score of the second half lies above that of the first, (B,)."""
        late = ranking.items >= 30
        sums = [torch.where(half & (ranking.items >= 0), ranking.scores, 0).sum(1) for half in (late, ~late)]
        return sums[0] - sums[1]

    assert bool((late_share(found(0.75)) >= 0.9).all())
    assert bool((late_share(found(0.25)) <= 0.1).all())
    plain, further = margin(found(0.75, ITEMS)), margin(found(0.75, ITEMS, 3.0))
    assert bool((further > 1.5 * plain).all())
    # Scale 0 forgets the season that is told: what the history alone tells.
    nothing, forgotten = seasonal.recommend(asked, 10), found(0.75, scale=0.0)
    assert torch.equal(forgotten.items, nothing.items)
    torch.testing.assert_close(forgotten.scores, nothing.scores)
    assert bool((margin(seasonal.recommend(asked, ITEMS)).abs() < plain / 2).all())


def test_training_goes_on_with_its_conditions(seasonal: DiffRec) -> None:
    """From the weights of an earlier model, whose conditions must be the same."""
    again = DiffRec.fit(seasonal.config, IDLE, data(), FitContext(RunConfig(device="cpu"), initial=seasonal.state()))
    for name, tensor in seasonal.state().items():
        assert torch.equal(again.state()[name], tensor)
    fewer = seasonal.config.model_copy(update={"condition": ("history",)})
    with pytest.raises(InvalidInput, match="other widths or layers"):
        DiffRec.fit(fewer, IDLE, data(), FitContext(RunConfig(device="cpu"), initial=seasonal.state()))


def test_newer_items_join_the_token_of_those_they_are_taken_with() -> None:
    """Going on with a transformer, the tokens of older items keep their numbers."""
    settings = config(denoiser="transformer", token_width=8, tokens=2, layers=1)
    halves = Ragged.of([[item for item in range(20) if item % 2 == user % 2] for user in range(12)])
    old = FitData(halves.keep(halves.items < 16), 16, "none")
    context = FitContext(RunConfig(device="cpu"))
    first = DiffRec.fit(settings, TrainingConfig(epochs=1), old, context)
    groups = 1 - first.state()["groups"]  # whatever k-means would number them today
    earlier = {**first.state(), "groups": groups}
    later = DiffRec.fit(settings, IDLE, FitData(halves, 20, "none"), replace(context, initial=earlier))
    found = later.state()["groups"]
    assert torch.equal(found[:16], groups)
    assert torch.equal(found[16:], groups[:4])
    with pytest.raises(InvalidInput, match="other widths or layers"):
        DiffRec.fit(config(denoiser="transformer"), TrainingConfig(), old, replace(context, initial=made().state()))
