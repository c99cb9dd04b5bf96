"""Means with intervals, and comparisons of the same users under two methods."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

RESAMPLES = 1000


@dataclass(frozen=True)
class Interval:
    """A mean and the ends of its 95 % interval; NaN where undefined."""

    mean: float
    low: float
    high: float

    def to_json(self) -> dict[str, float | None]:
        """{"mean", "low", "high"}; null where undefined."""
        return {name: value if np.isfinite(value) else None for name, value in asdict(self).items()}


def bootstrap(values: NDArray[np.float64], *, seed: int = 0, resamples: int = RESAMPLES) -> list[Interval]:
    """Mean over users with a 95 % percentile bootstrap interval, per column; rows with NaN are left out.

    Args: values: (U, m), one column per metric. All columns share the resampled users.
    Returns: m intervals; NaN where no user is defined.
    Reference: Efron & Tibshirani 1993, section 13.3.
    """
    values = values[~np.isnan(values).any(axis=1)]
    count = len(values)
    if count == 0:
        return [Interval(np.nan, np.nan, np.nan)] * values.shape[1]
    rng = np.random.default_rng(seed)
    block = max(1, min(resamples, 4_000_000 // count))
    means: list[NDArray[np.float64]] = []
    for start in range(0, resamples, block):
        rows = min(block, resamples - start)
        drawn = rng.integers(0, count, (rows, count)) + np.arange(rows)[:, None] * count
        times = np.bincount(drawn.ravel(), minlength=rows * count).reshape(rows, count)
        means.append(times.astype(np.float64) @ values / count)
    low, high = np.quantile(np.concatenate(means), [0.025, 0.975], axis=0)
    return [Interval(*map(float, triple)) for triple in zip(values.mean(axis=0), low, high, strict=True)]


def paired(a: NDArray[np.float64], b: NDArray[np.float64], *, seed: int = 0) -> tuple[Interval, float]:
    """The mean of a - b over the same users, its interval, and the two-sided p of a paired t test.

    Args: a, b: (U,), NaN where undefined.
    Returns: interval and p; p = 1 when no user differs or there is but one.
    """
    difference = (a - b)[~np.isnan(a - b)]
    interval = bootstrap(difference[:, None], seed=seed)[0]
    if len(difference) < 2:
        return interval, 1.0
    if np.ptp(difference) == 0:
        return interval, 1.0 if not np.any(difference) else 0.0
    t = interval.mean / (difference.std(ddof=1) / np.sqrt(len(difference)))
    return interval, float(2 * special.stdtr(len(difference) - 1, -abs(t)))


def holm(p: Sequence[float]) -> list[float]:
    """P values corrected for making several comparisons, in the given order. Reference: Holm 1979."""
    order = np.argsort(p)
    scaled = np.asarray(p, dtype=np.float64)[order] * np.arange(len(p), 0, -1)
    out = np.empty(len(p))
    out[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return out.tolist()
