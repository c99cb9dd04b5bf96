"""The card of a model: what a reader needs, from what model.json says, and nothing from data is markup."""

import re
from typing import Any

import pytest

from rediffuse.artifacts.card import SHOWN_EPOCHS, card

PHASE = {"relevant": "valid", "history": ["train"], "mask": ["train"]}
COURSE = [
    {"epoch": n, "loss": 1 / n, "validation": n / 1000 if n % 5 == 0 else None, "seconds": n / 2, "best": n in (40, 85)}
    for n in range(1, 101)
]
METRICS = {"ndcg@20": {"mean": 0.1, "low": 0.08, "high": 0.12}, "recall@20": {"mean": 0.2, "low": 0.18, "high": 0.22}}


def facts(**changes: Any) -> dict[str, Any]:
    """A model.json with everything that a card tells."""
    value = {
        "format_version": 1,
        "method": "diffrec",
        "config": {"hidden": [600, 200], "steps": None},
        "training": {"learning_rate": 0.001},
        "run": {"device": "cpu", "precision": "float32", "threads": 2, "seed": 7},
        "protocol": {"fit": ["train"], "selection": PHASE, "report": PHASE, "select_by": "recall@20", "leak": []},
        "metrics": METRICS,
        "data": {"name": "shop", "content_sha256": "ab12", "fit": ["train"], "users": 6040},
        "made": {
            "torch": "2.13.0",
            "preset": "small",
            "fit_seconds": 1.5,
            "summary": "DiffRec: denoise a user's row.",
            "changed": ["hidden"],
            "course": COURSE,
            "controls": {"popularity": {"recall@20": {"mean": 0.05, "low": 0.04, "high": 0.06}}},
            "command": "rediffuse train diffrec --to m",
        },
    }
    return {**value, **changes}


def write(numbers: int = 1234, items: tuple[str, ...] = ("a", "b c"), **changes: Any) -> str:
    return card(facts(**changes), items=items, numbers=numbers)


def part(text: str, title: str) -> str:
    """The text under a heading."""
    return text.partition(f"\n## {title}\n\n")[2].partition("\n## ")[0].strip()


def test_it_says_first_what_it_is():
    assert write().startswith(
        "# diffrec:small\n\nDiffRec: denoise a user's row. Trained by rediffuse on shop: it ranks 2 items; "
        "1,234 numbers learned. A model folder of format version 1: data, no code.\n"
    )
    assert re.findall(r"^## (.*)$", write(), re.MULTILINE) == [
        "Intended use and limits",
        "How to load",
        "What it reached",
        "How it was trained",
        "Data",
        "Protocol",
        "How it was made",
        "Licence",
    ]


def test_metrics_stand_beside_those_of_controls_the_selection_metric_first():
    said = part(write(), "What it reached")
    assert said.startswith("On valid, where settings and epochs were chosen: such figures flatter.")
    assert said.endswith(
        "| metric | diffrec | popularity |\n| --- | ---: | ---: |\n"
        "| recall@20 | 0.2000 (0.1800–0.2200) | 0.0500 (0.0400–0.0600) |\n"
        "| ndcg@20 | 0.1000 (0.0800–0.1200) | – |"
    )
    assert "No control was measured beside it." in part(write(made={}), "What it reached")
    undefined = {"recall@20": {"mean": None, "low": None, "high": None}}
    assert part(write(made={}, metrics=undefined), "What it reached").endswith("| recall@20 | – |")


def test_a_refit_is_told():
    protocol = {**facts()["protocol"], "refit": ["train", "valid"]}
    assert "before it learned anew from train and valid" in part(write(protocol=protocol), "What it reached")
    assert "they learn anew from train and valid" in part(write(protocol=protocol), "Protocol")


def test_settings_that_differ_from_the_defaults_are_marked():
    said = part(write(), "How it was trained")
    assert said.startswith("Bold: not the default. Preset small.")
    assert "| **hidden** | 600, 200 |\n| steps | none |\n| learning_rate | 0.001 |" in said
    made = facts()["made"]
    assert part(write(made={**made, "changed": []}), "How it was trained").startswith("All are defaults. Preset")
    bare = part(write(made={}), "How it was trained")
    assert bare.startswith("| setting | value |")
    assert part(write(made={}, config={}, training={}), "How it was trained") == "It has no settings and no epochs."


