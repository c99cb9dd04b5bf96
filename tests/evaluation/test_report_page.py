"""The page of a comparison: whole in one file, the same bytes for the same numbers, sound for whoever reads it."""

import math
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import matplotlib as mpl
import pytest

from rediffuse.errors import MissingExtra
from rediffuse.evaluation.report import Report, Slice, SweepPoint, Trial, write_report
from tests.evaluation.report_samples import about, course, everything, make, nothing, walk


def page(folder: Path, report: Report) -> str:
    write_report(folder / "report.html", report)
    return (folder / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def usual(tmp_path_factory) -> str:
    return page(tmp_path_factory.mktemp("usual"), make())


@pytest.fixture(scope="module")
def full(tmp_path_factory) -> str:
    return page(tmp_path_factory.mktemp("full"), everything())


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


def test_the_page_shows_every_part_verdict_first(usual):
    parts = ["DiffRec beats EASE", "Accuracy of each", ">Paired differences", "What it costs", "reverse steps buy"]
    parts += ["from noise to answer", ">Protocol<", "How this page was made", "What this does not show"]
    places = [usual.index(part) for part in parts]
    assert places == sorted(places)
    for absent in ("Beyond accuracy", "Learning curves", "What was tried", ">By "):
        assert absent not in usual
    assert "<strong>0.1310</strong>" in usual
    assert "<strong>0.1240</strong>" not in usual
    assert "split.kind" in usual
    assert "train, test" in usual
    assert "rediffuse compare --seed 1" in usual
    assert "3 earlier, then" in usual
    assert "5,949" in usual


def test_a_full_page_has_every_section_in_order(full):
    heads = re.findall(r"<h2 id=[^>]*>(.*?)</h2>", full)
    assert heads == [
        "Settled",
        "Accuracy of each method",
        "Paired differences",
        "By how much is known of the user",
        "By how popular the item is",
        "Beyond accuracy",
        "Learning curves",
        "What was tried",
        "What it costs",
        "What more reverse steps buy, and cost",
        "One user’s list, from noise to answer",
        "Protocol",
        "How this page was made",
        "What this does not show",
    ]


@pytest.mark.parametrize(("which", "figures"), [("usual", 4), ("full", 8)])
def test_the_page_is_sound_and_says_what_its_parts_are(which, figures, request):
    reader = Reader(request.getfixturevalue(which))
    assert not reader.open
    named = [attributes["id"] for _, attributes in reader.tags if "id" in attributes]
    assert len(named) == len(set(named))
    links = [a["href"] for _, a in reader.tags if (a.get("href") or "").startswith("#")]
    assert {link[1:] for link in links} <= set(named)
    assert {name for _, a in reader.tags for name in re.findall(r"url\(#([^)]*)\)", str(a))} <= set(named)
    assert all(a.get("scope") in ("row", "col") for a in reader.named("th"))
    pictures = [a for a in reader.named("svg") if a.get("role") == "img"]
    assert len(pictures) == 2 * figures
    assert all(a["aria-label"] for a in pictures)
    assert len(reader.named("figcaption")) == len(reader.named("figure")) == figures
    labels = [a["aria-labelledby"] for a in reader.named("table") + reader.named("section")]
    assert set(labels) <= set(named)


def test_what_a_full_page_tells(full):
    said = " ".join(" ".join(Reader(full).data).replace("\u00a0", " ").split()).replace(" ,", ",")
    assert "DiffRec reaches 66 % (95 % interval 60 % to 70 %) of what could be known (Bayes ceiling: ndcg@20" in said
    assert "Knows tastes and moods (exact)." in said
    assert "Every method that was tuned had the same budget: 4 trials." in said
    assert "Settings of popularity were given, not searched for." in said
    assert re.search(r"EASE, classic method 4 1 0\.1240 3 8 l2 = 100, dims = 2", said)
    assert re.search(r"DiffRec, diffusion model 20 15 1\.00 0\.0500 0\.1310 30", said)
    assert "coverage@20 – the share of the catalog" in said
    assert "ild@10" not in said[: said.index("The same at other list lengths")]


def test_nothing_is_fetched_and_nothing_runs(full):
    reader = Reader(full)
    assert not reader.named("script") + reader.named("link") + reader.named("img") + reader.named("iframe")
    for tag, attributes in reader.tags:
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            assert name not in ("src", "href", "xlink:href") or (value or "").startswith("#")
    assert not re.search(r"https?://|@import|url\((?!#)", full)
    assert "#0a0b" not in full


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
        "✓ Title 2 up 2 · 1.00",
        "✓ Title 2 same · 1.00",
        "✓ Title 11 new · 0.500",
        "✓ Title 2 0.333",
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {"sweep": [], "walks": [], "pairs": [], "facts": {}},
        {"sweep": [SweepPoint("DiffRec", 1, "ndcg@20", about(0.1), 0.0)]},
        {"sweep": [SweepPoint("DiffRec", n, "hit@5", about(0.1), 1.0) for n in (0, 1, 8)]},
        {"sweep": [SweepPoint("DiffRec", n, "ndcg@20", nothing(), math.nan) for n in (1, 2)]},
        {"walks": [replace(walk(), levels=[(1, []), (0, [])]), replace(walk(), levels=walk().levels[:1], history=[])]},
        {"walks": [replace(walk(), levels=[(t, walk().levels[t % 3][1][: 3 + t % 5]) for t in range(60, -1, -1)])]},
    ],
)
def test_less_or_more_than_usual_still_makes_a_page(tmp_path, changes):
    assert not Reader(page(tmp_path, make(**changes))).open


@pytest.mark.parametrize(
    "given",
    [
        {"course": course(0.1, 1), "trials": (Trial({}, None, 1.0),), "seconds": {}},
        {
            "course": tuple(replace(point, validation=None, loss=10.0**-point.epoch) for point in course(0.1)),
            "trials": (Trial({}, 0.1, 1.0), Trial({}, math.nan, 1.0)),
            "seconds": {"evaluate": 0.0},
            "beyond": {"coverage": nothing(), "own": about(0.1)},
        },
        {
            "course": tuple(replace(point, loss=math.nan) for point in course(0.1)),
            "slices": (Slice("popularity", "tail", 0, nothing()), Slice("season", "w/s <1>", 3, about(0.1))),
        },
    ],
)
def test_a_method_with_little_to_show_still_makes_a_page(tmp_path, given):
    results = [replace(make().results[0], **given), *make().results[1:]]
    said = "".join(Reader(page(tmp_path, make(results=results, walks=[], sweep=[]))).data)
    assert "nan" not in said


def test_unequal_budgets_and_unequal_users_are_said(tmp_path):
    first, second, third = everything().results
    results = (first, replace(second, trials=second.trials[:2], users=17), third)
    said = "".join(Reader(page(tmp_path, replace(everything(), results=results))).data)
    assert "Budgets differ, which favours who had more trials: DiffRec 4 and EASE 2." in said
    assert "Tuning budgets differ between methods" in said
    assert "EASE: 17 (91 undefined)" in said


@pytest.mark.parametrize("count", [1, 3])
def test_methods_without_a_defined_metric_come_last_with_a_dash(tmp_path, count):
    undefined = {"ndcg@20": nothing()}
    results = [replace(given, metrics=undefined) if n < count else given for n, given in enumerate(make().results)]
    said = "".join(Reader(page(tmp_path, make(results=results, walks=[], sweep=[]))).data)
    assert "nan" not in said
    assert "–" in said


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
