"""What is found of a model's uncertainty: probabilities, orders of the users, sets, and what time does to them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from rediffuse.errors import InvalidInput, say
from rediffuse.evaluation.calibration import (
    Calibrator,
    Features,
    Reliability,
    Values,
    aurc,
    brier,
    brier_skill,
    interval,
    nll,
    risk_coverage,
)
from rediffuse.evaluation.statistics import Interval, bootstrap
from rediffuse.evaluation.studies.answers import JUDGED, Answers
from rediffuse.evaluation.studies.sets import LEVELS, Sets, apart, sets
from rediffuse.evaluation.study import Examined
from rediffuse.protocols import Recommender
from rediffuse.types import Options

EXPECTED, HISTORY, MARGIN = "expected precision", "history length", "score margin"
FEWEST = 20
"""Users of each half, at least."""


@dataclass(frozen=True)
class Promised:
    """How far probabilities hold."""

    reliability: Reliability
    ece: float
    brier: float
    nll: float

    @classmethod
    def of(cls, p: Values, taken: Values) -> "Promised":
        """Args: p, taken: (n,)."""
        bins = Reliability.of(p, taken)
        return cls(bins, bins.ece, brier(p, taken), nll(p, taken))


@dataclass(frozen=True)
class Signal:
    """An order of the users by what claims to know how sure a list is."""

    turned: bool
    """Whether the selection part said that the other end is the sure one."""
    curve: Values
    """(U,) mean risk of the surest k."""
    aurc: Interval
    e_aurc: float
    below_random: Interval
    """1 - AURC / AURC of a random order."""
    excess_below_random: Interval
    """1 - E-AURC / E-AURC of a random order: 1 is the best possible order, 0 a random one, whatever the risk."""
    over: Mapping[str, Interval]
    """Rival signal -> AURC less that of the rival, over the same resampled users; below 0 is better."""
    spearman: float
    """Of uncertainty and risk."""


@dataclass(frozen=True)
class Findings:
    """Of the report part, each half of its users seen through what was fitted on the other."""

    pairs: int
    base: float
    """Share of the pairs that were taken."""
    own: Promised
    popularity: Promised
    skill: Interval
    """Brier skill over popularity."""
    random: float
    """AURC of a random order: the mean risk."""
    best: Values
    """(U,) `risk_coverage` of the order by the risk itself."""
    signals: Mapping[str, Signal]
    sets: Sets
    rival: Sets
    """Popularity's."""
    half: NDArray[np.bool_]
    """(U,)."""
    earlier: Promised | None
    """The same pairs with a calibrator of the selection part, which lies before; None where the model learned from it."""

    @property
    def surest(self) -> str:
        """The signal with the least area, seen afterwards."""
        return min(self.signals, key=lambda name: self.signals[name].aurc.mean)

    @property
    def levels(self) -> "list[Held]":
        """All users at each of `LEVELS`."""
        return [Held.of(self, np.ones(len(self.half), np.bool_), column) for column in range(len(LEVELS))]

    @property
    def possible(self) -> float:
        """How far below a random order the best one lies, as a share."""
        return float(1 - self.best.mean() / self.random)


@dataclass(frozen=True)
class Held:
    """What sets held of some of the users, at one level."""

    users: int
    coverage: Interval
    size: float
    """Median number of items."""
    popularity: float
    """Median size of popularity's sets."""
    own: float
    """Coverage with a threshold of each band's own; NaN but at the first level."""
    own_size: float

    @classmethod
    def of(cls, found: Findings, users: NDArray[np.bool_], column: int = 0) -> "Held":
        """Args: users: (U,), some of them.   column: of `LEVELS`."""
        covered, size = (values[users] for values in found.sets.banded)
        return cls(
            users=int(users.sum()),
            coverage=share(found.sets.covered[users, column]),
            size=float(np.median(found.sets.size[users, column])),
            popularity=float(np.median(found.rival.size[users, column])),
            own=np.nan if column else float(covered.mean()),
            own_size=np.nan if column else float(np.median(size)),
        )

    @property
    def ratio(self) -> float:
        """Median size over that of popularity's sets."""
        return self.size / max(self.popularity, 1.0)


