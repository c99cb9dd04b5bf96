"""The words of a comparison: honest, settled only where the numbers settle it."""

import math
from dataclasses import replace

import pytest

from rediffuse.errors import InvalidInput
from rediffuse.evaluation.report import Pair, Reference, Report, headline
from tests.evaluation.report_samples import about, everything, make, nothing, result


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
    empty = replace(result("DiffRec", "diffusion", 0.1), metrics={"ndcg@20": nothing()})
    report = make(results=[empty], pairs=[], sweep=[], walks=[])
    assert "undefined for every method" in headline(report).sentences[0]


def test_the_distance_to_the_ceiling_is_a_share_with_its_interval():
    report = everything()
    top = report.references[0].metrics["ndcg@20"].mean
    gap = report.references[0].gaps["DiffRec"]
    low, high = 1 - gap.high / top, 1 - gap.low / top
    share = (
        f"DiffRec reaches {100 - 100 * gap.mean / top:.0f} % (95 % interval {100 * low:.0f} % to {100 * high:.0f} %)"
    )
    assert words(report).endswith(f"{share} of what could be known (Bayes ceiling: ndcg@20 0.2000, known to ±0.001).")


def test_the_best_diffusion_model_stands_beside_a_leader_of_another_kind():
    best = replace(everything().results[1], metrics={"ndcg@20": about(0.15)})
    report = replace(everything(), results=(best, everything().results[2]), pairs=())
    assert "EASE reaches 62 % (95 % interval" in words(report)
    assert "; DiffRec reaches 66 % (95 % interval 60 % to 70 %)." in words(report)


@pytest.mark.parametrize("top", [nothing(), about(0.0)])
def test_a_reference_that_measures_nothing_is_not_spoken_of(top):
    reference = Reference("ceiling", "knows", {"ndcg@20": top}, 0.0, {"DiffRec": about(0.1)})
    for given in (reference, replace(reference, metrics={}), replace(reference, gaps={})):
        assert headline(make(references=(given,))) == headline(make())


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
