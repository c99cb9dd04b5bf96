"""Probabilities that mean what they say, and how far they do: calibrators, their measures, selective risk, conformal sets.

Pure functions on numpy arrays. `taken` is 1 where what was predicted came true, else 0; users stand for themselves, so
intervals resample users, never pairs.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

from rediffuse.errors import InvalidInput, say, unknown
from rediffuse.evaluation.statistics import RESAMPLES, Interval

Values = NDArray[np.float64]
Features = Mapping[str, Values]
"""Name -> column; the columns of one call broadcast against each other."""
BINS = 15
MANY = 5000
"""From so many positives on, a free monotone curve is worth its variance."""


@dataclass(frozen=True)
class Logistic:
    """p = 1 / (1 + exp(-(intercept + sum_j weight_j (x_j - mean_j) / scale_j))); Platt scaling where there is one column.

    Reference: Platt 1999, with his softened targets (n1 + 1) / (n1 + 2) and 1 / (n0 + 2).
    """

    names: tuple[str, ...]
    mean: tuple[float, ...]
    scale: tuple[float, ...]
    weight: tuple[float, ...]
    intercept: float

    @classmethod
    def fit(cls, features: Features, taken: Values, *, times: Values | None = None, penalty: float = 1e-4) -> Self:
        """Maximum likelihood with an L2 penalty on standardised columns.

        Args: features: columns (n,).   taken: (n,).   times: (n,) how often each row counts; None: once.
        Raises: InvalidInput when there are no rows.
        """
        times = np.ones(len(taken)) if times is None else times
        if not len(taken):
            raise InvalidInput(say("There is nothing to calibrate on", remedy="Take a part with more users"))
        x = np.stack([np.broadcast_to(column, taken.shape) for column in features.values()], axis=1)
        mean = np.average(x, axis=0, weights=times)
        scale = np.sqrt(np.average((x - mean) ** 2, axis=0, weights=times))
        scale = np.where(scale > 1e-9, scale, 1.0)
        ones = float(times @ taken)
        goal = np.where(taken > 0, (ones + 1) / (ones + 2), 1 / (float(times.sum()) - ones + 2))
        found = _regression((x - mean) / scale, goal, times, penalty, positive=False)
        return cls(tuple(features), _floats(mean), _floats(scale), _floats(found[:-1]), float(found[-1]))

    def linear(self, features: Features) -> Values:
        """The log odds, in the shape that the columns broadcast to. Raises: InvalidInput when a feature is missing."""
        out: Values = np.asarray(self.intercept)
        for name, mean, scale, weight in zip(self.names, self.mean, self.scale, self.weight, strict=True):
            if name not in features:
                raise InvalidInput(unknown("feature", name, features))
            out = out + (features[name] - mean) * (weight / scale)
        return out

    def __call__(self, features: Features) -> Values:
        """Probabilities, in the shape that the columns broadcast to."""
        return special.expit(self.linear(features))

    def to_json(self) -> dict[str, Any]:
        """Ready for JSON; `calibrator` reads it."""
        return {"kind": "logistic", **asdict(self)}


@dataclass(frozen=True)
class Beta:
    """p' = 1 / (1 + (1 - p)^b / (e^c p^a)) with a, b >= 0. Reference: Kull et al. 2017, eq. 4."""

    a: float
    b: float
    c: float

    @classmethod
    def fit(cls, p: Values, taken: Values) -> Self:
        """Logistic regression on log p and -log(1 - p), with no negative slope. Args: p, taken: (n,)."""
        found = _regression(_logs(p), taken, np.ones(len(p)), 1e-6, positive=True)
        a, b, c = _floats(found)
        return cls(a, b, c)

    def __call__(self, p: Values) -> Values:
        """Args: p: (n,) in 0..1. Returns: (n,)."""
        return special.expit(_logs(p) @ np.array([self.a, self.b]) + self.c)

    def to_json(self) -> dict[str, Any]:
        """Ready for JSON; `calibrator` reads it."""
        return {"kind": "beta", **asdict(self)}


