"""Intervals and comparisons."""

import math

import numpy as np
import pytest
from scipy import stats

from rediffuse.evaluation.statistics import Interval, bootstrap, holm, paired


def test_the_interval_covers_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for seed in range(200):
        interval = bootstrap(rng.exponential(size=(150, 1)), seed=seed, resamples=400)[0]
        covered += interval.low <= 1 <= interval.high
    assert 0.88 <= covered / 200 <= 0.985


def test_the_width_is_that_of_the_standard_error() -> None:
    values = np.random.default_rng(0).normal(size=(2000, 1))
    interval = bootstrap(values, resamples=4000)[0]
    error = values.std(ddof=1) / math.sqrt(2000)
    assert interval.mean == pytest.approx(values.mean(), rel=1e-12)
    assert interval.low == pytest.approx(values.mean() - 1.96 * error, abs=0.1 * error)
    assert interval.high == pytest.approx(values.mean() + 1.96 * error, abs=0.1 * error)


def test_columns_share_the_users_and_rows_without_truth_are_left_out() -> None:
    values = np.random.default_rng(0).random((50, 1))
    table = np.concatenate((np.hstack((values, 2 * values)), [[np.nan, 1.0], [5.0, np.nan]]))
    one, two = bootstrap(table, seed=3)
    alone = bootstrap(values, seed=3)[0]
    assert (one.mean, one.low, one.high) == pytest.approx((alone.mean, alone.low, alone.high), rel=1e-12)
    assert (two.mean, two.low, two.high) == pytest.approx((2 * one.mean, 2 * one.low, 2 * one.high), rel=1e-12)


def test_many_users_are_drawn_in_blocks_without_changing_the_stream() -> None:
    values = np.random.default_rng(0).random((50_000, 1))
    assert bootstrap(values, resamples=90)[0].low < values.mean() < bootstrap(values, resamples=90)[0].high
    assert bootstrap(values, resamples=90) == bootstrap(values, resamples=90)
    assert bootstrap(values, seed=1, resamples=90) != bootstrap(values, seed=2, resamples=90)


def test_nobody_is_undefined() -> None:
    for values in (np.full((3, 2), np.nan), np.empty((0, 2))):
        intervals = bootstrap(values)
        assert len(intervals) == 2
        assert all(math.isnan(i.mean) and math.isnan(i.low) for i in intervals)
        assert intervals[0].to_json() == {"mean": None, "low": None, "high": None}
    assert bootstrap(np.array([[0.25]])) == [Interval(0.25, 0.25, 0.25)]
    assert Interval(0.5, 0.25, 0.75).to_json() == {"mean": 0.5, "low": 0.25, "high": 0.75}


def test_paired_is_the_t_test_of_the_same_users() -> None:
    rng = np.random.default_rng(0)
    a = rng.random(80)
    b = a - rng.normal(0.02, 0.1, 80)
    a[3], b[7] = np.nan, np.nan
    interval, p = paired(a, b)
    kept = ~np.isnan(a - b)
    assert interval.mean == pytest.approx((a - b)[kept].mean(), rel=1e-12)
    assert interval.low < interval.mean < interval.high
    assert p == pytest.approx(stats.ttest_rel(a[kept], b[kept]).pvalue, rel=1e-9)
    assert paired(b, a)[1] == pytest.approx(p, rel=1e-12)


def test_paired_by_hand() -> None:
    """Differences 1, 2, 3: t = 2 / (1 / sqrt 3), two degrees of freedom."""
    interval, p = paired(np.array([1.0, 2, 3]), np.zeros(3))
    assert interval.mean == 2
    t = 2 * math.sqrt(3)
    assert p == pytest.approx(1 - t / math.sqrt(t * t + 2), rel=1e-12)


def test_pairs_without_spread() -> None:
    same = np.array([0.1, 0.2, np.nan])
    assert paired(same, same)[1] == 1
    assert paired(same + 1, same)[1] in (0.0, pytest.approx(0, abs=1e-12))
    assert paired(np.array([2.0, 3.0]), np.array([1.0, 2.0]))[1] == 0
    assert paired(np.array([1.0]), np.array([1.0]))[1] == 1
    nobody, p = paired(np.array([np.nan]), np.array([1.0]))
    assert math.isnan(nobody.mean)
    assert p == 1


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([0.2]) == [0.2]
    assert holm([]) == []
