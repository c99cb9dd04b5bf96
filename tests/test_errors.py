"""How a message is worded."""

import pytest

from rediffuse import errors
from rediffuse.errors import RediffuseError, UnsupportedOption, nearest, refuse_options, say, unknown


def test_a_message_says_what_which_allowed_and_what_to_do() -> None:
    assert say("Steps are wrong", got=0, allowed="1..5", remedy="Leave them out") == (
        "Steps are wrong. Got 0. Allowed: 1..5. Leave them out."
    )
    assert say("Done.") == "Done."
    assert say("A", got="x", remedy="B.") == "A. Got 'x'. B."
    assert say("A", allowed=["b", 1]) == "A. Allowed: b, 1."
    for group in (("b",), {"b"}, frozenset({"b"})):
        assert say("A", allowed=group) == "A. Allowed: b."


def test_the_nearest_name() -> None:
    assert nearest("recal", ["recall", "ndcg"]) == "recall"
    assert nearest("zzz", ["recall", "ndcg"]) is None
    assert unknown("metric", "recal", ["recall", "ndcg"]) == "Unknown metric 'recal'. Nearest known metric: 'recall'."
    assert unknown("metric", "zzz", ["recall", "ndcg"]) == "Unknown metric 'zzz'. Known: ndcg, recall."
    many = unknown("item", "zzz", [f"{n:03d}" for n in range(31)])
    assert many.endswith("029, ...")


def test_options_that_cannot_be_honoured_are_named() -> None:
    refuse_options("ease", [])
    refuse_options("diffrec", ["steps"], ["steps", "start"])
    with pytest.raises(UnsupportedOption, match=r"ease cannot use 'steps'\. It takes no options; leave steps out\."):
        refuse_options("ease", ["steps"])
    with pytest.raises(UnsupportedOption, match=r"diffrec cannot use 'draws'\. It takes: start, steps; leave draws"):
        refuse_options("diffrec", ["steps", "draws"], ["steps", "start"])


def test_one_except_covers_every_kind() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    assert len(kinds) >= 7
    assert all(issubclass(kind, RediffuseError) for kind in kinds)
    assert issubclass(errors.InvalidConfig, ValueError)
    assert issubclass(errors.MissingExtra, ImportError)
