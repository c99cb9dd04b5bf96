"""L-DiffRec: the published loss and chain against plain formulas; what the released code gets wrong is mended."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from rediffuse import registry
from rediffuse.config import RunConfig
from rediffuse.data.weighting import weigh
from rediffuse.denoisers import MLPDenoiser
from rediffuse.errors import InvalidInput, UnsupportedOption
from rediffuse.models.answering import planned
from rediffuse.models.l_diffrec import LDiffRec
from rediffuse.models.l_diffrec_training import LatentTraining, LDiffRecConfig, LDiffRecTraining
from rediffuse.noise.predictions import gain
from rediffuse.noise.process import posterior_weights
from rediffuse.protocols import Context, FitContext, FitData
from rediffuse.samplers.starts import thinned_history
from rediffuse.spaces.latent import LatentRows
from rediffuse.training.moments import Moments, drawn, examples
from rediffuse.types import Options, Query, Ragged, SparseRows

ITEMS = 60
RUN = RunConfig(device="cpu", seed=4)
CONFIG = LDiffRecConfig(latent=12, hidden=(10,), levels=4, noise_scale=5.0, noise_min=0.001, noise_max=0.04)
TRAINING = LDiffRecTraining(learning_rate=5e-3, batch_size=16, epochs=4)


def histories(users: int = 40, seed: int = 0, items: int = ITEMS) -> Ragged:
    """Users who prefer one of four blocks of items."""
    generator = torch.Generator().manual_seed(seed)
    wide = items // 4
    return Ragged.of(
        [(wide * (user % 4) + torch.randperm(wide, generator=generator)[:8]).tolist() for user in range(users)]
    )


def data(**changes: object) -> FitData:
    return FitData(**{"history": histories(), "n_items": ITEMS, "order": "sequence", **changes})  # type: ignore[arg-type]


def trained(
    changes: dict[str, object] | None = None,
    training: LDiffRecTraining = TRAINING,
    of: FitData | None = None,
    run: RunConfig = RUN,
    **more: object,
) -> LDiffRec:
    config = LDiffRecConfig.make({**CONFIG.model_dump(), **(changes or {})})
    return LDiffRec.fit(config, training, of or data(), FitContext(run, initial=more.pop("initial", None)), **more)  # type: ignore[arg-type]


def task(
    config: LDiffRecConfig, training: LDiffRecTraining = TRAINING, rows: SparseRows | Moments | None = None
) -> LatentTraining:
    """An untrained one over all rows, or what gives examples, in float64."""
    generator = torch.Generator().manual_seed(2)
    space = LatentRows.of(torch.arange(ITEMS) % 2, config.latent, config.encoder_hidden, generator=generator).double()
    conditioner = config.make_conditioner(dict.fromkeys(config.condition, 0), generator)
    denoiser = MLPDenoiser(config.latent, config.hidden, conditioner=conditioner, generator=generator).double()
    rows = weigh(histories(), config, ITEMS).to("cpu", torch.float64) if rows is None else rows
    return LatentTraining(config, training, space, denoiser, rows)


def query() -> Query:
    return Query.from_history(histories(9, seed=5))


BATCH = torch.tensor([3, 0, 17])


def test_the_loss_is_the_published_one() -> None:
    changes = {"noise_scale": 0.0, "levels": 1, "dropout": 0.0, "row_dropout": 0.0, "level_choice": "uniform"}
    mine = task(CONFIG.model_copy(update={**changes, "beta": 0.3, "annealing_steps": 4, "diffusion_weight": 0.5}))
    x = mine.rows.select(BATCH)  # type: ignore[union-attr]
    generator = torch.Generator().manual_seed(7)
    for step in range(3):
        draws = torch.Generator()
        draws.set_state(generator.get_state())
        found = mine.loss(BATCH, generator)
        mu, log_variance = mine.space.posterior(x)
        z = mu + (log_variance / 2).exp() * torch.empty_like(mu).normal_(generator=draws)
        z_hat = mine.denoiser(z, torch.ones(3, dtype=torch.int64))
        error = -(x.dense() * torch.log_softmax(z_hat @ mine.space.out.weight.t() + mine.space.out.bias, 1)).sum(1)
        kl = -0.5 * (1 + log_variance - mu**2 - log_variance.exp()).sum(1)
        diffusion = (z_hat - z).square().mean(1)
        falls = 0.5 + (0.005 - 0.5) * step / (417 * 3)  # 40 rows in batches of 16 are 3 steps an epoch
        torch.testing.assert_close(found["loss"], error + 0.3 * step / 4 * kl + falls * diffusion)
        torch.testing.assert_close(found["diffusion"], diffusion)


def test_the_diffusion_loss_flows_into_the_encoder_through_its_target() -> None:
    mine = task(CONFIG.model_copy(update={"dropout": 0.0}))
    diffusion = mine.loss(BATCH, torch.Generator().manual_seed(7))["diffusion"].sum()
    for gradient in torch.autograd.grad(diffusion, [*mine.space.lifts], retain_graph=True):
        assert float(gradient.abs().max()) > 0
    with torch.no_grad():  # a network that answers 0, whatever it is given: only the target is left
        for weight in mine.denoiser.parameters():
            weight.zero_()
    diffusion = mine.loss(BATCH, torch.Generator().manual_seed(7))["diffusion"].sum()
    for gradient in torch.autograd.grad(diffusion, [*mine.space.lifts]):
        assert float(gradient.abs().max()) > 0


def test_the_clean_row_is_reconstructed_but_officially_what_dropout_left() -> None:
    changes = {"row_dropout": 0.5}
    errors: list[Tensor] = []
    for official in (False, True):
        mine = task(CONFIG.model_copy(update=changes), TRAINING.model_copy(update={"official": official}))
        with torch.no_grad():
            mine.space.out.weight.zero_()
            mine.space.out.bias.zero_()  # every item is as likely
        errors.append(mine.loss(BATCH, torch.Generator().manual_seed(7))["error"] / math.log(ITEMS))
    assert errors[0].tolist() == pytest.approx([8, 8, 8])
    left = [value / 2 for value in errors[1].tolist()]  # what is left counts twice
    assert left == pytest.approx([round(value) for value in left])
    assert left != pytest.approx([4, 4, 4])


def test_the_row_is_reconstructed_as_it_is_seen_from_a_moment() -> None:
    """What is encoded stays the plain row; officially what dropout left of it is reconstructed all the same."""
    season = Context("event", torch.rand(40 * 8, generator=torch.Generator().manual_seed(1)))
    config = CONFIG.model_copy(update={"condition": ("season",), "condition_drop": 0.0, "row_dropout": 0.0})
    rows = examples(data(contexts={"season": season}, order="time"), config, RUN)
    for official in (False, True):
        mine = task(config, TRAINING.model_copy(update={"official": official}), rows)
        seen: list[SparseRows] = []
        mine.space.posterior = lambda left, of=mine.space.posterior, seen=seen: seen.append(left) or of(left)  # type: ignore[method-assign]
        with torch.no_grad():
            mine.space.out.weight.zero_()
            mine.space.out.bias.zero_()  # every item is as likely
        found = mine.loss(BATCH, torch.Generator().manual_seed(7))["error"] / math.log(ITEMS)
        row, wanted, _ = drawn(rows, BATCH, torch.Generator().manual_seed(7))
        assert torch.equal(seen[0].values, row.values.double())
        expected = (row if official else wanted).dense().sum(1).double()
        torch.testing.assert_close(found.detach(), expected)
        assert not torch.equal(wanted.values, row.values)


@pytest.mark.parametrize("prediction", ["eps", "v"])
def test_the_decoder_reads_the_estimate_that_the_diffusion_loss_compares(prediction: str) -> None:
    """Whatever dropout took from what the network was shown."""
    mine = task(CONFIG.model_copy(update={"prediction": prediction, "dropout": 0.5, "loss_weight": "elbo"}))
    read: list[Tensor] = []
    mine.space.decode = lambda z, of=mine.space.decode: read.append(z) or of(z)  # type: ignore[method-assign]
    drawn_: list[Tensor] = []
    loss = mine.objective.loss
    mine.objective.loss = lambda network, z0, *more: drawn_.append(z0) or loss(network, z0, *more)  # type: ignore[method-assign]
    found = mine.loss(BATCH, torch.Generator().manual_seed(7))
    grown = gain(prediction, CONFIG.noise_schedule())[found["level"]] ** 2 * found["mse"]
    torch.testing.assert_close(grown, (read[0] - drawn_[0]).square().mean(1))


def test_lambda_falls_step_by_step_but_officially_once_an_epoch() -> None:
    smooth, stairs = (task(CONFIG, TRAINING.model_copy(update={"official": official})) for official in (False, True))
    fall = [[float(mine.weight.next()) for _ in range(7)] for mine in (smooth, stairs)]
    assert fall[1] == pytest.approx([fall[0][0]] * 3 + [fall[0][3]] * 3 + [fall[0][6]])
    assert len(set(fall[0])) == 7
    assert {"beta.step", "weight.step", "levels.losses"} <= set(smooth.module.state_dict())


def test_auto_encoder_and_denoiser_learn_at_rates_of_their_own() -> None:
    """The first step of AdamW moves a weight by its learning rate."""
    before = trained(training=LDiffRecTraining(learning_rate=1e-12, batch_size=40, epochs=1)).state()
    after = trained(training=LDiffRecTraining(learning_rate=1e-3, denoiser_rate=0.25, batch_size=40, epochs=1)).state()
    for name, rate in (("space.out.bias", 1e-3), ("space.lifts.0", 1e-3), ("denoiser.out.weight", 0.25e-3)):
        assert float((after[name] - before[name]).abs().max()) == pytest.approx(rate, rel=0.02)


@pytest.mark.parametrize("clusters", [1, 2])
def test_an_answer_is_the_decoded_end_of_the_plain_chain(clusters: int) -> None:
    model = trained({"clusters": clusters}, run=RUN.model_copy(update={"precision": "float64"}))
    variance = CONFIG.noise_scale * torch.linspace(CONFIG.noise_min, CONFIG.noise_max, 4, dtype=torch.float64)
    abar = torch.cat((torch.ones(1, dtype=torch.float64), 1 - variance))
    asked = query()
    with torch.no_grad():
        z = model.space.encode(weigh(asked.history, model.config, ITEMS).to("cpu", torch.float64))
        for t in range(4, 0, -1):
            beta = 1 - abar[t] / abar[t - 1]
            c1 = beta * abar[t - 1].sqrt() / (1 - abar[t])
            c2 = (1 - beta).sqrt() * (1 - abar[t - 1]) / (1 - abar[t])
            z = c1 * model.denoiser(z, torch.full((9,), t)) + c2 * z
        scores = z @ model.space.out.weight.t() + model.space.out.bias
    ranking = model.recommend(replace(asked, exclude=None), ITEMS)
    torch.testing.assert_close(ranking.scores.double(), scores.gather(1, ranking.items), rtol=1e-5, atol=1e-5)
    one = model.recommend(replace(asked, exclude=None), ITEMS, options=Options(steps=1))
    assert not torch.equal(one.scores, ranking.scores)


def test_it_finds_the_block_of_a_user() -> None:
    model = trained(training=TRAINING.model_copy(update={"epochs": 150}))
    blocks = model.recommend(query(), 5).items // 15
    assert float((blocks == (torch.arange(9) % 4).unsqueeze(1)).float().mean()) > 0.9


@pytest.mark.parametrize("prediction", ["eps", "v"])
def test_other_predictions_work_too(prediction: str) -> None:
    model = trained({"prediction": prediction, "dropout": 0.0}, TRAINING.model_copy(update={"epochs": 60}))
    blocks = model.recommend(query(), 5).items // 15
    assert float((blocks == (torch.arange(9) % 4).unsqueeze(1)).float().mean()) > 0.9


def test_draws_leave_out_events_of_the_row() -> None:
    model = trained()
    ranking = model.recommend(query(), 5, options=Options(draws=8))
    assert ranking.spread is not None
    assert ranking.probability is not None
    assert bool((ranking.spread > 0).all())
    assert bool((ranking.probability <= 1).all())


def test_conditions_steer_and_are_refused_where_there_are_none() -> None:
    tier = Context("user", torch.arange(40) % 2, ("low", "high"))
    given = data(contexts={"tier": tier})
    model = trained({"condition": ("tier",)}, of=given)
    low, high = (
        model.recommend(
            replace(query(), context={"tier": torch.full((9,), code)}), 5, options=Options(guidance_scale=2)
        )
        for code in (0, 1)
    )
    assert not torch.equal(low.scores, high.scores)
    again = LDiffRec.restore(model.config, model.state(), "cpu")
    asked = replace(query(), context={"tier": torch.ones(9, dtype=torch.int64)})
    assert torch.equal(again.recommend(asked, 5).scores, model.recommend(asked, 5).scores)
    with pytest.raises(UnsupportedOption, match="guidance_scale"):
        trained().recommend(query(), 5, options=Options(guidance_scale=2))


def test_a_history_is_a_condition_and_comes_back() -> None:
    model = trained({"condition": ("history",)})
    again = LDiffRec.restore(model.config, model.state(), "cpu")
    assert torch.equal(again.recommend(query(), 5).scores, model.recommend(query(), 5).scores)
    missing = {name: t for name, t in model.state().items() if not name.endswith("conditioner.encoders.0.table")}
    with pytest.raises(RuntimeError, match="Missing key"):
        LDiffRec.restore(model.config, missing, "cpu")


def test_a_thinned_start_leaves_out_as_much_of_the_row_as_training_did() -> None:
    model = trained({"row_dropout": 0.4, "dropout": 0.0})
    plan = planned("l-diffrec", model.config, Options(start="thinned_history"), model.config.row_dropout)
    rows, cond, source = model.answering.asked(plan, query(), 3)
    with torch.no_grad():
        u = plan.descend(model.answering.chain, rows, cond, source)
        points = model.answering.chain.points(u, torch.full((9,), 1), cond)
        z = model.space.encode(thinned_history(rows, 0.4, source))
        for t, s in ((4, 3), (3, 2), (2, 1)):
            schedule = model.config.noise_schedule()
            on_z, on_x0, _ = (float(w) for w in posterior_weights(schedule, t, s))
            z = on_z * z + on_x0 * model.denoiser(z, torch.full((9,), t))
    torch.testing.assert_close(points, model.denoiser(z, torch.ones(9, dtype=torch.int64)))
    with pytest.raises(UnsupportedOption, match="l-diffrec cannot use 'start' = 'thinned_history'"):
        trained({"row_dropout": 0.0, "dropout": 0.4}).recommend(query(), 5, options=Options(start="thinned_history"))


def test_clusters_follow_the_given_vectors() -> None:
    vectors = torch.zeros(ITEMS, 2)
    vectors[:10, 0] = vectors[10:, 1] = 1
    assert trained(vectors=vectors).space.groups.tolist() == [1] * 10 + [0] * 50
    alone = torch.zeros(ITEMS, 1)
    alone[7] = 1
    model = trained(vectors=alone)  # a cluster of one item
    assert model.space.groups.bincount().tolist() == [ITEMS - 1, 1]
    assert [tuple(lift.shape) for lift in model.space.lifts] == [(59, 20), (1, 4)]


def test_training_goes_on_with_more_items() -> None:
    early = trained(of=data(history=histories(items=40), n_items=40))
    still = LDiffRecTraining(learning_rate=1e-12, epochs=1)
    late = trained(training=still, initial=early.state())
    assert late.n_items == ITEMS
    assert torch.equal(late.space.groups[:40], early.space.groups)
    asked = replace(query(), history=histories(9, seed=5, items=40), exclude=None)
    first, second = early.recommend(asked, 40), late.recommend(asked, ITEMS)
    kept = [
        [pair for pair in zip(i, s, strict=True) if pair[0] < 40]
        for i, s in zip(second.items.tolist(), second.scores.tolist(), strict=True)
    ]
    for items, scores, pairs in zip(first.items.tolist(), first.scores.tolist(), kept, strict=True):
        assert [item for item, _ in pairs] == items
        assert [score for _, score in pairs] == pytest.approx(scores, abs=1e-4)
    with pytest.raises(InvalidInput, match="other widths or layers"):
        trained({"hidden": (11,)}, initial=early.state())


def test_lt_weighs_by_age_and_needs_order() -> None:
    lt = registry.recipe("lt-diffrec", "t-yelp-clean")
    assert lt.config.recency == "linear"  # type: ignore[attr-defined]
    with pytest.raises(InvalidInput, match="needs events in a known order"):
        trained({"recency": "linear"}, of=data(order="none"))


def test_presets_carry_the_settings_of_the_authors() -> None:
    chosen = registry.recipe("l-diffrec", "ml-1m-clean")
    config, training = chosen.config, chosen.training
    assert isinstance(config, LDiffRecConfig)
    assert isinstance(training, LDiffRecTraining)
    assert (training.learning_rate, training.learning_rate * training.denoiser_rate) == (1e-3, 5e-4)
    assert (config.levels, config.latent, config.clusters, config.first_beta) == (40, 300, 2, 0)
    sigma = config.noise_schedule().sigma
    assert (float(sigma[1]), float(sigma[-1])) == pytest.approx((0.005, 0.01))
    weight, epoch = config.diffusion_weight, 100
    falls = weight + (config.diffusion_weight_end - weight) * epoch / config.diffusion_weight_epochs
    assert falls == pytest.approx((1 - epoch / 500) * weight, rel=1e-3)
