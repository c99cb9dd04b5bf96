"""A report as Markdown: the words and figures of the page, and nothing from data is markup."""

import re
import sys
from dataclasses import replace

from rediffuse.evaluation.report import Pair, Report, Slice, write_markdown, write_report
from rediffuse.evaluation.report.page import lay_out
from tests.evaluation.report_samples import about, everything, make, walk


def text(folder, report: Report) -> str:
    write_report(folder / "report.md", report)
    return (folder / "report.md").read_text(encoding="utf-8")


def test_it_has_the_sections_of_the_page_and_needs_no_library(tmp_path, monkeypatch):
    for library in ("jinja2", "matplotlib"):
        monkeypatch.setitem(sys.modules, library, None)
    said = text(tmp_path, everything())
    titles = re.findall(r"^## (.*)$", said, re.MULTILINE)
    assert titles == ["Verdict: settled", *(section.title for section in lay_out(everything()).sections)]
    assert "**DiffRec beats EASE, the best classic method, on ndcg@20.**" in said
    assert "| DiffRec | **0.1310** (0.1270–0.1350) | **0.1834** (0.1794–0.1874) |" in said
    assert "rediffuse compare --seed 1" in said
    assert "<svg" not in said


LEAK = "report: history holds 'test'"
OPEN = {
    "report": {"relevant": "test", "history": ["train"], "mask": ["train"]},
    "ties": "against",
    "seeds": [7],
    "leak": [LEAK],
}


def with_protocol(report: Report, protocol: dict) -> Report:
    return replace(report, results=[replace(one, protocol=protocol) for one in report.results])


def limits(said: str) -> str:
    return said.partition("## What this does not show\n\n")[2]


def test_limits_follow_from_what_was_done(tmp_path):
    said = text(tmp_path, with_protocol(make(), OPEN))
    for line in (
        "- One dataset, ml-1m: another catalog or season may order the methods otherwise.",
        "- One training seed (7): how much a training varies is in no interval.",
        "- Ties count against a method: scores that often tie look worse than they need.",
        "- 91 users had nothing to find and are in no mean.",
        "- Settings were given: no comparison under equal tuning budgets.",
        f"- A leak: {LEAK}; the figures are better than a shop would see.",
    ):
        assert f"{line}\n" in limits(said)
    assert "truth is known" not in limits(said)
    assert f"**Leak: {LEAK}.**" in said
    full = limits(text(tmp_path, with_protocol(everything(), {"seeds": [1, 2]})))
    assert "- 2 training seeds, averaged" in full
    assert "truth is known" in full
    assert "Ties" not in full


def test_whose_lists_were_not_their_own_is_said(tmp_path):
    first, *others = make().results
    own, other = (
        Slice("answer", "the method's own", 5900, about(0.1)),
        Slice("answer", "fallback: cold", 49, about(0.1)),
    )
    said = text(tmp_path, make(results=[replace(first, slices=(own, other)), *others]))
    assert "- popularity had no list of its own for 49 users (cold)." in limits(said)
    assert "## By where the answer came from" in said


def test_what_is_not_the_leader_or_the_usual_metric_is_folded_away(tmp_path):
    results = [replace(one, metrics={**one.metrics, "mrr@5": about(0.3)}) for one in make().results]
    pairs = [*make().pairs, Pair("EASE", "popularity", "ndcg@20", 0.06, -0.01, 0.13, 0.2)]
    said = text(tmp_path, make(results=results, pairs=pairs))
    assert "<summary>1 further metric: mrr@5</summary>" in said
    assert "<summary>1 comparison among the others</summary>" in said
    assert (
        "| EASE | popularity | ndcg@20 | +0.0600 | -0.0100 to +0.1300 | 0.2 | not settled |".replace("-0", "−0") in said
    )
    assert "- Not settled: 1 of 2 paired differences." in limits(said)


def test_nothing_recorded_is_said(tmp_path):
    said = text(tmp_path, with_protocol(make(facts={}, pairs=[]), {}))
    assert "Nothing was recorded." in said
    assert "None was recorded." in said
    assert "No paired comparison was made" in said


def test_tables_are_whole(tmp_path):
    lines = text(tmp_path, everything()).splitlines()
    rules = [place for place, line in enumerate(lines) if line.startswith("| ---")]
    assert len(rules) > 12
    for place in rules:
        assert not lines[place - 2]
        columns = lines[place].count("|")
        row = place - 1
        while lines[row].startswith("|"):
            assert len(re.findall(r"(?<!\\)\|", lines[row])) == columns
            row += 1


def test_details_are_closed_and_apart(tmp_path):
    said = text(tmp_path, everything())
    assert said.count("<details>") == said.count("</details>") == said.count("</summary>\n\n") > 5


def test_nothing_from_data_is_markup(tmp_path):
    evil = "<img src=x> | **b** [l](http://e.vil) `c` @bob\n# h"
    report = make(title=evil, walks=[walk([evil] * 12)], facts={"command": "x\n```\ny", evil: evil})
    report = replace(report, results=[replace(report.results[0], method=evil), *report.results[1:]])
    said = text(tmp_path, report)
    shown = r"&lt;img src=x&gt; \| \*\*b\*\* \[l\](http:&#47;&#47;e.vil) \`c\` &#64;bob \# h"
    assert said.startswith(f"# {shown}\n")
    assert f"| {shown} | {shown} |" in said
    assert "````\nx\n```\ny\n````" in said
    assert "<img" not in said
    assert "](http" not in said.replace(r"\](", "")


def test_the_name_of_the_file_may_be_another(tmp_path):
    write_markdown(tmp_path / "REPORT", make())
    assert (tmp_path / "REPORT").read_text(encoding="utf-8") == text(tmp_path, make())
