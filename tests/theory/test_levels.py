"""Which levels are visited, trained on, and how they weigh."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.rivals.dense_diffrec import LossHistory
from rediffuse.errors import InvalidConfig, InvalidInput
from rediffuse.noise import NoiseSchedule, cosine, linear_variance, snr
from rediffuse.samplers import evenly
from rediffuse.training.levels import LEVELS, LOSS_WEIGHTS, ImportanceLevels, UniformLevels, loss_weights


@given(st.integers(1, 400), st.data())
def test_levels_fall_evenly_from_T_to_0(T: int, data: st.DataObject) -> None:
    steps = data.draw(st.integers(1, T))
    levels = evenly(T, steps)
    assert levels.dtype == torch.int64
    assert (levels[0], levels[-1], len(levels)) == (T, 0, steps + 1)
    gaps = -levels.diff()
    assert int(gaps.min()) >= 1
    assert int(gaps.max() - gaps.min()) <= 2
    assert torch.equal(evenly(T), torch.arange(T, -1, -1))


@pytest.mark.parametrize("steps", [0, -1, 6])
def test_more_steps_than_levels_are_refused(steps: int) -> None:
    with pytest.raises(InvalidInput, match=rf"steps must be 1\.\.5\. Got {steps}\. Leave it out for all 5"):
        evenly(5, steps)


def test_uniform_levels_cover_all_and_need_no_correction() -> None:
    levels = UniformLevels(4)
    t, p = levels.draw(8000, torch.Generator().manual_seed(0))
    assert t.dtype == torch.int64
    assert torch.bincount(t).tolist()[0] == 0
    assert torch.bincount(t)[1:].tolist() == pytest.approx([2000] * 4, abs=5 * 39)
    assert torch.equal(p, torch.ones(8000, dtype=torch.float64))
    levels.record(t, p)
    assert dict(levels.state_dict()) == {}


def sequential(history: LossHistory, t: torch.Tensor, loss: torch.Tensor) -> None:
    """The rival pushes one loss after the other; its indices count from 0."""
    history.update(t - 1, loss)


@given(st.integers(1, 6), st.integers(0, 2**31), st.lists(st.integers(0, 90), min_size=1, max_size=6))
def test_recording_a_batch_is_recording_one_by_one(T: int, seed: int, sizes: list[int]) -> None:
    """Also with more than ten losses of one level in a batch, and empty batches."""
    generator = torch.Generator().manual_seed(seed)
    levels, rival = ImportanceLevels(T), LossHistory(T)
    for size in sizes:
        t = torch.randint(1, T + 1, (size,), generator=generator)
        loss = torch.rand(size, dtype=torch.float64, generator=generator)
        levels.record(t, loss)
        sequential(rival, t, loss)
        assert torch.equal(levels.counts, rival.count)
        for row, count in enumerate(rival.count.tolist()):
            # Ours are right-aligned until full; the rival fills from the left.
            assert torch.equal(levels.losses[row, 10 - count :], rival.losses[row, :count])
            assert not levels.losses[row, : 10 - count].any()


def test_losses_of_other_formats_are_kept_in_float64_without_their_graph() -> None:
    levels = ImportanceLevels(2)
    levels.record(torch.tensor([1]), torch.tensor([0.5], requires_grad=True))
    assert levels.losses.dtype == torch.float64
    assert not levels.losses.requires_grad


def test_importance_is_the_root_mean_square_once_every_level_is_full() -> None:
    levels, rival = ImportanceLevels(3), LossHistory(3)
    for level, loss in ((1, 1.0), (2, 2.0)):
        levels.record(torch.full((10,), level), torch.full((10,), loss))
    levels.record(torch.full((9,), 3), torch.full((9,), 5.0))
    assert torch.equal(levels.draw(50, torch.Generator().manual_seed(0))[1], torch.ones(50, dtype=torch.float64))
    levels.record(torch.tensor([3]), torch.tensor([5.0]))
    for level, loss in enumerate((1.0, 2.0, 5.0)):
        rival.update(torch.full((10,), level), torch.full((10,), loss))
    q = rival.probabilities()
    assert q is not None
    assert q.tolist() == pytest.approx([0.999 * loss / 8 + 0.001 / 3 for loss in (1, 2, 5)], rel=1e-12)
    n = 20_000
    t, p = levels.draw(n, torch.Generator().manual_seed(0))
    torch.testing.assert_close(p, 3 * q[t - 1], rtol=1e-12, atol=0)
    share = torch.bincount(t, minlength=4)[1:] / n
    assert ((share - q).abs() < 5 * (q * (1 - q) / n).sqrt()).all()
    # E[loss / p] is the mean over levels drawn evenly.
    losses = torch.tensor([1.0, 2.0, 5.0], dtype=torch.float64)
    assert float((q * losses / (3 * q)).sum()) == pytest.approx(8 / 3)


def test_the_queues_are_state_of_the_module() -> None:
    levels = ImportanceLevels(2)
    levels.record(torch.tensor([1, 2, 2]), torch.tensor([1.0, 2.0, 3.0]))
    again = ImportanceLevels(2)
    again.load_state_dict(levels.state_dict())
    assert torch.equal(again.losses, levels.losses)
    assert again.counts.tolist() == [1, 2]
    assert set(LEVELS) == {"uniform", "importance"}


def test_weights() -> None:
    schedule = cosine(5)
    ratio = snr(schedule)
    assert loss_weights(schedule, "none").tolist() == [1] * 6
    elbo = loss_weights(schedule, "elbo")
    assert elbo[1] == 1
    assert elbo[2:].tolist() == pytest.approx([float(ratio[t - 1] - ratio[t]) for t in range(2, 6)])
    assert (elbo[2:] > 0).all()
    clipped = loss_weights(schedule, "min_snr", gamma=2.0)
    assert clipped[1:].tolist() == pytest.approx([min(float(r), 2.0) for r in ratio[1:]])
    assert math.isfinite(float(clipped[0]))


@pytest.mark.parametrize("kind", LOSS_WEIGHTS)
def test_without_noise_every_weight_is_1(kind: str) -> None:
    assert loss_weights(NoiseSchedule.clean(4), kind).tolist() == [1] * 5


@pytest.mark.parametrize("schedule", [cosine(3), NoiseSchedule.clean(3)])
def test_an_unknown_weight_is_refused(schedule: NoiseSchedule) -> None:
    with pytest.raises(InvalidConfig, match=r"Unknown loss weight 'elbow'\. Nearest known loss weight: 'elbo'"):
        loss_weights(schedule, "elbow")


def test_weights_do_not_depend_on_how_the_schedule_was_reached() -> None:
    """The sum of the weights of levels 2.. telescopes to SNR(1) - SNR(T)."""
    schedule = linear_variance(40, scale=0.005, low=0.005, high=0.01, first_beta=1e-5)
    ratio = snr(schedule)
    assert float(loss_weights(schedule, "elbo")[2:].sum()) == pytest.approx(float(ratio[1] - ratio[40]), rel=1e-12)
