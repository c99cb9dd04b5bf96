"""The pictures of the pages stand on their own, and what stands beside them was written by their studies."""

import re
from xml.etree import ElementTree as ET

import pytest

from docs.pictures import FOLDER, PAGE, SHOTS, standing, telling
from rediffuse.evaluation.report.blocks import Mark, Picture

SVG = '<svg viewBox="0 0 200 100" role="img" aria-label="x"><title>x</title><path fill="var(--s2)"/></svg>'
FILES = [name for shot in SHOTS.values() for name in shot.pictures]
LARGEST = 150_000
COLOUR = r"#[0-9a-f]{6}"


@pytest.mark.parametrize("name", FILES)
def test_a_picture_is_whole_small_and_has_colours_of_its_own(name):
    path = FOLDER / f"{name}.svg"
    text = path.read_text(encoding="utf-8")
    assert path.stat().st_size <= LARGEST
    assert "var(--" not in text
    assert ET.fromstring(text).tag == "{http://www.w3.org/2000/svg}svg"
    assert f"(pictures/{name}.svg)" in PAGE.read_text(encoding="utf-8")


def test_no_picture_is_left_over():
    assert {path.stem for path in FOLDER.iterdir()} == set(FILES)


@pytest.mark.parametrize("name", SHOTS)
def test_findings_stand_beside_each_picture(name):
    page = PAGE.read_text(encoding="utf-8")
    found = page.partition(f"<!-- found: {name} -->\n")[2].partition("\n<!-- /found -->")[0]
    assert found.startswith("> - ")
    assert telling(page, name, [line.removeprefix("> - ") for line in found.splitlines()]) == page


def test_sentences_replace_those_of_last_time():
    page = "a\n<!-- found: x -->\n> - old\n<!-- /found -->\nb\n"
    assert telling(page, "x", ["one", "two"]) == "a\n<!-- found: x -->\n> - one\n> - two\n<!-- /found -->\nb\n"


def test_the_key_stands_above_the_picture_on_white():
    marks = [Mark("o", "s1", "a < b"), Mark("dash", "muted", "a line that takes a row of its own")]
    text = standing(Picture(lambda _width, _name: SVG, "", marks), "x")
    assert [words.text for words in ET.fromstring(text).iter("{http://www.w3.org/2000/svg}text")] == [
        mark.words for mark in marks
    ]
    assert 'viewBox="0 0 200 160"' in text
    colours = [re.search(rf'fill="({COLOUR})"', part) for part in text.split("<")[2:]]
    assert next(found[1] for found in colours if found) == "#ffffff"
