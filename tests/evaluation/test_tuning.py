"""Settings chosen by trials: the same budget, the same course for the same seed, failures that cost a trial."""

from collections.abc import Mapping
from typing import Any

import pytest

from rediffuse.errors import InvalidInput, TrainingDiverged
from rediffuse.evaluation.report import Trial
from rediffuse.evaluation.tuning import best, tune
from rediffuse.protocols import Range

SPACE = {"rate": Range(0.001, 1.0, log=True), "rank": Range(1, 64, log=True), "hidden": ((8,), (8, 4, 8))}


def hill(settings: Mapping[str, Any]) -> tuple[float, float]:
    """Highest at rate .1, rank 8; the given settings do badly."""
    if not settings:
        return -9.0, 1.0
    return -abs(settings["rate"] - 0.1) - abs(settings["rank"] - 8) / 8, 2.0


def test_the_given_settings_come_first_and_every_trial_counts() -> None:
    seen: list[Trial] = []
    trials = tune(SPACE, hill, 12, seed=1, report=seen.append)
    assert len(trials) == 12
    assert seen == trials
    assert (trials[0].settings, trials[0].value, trials[0].seconds) == ({}, -9.0, 1.0)
    for trial in trials[1:]:
        assert set(trial.settings) == set(SPACE)
        assert 0.001 <= trial.settings["rate"] <= 1
        assert isinstance(trial.settings["rank"], int)
        assert trial.settings["hidden"] in SPACE["hidden"]


def test_a_search_is_a_function_of_its_seed() -> None:
    assert tune(SPACE, hill, 8, seed=3) == tune(SPACE, hill, 8, seed=3)
    assert tune(SPACE, hill, 8, seed=3) != tune(SPACE, hill, 8, seed=4)


def test_more_trials_find_better_settings() -> None:
    few, many = (best(tune(SPACE, hill, n, seed=2)).value for n in (5, 60))
    assert few is not None
    assert many is not None
    assert many > few
    assert many > -0.2


def test_a_method_without_settings_has_one_trial() -> None:
    assert [trial.settings for trial in tune({}, hill, 20, seed=1)] == [{}]
    assert len(tune(SPACE, hill, 1, seed=1)) == 1
    with pytest.raises(InvalidInput, match=r"at least one trial\. Got 0"):
        tune(SPACE, hill, 0, seed=1)


def test_a_setting_that_fails_costs_its_trial() -> None:
    def fails(settings: Mapping[str, Any]) -> tuple[float, float]:
        if settings.get("rank", 0) % 2:
            raise TrainingDiverged("The loss is not finite.")
        return (float("nan"), 1.0) if settings.get("rank", 1) > 20 else hill(settings)

    trials = tune(SPACE, fails, 15, seed=1)
    assert len(trials) == 15
    for trial in trials[1:]:
        assert (trial.value is None) == (trial.settings["rank"] % 2 == 1 or trial.settings["rank"] > 20)
    assert any(trial.value is None for trial in trials)
    assert best(trials).value == max(trial.value for trial in trials if trial.value is not None)


def test_the_first_of_equals_is_best_and_nothing_but_failures_is_said() -> None:
    first, second = Trial({"a": 1}, 0.5, 1.0), Trial({"a": 2}, 0.5, 1.0)
    assert best([Trial({}, 0.1, 1.0), first, second]) is first
    with pytest.raises(InvalidInput, match=r"Every setting failed"):
        best([Trial({}, None, 1.0)])
