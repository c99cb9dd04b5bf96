"""The whole report, and what it comes to in two or three sentences. Nothing is computed here but sentences."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rediffuse.errors import InvalidInput, say
from rediffuse.evaluation.report.as_json import from_plain, to_plain
from rediffuse.evaluation.report.values import Pair, Reference, Result, SweepPoint, Walk
from rediffuse.evaluation.wording import p_value, percent, signed

FORMAT_VERSION = 1
RIVALS = ("control", "classic")
"""The roles that a diffusion model has to beat."""

_BEST = {
    "classic": "the best classic method",
    "control": "the strongest control",
    "diffusion": "the next diffusion model",
    "method": "the best other method",
}
_KINDS: dict[int, Literal["ahead", "behind", "open"]] = {1: "ahead", 0: "open", -1: "behind"}


@dataclass(frozen=True)
class Report:
    """Everything on the page. All results share one dataset and one protocol, else they are not comparable."""

    title: str
    results: Sequence[Result]
    pairs: Sequence[Pair]
    sweep: Sequence[SweepPoint]
    walks: Sequence[Walk]
    select_by: str
    """The metric that methods were chosen by; it decides the headline."""
    facts: Mapping[str, str]
    """`command`, versions, seeds, hashes, facts of the dataset."""
    references: Sequence[Reference] = ()
    """The first is the one that the verdict measures the distance to."""

    def __post_init__(self) -> None:
        if not self.results:
            raise InvalidInput(say("A report needs at least one result"))
        methods = [result.method for result in self.results]
        if len(set(methods)) < len(methods):
            raise InvalidInput(say("Every method stands once in a report", got=methods))
        first = self.results[0]
        for result in self.results:
            if (result.dataset, dict(result.protocol)) != (first.dataset, dict(first.protocol)):
                what = f"{result.method!r} and {first.method!r} differ in dataset or protocol"
                raise InvalidInput(say(what, remedy="Compare only what was evaluated alike"))
            if self.select_by not in result.metrics:
                what = f"{result.method!r} lacks the selection metric"
                raise InvalidInput(say(what, got=self.select_by, allowed=list(result.metrics)))

    def value(self, result: Result) -> float:
        """The mean of the selection metric."""
        return result.metrics[self.select_by].mean

    def ranked(self) -> list[Result]:
        """Best first on the selection metric; methods whose mean is undefined are left out."""
        known = [result for result in self.results if math.isfinite(self.value(result))]
        return sorted(known, key=lambda result: -self.value(result))

    def rival(self) -> Result | None:
        """The best classic method or control."""
        return next((result for result in self.ranked() if result.role in RIVALS), None)

    def pair(self, a: str, b: str) -> Pair | None:
        """A minus b on the selection metric, whichever way round it was given."""
        for pair in self.pairs:
            if pair.metric == self.select_by and {pair.a, pair.b} == {a, b}:
                return pair if pair.a == a else pair.turned()
        return None

    def to_json(self) -> dict[str, Any]:
        """The fixed JSON form: everything on the page, with its verdict in words; null where undefined."""
        plain = to_plain(self)
        parts = ("results", "pairs", "references", "sweep", "walks", "facts")
        return {
            "format_version": FORMAT_VERSION,
            "title": self.title,
            "select_by": self.select_by,
            "verdict": to_plain(headline(self)),
            "protocol": to_plain(self.results[0].protocol),
            **{name: plain[name] for name in parts},
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Report":
        """The report that `to_json` wrote; its verdict is worded anew.

        Raises: InvalidInput when it is another format, or a key is missing, unknown or of another type.
        """
        if value.get("format_version") != FORMAT_VERSION:
            what = "This JSON is no report of this format version"
            remedy = "Make it with: rediffuse compare --json FILE"
            raise InvalidInput(say(what, got=value.get("format_version"), allowed=FORMAT_VERSION, remedy=remedy))
        derived = ("format_version", "verdict", "protocol")
        return from_plain(cls, {key: part for key, part in value.items() if key not in derived}, "report")


@dataclass(frozen=True)
class Verdict:
    """The headline: `ahead`, `behind` or `open`, and a few plain sentences."""

    kind: Literal["ahead", "behind", "open"]
    sentences: Sequence[str]


def headline(report: Report) -> Verdict:
    """Who leads on the selection metric, whether the best diffusion model beats the best method without one, and how
    far they stand from the first reference.

    Without a diffusion model the leader is held against the best other method.
    """
    ranked, metric = report.ranked(), report.select_by
    if not ranked:
        return Verdict("open", (f"{metric} is undefined for every method: no user has anything to find.",))
    leader = ranked[0]
    diffusion = [result for result in ranked if result.role == "diffusion"]
    subject = diffusion[0] if diffusion else leader
    others = [result for result in ranked if result is not subject]
    rivals = [result for result in others if result.role in RIVALS]
    leads = f"{leader.method} has the highest {metric}: {report.value(leader):.4f}"
    distance = _distance(report, leader, subject)
    if not rivals and (diffusion or not others):
        why = "No classic method or control was run beside it, so nothing can be said of its worth."
        return Verdict("open", (f"{leads}.", why, *distance))
    rival = (rivals or others)[0]
    pair = report.pair(subject.method, rival.method)
    if pair is None:
        why = f"{subject.method} and {rival.method} were not compared user by user, so their difference is not settled."
        return Verdict("open", (f"{leads}.", why, *distance))
    sentences = [_outcome(pair, subject, rival, leader, metric), _evidence(report, pair, subject, rival)]
    if leader not in (subject, rival):
        sentences.append(f"{leads}.")
    if not diffusion:
        sentences.append("No diffusion model was compared.")
    return Verdict(_KINDS[pair.sign], (*sentences, *distance))


def reached(report: Report, reference: Reference, method: str) -> tuple[float, float, float] | None:
    """Which share of a reference a method reaches, with the ends of its 95 % interval; the reference counts as exact.

    share = 1 - gap / reference. None where the gap is not known or the reference is not above 0.
    """
    top, gap = reference.metrics.get(report.select_by), reference.gaps.get(method)
    if top is None or gap is None or not (top.mean > 0 and math.isfinite(gap.mean)):
        return None
    return 1 - gap.mean / top.mean, 1 - gap.high / top.mean, 1 - gap.low / top.mean


def _outcome(pair: Pair, subject: Result, rival: Result, leader: Result, metric: str) -> str:
    other = f"{rival.method}, {_BEST[rival.role]}"
    if leader is rival:
        how = {1: "beats it user by user", 0: "does not beat it: the difference may be chance", -1: "falls short of it"}
        return f"{other}, leads on {metric}; {subject.method}, the best diffusion model, {how[pair.sign]}."
    name = subject.method if subject is leader else f"{subject.method}, the best diffusion model,"
    how = {
        1: f"beats {other}, on {metric}",
        0: f"{'leads on ' + metric + ' but ' if subject is leader else ''}does not beat {other}"
        f"{'' if subject is leader else ', on ' + metric}: the difference may be chance",
        -1: f"falls short of {other}, on {metric}",
    }
    return f"{name} {how[pair.sign]}."


def _evidence(report: Report, pair: Pair, subject: Result, rival: Result) -> str:
    base = report.value(rival)
    share = f"{pair.mean / base:+.1%}; ".replace("%", "\u00a0%").replace("-", "−") if base > 0 else ""
    interval = f"95\u00a0% interval {signed(pair.low)} to {signed(pair.high)}"
    relation = "" if pair.p_holm < 0.001 or not math.isfinite(pair.p_holm) else "=\u00a0"
    p = f"Holm-corrected p\u00a0{relation}{p_value(pair.p_holm)}"
    values = f"{report.value(subject):.4f} against {base:.4f}"
    text = f"{values}; per user {signed(pair.mean)} ({share}{interval}; {p})."
    if pair.sign:
        return text
    inside = pair.low <= 0 <= pair.high
    return f"{text} {'The interval includes zero' if inside else 'Among so many comparisons this may be chance'}."


def _distance(report: Report, leader: Result, subject: Result) -> list[str]:
    """How far the leader, and the best diffusion model where it is another, stand from the first reference."""
    if not report.references:
        return []
    reference = report.references[0]
    shares = {r.method: share for r in (leader, subject) if (share := reached(report, reference, r.method))}
    if leader.method not in shares:
        return []
    top = reference.metrics[report.select_by].mean
    exact = f", known to ±{2 * reference.error:.2g}" if reference.error > 0 else ""
    tail = f"of what could be known ({reference.name}: {report.select_by} {top:.4f}{exact})"
    heads = [
        f"{method} reaches {percent(mean)} (95\u00a0% interval {percent(low)} to {percent(high)})"
        for method, (mean, low, high) in shares.items()
    ]
    return [f"{heads[0]} {tail}{''.join('; ' + head for head in heads[1:])}."]
