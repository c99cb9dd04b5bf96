"""Attributes told today, laid over columns of any kind: as they were told, or not at all."""

from pathlib import Path

import polars as pl
import pytest

from rediffuse import load
from rediffuse.facade import Model
from rediffuse.serving.shelf import under
from rediffuse.serving.store import Item

Told = str | float | tuple[str, ...]


@pytest.fixture(scope="module")
def model(models: Path) -> Model:
    """Of a shop with columns of several kinds."""
    found = load(models / "one")
    columns = {
        "size": pl.lit("M"),
        "kind": pl.lit("shirt", pl.Categorical),
        "stars": pl.lit(3, pl.Int64),
        "grade": pl.lit(1, pl.Int8),
        "price": pl.lit(9.5, pl.Float64),
        "new": pl.lit(value=True),
    }
    return found.knowing(pl.DataFrame({"item": found.items.ids}).with_columns(**columns))


def known(model: Model, name: str, *values: Told) -> tuple[pl.DataType, list[object]]:
    """The kind of a column under values of the first items, and these with the one that nothing was told of."""
    ids = model.items.ids
    told = {item: Item(item, attributes={name: value}) for item, value in zip(ids, values, strict=False)}
    column = under(model, told).folder.attributes[name]
    return column.dtype, column.head(len(values) + 1).to_list()


@pytest.mark.parametrize("name", ["size", "kind"])
def test_a_number_where_words_stand_is_written_whole(name: str, model: Model) -> None:
    before = model.folder.attributes[name][0]
    told = (1234567.0, 4006381333931.0, 49.95, 0.1234567, -2.0, "XL")
    kind, found = known(model, name, *told)
    assert kind == pl.String
    assert found == ["1234567", "4006381333931", "49.95", "0.1234567", "-2", "XL", before]


@pytest.mark.parametrize(
    ("name", "told", "kind", "found"),
    [
        ("stars", (5.0, 4.0), pl.Int64, [5, 4, 3]),
        ("stars", (49.95, 4.0), pl.Float64, [49.95, 4.0, 3.0]),
        ("stars", ("many", 4.0), pl.Int64, [None, 4, 3]),
        ("grade", (127.0,), pl.Int8, [127, 1]),
        ("grade", (300.0,), pl.Float64, [300.0, 1.0]),
        ("price", (49.95, 50.0), pl.Float64, [49.95, 50.0, 9.5]),
        ("new", ("false", 2.0), pl.Boolean, [False, None, True]),
        ("other", (2.5, 3.0), pl.Float64, [2.5, 3.0, None]),
        ("other", (2.5, "x"), pl.String, ["2.5", "x", None]),
    ],
)
def test_a_column_holds_what_was_told(
    name: str, told: tuple[Told, ...], kind: pl.DataType, found: list[object], model: Model
) -> None:
    assert known(model, name, *told) == (kind, found)
