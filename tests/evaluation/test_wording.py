"""Numbers and protocols as words, by hand."""

import math

import pytest

from rediffuse.evaluation.wording import (
    counted,
    flat,
    listed,
    mean,
    meaning,
    p_value,
    percent,
    protocol_words,
    score,
    short,
    signed,
    words,
)


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        (mean(-0.12344), "−0.1234"),
        (mean(math.nan), "–"),
        (mean(0.5, 2), "0.50"),
        (signed(0.0), "+0.0000"),
        (signed(-0.00001), "−1.0e−05"),
        (signed(math.inf), "–"),
        (p_value(0.0004), "<\u00a00.001"),
        (p_value(0.0412), "0.0412"),
        (p_value(math.nan), "undefined"),
        (percent(0.614), "61\u00a0%"),
        (percent(-0.05), "−5\u00a0%"),
        (short(1234.5), "1,234"),
        (short(0.01234), "0.0123"),
        (score(1.0), "1.00"),
        (score(-2.5), "−2.50"),
        (score(math.nan), "–"),
        (counted(1, "user"), "1 user"),
        (counted(5949, "user"), "5,949 users"),
        (listed(["a"]), "a"),
        (listed(["a", "b", "c"]), "a, b and c"),
        (listed([]), "nothing"),
        (meaning("recall@5"), "the share of what a user really took next that stands among the first 5 suggestions"),
        (meaning("own@5"), ""),
        (words({"a": {"b": True, "c": None}, "d": [1, 0.00012345678]}), "a.b = yes, a.c = none, d = 1, 0.0001235"),
        (words([]), "none"),
        (words(1000.5), "1000.5"),
    ],
)
def test_how_it_reads(said, wanted):
    assert said == wanted


def test_nested_values_lie_flat():
    assert list(flat({"a": {"b": {"c": 1}}, "d": False})) == [("a.b.c", "1"), ("d", "no")]


def test_a_protocol_in_words():
    value = {
        "fit": ["train"],
        "refit": ["train", "valid"],
        "selection": {"relevant": "valid", "history": ["train"], "mask": ["train"]},
        "report": {"relevant": "test", "history": [], "mask": []},
        "select_by": "recall@20",
        "candidates": "catalog",
        "ties": "against",
        "seeds": [7],
        "leak": ["report: history holds 'valid'"],
    }
    assert protocol_words(value) == [
        "Methods learn from train.",
        "With settings and epochs chosen, they learn anew from train and valid for the report.",
        "Settings and epochs are chosen on valid, given train; items of train are not recommended again and do not count.",
        "Figures are read on test, given nothing; items may be recommended again.",
        "Whatever is chosen is chosen by recall@20.",
        "Every item of the catalog is ranked, none is sampled.",
        "An item that was taken stands behind all items of the same score, so ties never flatter a method.",
        "Training uses seed 7, fixed before the run.",
        "This is a leak: report: history holds 'valid'.",
    ]
    assert protocol_words({}) == []
    assert "Training uses seeds 1 and 2; a user's value is the mean over them, fixed before the run." in protocol_words(
        {"seeds": [1, 2]}
    )