@dataclass(frozen=True)
class Isotonic:
    """The rising step function nearest to the data in squares, straight lines between its steps.

    Reference: Zadrozny & Elkan 2002. Neither 0 nor 1 is promised: values end 1 / (n + 2) before them.
    """

    x: tuple[float, ...]
    y: tuple[float, ...]

    @classmethod
    def fit(cls, p: Values, taken: Values) -> Self:
        """Args: p, taken: (n,); any values that rise with the probability will do for p."""
        x, place = np.unique(p, return_inverse=True)
        count = np.bincount(place)
        y = optimize.isotonic_regression(np.bincount(place, taken) / count, weights=count).x
        y = np.clip(y, 1 / (len(p) + 2), 1 - 1 / (len(p) + 2))
        # Inside a step nothing bends: its two ends say all.
        bend = (
            np.r_[True, (np.diff(y[:-1]) != 0) | (np.diff(y[1:]) != 0), True] if len(y) > 2 else np.full(len(y), True)
        )
        return cls(_floats(x[bend]), _floats(y[bend]))

    def __call__(self, p: Values) -> Values:
        """Args: p: (n,). Returns: (n,)."""
        return np.interp(p, self.x, self.y)

    def to_json(self) -> dict[str, Any]:
        """Ready for JSON; `calibrator` reads it."""
        return {"kind": "isotonic", **asdict(self)}


@dataclass(frozen=True)
class Calibrator:
    """Features -> probability: a logistic regression, then, where there is much to learn from, a monotone curve."""

    level: Logistic
    curve: Isotonic | Beta | None = None

    @classmethod
    def fit(cls, features: Features, taken: Values) -> Self:
        """The curve is isotonic from `MANY` positives on, else there is none. Args: columns and taken: (n,)."""
        level = Logistic.fit(features, taken)
        return cls(level, Isotonic.fit(level(features), taken) if taken.sum() >= MANY else None)

    def __call__(self, features: Features) -> Values:
        """Probabilities, in the shape that the columns broadcast to."""
        p = self.level(features)
        return p if self.curve is None else self.curve(p)

    def to_json(self) -> dict[str, Any]:
        """Ready for JSON; `calibrator` reads it."""
        return {"level": self.level.to_json(), "curve": self.curve and self.curve.to_json()}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """What `to_json` wrote. Raises: InvalidInput for a kind that is unknown."""
        curve = values["curve"]
        return cls(_read(values["level"], Logistic), None if curve is None else _read(curve, Isotonic, Beta))


@dataclass(frozen=True)
class Reliability:
    """Pairs in bins of equal mass, by rising probability."""

    expected: Values
    """(b,) mean probability."""
    observed: Values
    """(b,) share that came true."""
    count: NDArray[np.int64]
    """(b,) pairs."""

    @classmethod
    def of(cls, p: Values, taken: Values, bins: int = BINS) -> Self:
        """Fewer bins where there are fewer pairs. Args: p, taken: (n,)."""
        parts = [part for part in np.array_split(np.argsort(p, kind="stable"), bins) if len(part)]
        expected, observed = (np.array([values[part].mean() for part in parts]) for values in (p, taken))
        return cls(expected, observed, np.array([len(part) for part in parts], np.int64))

    @property
    def ece(self) -> float:
        """Expected calibration error: sum_b (n_b / N) |observed_b - expected_b|. Reference: Naeini et al. 2015."""
        return float(self.count @ np.abs(self.observed - self.expected) / max(self.count.sum(), 1))


def brier(p: Values, taken: Values) -> float:
    """Mean of (p - taken)^2. Args: (n,)."""
    return float(np.mean((p - taken) ** 2))


def nll(p: Values, taken: Values) -> float:
    """Mean negative log likelihood, in nats. Args: (n,)."""
    return -float(np.mean(special.xlogy(taken, p) + special.xlog1py(1 - taken, -p)))


def brier_skill(p: Values, rival: Values, taken: Values, users: NDArray[np.int64], *, seed: int = 0) -> Interval:
    """1 - Brier(p) / Brier(rival) on the same pairs, with a 95 % interval over resampled users.

    Args: p, rival, taken, users: (n,); users: the number of each pair's user.
    """
    place = np.unique(users, return_inverse=True)[1]
    ours, theirs = (np.bincount(place, (q - taken) ** 2) for q in (p, rival))
    drawn = [1 - float(t @ ours) / float(t @ theirs) for t in resampled(len(ours), seed)]
    return interval(drawn)


