"""Conditions on what may be shown: read, refused, and what they let through."""

import polars as pl
import pytest

from rediffuse.data.catalog import Catalog
from rediffuse.data.vocabulary import Vocabulary
from rediffuse.errors import InvalidInput
from rediffuse.grounding.filters import Where, assortment, attributes_of, groups

CATALOG = Catalog(
    Vocabulary(("a", "b", "c", "d")),
    pl.DataFrame(
        {
            "title": ["A", "B", "C", "D"],
            "category": ["shoes", "boots", "shoes", None],
            "price": [20.0, 50.0, float("nan"), 80.0],
            "in_stock": [True, False, True, None],
            "year": [1999, 2001, None, 1999],
            "genres": [["drama"], ["drama", "war"], [], None],
            "parent": ["p", "q", "p", None],
            "vector": [[1.0], [2.0], [3.0], [4.0]],
            "about": ["long " * 30] * 4,
        }
    ),
)


def met(*texts: str) -> list[str]:
    items = assortment(CATALOG, texts).items
    assert items is not None
    return [name for name, there in zip(CATALOG.items.ids, items.tolist(), strict=True) if there]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("category=shoes", "ac"),
        (" category = shoes | boots ", "abc"),
        ("category!=shoes", "b"),
        ("price<=50", "ab"),
        ("price<50", "a"),
        ("price>20", "bd"),
        ("price>=5e1", "bd"),
        ("price=20|80", "ad"),
        ("price!=20", "bd"),
        ("year=1999", "ad"),
        ("in_stock=true", "ac"),
        ("in_stock!=true", "b"),
        ("in_stock=true|false", "abc"),
        ("genres=war|drama", "ab"),
        ("genres=war", "b"),
        ("genres!=war", "a"),
        ("item!=a|d", "bc"),
    ],
)
def test_a_condition_is_met_by_what_is_known_to_meet_it(text: str, wanted: str) -> None:
    assert "".join(met(text)) == wanted


def test_conditions_hold_together() -> None:
    assert met("category=shoes|boots", "price<=50", "in_stock=true") == ["a"]
    assert met("category=boots", "price<50") == []
    assert assortment(CATALOG).items is None


def test_words_with_signs_of_ours_are_given_as_a_value() -> None:
    catalog = Catalog(Vocabulary(("a", "b")), pl.DataFrame({"brand": ["x|y=z", "x"]}))
    assert Where("brand", "=", ("x|y=z",)).met(catalog).tolist() == [True, False]
    assert Where.of("brand=x").met(catalog).tolist() == [False, True]


def test_categories_are_words() -> None:
    table = CATALOG.attributes.with_columns(pl.col("category").cast(pl.Categorical))
    assert Where.of("category=boots").met(Catalog(CATALOG.items, table)).tolist() == [False, True, False, False]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("catgory=shoes", "Unknown attribute of items 'catgory'. Nearest known attribute of items: 'category'."),
        ("category=shoos", "Unknown value of 'category' 'shoos'. Nearest known value of 'category': 'shoes'."),
        ("category=shoes|boot", "Nearest known value of 'category': 'boots'."),
        ("genres=drame", "Nearest known value of 'genres': 'drama'."),
        ("item!=z", "Unknown value of 'item' 'z'."),
        ("price<=cheap", "'price' holds numbers. Got 'cheap'."),
        ("price<=nan", "'price' holds numbers. Got 'nan'."),
        ("category<shoes", "'category' holds no numbers. Got '<'. Allowed: =, !=."),
        ("in_stock=yes", "'in_stock' is true or false. Got 'yes'. Allowed: true, false."),
        ("vector=1", "'vector' holds no numbers, words, lists of words or yes and no."),
        ("shoes", "A condition is COLUMN RELATION VALUE. Got 'shoes'."),
        ("=shoes", "A condition is COLUMN RELATION VALUE."),
        ("category=", "A condition is COLUMN RELATION VALUE."),
        ("category=shoes|", "A condition is COLUMN RELATION VALUE."),
    ],
)
def test_what_cannot_be_met_is_refused_with_the_nearest_name(text: str, message: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        met(text)
    assert message in str(refused.value)


def test_an_item_without_a_product_is_one_of_its_own() -> None:
    found = groups(CATALOG, "parent").tolist()
    assert found[0] == found[2]
    assert len(set(found)) == 3
    missing = Catalog(Vocabulary(("a", "b")), pl.DataFrame({"parent": [None, None]}, schema={"parent": pl.String}))
    assert len(set(groups(missing, "parent").tolist())) == 2
    offered = assortment(CATALOG, one_per="parent")
    assert offered.items is None
    assert offered.groups is not None
    with pytest.raises(InvalidInput, match="Unknown attribute of items 'parents'"):
        groups(CATALOG, "parents")
    with pytest.raises(InvalidInput, match="'genres' holds lists"):
        groups(CATALOG, "genres")


def test_what_is_kept_beside_a_model_is_what_conditions_speak_of() -> None:
    assert attributes_of(CATALOG).columns == ["category", "price", "in_stock", "year", "genres", "parent"]
    assert attributes_of(Catalog(CATALOG.items, pl.DataFrame())).width == 0
