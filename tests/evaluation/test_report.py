"""The page of a comparison: honest words, whole in one file, the same bytes for the same numbers."""

import json
import math
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import matplotlib as mpl
import pytest

from rediffuse.errors import InvalidInput, MissingExtra
from rediffuse.evaluation.report import (
    Interval,
    Pair,
    Report,
    Result,
    SweepPoint,
    Walk,
    WalkItem,
    headline,
    write_report,
)

METRICS = ("ndcg@20", "recall@20")
PROTOCOL = {"split": {"kind": "in-time-order", "cut": "2001-01-01"}, "mask": ["train", "test"], "repeats": False}


def about(mean: float, half: float = 0.004) -> Interval:
    return Interval(mean, mean - half, mean + half)


def result(method: str, role: str, ndcg: float, *, recall: float | None = None, fit_s: float = 10.0) -> Result:
    metrics = {"ndcg@20": about(ndcg), "recall@20": about(ndcg * 1.4 if recall is None else recall)}
    seconds = {"fit": fit_s, "evaluate": 1.25}
    return Result(method, "ml-1m", PROTOCOL, 5949, metrics, seconds, 812.0, 91, {"l2": 500.0, "dims": [1000]}, role)


def walk(titles: list[str] | None = None) -> Walk:
    names = titles or [f"Title {n}" for n in range(12)]
    lists = [range(10), [2, 0, 1, 5, 4, 3, 10, 6, 7, 8], [2, 11, 0, 5, 1, 4, 3, 10, 6, 7]]
    levels = [
        (t, [WalkItem(str(n), names[n], 1 / (rank + 1), n in (2, 11)) for rank, n in enumerate(items)])
        for t, items in zip((40, 20, 0), lists, strict=True)
    ]
    return Walk("DiffRec", "u17", [f"Seen {n}" for n in range(15)], levels)


def make(diffusion: float = 0.131, pair: Pair | None = None, **changes: object) -> Report:
    report = Report(
        title="Which recommender for the shop",
        results=[
            result("popularity", "control", 0.062, fit_s=0.02),
            result("EASE", "classic", 0.124, fit_s=4.4),
            result("DiffRec", "diffusion", diffusion, fit_s=311.0),
        ],
        pairs=[pair or Pair("DiffRec", "EASE", "ndcg@20", 0.007, 0.004, 0.010, 0.0004)],
        sweep=[SweepPoint("DiffRec", n, "ndcg@20", about(0.12 + n / 1e4), 0.2 * n) for n in (1, 2, 5, 40)],
        walks=[walk()],
        select_by="ndcg@20",
        facts={"command": "rediffuse compare --seed 1", "torch": "2.13.0", "dataset sha256": "ab12" * 16},
    )
    return replace(report, **changes)


