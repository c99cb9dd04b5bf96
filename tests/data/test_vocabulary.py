"""External ids <-> dense numbers."""

import polars as pl
import pytest

from rediffuse.data.vocabulary import Vocabulary
from rediffuse.errors import InvalidInput

IDS = ["b", "007", "a b", "é", "7", "b"]


def test_ids_are_sorted_by_code_point_and_distinct() -> None:
    assert Vocabulary.of(IDS).ids == ("007", "7", "a b", "b", "é")


def test_a_column_gives_what_an_iterable_gives() -> None:
    assert Vocabulary.of_column(pl.Series(IDS)) == Vocabulary.of(reversed(IDS))


def test_an_id_that_stands_twice_is_refused() -> None:
    with pytest.raises(InvalidInput, match="twice"):
        Vocabulary(("a", "a"))


def test_encode_and_decode_are_inverse_and_unknown_is_none() -> None:
    names = Vocabulary.of(IDS)
    assert len(names) == 5
    assert "7" in names
    assert "8" not in names
    assert names.number("007") == 0
    assert names.number("8") == -1
    numbers = names.encode(["é", "nobody", "007"])
    assert numbers.tolist() == [4, -1, 0]
    assert names.decode(numbers.tolist()) == ["é", "007"]


def test_encode_column_agrees_with_encode() -> None:
    names = Vocabulary.of(IDS)
    column = pl.Series(["é", "nobody", "007", "é"])
    assert names.encode_column(column).to_list() == [4, None, 0, 4]


def test_extend_keeps_known_numbers_and_appends_the_new_in_order() -> None:
    names = Vocabulary.of(["m", "z"]).extend(["b", "z", "a"])
    assert names.ids == ("m", "z", "a", "b")
