"""What was found of a model's uncertainty as parts of a page: in words first, then pictures and tables."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from rediffuse.evaluation import wording
from rediffuse.evaluation.figures import uncertainty as figures
from rediffuse.evaluation.report.blocks import Block, Cell, Details, Mark, Picture, Table, Text
from rediffuse.evaluation.statistics import Interval
from rediffuse.evaluation.studies.answers import JUDGED, PLACES
from rediffuse.evaluation.studies.sets import LEVELS
from rediffuse.evaluation.studies.uncertainty_findings import EXPECTED, HISTORY, MARGIN, Findings, Held

SHOWN = 4
"""Signals in the picture, one for each colour of the page."""
_COLOURS = tuple(zip(("s1", "s2", "s3", "s4"), ("o", "s", "D", "^"), strict=True))


def blocks(
    name: str, found: Findings, by_history: Mapping[str, Held], wanted: Mapping[str, Mapping[str, Any]]
) -> list[Block]:
    """Everything found of the model of that name, the sentences first."""
    words = [Text(sentence) for sentence in (*_verdict(found), *_of_draws(found))]
    return [*words, _targets(wanted), *_probabilities(name, found), *_risk(found), *_sets(found, by_history)]


def _verdict(found: Findings) -> Iterator[str]:
    """The findings in words."""
    own, skill, first = found.own, found.skill, found.levels[0]
    better = "better than" if skill.low > 0 else "worse than" if skill.high < 0 else "not told apart from"
    yield (
        f"The probability of each of the first {PLACES} places is wrong by {wording.score(own.ece)} on average over 15 "
        f"bins (ECE). By Brier score it is {better} what popularity alone says of the same places: skill {_signed(skill)}."
    )
    yield (
        f"Sets that promise the next item to 90\u00a0% of users hold it for {_percent(first.coverage.mean)}; half of "
        f"them need no more than {first.size:,.0f} items, {wording.percent(first.ratio)} of what popularity needs "
        f"({first.popularity:,.0f})."
    )
    best = found.signals[found.surest]
    yield (
        f"Answering the surest first pays most, seen afterwards, by {found.surest}: the area under risk and coverage is "
        f"{_percent(best.below_random.mean)} ({_percent(best.below_random.low)} to {_percent(best.below_random.high)}) "
        f"below that of a random order. Nobody could get further than {_percent(found.possible)}, the order by the risk "
        f"itself: the excess over that best possible order is {_more_or_less(best.excess_below_random.mean)} than that of a "
        f"random order (95\u00a0% interval {_percent(best.excess_below_random.low)} to "
        f"{_percent(best.excess_below_random.high)}), whatever the risk is like."
    )
    if found.earlier is not None and found.sets.shifted is not None:
        yield (
            f"Over time: fitted on the selection part, which lies before, ECE is {wording.score(found.earlier.ece)} and "
            f"90\u00a0% sets hold {_percent(float(found.sets.shifted.mean()))}."
        )


def _of_draws(found: Findings) -> Iterator[str]:
    """Whether draws say more than what is known without them."""
    draws = [name for name in found.signals if name.startswith("draws")]
    if not draws:
        yield "No draws were made (draws = 1), so nothing is said of their spread."
        return
    name = min(draws, key=lambda name: found.signals[name].aurc.mean)
    over = found.signals[name].over
    verdicts = {
        rival: "beats" if one.high < 0 else "loses to" if one.low > 0 else "is not told apart from"
        for rival, one in over.items()
    }
    words = wording.listed(f"{verdicts[rival]} {rival} ({_signed(one)})" for rival, one in over.items())
    plain = (
        "Draws are worth their cost here" if set(verdicts.values()) == {"beats"} else "Draws do not beat what is free"
    )
    yield f"{plain}: as an order of the users, the better of their signals, {name}, {words} in area; below 0 is better."


def _targets(wanted: Mapping[str, Mapping[str, Any]]) -> Table:
    rows = [
        [Cell(name), _cell(one["value"]), Cell(one["wanted"]), Cell("reached" if one["reached"] else "not reached")]
        for name, one in wanted.items()
    ]
    return Table("What was wanted", ("figure", "value", "wanted", ""), rows)


def _probabilities(name: str, found: Findings) -> list[Block]:
    both = {name: found.own, "popularity": found.popularity}
    promises = [
        figures.Promise(
            label, *(v.tolist() for v in (one.reliability.expected, one.reliability.observed, one.reliability.count))
        )
        for label, one in both.items()
    ]
    key = _key(both)
    caption = (
        f"Each mark is a fifteenth of {found.pairs:,} places: the nearer to the dashed line, the better the probability "
        f"holds. {_percent(found.base)} of all were taken. Below, where they lie: the wider, the more is told apart."
    )
    if found.earlier is not None:
        both["fitted on the selection part"] = found.earlier
    rows = [
        [Cell(label), *(Cell(wording.mean(v)) for v in (one.ece, one.brier, one.nll))] for label, one in both.items()
    ]
    bins = found.own.reliability
    parts = [
        [Cell(wording.mean(expected)), Cell(wording.mean(observed)), Cell(f"{count:,}")]
        for expected, observed, count in zip(bins.expected, bins.observed, bins.count, strict=True)
    ]
    return [
        Picture(lambda w, n: figures.reliability(promises, width=w, name=n), caption, key),
        Table("Probabilities of the same places; less is better", ("probability of", "ECE", "Brier", "NLL"), rows),
        Details("As numbers", [Table(f"Bins of {name}", ("probability", "taken", "pairs"), parts)]),
    ]


def _risk(found: Findings) -> list[Block]:
    names = sorted(found.signals, key=lambda name: (name == "draws: spread", not name.startswith("draws")))
    first = [EXPECTED, *(name for name in names if name.startswith("draws: e")), HISTORY, MARGIN]
    shown = list(dict.fromkeys([*first, *names]))[:SHOWN]
    orders = [figures.Order(name, found.signals[name].curve.tolist()) for name in shown]
    best = found.best.tolist()
    caption = (
        f"Mean 1 − ndcg@{JUDGED} of the users a signal is surest of, from few on the left to all on the right: low is "
        "good, and a signal that knows nothing stays on the dashed line. The dotted line is the order by the risk itself."
    )
    key = [*_key(shown), Mark("dash", "muted", "random order")]
    rows = [
        [
            Cell(f"{name}, turned" if one.turned else name),
            _cell(one.aurc),
            Cell(wording.mean(one.e_aurc)),
            _cell(one.below_random),
            _cell(one.excess_below_random),
            *(_cell(one.over.get(rival)) for rival in (HISTORY, MARGIN)),
            Cell(wording.signed(one.spearman)),
        ]
        for name, one in found.signals.items()
    ]
    head = (
        "order by",
        "AURC",
        "E-AURC",
        "below random",
        "excess below random",
        f"less that of {HISTORY}",
        f"less that of {MARGIN}",
        "Spearman",
    )
    note = (
        f"All areas are of the same users; a random order has {wording.mean(found.random)}, the best possible "
        f"{wording.mean(float(found.best.mean()))}: E-AURC is the excess over that, and its share of a random order's, unlike "
        "the area's, does not depend on how far the risk can fall. Turned: on the selection part the other end was the sure one."
    )
    return [
        Picture(lambda w, n: figures.risk_coverage(orders, found.random, best, width=w, name=n), caption, key),
        Table("Area under risk and coverage, with 95\u00a0% intervals over users", head, rows),
        Text(note, "note"),
    ]


def _sets(found: Findings, by_history: Mapping[str, Held]) -> list[Block]:
    levels = sorted(zip(LEVELS, found.levels, strict=True), key=lambda pair: pair[0])
    rows = [
        [
            Cell(wording.percent(level)),
            _cell(held.coverage),
            *map(_count, (held.size, held.popularity)),
            Cell(wording.percent(held.ratio)),
        ]
        for level, held in levels
    ]
    parts = [
        [
            Cell(label),
            _count(held.users),
            _cell(held.coverage),
            _count(held.size),
            Cell(wording.mean(held.own)),
            *map(_count, (held.own_size, held.popularity)),
        ]
        for label, held in by_history.items()
    ]
    tried = wording.listed(f"{name} ({size:,.0f})" for name, size in found.sets.tried.items())
    chosen = (
        f"Scores tried on the selection part, with the median set there: {tried}. Taken: {found.sets.kind}; for popularity, "
        f"in the same way, {found.rival.kind}."
        if found.sets.tried
        else "The model has learned from the selection part, so no score could be chosen there: the rank was taken."
    )
    head = ("promised", "held", "median set", "popularity's", "ratio")
    by = ("history", "users", "held", "median set", "held, own threshold", "median set, own threshold", "popularity's")
    return [
        Table("Sets that hold the item taken next, out of all that may be recommended", head, rows),
        Text(f"The next item is the first relevant one in the order of the events. {chosen}", "note"),
        Details("By how much is known of the user, at 90\u00a0%", [Table("Sets by length of history", by, parts)]),
    ]


def _key(names: Iterable[str]) -> list[Mark]:
    return [Mark(shape, colour, name) for name, (colour, shape) in zip(names, _COLOURS, strict=False)]


def _cell(value: Interval | float | None) -> Cell:
    if value is None:
        return Cell("–")
    if isinstance(value, Interval):
        return Cell(wording.mean(value.mean), f"{wording.mean(value.low)} to {wording.mean(value.high)}")
    return Cell(wording.mean(value))


def _count(value: float) -> Cell:
    return Cell(f"{value:,.0f}")


def _signed(value: Interval) -> str:
    return (
        f"{wording.signed(value.mean)}, 95\u00a0% interval {wording.signed(value.low)} to {wording.signed(value.high)}"
    )


def _more_or_less(share: float) -> str:
    """How much smaller something is: 33.0 % smaller, 2.1 % larger."""
    return f"{_percent(abs(share))} {'smaller' if share >= 0 else 'larger'}"


def _percent(share: float) -> str:
    """A share as percent with one decimal: 89.7 %."""
    return f"{100 * share:.1f}\u00a0%".replace("-", "−")
