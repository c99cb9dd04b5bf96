"""What every Gaussian diffusion over users shares: plans, losses, draws, conditions and guidance in whole answers."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from rediffuse.config import RunConfig
from rediffuse.data.weighting import weigh
from rediffuse.denoisers import MLPDenoiser, TransformerDenoiser
from rediffuse.denoisers.conditioning import Conditioner
from rediffuse.errors import InvalidConfig, InvalidInput, UnsupportedOption
from rediffuse.models import gaussian
from rediffuse.models.diffrec import DiffRec, DiffRecConfig, RowTraining, network_of
from rediffuse.models.gaussian import MOST_DRAWS, Objective, planned
from rediffuse.noise.predictions import as_denoiser, gain
from rediffuse.noise.process import add_noise
from rediffuse.protocols import Context, FitContext, FitData
from rediffuse.random import PhiloxNoise
from rediffuse.samplers import ancestral, evenly
from rediffuse.samplers.starts import thinned_history
from rediffuse.training.loop import TrainingConfig
from rediffuse.training.moments import condition_of, examples
from rediffuse.types import Condition, Options, Query, Ragged, Ranking

ITEMS = 60
SETTINGS: dict[str, Any] = {"hidden": (16, 6, 16), "levels": 5, "noise_scale": 5.0, "noise_max": 0.04}
IDLE = TrainingConfig(epochs=1, learning_rate=1e-30)
"""A training that changes nothing."""
CONDITIONS = ("history", "season", "region")
SIZES = {"history": ITEMS, "season": 0, "region": 3}


def config(**more: object) -> DiffRecConfig:
    return DiffRecConfig.make({**SETTINGS, **more})


def made(dtype: torch.dtype = torch.float32, **more: object) -> DiffRec:
    """An untrained model whose scores differ well from item to item."""
    settings = config(**more)
    generator = torch.Generator().manual_seed(3)
    sizes = {name: SIZES[name] for name in settings.condition}
    groups = torch.arange(ITEMS) % settings.tokens if settings.denoiser == "transformer" else None
    network = network_of(settings, ITEMS, sizes, groups, generator).to(dtype)
    with torch.no_grad():
        for weight in network.parameters():
            weight.mul_(2 if weight.dim() == 2 else 100)
    return DiffRec(settings, network)


def query(conditions: bool = False) -> Query:
    """Nine histories; the last but one holds an item twice, the last has a single one."""
    generator = torch.Generator().manual_seed(5)
    lists = [torch.randperm(ITEMS, generator=generator)[: 4 + row].tolist() for row in range(7)]
    asked = Query.from_history(Ragged.of([*lists, [9, 40, 9, 3], [17]]))
    season = torch.linspace(0, 0.9, 9)
    season[3] = float("nan")
    told = {"season": season, "region": torch.tensor([0, 1, 2, -1, 0, 1, 2, -1, 0])}
    return replace(asked, context=told if conditions else {})


def row_of(query: Query, row: int) -> Query:
    return query.select(torch.tensor([row]))


def assert_same(one: Ranking, other: Ranking) -> None:
    """Lists, scores and what is said of them, up to the rounding of another batch size."""
    assert torch.equal(one.items, other.items)
    for name in ("scores", "spread", "probability"):
        torch.testing.assert_close(getattr(one, name), getattr(other, name), rtol=1e-4, atol=1e-5)


WAYS: list[dict[str, object]] = [
    {},
    {"draws_start": "noised_history", "sampler": "ddim", "eta": 0.5},
    {"draws_start": "pure_noise", "sampler": "heun", "condition": CONDITIONS},
    {"prediction": "eps", "draws_start": None},
    {"prediction": "v", "denoiser": "transformer", "token_width": 8, "layers": 1},
]


@pytest.mark.parametrize("changes", WAYS)
def test_draws_in_one_batch_are_those_asked_one_by_one(changes: dict[str, object]) -> None:
    model, asked, draws = made(torch.float64, **changes), query(conditions=True), 4
    plan = planned("diffrec", model.config, Options(draws=draws))
    single = replace(plan, options=replace(plan.options, draws=1))
    with torch.inference_mode():
        u, points, cond = model._descend(plan, asked, 8)
        found = model.chain.score(points(u, torch.full((len(u),), plan.last), cond)).unflatten(0, (9, draws))
        rows = weigh(asked.history, model.config, ITEMS).to("cpu", torch.float64)
        told = condition_of(model.config.condition, asked, model.config.history_length)
        for draw in range(draws):
            source = PhiloxNoise(8, asked.key, draw)
            u, points, _ = single.descend(model.chain, single.thin(rows, source), told, source)
            alone = model.chain.score(points(u, torch.full((9,), plan.last), told))
            torch.testing.assert_close(found[:, draw], alone, rtol=0, atol=1e-10 * float(alone.abs().max()))
    assert float(found.std(1).min(1).values[:-1].max()) > 0


@pytest.mark.parametrize("changes", WAYS)
def test_mean_spread_and_probability_are_those_of_the_draws(changes: dict[str, object]) -> None:
    model, asked, draws, k = made(torch.float64, **changes), query(conditions=True), 5, 8
    options = Options(draws=draws)
    plan = planned("diffrec", model.config, options)
    with torch.inference_mode():
        u, points, cond = model._descend(plan, asked, 2)
        each = model.chain.score(points(u, torch.full((len(u),), plan.last), cond)).unflatten(0, (9, draws))
    each = each.clone()
    each[weigh(asked.history, model.config, ITEMS).dense().bool().unsqueeze(1).expand_as(each)] = -torch.inf
    best = each.mean(1).topk(k)
    found = model.recommend(asked, k, options=options, seed=2)
    assert torch.equal(found.items, best.indices)
    torch.testing.assert_close(found.scores, best.values.float(), rtol=1e-5, atol=1e-5)
    inside = torch.zeros_like(each).scatter_(2, each.topk(k).indices, 1).mean(1)
    assert found.probability is not None
    torch.testing.assert_close(found.probability, inside.gather(1, best.indices).float())
    torch.testing.assert_close(found.spread, each.std(1).gather(1, best.indices).float(), rtol=1e-4, atol=1e-5)
    assert bool((found.probability >= 0).all())
    assert bool((found.probability.sum(1) <= k).all())
    whole = model.recommend(replace(asked, exclude=None), ITEMS, options=options).probability
    assert whole is not None
    torch.testing.assert_close(whole, torch.ones(9, ITEMS))


@pytest.mark.parametrize("changes", WAYS)
def test_draws_of_a_query_do_not_depend_on_its_mates(changes: dict[str, object]) -> None:
    """Nor on a mate with an item twice, or on being answered in blocks."""
    model, asked, options = made(**changes), query(conditions=True), Options(draws=3)
    whole = model.recommend(asked, 6, options=options, seed=4)
    for row in range(9):
        assert_same(model.recommend(row_of(asked, row), 6, options=options, seed=4), whole.select(torch.tensor([row])))


def test_blocks_give_what_one_batch_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    model, asked, options = made(condition=CONDITIONS), query(conditions=True), Options(draws=3, guidance_scale=1.5)
    whole = model.recommend(asked, 6, options=options)
    sizes: list[int] = []
    descend = model._descend
    monkeypatch.setattr(model, "_descend", lambda plan, q, *more: sizes.append(len(q)) or descend(plan, q, *more))
    monkeypatch.setattr(gaussian, "CELLS", 3 * ITEMS * 4)
    assert_same(model.recommend(asked, 6, options=options), whole)
    assert sizes == [4, 4, 1]
    monkeypatch.setattr(gaussian, "CELLS", 1)
    assert_same(model.recommend(asked, 6, options=options), whole)


@pytest.mark.parametrize("changes", WAYS)
def test_nobody_may_ask_for_draws(changes: dict[str, object]) -> None:
    model, nobody = made(**changes), query(conditions=True).select(torch.zeros(0, dtype=torch.int64))
    found = model.recommend(nobody, 6, options=Options(draws=3))
    assert found.items.shape == (0, 6)
    assert found.spread is not None
    assert found.spread.shape == (0, 6)
    assert model.recommend(nobody, 6, options=Options(start="pure_noise")).items.shape == (0, 6)


@pytest.mark.parametrize("changes", WAYS)
def test_exclusions_and_candidates_hold_for_every_draw(changes: dict[str, object]) -> None:
    model, asked = made(**changes), query(conditions=True)
    candidates = Ragged.of([[*range(row, row + 12)] for row in range(9)])
    found = model.recommend(replace(asked, candidates=candidates), 10, options=Options(draws=4))
    assert found.probability is not None
    for row, (items, allowed, seen) in enumerate(
        zip(found.items.tolist(), candidates.to_lists(), asked.history.to_lists(), strict=True)
    ):
        there = [item for item in items if item >= 0]
        free = set(allowed) - set(seen)
        assert set(there) <= free
        assert len(there) == min(10, len(free))
        assert items[len(there) :] == [-1] * (10 - len(there))
        # Where the list holds all that is allowed, so does that of every draw.
        if len(free) <= 10:
            assert found.probability[row, : len(there)].tolist() == [1] * len(there)
        assert float(found.probability[row].sum()) == pytest.approx(len(there), abs=1e-5 + (len(free) > 10) * 10)


def test_temperature_widens_the_spread() -> None:
    for changes in ({"draws_start": "pure_noise"}, {"draws_start": "noised_history", "sampler": "ddim"}):
        model, asked = made(**changes), query()

        def spread(temperature: float, model: DiffRec = model, asked: Query = asked) -> float:
            found = model.recommend(asked, 20, options=Options(draws=8, temperature=temperature)).spread
            assert found is not None
            return float(found.mean())

        cold, cool, usual = (spread(t) for t in (0.0, 0.1, 1.0))
        assert cold == pytest.approx(0, abs=1e-5)
        assert 10 * cold < cool < usual


def test_the_settings_set_the_temperature_of_draws_alone() -> None:
    one, two = (made(draws_start="pure_noise", draws_temperature=t) for t in (1.0, 0.5))
    asked = query()
    half = one.recommend(asked, 9, options=Options(draws=4, temperature=0.5))
    assert_same(two.recommend(asked, 9, options=Options(draws=4)), half)
    single = Options(start="pure_noise")
    assert torch.equal(one.recommend(asked, 9, options=single).scores, two.recommend(asked, 9, options=single).scores)


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        (
            {"sampler": "heun"},
            Options(draws=2, start="history"),
            "cannot use 'draws' from start 'history'.*Set start to one of noised_history, pure_noise, thinned_history",
        ),
        (
            {"noise_scale": 0.0},
            Options(draws=2, start="history"),
            "nothing is drawn. Set start to one of thinned_history",
        ),
        ({"noise_scale": 0.0, "dropout": 0.0}, Options(draws=2), "nothing is drawn. Leave draws out"),
        ({"dropout": 0.0, "sampler": "heun"}, Options(draws=2), "Set start to one of noised_history, pure_noise."),
        ({"dropout": 0.0}, Options(start="thinned_history"), "cannot use 'start' = 'thinned_history'"),
        ({"noise_scale": 0.0}, Options(draws=2, temperature=2.0), "cannot use 'temperature'"),
        ({}, Options(guidance_scale=2.0), "cannot use 'guidance_scale'"),
        ({"condition": CONDITIONS, "condition_drop": 0.0}, Options(guidance_scale=2.0), "cannot use 'guidance_scale'"),
        (
            {"condition": CONDITIONS, "guidance_high": 3},
            Options(guidance_scale=2.0, steps=1),
            "cannot use 'guidance_scale'",
        ),
        (
            {"condition": ["history"], "target": "next", "start": "origin"},
            Options(start="history"),
            "begins at origin or pure_noise",
        ),
    ],
)
def test_what_has_no_effect_is_refused(changes: dict[str, object], options: Options, message: str) -> None:
    with pytest.raises(UnsupportedOption, match=message):
        made(**changes).recommend(query(conditions=True), 5, options=options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (Options(draws=0), rf"draws must be 1\.\.{MOST_DRAWS}\. Got 0"),
        (Options(draws=MOST_DRAWS + 1), rf"draws must be 1\.\.{MOST_DRAWS}"),
        (Options(start="pure_noise", temperature=-1.0), r"temperature must be 0 or more\. Got -1\.0"),
        (Options(start="pure_noise", temperature=float("nan")), "temperature must be 0 or more"),
        (Options(start="pure_noise", temperature=float("inf")), "temperature must be 0 or more"),
        (Options(guidance_scale={"seasons": 2.0}), "Unknown condition 'seasons'. Nearest known condition: 'season'"),
        (Options(guidance_scale=float("nan")), "guidance_scale must be a finite number"),
    ],
)
def test_impossible_values_are_refused(options: Options, message: str) -> None:
    with pytest.raises((InvalidConfig, InvalidInput), match=message):
        made(condition=CONDITIONS).recommend(query(conditions=True), 5, options=options)


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


@pytest.mark.parametrize("prediction", ["eps", "v"])
@pytest.mark.parametrize("denoiser", ["mlp", "transformer"])
def test_a_chain_over_rows_is_the_plain_loop(prediction: str, denoiser: str) -> None:
    model = made(torch.float64, prediction=prediction, denoiser=denoiser, token_width=8, sampling_noise=True)
    asked, schedule = query(), model.config.noise_schedule()
    noise = PhiloxNoise(6, asked.key)
    wrapped = as_denoiser(model.denoiser, prediction, schedule)
    x = weigh(asked.history, model.config, ITEMS).dense().double()
    with torch.inference_mode():
        expected = ancestral(wrapped, x, evenly(5), schedule, noise=noise)
        expected[x > 0] = -torch.inf
        best = expected.topk(9)
        found = model.recommend(asked, 9, seed=6)
    assert torch.equal(found.items, best.indices)
    torch.testing.assert_close(found.scores, best.values.float(), rtol=1e-6, atol=1e-6)


def test_ranking_the_rows_leaves_the_estimates_as_they_were() -> None:
    """Of x_0 itself the ranking forbids items in place: in a copy."""
    model, asked = made(prediction="eps"), query()
    points = torch.randn(18, ITEMS, generator=torch.Generator().manual_seed(0))
    kept = points.clone()
    gaussian.grounded(points, model.chain.score, ITEMS, asked, 5, 2)
    assert torch.equal(points, kept)


@pytest.mark.parametrize("loss_weight", ["elbo", "min_snr"])
@pytest.mark.parametrize("prediction", ["eps", "v"])
def test_an_error_weighs_the_same_whatever_is_predicted(prediction: str, loss_weight: str) -> None:
    """The loss of a network that predicts eps or v is that of its estimate of x_0."""
    more = {"dropout": 0.0, "level_choice": "uniform", "loss_weight": loss_weight}
    network = made(torch.float64).denoiser
    x0 = weigh(query().history, config(), ITEMS).dense().double()
    schedule = config().noise_schedule()
    found, _ = Objective(config(prediction=prediction, **more), "cpu").loss(
        network, x0, None, torch.Generator().manual_seed(1)
    )
    same, _ = Objective(config(**more), "cpu").loss(
        as_denoiser(network, prediction, schedule), x0, None, torch.Generator().manual_seed(1)
    )
    assert torch.equal(found["level"], same["level"])
    torch.testing.assert_close(found["loss"], same["loss"], rtol=1e-9, atol=1e-12)
    grown = gain(prediction, schedule)[found["level"]] ** 2 * found["mse"]
    torch.testing.assert_close(grown, same["mse"], rtol=1e-9, atol=1e-12)


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


def test_the_thinned_start_is_what_training_left_out() -> None:
    model, asked = made(torch.float64, dropout=0.3), query()
    rows = weigh(asked.history, model.config, ITEMS).to("cpu", torch.float64)
    plan = planned("diffrec", model.config, Options(start="thinned_history"))
    source = PhiloxNoise(1, asked.key)
    assert torch.equal(plan.thin(rows, source).values, thinned_history(rows, 0.3, source).values)
    assert planned("x", model.config, Options(start="thinned_history"), 0.7).thinning == 0.7


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