def test_the_learning_curve_is_short_and_holds_first_kept_and_last():
    said = part(write(), "How it was trained").partition("Learning curve, 100 epochs:")[2].strip().splitlines()
    assert said[0] == "| epoch | loss | recall@20 | seconds |"
    assert said[2] == "| 5 | 0.200 | 0.0050 | 2.5 |"
    assert "| **85** (kept) | 0.0118 | 0.0850 | 42.5 |" in said
    assert said[-1] == "| 100 | 0.0100 | 0.1000 | 50 |"
    assert len(said) <= SHOWN_EPOCHS + 4


@pytest.mark.parametrize("length", [1, 4, 9, 10, 11, 500])
def test_any_course_fits_the_table(length):
    course = [{**point, "validation": None, "best": False} for point in COURSE * 5][:length]
    said = part(write(made={"course": course}), "How it was trained").partition("Learning curve")[2].splitlines()
    rows = [line for line in said if re.match(r"\| \d", line)]
    assert 1 <= len(rows) <= SHOWN_EPOCHS
    assert all(line.split("|")[3].strip() == "–" for line in rows)


def test_where_it_comes_from_is_told():
    data = part(write(), "Data")
    assert "| content SHA-256 | ab12 |" in data
    assert "| learned from | train |" in data
    assert "| items | 2 |" in data
    assert "| users | 6040 |" in data
    said = part(write(), "How it was made")
    assert said.startswith("```bash\nrediffuse train diffrec --to m\n```")
    for row in ("| seed | 7 |", "| device | cpu |", "| precision | float32 |", "| threads | 2 |", "| torch | 2.13.0 |"):
        assert row in said
    assert "The command was not recorded." in write(made={})


def test_limits_follow_from_the_facts():
    assert "Measured on new items only" in write()
    free = {"report": {**PHASE, "mask": []}, "leak": ["report: fit holds 'test'"]}
    assert "Measured on new items only" not in write(protocol=free)
    assert "- Its figures are a leak: report: fit holds 'test'." in write(protocol=free)
    assert "not recorded" in part(write(), "Licence")
    assert "licence of the data: CC BY 4.0" in part(
        write(data={"name": "shop", "fit": ["train"], "licence": "CC BY 4.0"}), "Licence"
    )


def test_what_its_probabilities_are_of_is_told():
    assert "It tells no probability of being taken" in part(write(), "Intended use and limits")
    text = write(calibrator={"level": {"secret": 1}, "curve": None})
    said = part(text, "Intended use and limits")
    assert "A probability of being taken is for a time as long as valid, where it was fitted" in said
    assert "It drifts" in said
    assert "secret" not in text


def test_how_to_load_names_items_that_it_knows():
    said = part(write(), "How to load")
    assert "model.recommend(history=['a', 'b c'], k=10)" in said
    assert "--items 'a,b c' -k 10" in said
    compile(said.partition("```python\n")[2].partition("\n```")[0], "card", "exec")


def test_nothing_from_data_is_markup():
    evil = "<img src=x> | **b** [l](http://e.vil)\n# h ```"
    shown = r"&lt;img src=x&gt; \| \*\*b\*\* \[l\](http:&#47;&#47;e.vil) \# h \`\`\`"
    text = write(
        items=(evil,),
        config={evil: evil},
        data={"name": evil, "fit": [evil], evil: evil},
        made={"summary": evil, "preset": evil, "command": evil, evil: evil, "controls": {evil: {}}},
    )
    prose = re.sub(r"^(`{3,})\w*\n.*?\n\1$", "", text, flags=re.MULTILINE | re.DOTALL)
    assert f"| {shown} | {shown} |" in prose
    assert "<img" not in prose
    assert "**b**" not in prose
    assert not re.search(r"^# h", prose, re.MULTILINE)
    assert re.findall(r"^# .*", prose, re.MULTILINE) == [f"# diffrec:{shown}"]


def test_the_raw_facts_are_folded_away_without_the_curve():
    folded = write().partition("<details>")[2]
    assert '"content_sha256": "ab12"' in folded
    assert "course" not in folded
    assert "```json" not in write().partition("<details>")[0]
