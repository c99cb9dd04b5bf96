"""Items and their attributes in the order of their numbers."""

import polars as pl
import pytest

from rediffuse.data.catalog import Catalog
from rediffuse.data.vocabulary import Vocabulary
from rediffuse.errors import InvalidInput

ITEMS = Vocabulary.of(["a", "b", "c"])


def test_a_table_is_brought_into_the_order_of_the_items() -> None:
    table = pl.DataFrame({"item": ["c", "x", "a"], "title": ["Sea", "None", "Air"], "price": [3.0, 9.0, 1.0]})
    catalog = Catalog.of(ITEMS, table)
    assert len(catalog) == 3
    assert catalog.attributes.rows() == [("Air", 1.0), (None, None), ("Sea", 3.0)]
    assert catalog.titles() == ["Air", "b", "Sea"]


def test_without_titles_ids_stand_in() -> None:
    assert Catalog.of(ITEMS).titles() == ["a", "b", "c"]


def test_users_come_by_their_own_column() -> None:
    table = pl.DataFrame({"user": ["b", "a", "c"], "age": [2, 1, 3]})
    assert Catalog.of(ITEMS, table, "user").attributes["age"].to_list() == [1, 2, 3]


def test_an_id_that_stands_twice_is_refused_by_name() -> None:
    with pytest.raises(InvalidInput, match=r"twice in the item table\. Got 'a'"):
        Catalog.of(ITEMS, pl.DataFrame({"item": ["a", "a"], "title": ["x", "y"]}))


def test_attributes_need_a_row_for_each_item() -> None:
    with pytest.raises(InvalidInput, match="3 items"):
        Catalog(ITEMS, pl.DataFrame({"title": ["x"]}))
