"""The items: their ids, and what is known of them."""

from dataclasses import dataclass

import polars as pl

from rediffuse.data.vocabulary import Vocabulary
from rediffuse.errors import InvalidInput, say


@dataclass(frozen=True)
class Catalog:
    """Items in the order of their numbers."""

    items: Vocabulary
    attributes: pl.DataFrame
    """One row per item in that order; columns are whatever is known (title, category, price, first_seen_us ..)."""

    def __post_init__(self) -> None:
        """One row per item."""
        if self.attributes.width and self.attributes.height != len(self.items):
            raise InvalidInput(
                say(f"The catalog has {len(self.items)} items", got=f"{self.attributes.height} rows of attributes")
            )

    @classmethod
    def of(cls, items: Vocabulary, table: pl.DataFrame | None = None, column: str = "item") -> "Catalog":
        """Bring a table with an id column into the order of the vocabulary; ids it does not know are left out.

        Raises: InvalidInput when an id stands twice.
        """
        if table is None:
            return cls(items, pl.DataFrame())
        twice = table.filter(table[column].is_duplicated())
        if twice.height:
            raise InvalidInput(say(f"An id stands twice in the {column} table", got=twice[column][0]))
        order = pl.DataFrame({column: items.ids}, schema={column: pl.String})
        return cls(items, order.join(table, on=column, how="left", maintain_order="left").drop(column))

    def __len__(self) -> int:
        """Number of items, I."""
        return len(self.items)

    def titles(self) -> list[str]:
        """A readable name of each item: its title, else its id."""
        if "title" not in self.attributes.columns:
            return list(self.items.ids)
        pairs = zip(self.attributes["title"], self.items.ids, strict=True)
        return [name if title is None else str(title) for title, name in pairs]
