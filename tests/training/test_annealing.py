"""Weights of the loss that change while training goes on."""

import pytest
import torch

from rediffuse.training.annealing import Ramp


def test_it_rises_to_its_end_and_its_step_is_state() -> None:
    ramp = Ramp(0, 0.2, 4)
    assert [float(ramp.next()) for _ in range(6)] == pytest.approx([0.0, 0.05, 0.1, 0.15, 0.2, 0.2])
    resumed = Ramp(0, 0.2, 4)
    resumed.load_state_dict({"step": torch.tensor(3)})
    assert float(resumed.next()) == pytest.approx(0.15)


def test_it_may_begin_at_its_end() -> None:
    ramp = Ramp(0, 0.3, 0)
    assert [float(ramp.next()) for _ in range(2)] == pytest.approx([0.3, 0.3])


def test_it_may_fall_in_stairs() -> None:
    ramp = Ramp(1, 0, 8, every=3)
    assert [float(ramp.next()) for _ in range(10)] == pytest.approx(
        [1, 1, 1, 5 / 8, 5 / 8, 5 / 8, 2 / 8, 2 / 8, 2 / 8, 0]
    )
