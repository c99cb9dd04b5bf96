"""A report as JSON: everything, in a fixed order, and back."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from rediffuse.errors import ArtifactError, InvalidInput
from rediffuse.evaluation.report import Pair, Report, read_report, write_report
from tests.evaluation.report_samples import everything, make, nothing

KEYS = "format_version title select_by verdict protocol results pairs references sweep walks facts"
RESULT = "method dataset protocol users metrics seconds peak_rss_mb undefined settings role beyond slices course trials"


def test_json_has_the_fixed_form_and_no_nan():
    report = make(pair=Pair("DiffRec", "EASE", "ndcg@20", 0.1, 0.0, 0.2, math.nan))
    value = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert list(value) == KEYS.split()
    assert list(value["results"][0]) == RESULT.split()
    assert value["results"][1]["metrics"]["ndcg@20"] == {"mean": 0.124, "low": 0.12, "high": 0.128}
    assert list(value["pairs"][0]) == ["a", "b", "metric", "mean", "low", "high", "p_holm"]
    assert value["pairs"][0]["p_holm"] is None
    assert value["verdict"]["kind"] == "open"
    assert value["verdict"]["sentences"][0].startswith("DiffRec leads")


def test_json_holds_everything():
    value = everything().to_json()
    assert value["references"][0]["gaps"]["EASE"]["mean"] == pytest.approx(0.076)
    last = value["results"][2]
    assert last["role"] == "diffusion"
    assert last["slices"][2] == {"by": "popularity", "label": "tail", "users": 102, "value": last["slices"][2]["value"]}
    assert last["course"][4] == {"epoch": 5, "loss": 0.2, "validation": 0.131 - 0.01, "seconds": 7.5}
    assert last["course"][0]["validation"] is None
    assert last["trials"][1] == {"settings": {"l2": 10.0, "dims": [1]}, "value": None, "seconds": 2.0}
    assert value["walks"][0]["levels"][0][0] == 40
    assert value["facts"]["torch"] == "2.13.0"


def test_a_report_comes_back_as_it_was(tmp_path):
    report = everything()
    assert Report.from_json(json.loads(json.dumps(report.to_json()))) == report
    for suffix in (".json", ".html", ".md"):
        write_report(tmp_path / f"one{suffix}", report)
        write_report(tmp_path / f"two{suffix}", read_report(tmp_path / "one.json"))
        assert (tmp_path / f"one{suffix}").read_bytes() == (tmp_path / f"two{suffix}").read_bytes()


def test_what_is_undefined_comes_back_undefined():
    report = replace(everything(), results=(replace(everything().results[0], beyond={"ild@20": nothing()}),), pairs=())
    assert report.to_json()["results"][0]["beyond"]["ild@20"] == {"mean": None, "low": None, "high": None}
    back = Report.from_json(report.to_json())
    assert math.isnan(back.results[0].beyond["ild@20"].mean)
    assert back.to_json() == report.to_json()


def cut(value: dict[str, Any], *path: str | int) -> None:
    for key in path[:-1]:
        value = value[key]
    del value[path[-1]]


def put(value: dict[str, Any], new: object, *path: str | int) -> None:
    for key in path[:-1]:
        value = value[key]
    value[path[-1]] = new


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda v: cut(v, "format_version"), "no report of this format version"),
        (lambda v: put(v, 2, "format_version"), "Got 2. Allowed: 1."),
        (lambda v: cut(v, "title"), "report lacks 'title'"),
        (lambda v: cut(v, "results", 1, "users"), r"report.results\[1\] lacks 'users'"),
        (lambda v: put(v, 1, "results", 0, "rôle"), r"Unknown key of report.results\[0\] 'rôle'. Nearest .* 'role'"),
        (lambda v: put(v, "many", "results", 0, "users"), r"report.results\[0\].users must be int. Got 'many'"),
        (lambda v: put(v, True, "results", 0, "peak_rss_mb"), "peak_rss_mb must be a number. Got True"),
        (lambda v: put(v, {}, "pairs"), "report.pairs must be list"),
        (lambda v: put(v, [1], "walks", 0, "levels", 0), "must hold 2 values. Got 1"),
        (lambda v: put(v, "king", "results", 0, "role"), "role of 'popularity' is unknown"),
        (lambda v: put(v, [], "results"), "at least one result"),
    ],
)
def test_what_is_no_report_is_refused(change: Callable[[dict[str, Any]], None], said: str):
    value = json.loads(json.dumps(everything().to_json()))
    change(value)
    with pytest.raises(InvalidInput, match=said):
        Report.from_json(value)


def test_files_of_another_form_are_refused(tmp_path):
    with pytest.raises(InvalidInput, match=r"names no form of a report. Got '.pdf'. Allowed: .html, .md, .json."):
        write_report(tmp_path / "report.pdf", make())
    assert not list(tmp_path.iterdir())
    (tmp_path / "r.json").write_text("{")
    with pytest.raises(ArtifactError, match="is not JSON"):
        read_report(tmp_path / "r.json")
