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
    def of(cls, items: Vocabulary, table: pl.DataFrame | None = None) -> "Catalog":
        """Bring a table with an `item` column into the order of the vocabulary; unknown items in it are left out."""
        if table is None:
            return cls(items, pl.DataFrame())
        if table["item"].is_duplicated().any():
            twice = table.filter(table["item"].is_duplicated())["item"][0]
            raise InvalidInput(say("An item stands twice in the item table", got=twice))
        order = pl.DataFrame({"item": items.ids}, schema={"item": pl.String})
        return cls(items, order.join(table, on="item", how="left", maintain_order="left").drop("item"))

    def __len__(self) -> int:
        """Number of items, I."""
        return len(self.items)

    def titles(self) -> list[str]:
        """A readable name of each item: its title, else its id."""
        if "title" not in self.attributes.columns:
            return list(self.items.ids)
        pairs = zip(self.attributes["title"], self.items.ids, strict=True)
        return [name if title is None else str(title) for title, name in pairs]
