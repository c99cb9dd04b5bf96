"""What a look at the data finds: counts, and what may mislead a model, each with a remedy."""

from collections.abc import Generator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rediffuse.data.catalog import Catalog
from rediffuse.data.weighting import DAY_US

if TYPE_CHECKING:
    from rediffuse.data.dataset import Dataset

LATE = 0.1
"""Share of the events that count as the last ones."""
MUCH_LEFT_OUT, MANY_DUPLICATES, MUCH_COLD, MANY_FEW = 0.5, 0.1, 0.2, 0.5
USER_SHARE, ITEM_SHARE = 0.05, 0.25
"""Shares of all events from which one user, one item stands out."""
CROWD = 100
"""Users or items from which on such shares say something."""
SKEW_US = 5 * 60 * 1_000_000
"""How far a shop's clock may run ahead."""

_S = 1_000_000
_Y1990 = int(datetime(1990, 1, 1, tzinfo=UTC).timestamp()) * _S
_Y2101 = int(datetime(2101, 1, 1, tzinfo=UTC).timestamp()) * _S


@dataclass(frozen=True)
class Finding:
    """One thing worth knowing before a model learns from the data."""

    severity: Literal["note", "warning"]
    sentence: str
    remedy: str = ""


@dataclass(frozen=True)
class Health:
    """Counts and findings."""

    counts: Mapping[str, int | float]
    """Name -> number; shares lie in 0..1, times are UTC microseconds."""
    findings: tuple[Finding, ...]

    def record(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {"counts": dict(self.counts), "findings": [asdict(finding) for finding in self.findings]}


def health(dataset: "Dataset", now_us: int | None = None) -> Health:
    """Look at a dataset; nothing is changed by it.

    Args: now_us: UTC microseconds; times more than 5 minutes later are reported. None: they are not looked for.
    """
    events, facts = dataset.events, dataset.facts
    left_out: Mapping[str, int] = facts.get("left_out", {})
    counts: dict[str, int | float] = {"events": len(events), "duplicates": facts.get("duplicates", 0)}
    counts["rows"] = facts.get("rows", counts["events"] + counts["duplicates"] + sum(left_out.values()))
    counts |= {f"left out: {reason}": number for reason, number in left_out.items()}
    counts["density"] = len(events) / max(len(dataset.users) * len(dataset.catalog), 1)
    findings = [*_left_out(counts, left_out, facts), *_kinds(dataset)]
    for catalog, what in ((dataset.users, "user"), (dataset.catalog, "item")):
        per_id = np.bincount(events.frame[what].to_numpy(), minlength=len(catalog))
        findings += [*_few(per_id, what, counts), *_crowd(per_id, catalog, what), *_rows(per_id, catalog, what, counts)]
    if events.order == "none":
        remedy = "Methods by sequence or age and splits by time refuse it; give times, or --order sequence"
        findings.append(Finding("note", "The order of events is not known", remedy))
    if events.order == "time" and len(events):
        time = events.frame["time_us"].to_numpy()
        findings += [*_times(time, now_us, counts), *_cold(dataset, time, counts)]
    return Health(counts, tuple(sorted(findings, key=lambda finding: finding.severity == "note")))


def moment(time_us: float) -> str:
    """ISO 8601 text of UTC microseconds."""
    return datetime.fromtimestamp(int(time_us) / _S, tz=UTC).isoformat()


def _left_out(
    counts: Mapping[str, int | float], left_out: Mapping[str, int], facts: Mapping[str, Any]
) -> Generator[Finding]:
    rows = max(counts["rows"], 1)
    if (gone := sum(left_out.values())) > MUCH_LEFT_OUT * rows:
        yield Finding("warning", f"The rules leave out {gone:,} of {rows:,} rows", "Check kinds and min_rating")
    if counts["duplicates"]:
        many = counts["duplicates"] > MANY_DUPLICATES * rows
        remedy = "Check that the file was not joined to itself; if repeats are real, give them times"
        yield Finding(
            "warning" if many else "note",
            f"{counts['duplicates']:,} exact duplicates count once",
            remedy if many else "",
        )
    if returns := facts.get("returns"):
        unmatched = returns["events"] - returns["cancelled"]
        tail = f"; {unmatched:,} returns found none" if unmatched else ""
        shown = " and ".join((", ".join(returns["kinds"]), ", ".join(returns["of"]) or "nothing"))
        sentence = f"Returns took back {returns['cancelled']:,} purchases{tail} (kinds {shown}); both weigh 0"
        yield Finding("note", sentence, "Pass --returns with other kinds, or --returns '' for none")


def _kinds(dataset: "Dataset") -> Generator[Finding]:
    returns = dataset.facts.get("returns", {}).get("kinds", ())
    kinds = [kind for kind in dataset.events.kinds if kind not in returns]
    if len(kinds) > 1 and not dataset.facts.get("rules", {}).get("kinds"):
        weights = ",".join(f"{kind}=1" for kind in kinds[:4])
        yield Finding("note", f"Events of {len(kinds)} kinds count alike", f"Weigh them: --kinds {weights}")


def _few(per_id: NDArray[np.int64], what: str, counts: dict[str, int | float]) -> Generator[Finding]:
    """Users and items with too little to learn from."""
    alive = per_id[per_id > 0]
    for least in (2, 5):
        counts[f"{what}s with fewer than {least} events"] = int((alive < least).sum())
    if alive.size >= CROWD and (alive < 2).sum() > MANY_FEW * alive.size:
        share = (alive < 2).mean()
        sentence = f"{share:.0%} of the {what}s with events have a single one"
        yield Finding("warning", sentence, f"Check that the {what} column is the right one")


def _crowd(per_id: NDArray[np.int64], catalog: Catalog, what: str) -> Generator[Finding]:
    """One user or item with a huge share."""
    top = int(per_id.argmax()) if per_id.size else 0
    if (per_id > 0).sum() < CROWD:
        return
    share = per_id[top] / per_id.sum()
    if share > (USER_SHARE if what == "user" else ITEM_SHARE):
        cause = "a bot, a test account or guests" if what == "user" else "a gift, a fee or a placeholder"
        sentence = f"One {what}, {catalog.items.ids[top]!r}, has {share:.0%} of all events: it may be {cause}"
        yield Finding("warning", sentence, "Take its rows out of the file if it is")


def _rows(per_id: NDArray[np.int64], catalog: Catalog, what: str, counts: dict[str, int | float]) -> Generator[Finding]:
    """Events without a row of attributes, and rows without events."""
    counts[f"{what}s without events"] = idle = int((per_id == 0).sum())
    if not catalog.attributes.width:
        return
    blank = catalog.attributes.select(blank=pl.all_horizontal(pl.all().is_null()))["blank"].to_numpy()
    counts[f"{what}s without attributes"] = bare = int((blank & (per_id > 0)).sum())
    if bare:
        yield Finding("note", f"{bare:,} {what}s with events have no attributes", f"Check the ids of the {what} table")
    if idle:
        yield Finding("note", f"{idle:,} rows of the {what} table have no events")


def _times(time: NDArray[np.int64], now_us: int | None, counts: dict[str, int | float]) -> Generator[Finding]:
    first, last = int(time.min()), int(time.max())
    counts |= {"first time": first, "last time": last, "days": (last - first) / DAY_US}
    early = counts["times before 1990"] = int((time < _Y1990).sum())
    units = {"seconds": _S, "milliseconds": 1000}
    unit = next((u for u, f in units.items() if first * f >= _Y1990 and last * f < _Y2101), None)
    if early == time.size and unit:
        remedy = f"Multiply them by {units[unit]:,}"
        yield Finding("warning", f"Times lie before 1990, but read as {unit} they would not", remedy)
    elif early:
        yield Finding(
            "warning",
            f"{early:,} times lie before 1990, the first {moment(first)}",
            "Mend the clock, or leave them out",
        )
    if now_us is not None:
        ahead = counts["times in the future"] = int((time > now_us + SKEW_US).sum())
        if ahead:
            sentence = f"{ahead:,} times lie in the future, the last {moment(last)}"
            yield Finding("warning", sentence, "Check the unit and the time zone of the time column")
    if time.size > 1 and first // _S == last // _S:
        remedy = "It may be the time of an export: give the time of the event, or --order none"
        yield Finding("warning", f"All events stand in one second, {moment(first)}", remedy)
    elif not (time % DAY_US).any():
        yield Finding("note", "All times are midnight: the order of events within a day is not known")


def _cold(dataset: "Dataset", time: NDArray[np.int64], counts: dict[str, int | float]) -> Generator[Finding]:
    """Share of the last events whose item or user no earlier one shows."""
    cut = np.partition(time, place := int((time.size - 1) * (1 - LATE)))[place]
    late = time > cut
    if not late.any():
        return
    for what, catalog in (("item", dataset.catalog), ("user", dataset.users)):
        numbers = dataset.events.frame[what].to_numpy()
        seen = np.zeros(len(catalog), dtype=np.bool_)
        seen[numbers[~late]] = True
        share = counts[f"cold {what}s"] = float(1 - seen[numbers[late]].mean())
        if share > MUCH_COLD:
            sentence = f"{share:.0%} of the last {LATE:.0%} of events are of {what}s that no earlier event shows"
            remedy = "Methods by id know nothing of them: " + (
                "give attributes" if what == "item" else "ask with a posted history"
            )
            yield Finding("warning", sentence, remedy)
