"""The dense rival against the figures of the paper's description, and against itself written out."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from benchmarks.rivals.dense_diffrec import (
    HISTORY_SIZE,
    ML_1M_CLEAN,
    DenseDiffRec,
    LossHistory,
    Settings,
    dense_rows,
    linear_variance_betas,
    make_schedule,
    q_sample,
    time_embedding,
    train,
    training_loss,
)
from benchmarks.rivals.ranking import mean_metrics, rank_metrics

AMAZON_CLEAN = Settings((1000,), 5, 1e-4, 5e-4, 5e-3, 5e-5, 400)
YELP_CLEAN = Settings((1000,), 5, 0.01, 0.001, 0.01, 1e-5, 400)
AMAZON_NOISY = Settings((1000,), 10, 0.005, 1e-4, 5e-4, 5e-5, 400)
YELP_NOISY = Settings((1000,), 5, 0.001, 5e-4, 0.01, 1e-5, 400)
ML_1M_NOISY = Settings((200, 600), 5, 0.5, 0.001, 0.01, 1e-3, 400)
NO_OVERRIDE = Settings((300,), 5, 0.5, 0.001, 0.005, 1e-4, 400, first_beta=None)
TINY = Settings((16,), 5, 0.1, 0.001, 0.01, 1e-2, 20)


def tables(settings):
    return make_schedule(linear_variance_betas(settings))


def agrees(tensor, expected, rel=1e-6):
    assert tensor.dtype == torch.float64
    assert tensor.tolist() == pytest.approx(expected, rel=rel, abs=1e-15)


@pytest.mark.parametrize(
    ("settings", "std", "snr", "weight", "posterior"),
    [
        (AMAZON_CLEAN, (0.00316228, 0.00323265), (99999, 95692.82), (1112.474, 1041.398), (0.010766, 0.989234)),
        (YELP_CLEAN, (0.00316228, 0.01), (99999, 9999), (69230.77, 2903.226), (0.225009, 0.774991)),
        (ML_1M_CLEAN, (0.00316228, 0.00591611), (99999, 28570.12), (6024.181, 533.0457), (0.018315, 0.981685)),
        (AMAZON_NOISY, (0.00316228, 0.0034641), (99999, 83332.47), (2173.893, 1572.317), (0.018518, 0.981482)),
        (YELP_NOISY, (0.00316228, 0.00441587), (99999, 51281.29), (19191.77, 7112.103), (0.121795, 0.878205)),
        (ML_1M_NOISY, (0.00316228, 0.067173), (99999, 220.6211), (99119.37, 73.65556), (0.249869, 0.75013)),
        (NO_OVERRIDE, (0.0223607, 0.05), (1999, 399), (1000, 100), (0.2002, 0.7998)),
    ],
)
def test_ends_of_the_published_schedules(settings, std, snr, weight, posterior):
    schedule = tables(settings)
    # The printed figures hold five to eight digits: half a unit of the last one is the tolerance.
    assert schedule.variance.sqrt()[[0, -1]].tolist() == pytest.approx(std, rel=2e-6)
    assert schedule.snr[[0, -1]].tolist() == pytest.approx(snr, rel=1e-6)
    assert schedule.weight[[1, -1]].tolist() == pytest.approx(weight, rel=1e-6)
    assert (float(schedule.from_x0[-1]), float(schedule.from_xt[-1])) == pytest.approx(posterior, abs=6e-7)


def test_full_rows_of_ml_1m_noisy():
    schedule = tables(ML_1M_NOISY)
    agrees(schedule.beta, [1e-5, 0.001125562781, 0.001126831101, 0.001128102281, 0.001129376333])
    agrees(schedule.variance, [1e-5, 0.001135551526, 0.002261103052, 0.003386654577, 0.004512206103])
    agrees(schedule.snr, [99999, 879.6293482, 441.2620187, 294.2766446, 220.6210823])
    agrees(schedule.weight, [1, 99119.37065, 438.3673295, 146.9853741, 73.65556233])
    agrees(schedule.from_x0, [1, 0.9911986625, 0.4980715632, 0.332725454, 0.2498694168])
    agrees(schedule.from_xt, [0, 0.008801336069, 0.5019282767, 0.6672742266, 0.750130104])
    agrees(schedule.posterior_variance, [0, 9.912036185e-06, 5.659073233e-04, 7.531785284e-04, 8.47657984e-04])


def test_full_rows_of_yelp_clean():
    schedule = tables(YELP_CLEAN)
    agrees(schedule.variance, [1e-5, 3.25e-5, 5.5e-5, 7.75e-5, 1e-4])
    agrees(schedule.weight, [1, 69230.76923, 12587.41259, 5278.592375, 2903.225806])
    agrees(schedule.from_x0, [1, 0.6923111539, 0.409097557, 0.2903305648, 0.2250087193])


@pytest.mark.parametrize("settings", [ML_1M_CLEAN, NO_OVERRIDE, dataclasses.replace(TINY, T=1)])
def test_the_last_step_answers_with_the_estimate(settings):
    schedule = tables(settings)
    assert float(schedule.from_x0[0]) == 1.0
    assert float(schedule.from_xt[0]) == 0.0
    torch.testing.assert_close(schedule.variance, 1 - schedule.alpha_bar, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("change", [{"noise_min": 0.02}, {"noise_scale": 0.0}, {"T": 0}, {"dims": ()}])
def test_settings_that_make_no_schedule_are_refused(change):
    with pytest.raises(ValueError, match="Got"):
        dataclasses.replace(TINY, **change)


def test_q_sample_mixes_by_level():
    schedule = tables(ML_1M_NOISY)
    x0, noise = torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([[1.0, -1.0], [1.0, -1.0]])
    x_t = q_sample(schedule, x0, torch.tensor([0, 4]), noise)
    std = [math.sqrt(1e-5), math.sqrt(0.004512206103)]
    expected = [[math.sqrt(1 - s * s) + s, -s] for s in std]
    torch.testing.assert_close(x_t, torch.tensor(expected))


def test_time_embedding():
    embedding = time_embedding(torch.tensor([0, 1]))
    assert embedding[0].tolist() == [1.0] * 5 + [0.0] * 5
    expected = [0.54030231, 0.98746684, 0.99968454, 0.99999208, 0.99999980]
    expected += [0.84147098, 0.15782664, 0.02511622, 0.00398106, 0.00063096]
    assert embedding[1].tolist() == pytest.approx(expected, abs=6e-9)


@pytest.mark.parametrize(("dims", "parameters"), [((200, 600), 3_622_320), ((1000,), 5_633_920)])
def test_parameter_count(dims, parameters):
    model = DenseDiffRec(dataclasses.replace(ML_1M_CLEAN, dims=dims), 2810)
    assert sum(p.numel() for p in model.parameters()) == parameters


def test_initial_weights():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = DenseDiffRec(ML_1M_CLEAN, 2810)
    shapes = [tuple(layer.weight.shape) for layer in model.layers]
    assert shapes == [(600, 2820), (200, 600), (600, 200), (2810, 600)]
    for layer in model.layers:
        assert float(layer.weight.detach().std()) == pytest.approx(math.sqrt(2 / sum(layer.weight.shape)), rel=0.02)
        assert float(layer.bias.detach().std()) == pytest.approx(0.001, rel=0.2)


def written_out(model, x, steps):
    """The chain in NumPy, from the state dict alone."""
    state = {name: value.double().numpy() for name, value in model.state_dict().items()}
    depth = sum(name.startswith("layers.") for name in state) // 2
    schedule = model.schedule
    for t in range(steps, 0, -1):
        angles = (t - 1) * 10_000.0 ** (-np.arange(5) / 5)
        told = state["time_layer.weight"] @ np.r_[np.cos(angles), np.sin(angles)] + state["time_layer.bias"]
        hidden = np.concatenate([x, np.broadcast_to(told, (len(x), 10))], axis=1)
        for layer in range(depth):
            hidden = hidden @ state[f"layers.{layer}.weight"].T + state[f"layers.{layer}.bias"]
            hidden = np.tanh(hidden) if layer < depth - 1 else hidden
        abar = float(schedule.alpha_bar[t - 1])
        before = float(schedule.alpha_bar[t - 2]) if t > 1 else 1.0
        beta = float(schedule.beta[t - 1])
        x = (beta * math.sqrt(before) * hidden + (1 - before) * math.sqrt(1 - beta) * x) / (1 - abar)
    return x


@pytest.mark.parametrize("dims", [(8,), (4, 8)])
@pytest.mark.parametrize("first_beta", [1e-5, None])
@pytest.mark.parametrize(("levels", "steps"), [(1, None), (5, None), (5, 1), (5, 3), (40, None)])
def test_reverse_chain_is_the_loop_written_out(dims, first_beta, levels, steps):
    settings = dataclasses.replace(ML_1M_CLEAN, dims=dims, T=levels, first_beta=first_beta)
    model = DenseDiffRec(settings, 30).double().eval()
    x = (torch.rand(7, 30) < 0.3).double()
    answer = model.reverse_chain(x, steps)
    expected = written_out(model, x.numpy(), levels if steps is None else steps)
    np.testing.assert_allclose(answer.numpy(), expected, atol=1e-9)
    single = model.float().reverse_chain(x.float(), steps)
    np.testing.assert_allclose(single.numpy(), expected, atol=1e-5)


def test_reverse_chain_refuses_other_steps_and_training_mode():
    model = DenseDiffRec(TINY, 4)
    with pytest.raises(RuntimeError, match="eval"):
        model.reverse_chain(torch.zeros(1, 4))
    model.eval()
    for steps in (0, 6):
        with pytest.raises(ValueError, match=r"1\.\.5"):
            model.reverse_chain(torch.zeros(1, 4), steps)


def test_levels_are_uniform_until_every_history_is_full():
    history = LossHistory(3)
    history.update(torch.tensor([0, 1] * HISTORY_SIZE + [2] * (HISTORY_SIZE - 1)), torch.ones(29))
    assert history.probabilities() is None
    index, p = history.sample(3000)
    assert torch.equal(p, torch.ones(3000, dtype=torch.float64))
    assert torch.bincount(index, minlength=3).min() > 850
    history.update(torch.tensor([2]), torch.ones(1))
    assert history.probabilities() is not None


def test_levels_follow_the_root_mean_square_and_the_correction_undoes_it():
    history = LossHistory(3)
    for level, loss in enumerate((1.0, 2.0, 5.0)):
        history.update(torch.full((10,), level), torch.tensor([loss, -loss] * 5))
    q = history.probabilities()
    expected = [0.999 * loss / 8 + 0.001 / 3 for loss in (1, 2, 5)]
    agrees(q, expected, rel=1e-12)
    index, p = history.sample(4000)
    agrees(p, (3 * q)[index].tolist(), rel=1e-12)
    # E[L / p] is the mean over levels drawn uniformly, here (1 + 2 + 5) / 3.
    losses = torch.tensor([1.0, 2.0, 5.0], dtype=torch.float64)
    assert float((q * losses / (3 * q)).sum()) == pytest.approx(8 / 3)
    assert float((losses[index] / p).mean()) == pytest.approx(8 / 3, rel=0.02)


def test_history_keeps_the_last_losses_in_order():
    history = LossHistory(2)
    history.update(torch.tensor([0] * 13 + [1]), torch.arange(14))
    assert history.losses[0].tolist() == [float(loss) for loss in range(3, 13)]
    assert history.losses[1].tolist() == [13.0] + [0.0] * 9
    assert history.count.tolist() == [10, 1]


@pytest.mark.parametrize("reweight", [True, False])
def test_loss_is_float64_and_the_history_holds_it_before_the_correction(reweight):
    model = DenseDiffRec(dataclasses.replace(TINY, T=1, first_beta=1e-12, dropout=0.0, reweight=reweight), 12)
    history = LossHistory(1)
    x0 = (torch.rand(4, 12) < 0.4).float()
    loss = training_loss(model, x0, history).detach()
    assert loss.dtype == torch.float64
    mse = (x0 - model(x0, torch.zeros(4, dtype=torch.int64)).detach()).square().mean(dim=1)
    assert history.losses[0, :4].tolist() == pytest.approx(mse.tolist(), rel=1e-3)
    assert float(loss) == pytest.approx(float(mse.mean()), rel=1e-3)


def test_reweighting_multiplies_each_level_by_its_weight():
    model = DenseDiffRec(dataclasses.replace(TINY, dropout=0.0, noise_scale=1e-9, first_beta=None), 12)
    history = LossHistory(5)
    x0 = (torch.rand(1, 12) < 0.4).float().expand(40, 12)
    training_loss(model, x0, history)
    for i in range(5):
        if history.count[i]:
            mse = (x0[:1] - model(x0[:1], torch.tensor([i])).detach()).square().mean()
            assert float(history.losses[i, 0]) == pytest.approx(float(model.schedule.weight[i] * mse), rel=1e-2)


def test_metrics_of_the_worked_example():
    metrics = rank_metrics([5, 1, 2, 7, 8], {2, 5, 9}, (1, 2, 3, 5))
    expected = {
        "recall": (1 / 3, 1 / 3, 2 / 3, 2 / 3),
        "precision": (1.0, 0.5, 2 / 3, 0.4),
        "ndcg": (1.0, 0.6131471928, 0.7039180890, 0.7039180890),
        "mrr": (1.0, 1.0, 1.0, 1.0),
    }
    for name, values in expected.items():
        for k, value in zip((1, 2, 3, 5), values, strict=True):
            assert metrics[f"{name}@{k}"] == pytest.approx(value)
    assert rank_metrics([1, 2, 3], {3}, (2, 3))["mrr@2"] == 0.0
    assert rank_metrics([1, 2, 3], {3}, (2, 3))["mrr@3"] == pytest.approx(1 / 3)


def test_users_without_relevant_items_are_left_out():
    assert mean_metrics([[1, 2], [3, 4]], [{1}, set()], (1,))["recall@1"] == 1.0
    assert math.isnan(mean_metrics([[1]], [set()], (1,))["recall@1"])


def test_a_repeated_pair_counts_once():
    assert dense_rows(np.array([[0, 1], [0, 1]]), 1, 3).tolist() == [[0.0, 1.0, 0.0]]


def blocks(users=60, blocks=4, width=20, seed=0):
    """Users who take items of one block only: 14 to train on, 3 and 3 held out."""
    generator = np.random.default_rng(seed)
    parts = ([], [], [])
    for user in range(users):
        items = user % blocks * width + generator.permutation(width)
        for part, chosen in zip(parts, np.split(items, [14, 17]), strict=True):
            part.extend((user, item) for item in chosen)
    return tuple(np.array(part, dtype=np.int64) for part in parts)


def test_training_finds_the_blocks_and_is_repeatable():
    parts = blocks()
    model, report = train(TINY, *parts, epochs=20, evaluate_every=10, seed=3)
    assert not model.training
    assert report.epochs == 20
    assert len(report.valid) == len(report.test) == 2
    assert report.train_seconds > 0
    assert report.evaluate_seconds > 0
    # A random order of the 66 unseen items finds 10/66 of them in ten places; the block itself all.
    assert report.valid[-1]["recall@10"] > 0.9
    assert report.test[-1]["recall@10"] > 0.9
    assert set(report.test[-1]) == {
        f"{m}@{k}" for m in ("recall", "ndcg", "precision", "mrr") for k in (10, 20, 50, 100)
    }
    state = torch.get_rng_state()
    again, same = train(TINY, *parts, epochs=20, evaluate_every=10, seed=3)
    assert torch.equal(state, torch.get_rng_state())
    assert same.test == report.test
    for first, second in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(first, second)


def test_ids_beyond_train_are_refused():
    known, beyond = np.array([[0, 0], [1, 1]]), np.array([[0, 2]])
    with pytest.raises(ValueError, match="test_pairs"):
        train(TINY, known, known[:0], beyond, epochs=1, seed=0)
