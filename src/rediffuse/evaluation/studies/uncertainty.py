"""How sure a model is, and whether that can be believed: probabilities, sets that hold what comes next, risk and coverage.

The users of the report part are halved by the stable hash of their external id. Each half is calibrated on the other,
which lies in the same period, so all users are tested and none on what was fitted to it. What was fitted on the
selection part, which lies before, is told apart: that is what time does.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from rediffuse.evaluation.report.as_json import to_plain
from rediffuse.evaluation.report.blocks import Section
from rediffuse.evaluation.slices import LABELS, bands
from rediffuse.evaluation.studies.sets import LEVELS
from rediffuse.evaluation.studies.uncertainty_findings import Findings, Held, Promised, find, share
from rediffuse.evaluation.studies.uncertainty_page import blocks
from rediffuse.evaluation.study import Examined, Study
from rediffuse.protocols import Recommender

MOST_ECE, COVERED, SMALL, GAIN = 0.02, (0.88, 0.92), 0.5, 0.1
"""What is wanted: ECE at most, coverage at 90 %, median set over popularity's at most, AURC below random at least."""


def uncertainty(examined: Examined, popularity: Recommender) -> Study:
    """Whether the model's probabilities hold, how large its sets are, and what its doubts are worth.

    Draws are looked at where `examined.options` asks for them.

    Args: popularity: the control, fitted on what the model learned from.
    Raises: InvalidInput when there are too few users.
    """
    found = find(examined, popularity)
    band = bands(examined.task)
    by_history = {LABELS[one]: Held.of(found, band == one) for one in np.unique(band)}
    wanted = _targets(found)
    section = Section("uncertainty", "How sure, and how rightly so", blocks(examined.name, found, by_history, wanted))
    return Study(section, to_plain({"targets": wanted, **_values(found, by_history)}))


def _targets(found: Findings) -> dict[str, dict[str, Any]]:
    """Each figure that something was wanted of: its value, what was wanted, whether it was reached."""
    first, below, skill, ece = found.levels[0], found.signals[found.surest].below_random, found.skill, found.own.ece
    low, high = COVERED
    rows = (
        ("ece", ece, f"at most {MOST_ECE:g}", ece <= MOST_ECE),
        ("brier skill over popularity", skill, "above 0, with its interval", skill.low > 0),
        ("coverage of 90 % sets", first.coverage, f"{low:g} to {high:g}", low <= first.coverage.mean <= high),
        ("median set over popularity's", first.ratio, f"at most {SMALL:g}", first.ratio <= SMALL),
        ("risk-coverage area below random", below, f"{GAIN:g} or more", below.mean >= GAIN),
    )
    return {name: {"value": value, "wanted": words, "reached": bool(met)} for name, value, words, met in rows}


def _values(found: Findings, by_history: Mapping[str, Held]) -> dict[str, Any]:
    shifted = found.sets.shifted
    return {
        "pairs": found.pairs,
        "share taken": found.base,
        "probabilities": {
            "own": _promised(found.own),
            "popularity": _promised(found.popularity),
            "brier skill": found.skill,
        },
        "sets": {
            "score": found.sets.kind,
            "tried": found.sets.tried,
            "score of popularity": found.rival.kind,
            "levels": {
                f"{level:g}": {
                    **vars(held),
                    "ratio": held.ratio,
                    "halves": [float(found.sets.covered[found.half == side, column].mean()) for side in (True, False)],
                }
                for column, (level, held) in enumerate(zip(LEVELS, found.levels, strict=True))
            },
            "by history length": by_history,
        },
        "risk": {
            "random": found.random,
            "best possible": float(found.best.mean()),
            "best possible below random": found.possible,
            "surest": found.surest,
            "signals": {
                name: {key: value for key, value in vars(signal).items() if key != "curve"}
                for name, signal in found.signals.items()
            },
        },
        "shift over time": {
            "probabilities": None if found.earlier is None else _promised(found.earlier),
            "coverage": None if shifted is None else share(shifted),
        },
    }


def _promised(one: Promised) -> dict[str, Any]:
    bins = one.reliability
    table = {"expected": bins.expected.tolist(), "observed": bins.observed.tolist(), "pairs": bins.count.tolist()}
    return {"ece": one.ece, "brier": one.brier, "nll": one.nll, "bins": table}
