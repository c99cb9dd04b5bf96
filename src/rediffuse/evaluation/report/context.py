"""The sections that say what the figures rest on: protocol, settings, how the page was made, what it does not show."""

from collections.abc import Sequence

from rediffuse.evaluation import wording
from rediffuse.evaluation.report.blocks import Block, Bullets, Cell, Code, Details, Section, Table, Text
from rediffuse.evaluation.report.comparison import Report
from rediffuse.evaluation.report.making import varied
from rediffuse.evaluation.report.values import Result


def protocol(report: Report, results: Sequence[Result]) -> Section:
    """The protocol in words and as a value, and the settings of every method."""
    value = report.results[0].protocol
    leaks = [Text(f"Leak: {leak}.", "warning") for leak in value.get("leak") or ()]
    blocks: list[Block] = [*leaks]
    if said := wording.protocol_words(value):
        blocks.append(Bullets(said))
    if value:
        rows = [[Cell(key), Cell(text, kind="words")] for key, text in wording.flat(value)]
        blocks.append(Details("The protocol as a value", [Table("Protocol", ("key", "value"), rows, "plain")]))
    else:
        blocks.append(Text("None was recorded."))
    chosen = [[Cell(r.method), Cell(wording.words(r.settings) or "none recorded", kind="words")] for r in results]
    settings = Table("Settings of each method", ("method", "settings"), chosen, "plain")
    return Section("protocol", "Protocol", [*blocks, Details("Settings of each method", [settings])])


def made(report: Report) -> Section:
    """The command and every fact that was recorded."""
    blocks: list[Block] = []
    if "command" in report.facts:
        blocks.append(Code(report.facts["command"]))
    if rows := [[Cell(key), Cell(value, kind="words")] for key, value in report.facts.items() if key != "command"]:
        blocks.append(Table("Facts", ("what", "value"), rows, "plain"))
    return Section("made", "How this page was made", blocks or [Text("Nothing was recorded.")])


def limits(report: Report) -> Section:
    """What the figures do not show, as far as the report itself can tell."""
    value = report.results[0].protocol
    seeds = value.get("seeds") or ()
    out = [
        "Offline: what users did without these suggestions. What they would do with them is not measured.",
        f"One dataset, {report.results[0].dataset}: another catalog or season may order the methods otherwise.",
    ]
    if report.references:
        out.append(
            "A world whose truth is known: distances to the references hold for it, not for a shop of real customers."
        )
    if len(seeds) == 1:
        out.append(f"One training seed ({seeds[0]}): how much a training varies is in no interval.")
    elif seeds:
        out.append(f"{len(seeds)} training seeds, averaged: intervals say how users vary, not how trainings do.")
    if value.get("ties") == "against":
        out.append("Ties count against a method: scores that often tie look worse than they need.")
    if undefined := max(result.undefined for result in report.results):
        out.append(f"{wording.counted(undefined, 'user')} had nothing to find and are in no mean.")
    out += _fallbacks(report)
    out += _search_limits(report)
    if open_ := sum(pair.sign == 0 for pair in report.pairs):
        out.append(f"Not settled: {open_:,} of {wording.counted(len(report.pairs), 'paired difference')}.")
    out += [f"A leak: {leak}; the figures are better than a shop would see." for leak in value.get("leak") or ()]
    return Section("limits", "What this does not show", [Bullets(out)])


def _fallbacks(report: Report) -> list[str]:
    """Whose lists were not all their own: from the slices by answer."""
    out: list[str] = []
    for result in report.results:
        theirs = [one for one in result.slices if one.by == "answer" and one.label.startswith("fallback")]
        if users := sum(one.users for one in theirs):
            why = wording.listed(one.label.removeprefix("fallback: ") for one in theirs)
            out.append(f"{result.method} had no list of its own for {wording.counted(users, 'user')} ({why}).")
    return out


def _search_limits(report: Report) -> list[str]:
    counts = {len(result.trials) for result in report.results if varied(result)}
    given = [result.method for result in report.results if not result.trials]
    if not counts:
        return ["Settings were given: no comparison under equal tuning budgets."]
    equal = "Settings were searched for with equal numbers of trials; ranges and time per trial differ."
    out = [equal if len(counts) == 1 else "Tuning budgets differ between methods: see what was tried."]
    return [*out, f"Settings of {wording.listed(given)} were given, not searched for."] if given else out
