"""External ids <-> dense numbers, translated once at the border."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rediffuse.errors import InvalidInput, say


@dataclass(frozen=True)
class Vocabulary:
    """Ids in a fixed order; the number of an id is its place.

    A vocabulary made from data is sorted, so the same ids in any order give the same numbers; `extend` only
    appends, so numbers that a model knows stay.
    """

    ids: tuple[str, ...]

    @classmethod
    def of(cls, ids: Iterable[str]) -> Self:
        """The distinct ids in canonical (code point) order."""
        return cls(tuple(sorted(set(ids))))

    @classmethod
    def of_column(cls, column: pl.Series) -> Self:
        """The distinct values of a column of text or categories in canonical order."""
        return cls(tuple(column.unique().cast(pl.String).sort().to_list()))

    def __post_init__(self) -> None:
        """Refuse an id that stands twice."""
        if len(set(self.ids)) != len(self.ids):
            raise InvalidInput(say("An id stands twice in a vocabulary"))

    def __len__(self) -> int:
        """How many ids there are."""
        return len(self.ids)

    def __contains__(self, name: object) -> bool:
        """Whether the id is known."""
        return name in self._number

    @cached_property
    def _number(self) -> dict[str, int]:
        return {name: number for number, name in enumerate(self.ids)}

    def number(self, name: str) -> int:
        """The number of one id, -1 when unknown."""
        return self._number.get(name, -1)

    def encode(self, names: Iterable[str]) -> NDArray[np.int64]:
        """Numbers of ids, (n,); -1 where unknown."""
        return np.fromiter((self._number.get(name, -1) for name in names), dtype=np.int64)

    def encode_column(self, column: pl.Series) -> pl.Series:
        """Numbers of a column of text or categories, Int32, null where unknown; each distinct text is looked up once."""
        words = column.cast(pl.Categorical(pl.Categories.random())) if column.dtype == pl.String else column
        distinct = words.unique().drop_nulls()
        table = pl.DataFrame(
            {"id": pl.Series(self.ids, dtype=pl.String), "number": np.arange(len(self), dtype=np.int32)}
        )
        found = distinct.cast(pl.String).to_frame("id").join(table, on="id", how="left", maintain_order="left")
        places = distinct.to_physical()
        numbers = pl.Series(np.zeros(int(places.to_numpy().max(initial=0)) + 1, dtype=np.int32))
        return numbers.scatter(places, found["number"]).gather(words.to_physical()).alias("number")

    def decode(self, numbers: Iterable[int]) -> list[str]:
        """Ids of numbers; -1 (none) is left out."""
        return [self.ids[number] for number in numbers if number >= 0]

    def extend(self, names: Iterable[str]) -> "Vocabulary":
        """Append the ids that are new, in canonical order."""
        return Vocabulary((*self.ids, *sorted(set(names) - set(self._number))))
