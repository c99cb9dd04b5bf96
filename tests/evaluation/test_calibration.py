"""Calibrators find the law that made the data; measures are what a hand computes; sets hold what they promise."""

import json

import numpy as np
import pytest
from scipy import special

from rediffuse.errors import InvalidInput
from rediffuse.evaluation import calibration
from rediffuse.evaluation.calibration import (
    Beta,
    Calibrator,
    Isotonic,
    Logistic,
    Reliability,
    aurc,
    brier,
    brier_skill,
    conformal_threshold,
    interval,
    nll,
    resampled,
    risk_coverage,
)
from rediffuse.evaluation.statistics import RESAMPLES


def drawn(p: np.ndarray, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).random(len(p)) < p).astype(np.float64)


def test_a_logistic_regression_finds_the_law_that_made_the_data() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.normal(5, 2, 40_000), rng.normal(0, 1, 40_000)
    p = special.expit(-2 + 0.8 * x - 0.5 * y - 4)
    found = Logistic.fit({"x": x, "y": y, "always 1": np.ones(40_000)}, drawn(p))
    slopes = np.array(found.weight) / np.array(found.scale)
    assert slopes == pytest.approx([0.8, -0.5, 0.0], abs=0.03)
    assert np.abs(found({"x": x, "y": y, "always 1": np.ones(1)}) - p).max() < 0.02


def test_rows_that_count_twice_are_as_two_rows() -> None:
    x = np.array([0.0, 1.0, 2.0, 3.0])
    taken = np.array([0.0, 1.0, 0.0, 1.0])
    twice = Logistic.fit({"x": np.repeat(x, 2)}, np.repeat(taken, 2))
    assert Logistic.fit({"x": x}, taken, times=np.full(4, 2.0)).linear({"x": x}) == pytest.approx(
        twice.linear({"x": x}), abs=1e-5
    )


def test_what_always_or_never_happens_gets_no_certain_probability() -> None:
    for taken in (np.zeros(8), np.ones(8)):
        p = Logistic.fit({"x": np.arange(8.0)}, taken)({"x": np.arange(8.0)})
        assert p == pytest.approx(np.full(8, 0.1 if taken[0] == 0 else 0.9), abs=1e-3)


def test_features_broadcast_and_a_missing_one_is_named() -> None:
    fitted = Logistic.fit({"x": np.arange(6.0), "y": np.arange(6.0) ** 2}, np.array([0.0, 0, 1, 0, 1, 1]))
    assert fitted({"x": np.ones((4, 1)), "y": np.ones((1, 3))}).shape == (4, 3)
    with pytest.raises(InvalidInput, match="Unknown feature 'y'"):
        fitted({"x": np.ones(3)})
    with pytest.raises(InvalidInput, match="nothing to calibrate on"):
        Logistic.fit({"x": np.empty(0)}, np.empty(0))


def test_beta_calibration_undoes_its_own_distortion() -> None:
    p = np.random.default_rng(2).uniform(0.01, 0.99, 60_000)
    truth = special.expit(0.6 * np.log(p) - 1.4 * np.log1p(-p) + 0.3)
    found = Beta.fit(p, drawn(truth))
    assert (found.a, found.b, found.c) == pytest.approx((0.6, 1.4, 0.3), abs=0.06)
    assert np.abs(found(p) - truth).max() < 0.02
    # What falls with the probability is no map of probabilities: no slope becomes negative.
    upside_down = Beta.fit(p, drawn(1 - p))
    assert upside_down.a >= 0
    assert upside_down.b >= 0


def test_isotonic_pools_what_falls() -> None:
    fitted = Isotonic.fit(np.array([0.1, 0.2, 0.3, 0.4]), np.array([0.0, 1.0, 0.0, 1.0]))
    assert fitted(np.array([0.0, 0.1, 0.2, 0.25, 0.3, 0.35, 0.4, 9.0])) == pytest.approx(
        [1 / 6, 1 / 6, 0.5, 0.5, 0.5, 2 / 3, 5 / 6, 5 / 6]
    )
    # Equal values are one place with their mean.
    assert Isotonic.fit(np.array([0.5] * 4), np.array([0.0, 0, 0, 1]))(np.array([0.1, 0.9])) == pytest.approx(0.25)


def test_isotonic_keeps_only_where_it_bends() -> None:
    p = np.sort(np.random.default_rng(3).random(5000))
    taken = drawn(p)
    fitted = Isotonic.fit(p, taken)
    assert len(fitted.x) < 300
    assert (np.diff(fitted.y) >= 0).all()
    assert Reliability.of(fitted(p), taken).ece < 0.01


