"""The catalog as people see it: cards with a title, a category and a price, found by words."""

import weakref
import zlib
from collections.abc import Iterable
from dataclasses import dataclass

import polars as pl

from rediffuse.facade import Model
from rediffuse.grounding.filters import ITEM
from rediffuse.serving.engine import Engine
from rediffuse.serving.service import Service
from rediffuse.serving.shelf import AVAILABLE

PER_PAGE = 24
MOST_CATEGORIES = 200
TONES = 8
"""Colours of placeholders, one a category."""
_CATEGORIES = ("category", "category_path", "categories", "product_type", "genres", "genre", "type", "slot")
_BRANDS = ("brand", "vendor", "artist", "maker")


@dataclass(frozen=True)
class Card:
    """An item. What is not known is empty."""

    item: str
    title: str
    category: str = ""
    brand: str = ""
    price: str = ""
    available: bool = True

    @property
    def initials(self) -> str:
        """Two letters in place of a picture."""
        words = [word for word in self.title.split() if word[0].isalnum()]
        return "".join(word[0] for word in words[:2]).upper() or "?"

    @property
    def tone(self) -> int:
        """The colour in place of a picture: one for each category."""
        return zlib.crc32((self.category or self.item).encode()) % TONES


@dataclass(frozen=True)
class Found:
    """A page of cards."""

    cards: tuple[Card, ...]
    total: int
    page: int
    """1 is the first."""
    pages: int


class Goods:
    """The items of a model."""

    def __init__(self, model: Model) -> None:
        """Args: model: under today's attributes."""
        known = model.folder.attributes
        self._numbers = model.items
        self._rows = pl.DataFrame({ITEM: model.items.ids, "title": model.titles}).with_columns(
            _words(known, _CATEGORIES).alias("category"),
            _words(known, _BRANDS).alias("brand"),
            _prices(known).alias("price"),
            known[AVAILABLE].fill_null(value=True) if AVAILABLE in known.columns else pl.lit(True).alias(AVAILABLE),
        )
        named = self._rows["category"].value_counts(sort=True).filter(pl.col("category") != "")
        self.categories = sorted(named["category"].head(MOST_CATEGORIES).to_list(), key=str.casefold)

    def card(self, item: str) -> Card:
        """Of an item; one that the model does not know has its id as its title."""
        number = self._numbers.number(item)
        return Card(item, item) if number < 0 else Card(**self._rows.row(number, named=True))

    def cards(self, items: Iterable[str]) -> list[Card]:
        """Of several items."""
        return [self.card(item) for item in items]

    def find(self, words: str, category: str, page: int) -> Found:
        """Items of which the title, brand or id holds all words, in the catalog's order."""
        rows = self._rows
        text = pl.concat_str("title", "brand", ITEM, separator=" ").str.to_lowercase()
        for word in words.lower().split():
            rows = rows.filter(text.str.contains(word, literal=True))
        if category:
            rows = rows.filter(pl.col("category") == category)
        pages = max(1, -(-rows.height // PER_PAGE))
        page = min(max(page, 1), pages)
        shown = rows.slice((page - 1) * PER_PAGE, PER_PAGE)
        return Found(tuple(Card(**row) for row in shown.iter_rows(named=True)), rows.height, page, pages)


class Window:
    """The goods of the model that answers now; made once for each model and each change of what is told of items."""

    def __init__(self, service: Service) -> None:
        """Nothing is looked at yet."""
        self._service = service
        self._seen: tuple[weakref.ref[Engine], Goods] | None = None

    def goods(self) -> Goods:
        """As of now. Raises: NoModel, StorageError."""
        self._service.shelf.look()
        with self._service.versions.current() as version:
            engine = self._service.shelf.dressed(version.engine)
            if self._seen is None or self._seen[0]() is not engine:
                self._seen = weakref.ref(engine), Goods(engine.model)
            return self._seen[1]


def _words(known: pl.DataFrame, names: Iterable[str]) -> pl.Series:
    """The first of these columns that is there, as text; of a list its first entry."""
    name = next((name for name in names if name in known.columns), None)
    if name is None:
        return pl.Series([""] * known.height, dtype=pl.String)
    column = known[name]
    column = column.list.first() if isinstance(column.dtype, pl.List) else column
    return column.cast(pl.String, strict=False).fill_null("")


def _prices(known: pl.DataFrame) -> pl.Series:
    """Prices in words, with their currency where it is known."""
    if "price" not in known.columns or known["price"].dtype.is_nested():
        return pl.Series([""] * known.height, dtype=pl.String)
    prices = known["price"].cast(pl.Float64, strict=False).to_list()
    money = _words(known, ("currency",)).to_list()
    shown = ["" if price is None else f"{price:,.2f} {unit}".strip() for price, unit in zip(prices, money, strict=True)]
    return pl.Series(shown, dtype=pl.String)