def page(folder: Path, report: Report) -> str:
    write_report(folder / "report.html", report)
    return (folder / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def usual(tmp_path_factory) -> str:
    return page(tmp_path_factory.mktemp("usual"), make())


class Reader(HTMLParser):
    """Tags, attributes and the words between them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.data: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "br", "link"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.data.append(data)

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def words(report: Report) -> str:
    return " ".join(headline(report).sentences).replace("\u00a0", " ")


def test_diffusion_that_wins_is_said_to_win_and_by_how_much():
    assert headline(make()).kind == "ahead"
    assert words(make()) == (
        "DiffRec beats EASE, the best classic method, on ndcg@20. 0.1310 against 0.1240; "
        "per user +0.0070 (+5.6 %; 95 % interval +0.0040 to +0.0100; Holm-corrected p < 0.001)."
    )


@pytest.mark.parametrize(
    ("diffusion", "pair", "kind", "said"),
    [
        (0.125, Pair("DiffRec", "EASE", "ndcg@20", 0.001, -0.002, 0.004, 0.41), "open", "The interval includes zero."),
        (0.125, Pair("EASE", "DiffRec", "ndcg@20", -0.001, -0.004, 0.002, 0.41), "open", "leads on ndcg@20 but does"),
        (0.123, Pair("DiffRec", "EASE", "ndcg@20", -0.001, -0.004, 0.002, 0.41), "open", "leads on ndcg@20; DiffRec"),
        (0.126, Pair("DiffRec", "EASE", "ndcg@20", 0.002, 0.0001, 0.004, 0.09), "open", "Among so many comparisons"),
        (0.126, Pair("DiffRec", "EASE", "ndcg@20", 0.002, 0.0001, 0.004, math.nan), "open", "p undefined"),
        (0.118, Pair("DiffRec", "EASE", "ndcg@20", -0.006, -0.009, -0.003, 0.001), "behind", "falls short of it"),
        (0.130, Pair("DiffRec", "EASE", "recall@20", 0.006, 0.003, 0.009, 0.001), "open", "not compared user by user"),
    ],
)
def test_diffusion_that_does_not_win_is_never_said_to(diffusion, pair, kind, said):
    report = make(diffusion, pair)
    assert headline(report).kind == kind
    assert said in words(report)
    assert " beats " not in words(report)


def test_a_leader_of_another_kind_is_named_and_diffusion_still_held_against_the_classic():
    report = make()
    report = replace(report, results=[*report.results, result("blend", "method", 0.14)])
    assert words(report).startswith(
        "DiffRec, the best diffusion model, beats EASE, the best classic method, on ndcg@20."
    )
    assert "blend has the highest ndcg@20: 0.1400." in words(report)
    behind = replace(report, pairs=[Pair("DiffRec", "EASE", "ndcg@20", -0.006, -0.009, -0.003, 0.001)])
    assert "DiffRec, the best diffusion model, falls short of EASE" in words(behind)
    unsettled = replace(report, pairs=[Pair("DiffRec", "EASE", "ndcg@20", 0.0, -0.00001, 0.003, 0.5)])
    assert "does not beat EASE, the best classic method, on ndcg@20: the difference may be chance." in words(unsettled)
    assert "interval −1.0e−05 to" in words(unsettled)


def test_a_comparison_given_the_other_way_round_reads_the_same():
    pair = Pair("EASE", "DiffRec", "ndcg@20", -0.007, -0.010, -0.004, 0.0004)
    assert headline(make(pair=pair)) == headline(make())
    assert pair.turned().turned() == pair


def test_without_a_control_nothing_is_claimed():
    alone = make(results=[result("DiffRec", "diffusion", 0.13), result("L-DiffRec", "diffusion", 0.12)])
    assert headline(alone).kind == "open"
    assert "No classic method or control" in headline(alone).sentences[1]


def test_without_diffusion_the_leader_is_held_against_the_next():
    pair = Pair("EASE", "popularity", "ndcg@20", 0.062, 0.058, 0.066, 0.0001)
    verdict = headline(make(results=make().results[:2], pair=pair))
    assert verdict.kind == "ahead"
    assert "No diffusion model was compared." in verdict.sentences


def test_undefined_everywhere_is_said():
    nothing = Interval(math.nan, math.nan, math.nan)
    empty = replace(result("DiffRec", "diffusion", 0.1), metrics={"ndcg@20": nothing})
    report = make(results=[empty], pairs=[], sweep=[], walks=[])
    assert "undefined for every method" in headline(report).sentences[0]


def test_json_has_the_fixed_form_and_no_nan():
    report = make(pair=Pair("DiffRec", "EASE", "ndcg@20", 0.1, 0.0, 0.2, math.nan))
    value = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert list(value) == ["protocol", "results", "pairs"]
    keys = "method dataset protocol users undefined metrics seconds peak_rss_mb settings"
    assert list(value["results"][0]) == keys.split()
    assert value["results"][1]["metrics"]["ndcg@20"] == {"mean": 0.124, "low": 0.12, "high": 0.128}
    assert list(value["pairs"][0]) == ["a", "b", "metric", "mean", "low", "high", "p_holm"]
    assert value["pairs"][0]["p_holm"] is None


def test_the_page_shows_every_part_verdict_first(usual):
    parts = ["DiffRec beats EASE", "All methods", "Accuracy of each", "reverse steps buy", "from noise to answer"]
    places = [usual.index(part) for part in [*parts, "Paired differences", ">Protocol<", "How this page was made"]]
    assert places == sorted(places)
    assert "<strong>0.1310</strong>" in usual
    assert "<strong>0.1240</strong>" not in usual
    assert "split.kind" in usual
    assert "train, test" in usual
    assert "rediffuse compare --seed 1" in usual
    assert "3 earlier, then" in usual
    assert "5,949" in usual


def test_the_page_is_sound_and_says_what_its_parts_are(usual):
    reader = Reader(usual)
    assert not reader.open
    named = [attributes["id"] for _, attributes in reader.tags if "id" in attributes]
    assert len(named) == len(set(named))
    links = [a["href"] for _, a in reader.tags if (a.get("href") or "").startswith("#")]
    assert {link[1:] for link in links} <= set(named)
    assert {name for _, a in reader.tags for name in re.findall(r"url\(#([^)]*)\)", str(a))} <= set(named)
    assert all(a.get("scope") in ("row", "col") for a in reader.named("th"))
    pictures = [a for a in reader.named("svg") if a.get("role") == "img"]
    assert len(pictures) == 6
    assert all(a["aria-label"] for a in pictures)
    assert len(reader.named("figcaption")) == len(reader.named("figure")) == 3


def test_nothing_is_fetched_and_nothing_runs(usual):
    reader = Reader(usual)
    assert not reader.named("script") + reader.named("link") + reader.named("img") + reader.named("iframe")
    for tag, attributes in reader.tags:
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            assert name not in ("src", "href", "xlink:href") or (value or "").startswith("#")
    assert not re.search(r"https?://|@import|url\((?!#)", usual)
    assert "#0a0b" not in usual


def test_words_from_data_are_text_and_never_markup(tmp_path):
    evil = "<script>alert(1)</script> & $x_1$ 千と千尋の神隠し"
    report = make(title=evil, walks=[walk([evil] * 12)])
    report = replace(report, results=[replace(report.results[0], method=evil), *report.results[1:]])
    text = page(tmp_path, report)
    assert "<script" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; $x_1$ 千と千尋の神隠し" in text
    assert not re.search(r"W\d{5}W", text)
    assert evil in "".join(Reader(text).data)


def test_same_numbers_same_bytes(tmp_path, usual):
    with mpl.rc_context({"lines.linestyle": "--", "font.size": 30, "axes.facecolor": "red"}):
        assert page(tmp_path, make()) == usual


def test_rank_movement_and_what_was_taken_are_told(usual):
    assert (
        "Of the 10 items in the answer, 2 are what the user really took next; at the noisiest level it was 1." in usual
    )
    cells = re.findall(r'<td class="taken">(.*?)</td>', usual, flags=re.DOTALL)
    told = [" ".join(re.sub(r"<.*?>", " ", cell).split()) for cell in cells]
    assert told == [
        "✓ taken: Title 2 ▲ up 2 · 1.00",
        "✓ taken: Title 2 = unmoved · 1.00",
        "✓ taken: Title 11 new · 0.500",
        "✓ taken: Title 2 0.333",
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {"sweep": [], "walks": [], "pairs": [], "facts": {}},
        {"sweep": [SweepPoint("DiffRec", 1, "ndcg@20", about(0.1), 0.0)]},
        {"sweep": [SweepPoint("DiffRec", n, "hit@5", about(0.1), 1.0) for n in (0, 1, 8)]},
        {"sweep": [SweepPoint("DiffRec", n, "ndcg@20", Interval(*[math.nan] * 3), math.nan) for n in (1, 2)]},
        {"walks": [replace(walk(), levels=[(1, []), (0, [])]), replace(walk(), levels=walk().levels[:1], history=[])]},
        {"walks": [replace(walk(), levels=[(t, walk().levels[t % 3][1][: 3 + t % 5]) for t in range(60, -1, -1)])]},
    ],
)
def test_less_or_more_than_usual_still_makes_a_page(tmp_path, changes):
    assert not Reader(page(tmp_path, make(**changes))).open


@pytest.mark.parametrize("count", [1, 3])
def test_methods_without_a_defined_metric_come_last_with_a_dash(tmp_path, count):
    nothing = {"ndcg@20": Interval(math.nan, math.nan, math.nan)}
    results = [replace(given, metrics=nothing) if n < count else given for n, given in enumerate(make().results)]
    said = "".join(Reader(page(tmp_path, make(results=results, walks=[], sweep=[]))).data)
    assert "nan" not in said
    assert "–" in said


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"results": []}, "at least one result"),
        ({"results": [result("EASE", "classic", 0.1)] * 2}, "stands once"),
        ({"select_by": "mrr@5"}, "lacks the selection metric"),
        (
            {"results": [result("EASE", "classic", 0.1), replace(result("X", "method", 0.1), dataset="gowalla")]},
            "differ in dataset or protocol",
        ),
    ],
)
def test_what_cannot_be_compared_is_refused(changes, said):
    with pytest.raises(InvalidInput, match=said):
        make(**changes)


def test_an_unknown_role_is_refused():
    with pytest.raises(InvalidInput, match="role of 'EASE' is unknown"):
        result("EASE", "baseline", 0.1)


@pytest.mark.parametrize("library", ["jinja2", "matplotlib"])
def test_a_missing_library_names_the_extra(tmp_path, monkeypatch, library):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(MissingExtra, match=r'pip install "rediffuse\[plot\]"\.'):
        write_report(tmp_path / "report.html", make())
    assert not list(tmp_path.iterdir())


def test_importing_the_module_loads_neither_library():
    code = (
        "import sys, rediffuse.evaluation.report; sys.exit(bool({'matplotlib', 'jinja2', 'torch'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
