"""How a trained Gaussian diffusion answers: plans, draws, blocks and walks in whole answers."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from rediffuse.data.weighting import weigh
from rediffuse.errors import InvalidConfig, InvalidInput, UnsupportedOption
from rediffuse.models import answering
from rediffuse.models.answering import MOST_DRAWS, Plan, grounded, planned
from rediffuse.models.diffrec import DiffRec
from rediffuse.noise.predictions import as_denoiser
from rediffuse.random import PhiloxNoise
from rediffuse.samplers import SAMPLERS, ancestral, evenly
from rediffuse.samplers.starts import thinned_history
from rediffuse.training.moments import condition_of
from rediffuse.types import Options, Query, Ragged, Ranking
from tests.models.conftest import CONDITIONS, ITEMS, made, query


def row_of(query: Query, row: int) -> Query:
    return query.select(torch.tensor([row]))


def assert_same(one: Ranking, other: Ranking) -> None:
    """Lists, scores and what is said of them, up to the rounding of another batch size."""
    assert torch.equal(one.items, other.items)
    for name in ("scores", "spread", "probability"):
        torch.testing.assert_close(getattr(one, name), getattr(other, name), rtol=1e-4, atol=1e-5)


def ends(model: DiffRec, plan: Plan, asked: Query, seed: int) -> Tensor:
    """The last estimate of x_0 of every draw, (B, S, I)."""
    rows, cond, source = model.answering.asked(plan, asked, seed)
    u = plan.descend(model.chain, rows, cond, source)
    points = plan.guided(model.chain.points)(u, torch.full((len(u),), plan.last), cond)
    return model.chain.score(points).unflatten(0, (len(asked), plan.options.draws))


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
        found = ends(model, plan, asked, 8)
        rows = weigh(asked.history, model.config, ITEMS).to("cpu", torch.float64)
        told = condition_of(model.config.condition, asked, model.config.history_length)
        for draw in range(draws):
            source = PhiloxNoise(8, asked.key, draw)
            u = single.descend(model.chain, rows, told, source)
            alone = model.chain.score(model.chain.points(u, torch.full((9,), plan.last), told))
            torch.testing.assert_close(found[:, draw], alone, rtol=0, atol=1e-10 * float(alone.abs().max()))
    assert float(found.std(1).min(1).values[:-1].max()) > 0


@pytest.mark.parametrize("changes", WAYS)
def test_mean_spread_and_probability_are_those_of_the_draws(changes: dict[str, object]) -> None:
    model, asked, draws, k = made(torch.float64, **changes), query(conditions=True), 5, 8
    options = Options(draws=draws)
    plan = planned("diffrec", model.config, options)
    with torch.inference_mode():
        each = ends(model, plan, asked, 2)
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


@pytest.mark.parametrize("changes", [*WAYS, {"sampler": "dpmpp"}, {"start": "noised_history", "sampling_noise": True}])
@pytest.mark.parametrize("draws", [1, 3])
def test_a_walk_tells_what_each_level_would_answer(changes: dict[str, object], draws: int) -> None:
    model, asked = made(**changes), query(conditions=True)
    options = Options(draws=draws)
    plan = planned("diffrec", model.config, options)
    states: list[tuple[int, Tensor]] = []
    with torch.inference_mode():
        rows, cond, source = model.answering.asked(plan, asked, 3)
        on_step = lambda t, u, _: states.append((t, u.clone()))  # noqa: E731
        states.append((plan.last, plan.descend(model.chain, rows, cond, source, on_step)))
        found = model.walk(asked, 7, options=options, seed=3)
        assert [t for t, _ in found] == [t for t, _ in states] == [5, 4, 3, 2, 1]
        for (t, u), (_, lists) in zip(states, found, strict=True):
            points = model.chain.points(u, torch.full((len(u),), t), cond)
            mean = model.chain.score(points).unflatten(0, (9, draws)).mean(1)
            assert_same(lists, replace(lists, scores=mean.gather(1, lists.items)))
            assert torch.equal(lists.items, grounded(points, model.chain.score, ITEMS, asked, 7, draws).items)


def test_of_two_looks_at_a_level_the_later_one_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    model, asked = made(), query()

    def twice(denoise, x, levels, schedule, *, on_step=None, **more):  # type: ignore[no-untyped-def]
        if on_step:
            for t in levels.tolist():
                on_step(t, 9 * x, x)
        return ancestral(denoise, x, levels, schedule, on_step=on_step, **more)

    expected = model.walk(asked, 7)
    monkeypatch.setitem(SAMPLERS, "ancestral", twice)
    for (t, one), (level, other) in zip(model.walk(asked, 7), expected, strict=True):
        assert t == level
        assert_same(one, other)


@pytest.mark.parametrize("draws", [1, 3])
def test_blocks_give_what_one_batch_gives(monkeypatch: pytest.MonkeyPatch, draws: int) -> None:
    more = {} if draws > 1 else {"prediction": "v"}  # a single draw goes by blocks where its state is the row
    model, asked = made(condition=CONDITIONS, **more), query(conditions=True)
    options = Options(draws=draws, guidance_scale=1.5)
    sizes: list[int] = []

    def asks() -> list[Ranking]:
        sizes.clear()
        return [model.recommend(asked, 6, options=options), *(one for _, one in model.walk(asked, 6, options=options))]

    ground = answering.grounded
    monkeypatch.setattr(answering, "grounded", lambda *args: sizes.append(len(args[3])) or ground(*args))
    whole = asks()
    assert sizes == [9] * 6
    for cells, expected in ((draws * ITEMS * 4, [4, 4, 1]), (1, [1] * 9)):
        monkeypatch.setattr(answering, "CELLS", cells)
        for one, other in zip(asks(), whole, strict=True):
            assert_same(one, other)
        assert sizes[: len(expected)] == expected
        assert len(sizes) == 6 * len(expected)


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
    grounded(points, model.chain.score, ITEMS, asked, 5, 2)
    assert torch.equal(points, kept)


def test_the_thinned_start_is_what_training_left_out() -> None:
    model, asked = made(torch.float64, dropout=0.3), query()
    rows = weigh(asked.history, model.config, ITEMS).to("cpu", torch.float64)
    plan = planned("diffrec", model.config, Options(start="thinned_history"))
    source = PhiloxNoise(1, asked.key)
    assert torch.equal(plan.thin(rows, source).values, thinned_history(rows, 0.3, source).values)
    assert planned("x", model.config, Options(start="thinned_history"), 0.7).thinning == 0.7