def test_a_curve_is_fitted_only_where_there_is_much_to_learn_from(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.random.default_rng(4).normal(size=4000)
    taken = drawn(special.expit(x**3))
    assert Calibrator.fit({"x": x}, taken).curve is None
    monkeypatch.setattr(calibration, "MANY", 1000)
    bent = Calibrator.fit({"x": x}, taken)
    assert Reliability.of(bent({"x": x}), taken).ece < 0.5 * Reliability.of(bent.level({"x": x}), taken).ece


def test_calibrators_go_to_json_and_back() -> None:
    x = np.random.default_rng(5).normal(size=500)
    taken = drawn(special.expit(x))
    level = Logistic.fit({"x": x}, taken)
    for curve in (None, Isotonic.fit(level({"x": x}), taken), Beta.fit(level({"x": x}), taken)):
        one = Calibrator(level, curve)
        again = Calibrator.from_json(json.loads(json.dumps(one.to_json())))
        assert again == one
        assert np.array_equal(again({"x": x}), one({"x": x}))
    with pytest.raises(InvalidInput, match=r"Unknown calibrator 'isotonik'\. Nearest known calibrator: 'isotonic'"):
        Calibrator.from_json({"level": level.to_json(), "curve": {"kind": "isotonik", "x": [], "y": []}})


def test_reliability_and_its_error_by_hand() -> None:
    p, taken = np.array([0.9, 0.1, 0.3, 0.7]), np.array([1.0, 0.0, 1.0, 1.0])
    bins = Reliability.of(p, taken, bins=2)
    assert bins.expected == pytest.approx([0.2, 0.8])
    assert bins.observed == pytest.approx([0.5, 1.0])
    assert bins.count.tolist() == [2, 2]
    assert bins.ece == pytest.approx(0.25)
    assert Reliability.of(p, taken).count.tolist() == [1, 1, 1, 1]


def test_brier_and_likelihood_by_hand() -> None:
    p, taken = np.array([0.8, 0.4]), np.array([1.0, 0.0])
    assert brier(p, taken) == pytest.approx((0.04 + 0.16) / 2)
    assert nll(p, taken) == pytest.approx(-(np.log(0.8) + np.log(0.6)) / 2)
    assert nll(np.array([0.0, 1.0]), np.array([0.0, 1.0])) == 0.0


def test_skill_is_of_the_same_pairs_and_its_interval_resamples_users_not_pairs() -> None:
    rng = np.random.default_rng(6)
    p, users = rng.uniform(0.05, 0.95, 600), np.arange(600)
    taken, rival = drawn(p), np.full(600, 0.5)
    skill = brier_skill(p, rival, taken, users)
    assert skill.mean == pytest.approx(1 - brier(p, taken) / brier(rival, taken))
    assert 0 < skill.low < skill.mean < skill.high
    assert brier_skill(rival, rival, taken, users) == pytest.approx(brier_skill(p, p, taken, users))
    # Ten equal pairs of each user say no more than one.
    tenfold = brier_skill(*(np.repeat(v, 10) for v in (p, rival, taken)), np.repeat(users, 10))
    assert (tenfold.low, tenfold.high) == pytest.approx((skill.low, skill.high))


def test_risk_and_coverage_by_hand() -> None:
    risk = np.array([1.0, 0.0, 0.5])
    assert risk_coverage(np.array([3.0, 1.0, 2.0]), risk) == pytest.approx([0.0, 0.25, 0.5])
    # The two that are equally sure share their mean: their order among themselves means nothing.
    assert risk_coverage(np.array([2.0, 1.0, 1.0]), risk) == pytest.approx([0.25, 0.25, 0.5])
    # One user counts twice, one not at all.
    assert risk_coverage(np.array([3.0, 1.0, 2.0]), risk, np.array([1, 2, 0])) == pytest.approx([0.0, 0.0, 1 / 3])


def test_areas_of_random_best_and_worst_orders() -> None:
    risk = np.random.default_rng(7).random(200)
    random, best, worst = (aurc(signal, risk) for signal in (np.zeros(200), risk, -risk))
    assert random.shape == (1 + RESAMPLES,)
    assert random[0] == pytest.approx(risk.mean())
    # Sorted uniform risks: the mean of the least k is about k / 2n.
    assert best[0] == pytest.approx(0.25, abs=0.03)
    assert (best <= random).all()
    assert (random <= worst).all()
    gain = interval(1 - best / random)
    assert gain.low < gain.mean < gain.high
    assert gain.low > 0.3
    # Any rising function of a signal is the same order, so in each sample the difference is nothing.
    assert np.array_equal(aurc(risk, risk), aurc(np.exp(3 * risk), risk))


def test_resamples_begin_with_the_sample_itself() -> None:
    first, *others = resampled(7, seed=3)
    assert first.tolist() == [1] * 7
    assert len(others) == RESAMPLES
    assert {int(times.sum()) for times in others} == {7}
    assert np.array_equal(others[5], list(resampled(7, seed=3))[6])


def test_thresholds_by_hand() -> None:
    scores = np.array([5.0, 1.0, 3.0, 2.0, 4.0, 9.0, 8.0, 7.0, 6.0])
    assert conformal_threshold(scores, 0.1) == 1.0
    assert conformal_threshold(scores, 0.39) == 3.0
    # (9 + 1) 0.3 is 3, whatever binary fractions make of it.
    assert conformal_threshold(scores, 1 - 0.7) == 3.0
    # Nine users cannot promise 95 %: the set is the whole catalog.
    assert conformal_threshold(scores, 0.05) == -np.inf
    assert conformal_threshold(np.empty(0), 0.1) == -np.inf


@pytest.mark.parametrize(("n", "alpha"), [(39, 0.1), (50, 0.1), (50, 0.2)])
def test_sets_hold_what_they_promise_on_average(n: int, alpha: float) -> None:
    rng = np.random.default_rng(n)
    held = []
    for _ in range(600):
        scores = rng.gumbel(size=n + 200)
        held.append((scores[n:] >= conformal_threshold(scores[:n], alpha)).mean())
    exact = 1 - np.floor((n + 1) * alpha + 1e-9) / (n + 1)
    assert exact >= 1 - alpha
    assert np.mean(held) == pytest.approx(exact, abs=0.008)
