"""How diffusions over next items answer: one map or step by step, guided, drawn, after training, from a folder."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

import rediffuse
from rediffuse.data.dataset import Dataset
from rediffuse.errors import InvalidConfig, InvalidInput, UnsupportedOption
from rediffuse.evaluation.protocol import Protocol
from rediffuse.models.answering import planned
from rediffuse.models.next_item import NextItem
from rediffuse.protocols import Progress, Stepwise
from rediffuse.samplers import evenly
from rediffuse.training.checkpoint import FolderCheckpoint
from rediffuse.training.loop import TrainingConfig
from rediffuse.types import Options, Query, Ragged, Ranking
from tests.models.next_items import (
    DRAWN,
    ITEMS,
    METHODS,
    RUN,
    SMALL,
    TRAINING,
    config,
    cycles,
    data,
    made,
    query,
    trained,
)

AFFINE = ("dreamrec", "preferdiff")
WALKS = [
    {"sampler": "ancestral"},
    {"sampler": "ddim"},
    {"sampler": "heun"},
    {"sampler": "dpmpp"},
    {"sampler": "ancestral", **DRAWN},
    {"sampler": "ddim", "eta": 0.5, **DRAWN},
]


def both_ways(model: NextItem, options: Options, asked: Query, seed: int = 3) -> tuple[Tensor, Tensor]:
    """The points of an answer by the map, and by the chain, (B S, D)."""
    answering, plan = model.answering, planned(model.name, model.config, options)
    assert answering.whole is not None
    with torch.inference_mode():
        rows, cond, source = answering.asked(plan, asked, seed)
        u, noise = plan.begin(answering.chain, rows, source)
        end = answering.whole(plan, u, cond, noise)
        assert end is not None
        u = plan.descend(answering.chain, rows, cond, source)
        at = torch.full((len(u),), plan.last)
        return end, plan.guided(answering.chain.points)(u, at, cond)


def passes(model: NextItem) -> list[int]:
    """Grows by one with each forward pass of the network."""
    count: list[int] = []

    def note(*_: object) -> None:
        count.append(1)

    model.network.register_forward_hook(note)
    return count


def assert_same(one: Ranking, other: Ranking, tolerance: float = 1e-6) -> None:
    assert torch.equal(one.items, other.items)
    torch.testing.assert_close(one.scores, other.scores, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("scale", [0.0, 1.0, 3.0])
@pytest.mark.parametrize(("levels", "steps"), [(1, 1), (5, 1), (5, 3), (5, 5), (500, 1), (500, 5), (500, 500)])
@pytest.mark.parametrize("walk", [0, 1])
def test_one_map_is_the_chain_without_noise(walk: int, levels: int, steps: int, scale: float) -> None:
    for name in AFFINE:
        for start in ("origin", "pure_noise"):
            model = made(name, **WALKS[walk], levels=levels, start=start, schedule="exponential")
            end, chain = both_ways(model, Options(steps=steps, guidance_scale=scale), query())
            torch.testing.assert_close(end, chain, rtol=0, atol=1e-10 * max(1.0, float(chain.abs().max())))


@pytest.mark.parametrize("walk", range(4))
@pytest.mark.parametrize("scale", [0.0, 1.0, 3.0])
def test_an_answer_is_the_last_list_of_its_walk(walk: int, scale: float) -> None:
    """Whether the chain runs as one map, without a pass of the network, or not."""
    for name in METHODS:
        model = made(name, **WALKS[walk], condition_drop=0.1)
        count = passes(model)
        for start in ("origin", "pure_noise"):
            asked = Options(guidance_scale=scale, start=start)
            count.clear()
            answer = model.recommend(query(), 5, options=asked, seed=2)
            assert bool(count) is (name == "diffurec")
            assert_same(answer, model.walk(query(), 5, options=asked, seed=2)[-1][1])
            assert count


def test_the_map_of_one_walk_does_not_answer_another() -> None:
    """Whether noise is drawn on the way, and which levels are visited, make another map."""
    ways = [
        Options(draws=3),
        Options(),
        Options(steps=2),
        Options(steps=2, draws=3),
        Options(steps=1, draws=3),
        Options(),
    ]
    for name in AFFINE:
        model = made(name, sampler="ancestral")
        for options in ways:
            alone = made(name, sampler="ancestral").recommend(query(), ITEMS, options=options)
            assert torch.equal(model.recommend(query(), ITEMS, options=options).scores, alone.scores)


def test_the_scale_asked_for_multiplies_the_one_configured() -> None:
    for name in METHODS:
        plain, own = made(name, condition_drop=0.1), made(name, condition_drop=0.1, guidance_scale=3.0)
        for asked in (0.0, 0.5, 1.0, 2.0):
            other = plain.recommend(query(), 6, options=Options(guidance_scale=3.0 * asked))
            assert_same(own.recommend(query(), 6, options=Options(guidance_scale=asked)), other)
            assert_same(own.recommend(query(), 6, options=Options(guidance_scale={"history": asked})), other)
        assert_same(own.recommend(query(), 6), plain.recommend(query(), 6, options=Options(guidance_scale=3.0)))
        # An empty history is the null itself, so nothing can lean towards it.
        nobody = query().select(torch.tensor([3]))
        assert_same(own.recommend(nobody, 6), plain.recommend(nobody, 6))
        nulls = plain.recommend(query(), ITEMS, options=Options(guidance_scale=0.0)).scores
        assert not torch.allclose(plain.recommend(query(), ITEMS).scores[0], nulls[0])


def test_scale_0_leaves_the_history_out() -> None:
    for name in METHODS:
        model = made(name, condition_drop=0.1)
        asked = Query.from_history(Ragged.of([[1, 2], [8], []]), exclude=Ragged.empty(3))
        found = model.recommend(asked, ITEMS, options=Options(guidance_scale=0.0))
        assert torch.equal(found.items[0], found.items[1])
        torch.testing.assert_close(found.scores[0], found.scores[2])
        assert not torch.equal(*model.recommend(asked, ITEMS).scores[:2])


@pytest.mark.parametrize(
    ("changes", "asked"),
    [
        ({"denoiser": "mlp"}, Options()),
        ({"prediction": "eps"}, Options()),
        ({"prediction": "v"}, Options(guidance_scale=2.0)),
        ({"guidance_low": 2}, Options(guidance_scale=2.0)),
        ({"guidance_high": 4}, Options(guidance_scale=2.0)),
    ],
)
def test_what_is_not_one_affine_map_runs_step_by_step(changes: dict[str, object], asked: Options) -> None:
    for name in AFFINE:
        model = made(name, **changes)
        count = passes(model)
        answer = model.recommend(query(), 5, options=asked)
        assert len(count) == 5
        assert_same(answer, model.walk(query(), 5, options=asked)[-1][1])


def test_an_interval_of_guidance_matters_only_to_what_is_guided() -> None:
    model = made("dreamrec", guidance_low=2)
    count = passes(model)
    model.recommend(query(), 5)
    assert not count
    inside = model.recommend(query(), 5, options=Options(guidance_scale=3.0))
    assert not torch.allclose(
        inside.scores, made("dreamrec").recommend(query(), 5, options=Options(guidance_scale=3.0)).scores
    )


@pytest.mark.parametrize("name", AFFINE)
@pytest.mark.parametrize("changes", WALKS[-2:])
def test_draws_of_the_map_have_mean_and_spread_of_those_of_the_chain(name: str, changes: dict[str, object]) -> None:
    """Within 5 standard errors, for two independent sets of draws."""
    model, n = made(name, **changes), 1000
    asked = query().select(torch.tensor([0, 3]))
    options = Options(draws=n, guidance_scale=2.0)
    by_map, _ = both_ways(model, options, asked, seed=1)
    _, by_chain = both_ways(model, options, asked, seed=2)
    for one, other in zip(by_map.unflatten(0, (2, n)), by_chain.unflatten(0, (2, n)), strict=True):
        covariance = torch.cov(other.t())
        spread = covariance.diagonal()
        assert float(spread.min()) > 1e-3
        assert bool(((one.mean(0) - other.mean(0)).abs() < 5 * (2 * spread / n).sqrt()).all())
        error = ((torch.outer(spread, spread) + covariance**2) * 2 / n).sqrt()
        assert bool(((torch.cov(one.t()) - covariance).abs() < 5 * error).all())


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("changes", [{}, DRAWN])
def test_an_answer_does_not_depend_on_its_mates(name: str, changes: dict[str, object]) -> None:
    model = made(name, **{**changes, "sampler": "ancestral"})
    for options in (Options(), Options(draws=4)):
        whole = model.recommend(query(), 6, options=options, seed=5)
        for row in range(5):
            at = torch.tensor([row])
            assert_same(model.recommend(query().select(at), 6, options=options, seed=5), whole.select(at))


@pytest.mark.parametrize("name", METHODS)
def test_several_draws_tell_a_spread(name: str) -> None:
    model = made(name)
    found = model.recommend(query(), ITEMS, options=Options(draws=8))
    assert found.spread is not None
    assert float(found.spread.max()) > 1e-4
    cold = model.recommend(query(), ITEMS, options=Options(draws=8, temperature=0.0))
    assert cold.spread is not None
    assert float(cold.spread.max()) < 1e-6


@pytest.mark.parametrize("name", METHODS)
def test_validation_and_the_answer_know_the_weights_of_their_epoch(name: str) -> None:
    """A map made for one validation must not answer at the next one, nor after training."""
    seen: list[Tensor] = []
    values = iter([0.1, 0.5, 0.2])

    def validate(model: NextItem) -> float:
        seen.append(model.recommend(query(), 5).scores)
        assert_same(model.recommend(query(), 5), model.walk(query(), 5)[-1][1], 1e-4)
        return next(values)

    model = trained(name, validate=validate)
    assert torch.equal(model.recommend(query(), 5).scores, seen[1])
    assert not torch.equal(seen[0], seen[1])
    assert_same(model.recommend(query(), 5), model.walk(query(), 5)[-1][1], 1e-4)


@pytest.mark.parametrize("name", METHODS)
def test_training_finds_what_comes_next_and_repeats(name: str) -> None:
    """Items follow each other in a ring; guessing is right one time in eight."""
    training = TrainingConfig(learning_rate=1e-2, batch_size=40, epochs=100)
    more: dict[str, object] = {"examples": "every", "item_dropout": 0.0, "consistency": 0.3, "alignment": 0.3}
    model = trained(name, more, training)
    ring = cycles(12, 4)
    found = model.recommend(Query.from_history(ring), 1).items[:, 0]
    assert float((found == (ring.items[3::4] + 1) % ITEMS).float().mean()) >= 0.9
    one = model.recommend(Query.from_history(ring), 1, options=Options(steps=1)).items[:, 0]
    assert float((one == (ring.items[3::4] + 1) % ITEMS).float().mean()) >= 0.9


class Interrupted(Exception):  # noqa: N818
    """Stands for a kill."""


@pytest.mark.parametrize("name", METHODS)
def test_an_interrupted_training_goes_on_as_if_it_had_not_been(name: str, tmp_path: Path) -> None:
    more: dict[str, object] = {"level_choice": "importance", "consistency": 0.5, "alignment": 0.5}

    def stop(progress: Progress) -> None:
        if progress.epoch == 5:
            raise Interrupted

    whole = trained(name, more)
    store = FolderCheckpoint(tmp_path / "run", "abc")
    with pytest.raises(Interrupted):
        trained(name, more, report=stop, checkpoint=store)
    assert store.load() is not None
    resumed = trained(name, more, checkpoint=store)
    for key, tensor in whole.state().items():
        assert torch.equal(tensor, resumed.state()[key]), key


@pytest.mark.parametrize("name", METHODS)
def test_restored_from_its_state_it_answers_the_same(name: str) -> None:
    model = trained(name)
    assert isinstance(model, Stepwise)
    assert (model.steps, model.n_items) == (5, ITEMS)
    again = METHODS[name].restore(model.config, model.state(), "cpu")
    for options in (Options(), Options(steps=2), Options(draws=3)):
        one, other = (m.recommend(query(), 5, options=options, seed=1) for m in (model, again))
        assert torch.equal(one.items, other.items)
        assert torch.equal(one.scores, other.scores)


def test_a_model_folder_answers_as_the_model_did(tiny: Dataset, tmp_path: Path) -> None:
    fitted = rediffuse.fit(rediffuse.recipe("dreamrec", settings={**SMALL, "epochs": 2}), tiny, Protocol(), RUN)
    fitted.write(tmp_path / "model")
    ids = tiny.catalog.items.ids
    found = rediffuse.load(tmp_path / "model").recommend([ids[3], ids[9]], k=5).items
    told = fitted.model.recommend(Query.from_history(Ragged.of([[3, 9]])), 5)
    assert [place.item for place in found] == [ids[item] for item in told.items[0].tolist()]
    assert [place.score for place in found] == told.scores[0].tolist()


@pytest.mark.parametrize("name", METHODS)
def test_a_training_goes_on_from_an_earlier_model_with_more_items(name: str) -> None:
    first = trained(name)
    idle = TRAINING.model_copy(update={"learning_rate": 1e-30, "epochs": 1})
    second = trained(name, None, idle, data(n_items=ITEMS + 2), initial=first.state())
    torch.testing.assert_close(second.state()["table"][:ITEMS], first.state()["table"])
    assert second.n_items == ITEMS + 2
    with pytest.raises(InvalidInput, match="The earlier model has other widths or layers"):
        trained(name, {"width": 16}, idle, initial=first.state())


@pytest.mark.parametrize("name", METHODS)
def test_data_without_a_next_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput, match="needs events in a known order; this data has none"):
        trained(name, of=data(order="none"))
    with pytest.raises(InvalidInput, match="needs users with two events or more"):
        trained(name, of=data(history=Ragged.of([[1], [2], []])))


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"condition": ["season"]}, "condition must be history; it is season"),
        ({"condition": []}, "condition must be history; it is empty"),
        ({"start": "history"}, "start must be one of origin, pure_noise; it is history"),
        ({"encoder_heads": 3}, "width = 8 must be a multiple of encoder_heads = 3"),
        ({"consistency_stride": 6}, "consistency_stride = 6 exceeds levels = 5"),
        (
            {"guidance_scale": 2.0, "condition_drop": 0.0},
            "guidance_scale = 2.0 needs a condition, and condition_drop > 0",
        ),
        ({"examples": "all"}, "examples = 'all' is not possible"),
        ({"widht": 8}, "Unknown key 'widht'. Nearest known key: 'width'"),
    ],
)
def test_impossible_settings_fail_where_they_enter(name: str, values: dict[str, object], complaint: str) -> None:
    with pytest.raises(InvalidConfig, match=complaint):
        config(name, **values)


def test_diffurec_is_guided_only_where_its_null_was_trained() -> None:
    with pytest.raises(InvalidConfig, match="needs a condition, and condition_drop > 0"):
        config("diffurec", guidance_scale=2.0)
    with pytest.raises(UnsupportedOption, match="diffurec cannot use 'guidance_scale'"):
        made("diffurec").recommend(query(), 5, options=Options(guidance_scale=2.0))
    made("diffurec", condition_drop=0.1).recommend(query(), 5, options=Options(guidance_scale=2.0))


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (Options(diversity=0.5), "cannot use 'diversity'"),
        (Options(horizon=3), "cannot use 'horizon'"),
        (Options(temperature=0.5), "cannot use 'temperature'"),
        (Options(start="history"), "cannot use 'start': it begins at origin or pure_noise"),
        (Options(start="thinned_history"), "cannot use 'start': it begins at origin or pure_noise"),
        (Options(draws=2, start="origin", steps=1), "cannot use 'draws' from start 'origin'"),
    ],
)
def test_what_it_cannot_do_is_refused_by_name(name: str, options: Options, message: str) -> None:
    for ask in (made(name).recommend, made(name).walk):
        with pytest.raises(UnsupportedOption, match=message):
            ask(query(), 5, options=options)


@pytest.mark.parametrize("name", AFFINE)
def test_an_unknown_condition_is_refused_by_the_map_too(name: str) -> None:
    for scale, message in (({"season": 2.0}, "Unknown condition 'season'"), (float("nan"), "must be a finite number")):
        with pytest.raises(InvalidInput, match=message):
            made(name).recommend(query(), 5, options=Options(guidance_scale=scale))  # type: ignore[arg-type]


def test_the_presets_are_possible() -> None:
    for name, cls in METHODS.items():
        for preset in cls.presets:
            recipe = rediffuse.recipe(name, preset)
            assert recipe.label == f"{name}:{preset}"
            own, walk = recipe.config.model_dump(), evenly(recipe.config.levels, recipe.config.steps)  # type: ignore[attr-defined]
            assert own["guidance_scale"] == 1 or own["condition_drop"] > 0
            assert int(walk[0]) == own["levels"]