def find(examined: Examined, popularity: Recommender) -> Findings:
    """Ask, fit and measure. Raises: InvalidInput when there are too few users."""
    counts = examined.background.data.users_per_item().numpy().astype(np.float64)
    answers = Answers.of(examined, examined.task, counts)
    if min(answers.half.sum(), (~answers.half).sum()) < FEWEST:
        raise InvalidInput(
            say(
                "There are too few users to calibrate on one half and to test on the other",
                got=len(answers),
                allowed=f"some {4 * FEWEST} or more",
            )
        )
    before = Answers.of(examined, examined.selection, counts) if apart(examined) else None
    p = _crossed(answers, answers.features)
    q = _crossed(answers, answers.popularity)
    there, users = answers.there, np.broadcast_to(answers.users[:, None], answers.there.shape)
    taken = answers.taken[there]
    earlier = None
    if before is not None:
        fitted = Calibrator.fit(_of(before, before.features), before.taken[before.there])
        earlier = Promised.of(fitted(answers.features)[there], taken)
    expected = np.where(there, p, 0.0)[:, :JUDGED].sum(axis=1)
    return Findings(
        pairs=len(taken),
        base=float(taken.mean()),
        own=Promised.of(p[there], taken),
        popularity=Promised.of(q[there], taken),
        skill=brier_skill(p[there], q[there], taken, users[there]),
        random=float(answers.risk.mean()),
        best=risk_coverage(answers.risk, answers.risk),
        signals=_signals({EXPECTED: -expected, **answers.signals}, answers.risk, before),
        sets=sets(examined, counts, answers.half),
        rival=sets(replace(examined, model=popularity, options=Options()), counts, answers.half),
        half=answers.half,
        earlier=earlier,
    )


def _of(answers: Answers, features: Features, users: NDArray[np.bool_] | slice = slice(None)) -> Features:
    """Columns of the places that hold an item, of some users."""
    return {name: values[users][answers.there[users]] for name, values in features.items()}


def _crossed(answers: Answers, features: Features) -> Values:
    """(U, K) probabilities, each half of the users through the calibrator of the other."""
    out = np.zeros(answers.taken.shape)
    for side in (True, False):
        learn, tell = answers.half == side, answers.half != side
        fitted = Calibrator.fit(_of(answers, features, learn), answers.taken[learn][answers.there[learn]])
        out[tell] = fitted({name: values[tell] for name, values in features.items()})
    return out


def _signals(signals: Mapping[str, Values], risk: Values, before: Answers | None) -> dict[str, Signal]:
    turned = {
        name: before is not None and name in before.signals and _spearman(before.signals[name], before.risk) < 0
        for name in signals
    }
    facing = {name: -values if turned[name] else values for name, values in signals.items()}
    areas = {name: aurc(values, risk) for name, values in facing.items()}
    random, least = aurc(np.zeros(len(risk)), risk), aurc(risk, risk)
    room = np.maximum(random - least, np.finfo(np.float64).tiny)
    return {
        name: Signal(
            turned=turned[name],
            curve=risk_coverage(values, risk),
            aurc=interval(areas[name]),
            e_aurc=float(areas[name][0] - least[0]),
            below_random=interval(1 - areas[name] / random),
            excess_below_random=interval((random - areas[name]) / room),
            over={rival: interval(areas[name] - areas[rival]) for rival in (HISTORY, MARGIN) if rival != name},
            spearman=_spearman(values, risk),
        )
        for name, values in facing.items()
    }


def _spearman(a: Values, b: Values) -> float:
    """Correlation of the ranks; 0 where one of both is all the same."""
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return 0.0
    return float(np.corrcoef(stats.rankdata(a), stats.rankdata(b))[0, 1])


def share(flags: NDArray[np.bool_]) -> Interval:
    """How many of the users, with a 95 % interval. Args: flags: (U,)."""
    return bootstrap(flags.astype(np.float64)[:, None])[0]
