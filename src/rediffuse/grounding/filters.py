"""What a shop allows, as a value: conditions on attributes of items, and one variant of each product.

    category=shoes        the column has this word; category=shoes|boots either; in a list column: holds it
    season!=winter        another word
    price<=50             a number compared: < <= > >= = !=
    in_stock=true         yes and no
    item!=A00042|A00007   ids

All conditions hold together. An item of which a column tells nothing meets no condition on it, `!=` included: what
must not be shown is not shown on a guess. The conditions become an `Assortment`, which is searched within.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Literal, Self, cast, get_args

import polars as pl
import torch
from torch import Tensor

from rediffuse.data.catalog import Catalog
from rediffuse.errors import InvalidInput, say, unknown
from rediffuse.types import Assortment, Ragged

Relation = Literal["<=", ">=", "!=", "=", "<", ">"]
ITEM = "item"
"""The column of ids, which every catalog has."""
_TEXT = re.compile(rf"\s*([^<>=!]*?)\s*({'|'.join(get_args(Relation))})(.*)", flags=re.DOTALL)
PROSE = 100
"""Letters of a text, in the mean, above which it is no word."""
_YES_NO = {"true": True, "false": False}


@dataclass(frozen=True)
class Where:
    """A condition on one attribute."""

    column: str
    relation: Relation
    values: tuple[str, ...]
    """Words, numbers as text, or true and false; one of them is enough."""

    @classmethod
    def of(cls, text: str) -> Self:
        """From its text, as above. Raises: InvalidInput for anything else."""
        found = _TEXT.fullmatch(text)
        values = () if found is None else tuple(word.strip() for word in found[3].split("|"))
        if found is None or not found[1] or not all(values):
            raise InvalidInput(
                say(
                    "A condition is COLUMN RELATION VALUE",
                    got=text,
                    allowed=[*get_args(Relation), "| between values"],
                    remedy="For example: 'category=shoes|boots' or 'price<=50'",
                )
            )
        return cls(found[1], cast("Relation", found[2]), values)

    def met(self, catalog: Catalog) -> Tensor:
        """Which items meet it, (I,) bool.

        Raises: InvalidInput for a column or a word that the catalog does not have, for a value that is no number where
            numbers stand, and for a relation that its kind of column does not have.
        """
        values = column_of(catalog, self.column)
        met = self._compared(values)
        if self.relation == "!=":
            met = ~met
        told = values.is_not_null() & (values.list.len() > 0 if isinstance(values.dtype, pl.List) else True)
        return torch.tensor((met & told).fill_null(value=False).to_numpy())

    def _compared(self, values: pl.Series) -> pl.Series:
        """Whether each value compares so with one of ours; for `!=` whether it is equal."""
        if values.dtype.is_numeric():
            return self._numbers(values)
        if self.relation not in ("=", "!="):
            raise InvalidInput(
                say(
                    f"{self.column!r} holds no numbers",
                    got=self.relation,
                    allowed=["=", "!="],
                    remedy="Name its values",
                )
            )
        if values.dtype == pl.Boolean:
            for word in self.values:
                if word not in _YES_NO:
                    raise InvalidInput(say(f"{self.column!r} is true or false", got=word, allowed=tuple(_YES_NO)))
            return values.is_in([_YES_NO[word] for word in self.values])
        lists = isinstance(values.dtype, pl.List)
        known = (values.explode() if lists else values).drop_nulls().unique().to_list()
        for word in self.values:
            if word not in known:
                raise InvalidInput(unknown(f"value of {self.column!r}", word, known))
        if lists:
            return values.list.set_intersection(list(self.values)).list.len() > 0
        return values.is_in(self.values)

    def _numbers(self, values: pl.Series) -> pl.Series:
        compare = {
            "=": values.__eq__,
            "!=": values.__eq__,
            "<": values.__lt__,
            "<=": values.__le__,
            ">": values.__gt__,
            ">=": values.__ge__,
        }[self.relation]
        return reduce(pl.Series.__or__, [compare(self._number(word)) for word in self.values])

    def _number(self, word: str) -> float:
        try:
            number = float(word)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise InvalidInput(say(f"{self.column!r} holds numbers", got=word, remedy=f"Say {self.column}<=50"))
        return number


def assortment(
    catalog: Catalog, where: Sequence[str | Where] = (), one_per: str | None = None, lists: Ragged | None = None
) -> Assortment:
    """What is offered under all these conditions.

    Args: where: conditions, or their texts.   one_per: a column; a list holds one item of each of its values, the best.
        lists: the only items allowed for each subject.
    Raises: InvalidInput, as `Where.of` and `Where.met`.
    """
    met = [(Where.of(each) if isinstance(each, str) else each).met(catalog) for each in where]
    items = torch.stack(met).all(0) if met else None
    return Assortment(items, lists, None if one_per is None else groups(catalog, one_per))


def groups(catalog: Catalog, column: str) -> Tensor:
    """The number of each item's product, (I,) int64; an item of which the column tells nothing is one of its own.

    Raises: InvalidInput for a column that the catalog does not have, or that holds lists.
    """
    values = column_of(catalog, column)
    if isinstance(values.dtype, pl.List):
        raise InvalidInput(
            say(f"{column!r} holds lists, and an item is a variant of one product", remedy="Take another")
        )
    numbers = values.rank("dense").cast(pl.Int64)
    alone = torch.arange(len(catalog)) + len(catalog) + 1
    known = torch.tensor(numbers.fill_null(0).to_numpy())
    return torch.where(known > 0, known, alone)


def column_of(catalog: Catalog, name: str) -> pl.Series:
    """A column of attributes or the ids; categories as text, NaN as nothing.

    Raises: InvalidInput when there is none, or it holds what no condition speaks of.
    """
    if name == ITEM:
        return pl.Series(ITEM, catalog.items.ids, dtype=pl.String)
    if name not in catalog.attributes.columns:
        raise InvalidInput(unknown("attribute of items", name, (ITEM, *catalog.attributes.columns)))
    values = catalog.attributes[name]
    if not speaks(values.dtype):
        raise InvalidInput(
            say(f"{name!r} holds no numbers, words, lists of words or yes and no", got=str(values.dtype))
        )
    if values.dtype.is_float():
        return values.fill_nan(None)
    return values.cast(pl.String) if isinstance(values.dtype, pl.Categorical | pl.Enum) else values


def attributes_of(catalog: Catalog) -> pl.DataFrame:
    """What of a catalog is worth keeping beside a model: columns that conditions speak of, without titles and prose."""

    def short(values: pl.Series) -> bool:
        return values.dtype != pl.String or int(values.str.len_chars().sum()) <= PROSE * len(values)

    columns = [values for values in catalog.attributes if speaks(values.dtype) and values.name != "title"]
    return pl.DataFrame([values for values in columns if short(values)])


def speaks(dtype: pl.DataType) -> bool:
    """Whether conditions can be put on such a column."""
    words = isinstance(dtype, pl.String | pl.Categorical | pl.Enum)
    listed = isinstance(dtype, pl.List) and dtype.inner == pl.String
    return dtype.is_numeric() or dtype == pl.Boolean or words or listed
