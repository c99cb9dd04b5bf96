"""How numbers, metrics and protocols read: shared by reports and model cards."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

MEANING = {
    "recall": "the share of what a user really took next that stands among the first {k} suggestions",
    "ndcg": "how much of what a user really took next stands among the first {k} suggestions; higher places count more",
    "precision": "the share of the first {k} suggestions that the user really took next",
    "hit": "the share of users who took at least one of the first {k} suggestions",
    "mrr": "one over the place of the first suggestion that the user took, among the first {k}",
    "map": "precision averaged over the places of what the user took, among the first {k}",
}
"""What a metric of accuracy says. Higher is better for these, so a table sets their best in bold."""

BEYOND = {
    "coverage": "the share of the catalog that is suggested to anybody at all, in the first {k} places",
    "gini": "how unevenly the first {k} places fall on the items: 0 when all alike, 1 when one item takes them all",
    "novelty": "how little known the first {k} suggestions are, in bits: an item that half as many users have gets 1 more",
    "serendipity": "the share of the first {k} places with an item that the user took and that no obvious list had",
    "ild": "how unlike each other the first {k} suggestions of a list are, by who took them: 0 alike, 1 no user in common",
    "ild_category": "how unlike each other the first {k} suggestions of a list are, by their categories",
    "popularity": "the share of all users who have an item, averaged over the first {k} suggestions",
    "tail": "the share of the first {k} suggestions that are neither bestsellers nor the middle of the catalog",
}
"""What a list is like besides accurate; more is not simply better."""


def meaning(metric: str, table: Mapping[str, str] = MEANING) -> str:
    """What `recall@20` says, in words; empty where it is not known."""
    name, _, k = metric.partition("@")
    return table.get(name, "").format(k=k or "K")


def mean(value: float, places: int = 4) -> str:
    """A mean to four places with a real minus; a dash where undefined."""
    return f"{value:.{places}f}".replace("-", "−") if math.isfinite(value) else "–"


def signed(value: float) -> str:
    """A difference to four places with a real minus; more places where it would read as zero."""
    if not math.isfinite(value):
        return "–"
    shown = f"{value:+.4f}" if value == 0 or abs(value) >= 5e-5 else f"{value:+.1e}"
    return shown.replace("-", "−")


def p_value(value: float) -> str:
    """Three digits, or that it lies below .001."""
    if not math.isfinite(value):
        return "undefined"
    return "<\u00a00.001" if value < 0.001 else f"{value:.3g}"


def percent(share: float) -> str:
    """A share as whole percent: 61 %."""
    return f"{100 * share:.0f}\u00a0%".replace("-", "−")


def short(value: float) -> str:
    """Three significant digits, thousands apart: 0.0123, 4.56, 1,230."""
    if not math.isfinite(value):
        return "–"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def score(value: float) -> str:
    """Three significant digits, trailing zeros kept so that a column lines up."""
    if not math.isfinite(value):
        return "–"
    return (f"{value:,.0f}" if abs(value) >= 100 else f"{value:#.3g}").replace("-", "−")


def words(value: Any) -> str:
    """A value of a protocol or a setting as one reads it."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} = {text}" for key, text in flat(value))
    if isinstance(value, list | tuple):
        return ", ".join(map(words, value)) or "none"
    if value is None or isinstance(value, bool):
        return {True: "yes", False: "no", None: "none"}[value]
    return f"{value:.{4 if abs(value) < 1 else 6}g}" if isinstance(value, float) else str(value)


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    """Nested values as (`split.kind`, words)."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", words(value)


def listed(names: Iterable[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    *most, last = [*names] or ["nothing"]
    return f"{', '.join(most)} and {last}" if most else last


def counted(number: int, one: str, many: str = "") -> str:
    """`1 user`, `5,949 users`."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def protocol_words(protocol: Mapping[str, Any]) -> list[str]:
    """A protocol value as sentences; what it does not say is left out."""
    out: list[str] = []
    if protocol.get("fit"):
        share = protocol.get("fit_share", 1)
        of = f"{percent(share)} of what users met in " if share < 1 else ""
        out.append(f"Methods learn from {of}{listed(protocol['fit'])}.")
    if protocol.get("refit"):
        out.append(f"With settings and epochs chosen, they learn anew from {listed(protocol['refit'])} for the report.")
    for key, use in (("selection", "Settings and epochs are chosen on"), ("report", "Figures are read on")):
        phase = protocol.get(key)
        if isinstance(phase, Mapping):
            out.append(f"{use} {phase.get('relevant')}, given {listed(phase.get('history') or ())}; {_masked(phase)}.")
    if protocol.get("select_by"):
        out.append(f"Whatever is chosen is chosen by {protocol['select_by']}.")
    if protocol.get("candidates") == "catalog":
        out.append("Every item of the catalog is ranked, none is sampled.")
    if protocol.get("ties") == "against":
        out.append("An item that was taken stands behind all items of the same score, so ties never flatter a method.")
    if seeds := protocol.get("seeds"):
        many = f"seeds {listed(map(str, seeds))}; a user's value is the mean over them"
        out.append(f"Training uses {many if len(seeds) > 1 else f'seed {seeds[0]}'}, fixed before the run.")
    out += [f"This is a leak: {leak}." for leak in protocol.get("leak") or ()]
    return out


def _masked(phase: Mapping[str, Any]) -> str:
    if not phase.get("mask"):
        return "items may be recommended again"
    return f"items of {listed(phase['mask'])} are not recommended again and do not count"