def risk_coverage(uncertainty: Values, risk: Values, times: NDArray[np.int64] | None = None) -> Values:
    """Mean risk of the k surest queries for k = 1 .. n; queries of equal uncertainty share their mean risk.

    Args: uncertainty, risk: (n,).   times: (n,) how often each query counts; None: once. Returns: (sum of times,).
    """
    place = np.unique(uncertainty, return_inverse=True)[1]
    times = np.ones(len(risk), np.int64) if times is None else times
    count = np.bincount(place, times).astype(np.int64)
    shared = np.repeat(np.bincount(place, times * risk) / np.maximum(count, 1), count)
    return shared.cumsum() / np.arange(1, len(shared) + 1)


def aurc(uncertainty: Values, risk: Values, *, seed: int = 0) -> Values:
    """Area under risk-coverage, the mean of `risk_coverage`: as it is, then over resampled users.

    The same seed resamples the same users, so areas of two orders may be subtracted one by one. A random order has the
    mean risk (an `uncertainty` of zeros). E-AURC is the area less that of the order by the risk itself.

    Returns: (1 + RESAMPLES,). Reference: Geifman et al. 2019, section 3.
    """
    place = np.unique(uncertainty, return_inverse=True)[1].astype(np.float64)
    return np.array([risk_coverage(place, risk, times).mean() for times in resampled(len(risk), seed)])


def conformal_threshold(scores: Values, alpha: float) -> float:
    """The floor((n + 1) alpha)-th smallest score of true items: a set of all items from there on holds 1 - alpha.

    Args: scores: (n,) of calibration, higher is better. Returns: -inf, the whole catalog, where that rank is 0.
    Reference: Vovk et al. 2005; Papadopoulos et al. 2002 (split conformal).
    """
    rank = int(np.floor((len(scores) + 1) * alpha + 1e-9))
    return float(np.partition(scores, rank - 1)[rank - 1]) if rank else -np.inf


def resampled(count: int, seed: int = 0) -> Iterator[NDArray[np.int64]]:
    """How often each of `count` users is drawn: once each first, then RESAMPLES bootstrap samples, (count,)."""
    rng = np.random.default_rng(seed)
    yield np.ones(count, np.int64)
    for _ in range(RESAMPLES):
        yield np.bincount(rng.integers(0, count, count), minlength=count)


def interval(drawn: Any) -> Interval:
    """The first of `resampled`'s figures, and the 2.5 % and 97.5 % quantiles of the others."""
    low, high = np.quantile(drawn[1:], [0.025, 0.975])
    return Interval(float(drawn[0]), float(low), float(high))


def _regression(x: Values, goal: Values, times: Values, penalty: float, *, positive: bool) -> Values:
    """Weights, then intercept, (F + 1,), of the least mean log loss + penalty |weights|^2. Args: x: (n, F)."""
    whole = np.column_stack((x, np.ones(len(x))))
    share, shrink = times / times.sum(), np.r_[np.full(x.shape[1], penalty), 0.0]

    def loss(weight: Values) -> tuple[float, Values]:
        odds = whole @ weight
        value = share @ (np.logaddexp(0, odds) - goal * odds) + shrink @ weight**2
        return value, whole.T @ (share * (special.expit(odds) - goal)) + 2 * shrink * weight

    bounds = [(0.0 if positive else None, None)] * x.shape[1] + [(None, None)]
    start = np.r_[np.full(x.shape[1], 1.0 if positive else 0.0), 0.0]
    tight = {"ftol": 1e-12, "gtol": 1e-8, "maxiter": 1000}
    return optimize.minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options=tight).x


def _floats(values: Values) -> tuple[float, ...]:
    return tuple(values.tolist())


def _logs(p: Values) -> Values:
    p = np.clip(p, 1e-12, 1 - 1e-12)
    return np.column_stack((np.log(p), -np.log1p(-p)))


def _read(values: Mapping[str, Any], *kinds: Any) -> Any:
    named = {kind.__name__.lower(): kind for kind in kinds}
    if values["kind"] not in named:
        raise InvalidInput(unknown("calibrator", str(values["kind"]), named))
    fields = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items() if key != "kind"}
    return named[values["kind"]](**fields)
