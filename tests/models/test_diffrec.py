"""DiffRec: what the paper says, without the quirks of the released code, against a plain implementation."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from benchmarks.rivals.dense_diffrec import DenseDiffRec, Settings, make_schedule, q_sample
from rediffuse import registry
from rediffuse.config import RunConfig, parse_value
from rediffuse.data.importers import diffrec as importer
from rediffuse.data.weighting import weigh
from rediffuse.denoisers import MLPDenoiser
from rediffuse.errors import InvalidConfig, InvalidInput, TrainingDiverged, UnsupportedOption
from rediffuse.models.answering import planned
from rediffuse.models.diffrec import DiffRec, DiffRecConfig, RowTraining
from rediffuse.protocols import FitContext, FitData, Progress, Stepwise
from rediffuse.training.checkpoint import FolderCheckpoint
from rediffuse.training.loop import TrainingConfig
from rediffuse.types import Options, Query, Ragged, Ranking

ITEMS = 60
RUN = RunConfig(device="cpu", seed=4)
CONFIG = DiffRecConfig(hidden=(16, 6, 16), levels=5, noise_scale=5.0, noise_min=0.001, noise_max=0.04)
TRAINING = TrainingConfig(learning_rate=5e-3, batch_size=16, epochs=6, validate_every=2, patience=100)


def histories(users: int = 40, seed: int = 0) -> Ragged:
    """Users who prefer one of four blocks of items."""
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for user in range(users):
        own = 15 * (user % 4) + torch.randperm(15, generator=generator)[:8]
        rows.append([*own.tolist(), int(torch.randint(ITEMS, (1,), generator=generator))])
    return Ragged.of(rows)


def made(dtype: torch.dtype = torch.float32, **changes: object) -> DiffRec:
    """An untrained model whose scores differ well from item to item."""
    config = CONFIG.model_copy(update=changes)
    generator = torch.Generator().manual_seed(3)
    denoiser = MLPDenoiser(ITEMS, config.hidden, generator=generator)
    with torch.no_grad():
        for weight in denoiser.parameters():
            weight.mul_(2 if weight.dim() == 2 else 100)
    return DiffRec(config, denoiser.to(dtype))


def data(**changes: object) -> FitData:
    return FitData(**{"history": histories(), "n_items": ITEMS, "order": "sequence", **changes})  # type: ignore[arg-type]


def trained(
    changes: dict[str, object] | None = None,
    training: TrainingConfig = TRAINING,
    run: RunConfig = RUN,
    of: FitData | None = None,
    **context: object,
) -> DiffRec:
    config = DiffRecConfig.make({**CONFIG.model_dump(), **(changes or {})})
    return DiffRec.fit(config, training, of or data(), FitContext(run, **context))  # type: ignore[arg-type]


def query() -> Query:
    return Query.from_history(histories(9, seed=5))


def as_rival(model: DiffRec) -> DenseDiffRec:
    """The same weights in the plain implementation."""
    c, ours = model.config, model.denoiser
    settings = Settings(
        c.hidden[len(c.hidden) // 2 :],  # named from the narrowest layer out
        c.levels,
        c.noise_scale,
        c.noise_min,
        c.noise_max,
        1e-3,
        16,
        first_beta=c.first_beta or None,
        reweight=c.loss_weight == "elbo",
        dropout=0.0,
    )
    rival = DenseDiffRec(settings, model.n_items).to(ours.lift_weight.dtype).eval()
    with torch.no_grad():
        rival.time_layer.load_state_dict(ours.time.state_dict())
        first, *body, last = rival.layers
        first.weight.copy_(torch.cat((ours.lift_weight.t(), ours.time_lift.weight), 1))
        first.bias.copy_(ours.time_lift.bias)
        for theirs, layer in zip(body, ours.body, strict=True):
            theirs.load_state_dict(layer.state_dict())
        last.load_state_dict(ours.out.state_dict())
    return rival


def scores_of(ranking: Ranking) -> Tensor:
    """(B, I), by item."""
    out = torch.full((len(ranking), ITEMS), float("nan"))
    kept = ranking.items >= 0
    rows = torch.arange(len(ranking)).unsqueeze(1).expand_as(ranking.items)
    out[rows[kept], ranking.items[kept]] = ranking.scores[kept]
    return out


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
@pytest.mark.parametrize("hidden", [(16,), (16, 6, 16)])
@pytest.mark.parametrize("first_beta", [1e-5, 0.0])
def test_scores_are_those_of_the_plain_chain(
    dtype: torch.dtype, tolerance: float, hidden: tuple[int, ...], first_beta: float
) -> None:
    model = made(dtype, hidden=hidden, first_beta=first_beta)
    asked = query()
    rows = weigh(asked.history, model.config, ITEMS).to("cpu", dtype).dense()
    expected = as_rival(model).reverse_chain(rows)
    with torch.inference_mode():
        plan = planned("diffrec", model.config, Options())
        u = plan.descend(model.chain, *model.answering.asked(plan, asked, 0))
        found = model.chain.score(model.chain.points(u, torch.full((9,), plan.last)))
    scale = float(expected.abs().max())
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance * max(scale, 1))
    ranking = model.recommend(asked, ITEMS)
    unseen = rows == 0
    torch.testing.assert_close(scores_of(ranking)[unseen], expected[unseen].float(), rtol=1e-5, atol=1e-5)


def test_one_step_is_one_pass_of_the_plain_network() -> None:
    model = made(torch.float64)
    asked = query()
    rows = weigh(asked.history, model.config, ITEMS).to("cpu", torch.float64).dense()
    expected = as_rival(model)(rows, torch.full((9,), 4)).detach()
    found = scores_of(model.recommend(asked, ITEMS, options=Options(steps=1)))
    torch.testing.assert_close(found[rows == 0], expected[rows == 0].float(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
@pytest.mark.parametrize("loss_weight", ["elbo", "none"])
def test_the_loss_of_an_example_is_that_of_the_plain_one(
    dtype: torch.dtype, tolerance: float, loss_weight: str
) -> None:
    """At the same levels and noise, without dropout."""
    model = made(dtype, dropout=0.0, loss_weight=loss_weight, level_choice="uniform")
    rival = as_rival(model)
    rows = weigh(histories(), model.config, ITEMS).to("cpu", dtype)
    task = RowTraining(model.config, model.denoiser, rows, 16)
    x0 = rows.dense()
    ours, twin = torch.Generator().manual_seed(8), torch.Generator().manual_seed(8)
    found = task.loss(torch.arange(len(x0)), ours)
    t, _ = task.objective.levels.draw(len(x0), twin)
    eps = torch.empty_like(x0).normal_(generator=twin)
    with torch.no_grad():
        mse = (rival(q_sample(rival.schedule, x0, t - 1, eps), t - 1) - x0).square().mean(1).double()
    weight = make_schedule(rival.schedule.beta).weight[t - 1] if loss_weight == "elbo" else torch.ones(40)
    assert found["loss"].dtype == torch.float64
    torch.testing.assert_close(found["mse"].detach(), mse, rtol=tolerance, atol=0)
    torch.testing.assert_close(found["loss"].detach(), weight.double() * mse, rtol=2 * tolerance, atol=0)
    assert len(set(t.tolist())) == 5


def test_importance_corrects_the_loss_and_remembers_it_before() -> None:
    rows = weigh(histories(), CONFIG, ITEMS)
    task = RowTraining(CONFIG, made().denoiser, rows, 16)
    generator = torch.Generator().manual_seed(0)
    for _ in range(6):
        task.loss(torch.arange(len(rows)), generator)
    assert (task.objective.levels.counts == 10).all()  # type: ignore[operator]
    before, found = task.objective.levels.losses.clone(), task.loss(torch.arange(len(rows)), generator)  # type: ignore[union-attr]
    q = before.square().mean(1).sqrt()
    q = 0.999 * q / q.sum() + 0.001 / 5
    corrections = (found["loss"] / found["mse"]).detach()
    allowed = task.objective.weights[1:] / (5 * q)
    assert all(torch.isclose(allowed, c, rtol=1e-6).any() for c in corrections)
    last = task.objective.levels.losses  # type: ignore[union-attr]
    level = int(torch.isclose(allowed, corrections[-1], rtol=1e-6).nonzero()[0])
    assert float(last[level, -1]) == pytest.approx(
        float(task.objective.weights[level + 1] * found["mse"][-1].detach()), rel=1e-6
    )
    assert {"levels.losses", "levels.counts"} <= set(task.module.state_dict())


def test_every_row_is_seen_once_an_epoch() -> None:
    rows = weigh(histories(), CONFIG, ITEMS)
    task = RowTraining(CONFIG, made().denoiser, rows, 16)
    parts = list(task.batches(torch.Generator().manual_seed(0)))
    assert [len(part) for part in parts] == [16, 16, 8]
    assert sorted(torch.cat(parts).tolist()) == list(range(40))
    assert torch.cat(parts).tolist() != list(range(40))


def test_training_finds_the_blocks_and_repeats() -> None:
    training = TRAINING.model_copy(update={"epochs": 60})
    a, b = trained(training=training), trained(training=training)
    for name, tensor in a.state().items():
        assert torch.equal(tensor, b.state()[name])
    c = trained(training=training, run=RunConfig(device="cpu", seed=5))
    assert not torch.equal(a.state()["lift_weight"], c.state()["lift_weight"])
    asked = Query.from_history(Ragged.of([[0, 1, 2, 3], [30, 31, 32, 33]]))
    found = a.recommend(asked, 8).items
    assert ((found[0] < 15).sum(), ((found[1] >= 30) & (found[1] < 45)).sum()) >= (6, 6)


@pytest.mark.parametrize(
    "changes",
    [
        {"levels": 1},
        {"levels": 1, "sampling_noise": True, "start": "pure_noise"},
        {"noise_scale": 0.0},
        {"noise_scale": 0.0, "sampler": "ddim"},
        {"noise_scale": 0.0, "levels": 1, "start": "noised_history", "sampling_noise": True},
        {"loss_weight": "none", "level_choice": "uniform"},
        {"loss_weight": "min_snr", "schedule": "cosine"},
        {"schedule": "binomial", "time_width": 5},
        {"schedule": "linear", "hidden": (8,), "dropout": 0.0},
        {"recency": "linear", "weight_min": 0.0},
    ],
)
def test_settings_on_which_the_released_code_stumbles(changes: dict[str, object]) -> None:
    reports: list[Progress] = []
    model = trained(changes, report=reports.append)
    assert len(reports) == 6
    assert all(math.isfinite(r.loss) for r in reports)
    ranking = model.recommend(query(), 10)
    assert torch.isfinite(ranking.scores).all()
    again = DiffRec.restore(model.config, model.state(), "cpu").recommend(query(), 10)
    assert torch.equal(again.items, ranking.items)
    assert torch.equal(again.scores, ranking.scores)


def test_without_noise_training_shows_the_rows_themselves() -> None:
    config = CONFIG.model_copy(update={"noise_scale": 0.0, "dropout": 0.0, "level_choice": "uniform"})
    rows = weigh(histories(), config, ITEMS)
    denoiser = made().denoiser
    task = RowTraining(config, denoiser, rows, 16)
    assert task.objective.weights.tolist() == [1] * 6
    twin = torch.Generator().manual_seed(1)
    found = task.loss(torch.arange(40), torch.Generator().manual_seed(1))
    t, _ = task.objective.levels.draw(40, twin)
    expected = (denoiser(rows.dense(), t) - rows.dense()).square().mean(1)
    torch.testing.assert_close(found["loss"], expected.double())


def test_repeated_events_count_once() -> None:
    once = made().recommend(Query.from_history(Ragged.of([[3, 7]])), 5)
    twice = made().recommend(Query.from_history(Ragged.of([[3, 7, 3, 3]])), 5)
    assert torch.equal(once.items, twice.items)
    torch.testing.assert_close(once.scores, twice.scores)


def test_an_item_of_weight_0_is_masked_all_the_same() -> None:
    """With weight_min = 0 the oldest item is an explicit zero, which the released validation forgets to mask."""
    model = made(recency="linear", weight_min=0.0)
    history = Ragged.of([[11, 12, 13]])
    assert weigh(history, model.config, ITEMS).dense()[0, 11] == 0
    assert not {11, 12, 13} & set(model.recommend(Query.from_history(history), ITEMS).items[0].tolist())


@pytest.mark.parametrize(("text", "expected"), [("0", False), ("false", False), ("1", True), ("true", True)])
def test_switches_of_the_command_line_mean_what_they_say(text: str, expected: bool) -> None:
    assert DiffRecConfig.make(sampling_noise=parse_value(text)).sampling_noise is expected
    with pytest.raises(InvalidConfig, match="sampling_noise = 'off it goes' is not possible"):
        DiffRecConfig.make(sampling_noise=parse_value("off it goes"))


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        (
            {"noise_min": 0.02, "noise_max": 0.01},
            r"noise_min must be below noise_max\. Got \(0\.02, 0\.01\)\. Exchange",
        ),
        ({"noise_scale": -1}, "noise_scale = -1 is not possible"),
        ({"schedule": "linear", "noise_scale": 1000}, "noise_scale times noise_max must be below 1"),
        ({"schedule": "linear_var"}, "schedule = 'linear_var' is not possible"),
        ({"levels": 0}, "levels = 0 is not possible"),
        ({"levels": 5, "steps": 6}, r"steps must be 1\.\.5\. Got 6"),
        ({"hidden": []}, "hidden = "),
        ({"dropout": 1}, "dropout = 1 is not possible"),
        ({"noice_scale": 1}, r"Unknown key 'noice_scale'\. Nearest known key: 'noise_scale'"),
        ({"sampler": "ddim", "sampling_noise": True}, "sampling_noise goes with sampler = 'ancestral'"),
    ],
)
def test_impossible_settings_fail_where_they_enter(values: dict[str, object], complaint: str) -> None:
    with pytest.raises(InvalidConfig, match=complaint):
        DiffRecConfig.make(values)


def test_the_presets_are_possible() -> None:
    for values in DiffRec.presets.values():
        for kind in (DiffRecConfig, TrainingConfig):
            kind.make({key: value for key, value in values.items() if key in kind.model_fields})
        assert set(values) <= {*DiffRecConfig.model_fields, *TrainingConfig.model_fields}


def test_steps_are_chosen_without_retraining() -> None:
    model, asked = made(), query()
    assert isinstance(model, Stepwise)
    assert model.steps == 5
    assert made(steps=2).steps == 2
    lists = [model.recommend(asked, 20, options=Options(steps=steps)) for steps in range(1, 6)]
    assert torch.equal(lists[4].scores, model.recommend(asked, 20).scores)
    assert len({tuple(found.scores.ravel().tolist()) for found in lists}) == 5
    configured = made(steps=2)
    assert torch.equal(configured.recommend(asked, 20).scores, lists[1].scores)
    assert torch.equal(configured.recommend(asked, 20, options=Options(steps=5)).scores, lists[4].scores)
    for steps in (0, -1, 6):
        with pytest.raises(InvalidInput, match=rf"steps must be 1\.\.5\. Got {steps}"):
            model.recommend(asked, 20, options=Options(steps=steps))


@pytest.mark.parametrize(
    ("options", "name"),
    [
        (Options(guidance_scale=2.0), "guidance_scale"),
        (Options(diversity=0.5), "diversity"),
        (Options(horizon=3), "horizon"),
        (Options(temperature=0.5), "temperature"),
    ],
)
def test_what_it_cannot_do_is_refused_by_name(options: Options, name: str) -> None:
    for ask in (made().recommend, made().walk):
        with pytest.raises(UnsupportedOption, match=f"diffrec cannot use '{name}'"):
            ask(query(), 5, options=options)


def test_an_unknown_start_is_refused() -> None:
    with pytest.raises(InvalidConfig, match=r"Unknown start 'noise'\. Nearest known start: 'pure_noise'"):
        made().recommend(query(), 5, options=Options(start="noise"))


STOCHASTIC = [
    {"sampling_noise": True},
    {"start": "noised_history"},
    {"start": "pure_noise", "sampler": "ddim"},
    {"start": "pure_noise", "sampling_noise": True},
]


@pytest.mark.parametrize("changes", [{}, {"sampler": "ddim"}, *STOCHASTIC])
def test_an_answer_does_not_depend_on_its_mates(changes: dict[str, object]) -> None:
    model, asked = made(**changes), query()
    batch = model.recommend(asked, ITEMS, seed=3)
    again = model.recommend(asked, ITEMS, seed=3)
    assert torch.equal(again.items, batch.items)
    assert torch.equal(again.scores, batch.scores)
    backwards = model.recommend(asked.select(torch.arange(8, -1, -1)), ITEMS, seed=3)
    for row in range(9):
        alone = scores_of(model.recommend(asked.select(torch.tensor([row])), ITEMS, seed=3))[0]
        for other in (scores_of(batch)[row], scores_of(backwards)[8 - row]):
            torch.testing.assert_close(alone, other, rtol=1e-5, atol=1e-5, equal_nan=True)


@pytest.mark.parametrize("changes", STOCHASTIC)
def test_seed_and_temperature_matter_where_noise_is_drawn(changes: dict[str, object]) -> None:
    model, asked = made(**changes), query()
    a, b = (scores_of(model.recommend(asked, ITEMS, seed=seed)) for seed in (1, 2))
    assert not torch.allclose(a.nan_to_num(), b.nan_to_num(), atol=1e-4)
    cold = [scores_of(model.recommend(asked, ITEMS, options=Options(temperature=0.0), seed=s)) for s in (1, 2)]
    torch.testing.assert_close(cold[0], cold[1], equal_nan=True)
    if "start" not in changes:
        torch.testing.assert_close(cold[0], scores_of(made().recommend(asked, ITEMS)), equal_nan=True)


def test_the_seed_does_not_matter_where_none_is() -> None:
    assert torch.equal(made().recommend(query(), 9, seed=1).scores, made().recommend(query(), 9, seed=2).scores)


def test_an_option_starts_elsewhere() -> None:
    asked = query()
    expected = made(start="noised_history").recommend(asked, 9, seed=2)
    found = made().recommend(asked, 9, options=Options(start="noised_history", temperature=1.0), seed=2)
    assert torch.equal(found.scores, expected.scores)
    made().recommend(asked, 9, options=Options(start="noised_history", temperature=0.5), seed=2)


@pytest.mark.parametrize("changes", [{}, {"levels": 1}, {"sampler": "ddim"}, *STOCHASTIC])
@pytest.mark.parametrize("steps", [None, 1, 2])
def test_a_walk_ends_in_the_answer(changes: dict[str, object], steps: int | None) -> None:
    model, asked = made(**changes), query()
    options = Options(steps=None if steps is None else min(steps, model.steps))
    walk = model.walk(asked, 7, options=options, seed=3)
    levels = [t for t, _ in walk]
    assert len(walk) == (options.steps or model.steps)
    assert levels == sorted(set(levels), reverse=True)
    assert levels[0] == model.config.levels
    answer = model.recommend(asked, 7, options=options, seed=3)
    assert torch.equal(walk[-1][1].items, answer.items)
    assert torch.equal(walk[-1][1].scores, answer.scores)


def test_only_candidates_are_ranked() -> None:
    asked = query()
    limited = Query(asked.user, asked.history, asked.key, candidates=Ragged.of([[1, 2, 3]] * 9))
    found = made().recommend(limited, 5)
    assert all(sorted(row[:3]) == [1, 2, 3] and row[3:] == [-1, -1] for row in found.items.tolist())


def test_recency_needs_an_order() -> None:
    with pytest.raises(InvalidInput, match=r"recency = 'linear' needs events in a known order; this data has none"):
        trained({"recency": "linear"}, of=data(order="none"))
    trained({"recency": "none"}, of=data(order="none"), training=TRAINING.model_copy(update={"epochs": 1}))


def test_double_precision_is_honoured() -> None:
    model = trained(
        run=RunConfig(device="cpu", precision="float64"), training=TRAINING.model_copy(update={"epochs": 1})
    )
    assert {tensor.dtype for tensor in model.state().values()} == {torch.float64}
    restored = DiffRec.restore(model.config, model.state(), "cpu")
    assert restored.denoiser.lift_weight.dtype == torch.float64
    assert restored.n_items == ITEMS


def test_validation_sees_the_weights_of_its_epoch_and_the_best_are_kept() -> None:
    seen: list[Tensor] = []
    values = iter([0.1, 0.5, 0.2])

    def validate(model: DiffRec) -> float:
        seen.append(model.recommend(query(), 9).scores)
        return next(values)

    model = trained(validate=validate)
    assert torch.equal(model.recommend(query(), 9).scores, seen[1])
    assert not torch.equal(seen[0], seen[1])


class Interrupted(Exception):  # noqa: N818
    """Stands for a kill."""


def test_an_interrupted_training_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    """Weights, optimiser, generator and the importance queues all come back."""

    def stop(progress: Progress) -> None:
        if progress.epoch == 5:
            raise Interrupted

    whole = trained()
    store = FolderCheckpoint(tmp_path / "run", "abc")
    with pytest.raises(Interrupted):
        trained(report=stop, checkpoint=store)
    kept = store.load()
    assert kept is not None
    assert (kept[0]["module.levels.counts"] == 10).all()
    resumed = trained(checkpoint=store)
    for name, tensor in whole.state().items():
        assert torch.equal(tensor, resumed.state()[name]), name


@pytest.mark.parametrize("level_choice", ["uniform", "importance"])
def test_a_training_that_explodes_says_so(level_choice: str) -> None:
    with pytest.raises(TrainingDiverged, match="Lower learning_rate"):
        trained({"level_choice": level_choice}, training=TRAINING.model_copy(update={"learning_rate": 1e30}))


@pytest.mark.slow
@pytest.mark.realdata
def test_a_trained_model_ranks_as_the_dense_chain_does(real: Path) -> None:
    """Two epochs on ML-1M with the authors' settings: the same top 100 as 40 steps over the catalog, but for ties."""
    dataset = importer.load(real / "ml-1m_clean")
    chosen = registry.recipe("diffrec", "ml-1m-clean", {"epochs": 2})
    learned = FitData(dataset.history("train"), len(dataset.catalog), "sequence")
    model = chosen.method.fit(chosen.config, chosen.training, learned, FitContext(RunConfig(threads=1).resolve()))
    assert isinstance(model, DiffRec)
    asked = Query.from_history(learned.history.select(torch.arange(0, 5949, 20)))
    rows = weigh(asked.history, model.config, learned.n_items).dense()
    dense = as_rival(model).reverse_chain(rows).masked_fill(rows > 0, float("-inf"))
    expected = dense.topk(100)
    found = model.recommend(asked, 100)
    torch.testing.assert_close(found.scores, expected.values, rtol=0, atol=5e-6)
    for mine, theirs, scores in zip(found.items.tolist(), expected.indices.tolist(), dense, strict=True):
        last = float(scores[theirs[-1]])
        assert all(abs(float(scores[item]) - last) < 5e-6 for item in set(mine) ^ set(theirs))
