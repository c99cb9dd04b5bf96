"""Pictures: what is drawn, with its words, in the page's colours, within the page's own names."""

import math
import re

import pytest

from rediffuse.evaluation import figures
from rediffuse.evaluation.figures.cost import _free
from rediffuse.evaluation.figures.training import _worth_seeing

NAMES = ["popularity", "ease <b>", "a method with a name that is rather long for a small picture"]
PANELS = [(f"part {n}", [figures.Dot(name, "classic", 0.1 * n, 0.0, 0.2 * n) for name in NAMES]) for n in range(1, 6)]
CURVES = [figures.Curve(name, "diffusion", [1, 2], [1.0, 0.01], [math.nan, 0.2], 2) for name in NAMES]
TRIED = [figures.Tried(name, "control", [0.1, math.nan, 0.2]) for name in NAMES]
TRACES = [figures.Trace(name, [0.1, math.nan, 0.3], [0.0, math.nan, 0.2], [0.2, math.nan, 0.4]) for name in NAMES]
SWEPT = [figures.Swept(name, "a <knob>", [0, 0.5, 5], ["0", "<½>", "5"], TRACES, mark=0.5) for name in NAMES]
SPOTS = [figures.Spot(name, "method", 2.0, 0.1) for name in NAMES]
DRAWN = {
    "accuracy": lambda w: figures.accuracy(PANELS[0][1], 0.15, metric="recall@20", width=w, name="n"),
    "parts": lambda w: figures.parts(PANELS, metric="recall@20", width=w, name="n"),
    "curves": lambda w: figures.curves(CURVES, metric="recall@20", width=w, name="n"),
    "tried": lambda w: figures.tried(TRIED, metric="recall@20", width=w, name="n"),
    "sweeps": lambda w: figures.sweeps(
        [figures.Swept("recall@20", "knob", [1], ["1"], TRACES[:0]), *SWEPT], width=w, name="n"
    ),
    "cost": lambda w: figures.cost(SPOTS, metric="recall@20", unit="ms", width=w, name="n"),
}


@pytest.mark.parametrize("width", [figures.WIDE, figures.NARROW])
@pytest.mark.parametrize("which", sorted(DRAWN))
def test_every_picture_names_every_method_in_the_colours_of_the_page(which, width):
    svg = DRAWN[which](width)
    assert svg == DRAWN[which](width)
    words = re.findall(r"<text[^>]*>(.*?)</text>", svg)
    assert {"popularity", "ease &lt;b&gt;"} <= set(words)
    assert any(word.startswith("a method") for word in words)
    assert svg.startswith(f'<svg viewBox="0 0 {width} ')
    assert 'role="img" aria-label="recall@20' in svg or 'aria-label="Loss and recall@20' in svg
    assert "var(--" in svg
    assert not re.search(r"#0a0b|W\d{5}W|NaN|nan", svg)
    assert all(name.startswith("n-") for name in re.findall(r'\bid="([^"]*)"', svg))


def test_parts_stand_in_panels_and_every_row_of_them_is_named():
    words = re.findall(r"<text[^>]*>(.*?)</text>", DRAWN["parts"](figures.WIDE))
    assert [word for word in words if word.startswith("part ")] == [f"part {n}" for n in range(1, 6)]
    assert words.count("popularity") == 2


def test_what_costs_nothing_known_is_not_drawn():
    spots = [*SPOTS[:1], figures.Spot("free", "method", 0.0, 0.1), figures.Spot("lost", "method", 1.0, math.nan)]
    svg = figures.cost(spots, metric="recall@20", unit="ms", width=figures.WIDE, name="n")
    assert ">popularity<" in svg
    assert "free" not in svg
    assert "lost" not in svg


def test_names_beside_marks_never_overlap():
    taken = []
    places = [_free((50.0, 100.0 + n / 10), 60.0, 400.0, 16.0, taken) for n in range(12)]
    for one, (left, height) in enumerate(places):
        for right, other in places[one + 1 :]:
            assert abs(height - other) >= 16 or abs(left - right) >= 60
    assert _free((390.0, 10.0), 60.0, 400.0, 16.0, [])[0] == 320.0


def test_the_range_of_trials_holds_every_best_and_no_far_failure():
    good = figures.Tried("a", "classic", [0.5, 0.48, 0.49, 0.47, 0.46, 0.001])
    weak = figures.Tried("b", "control", [0.2, 0.1])
    assert _worth_seeing([good, weak]) == (0.2, 0.5)
    assert _worth_seeing([good]) == (0.46, 0.5)
    assert _worth_seeing([figures.Tried("c", "control", [math.nan])]) == (0.0, 0.0)


def test_a_sweep_names_its_settings_and_leaves_out_what_was_not_measured():
    svg = figures.sweeps(SWEPT[:1], width=figures.WIDE, name="n")
    words = re.findall(r"<text[^>]*>(.*?)</text>", svg)
    assert {"a &lt;knob&gt;", "0", "&lt;½&gt;", "5"} <= set(words)
    assert "recall" not in svg
