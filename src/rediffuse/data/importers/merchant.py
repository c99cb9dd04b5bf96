"""Google Merchant Center feeds: TSV, CSV, JSONL, and XML (RSS or Atom with the prefix g:). Products, no events.

Feeds for OpenAI's agentic commerce use the same names. A row is a variant, grouped by item_group_id.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from xml.parsers import expat  # documents with a DOCTYPE are refused: no entity is ever declared

import polars as pl

from rediffuse.data.dataset import Dataset
from rediffuse.data.importers.blocks import chunks
from rediffuse.data.importers.products import catalog, extras, found_columns, money, paths, read_any
from rediffuse.data.importers.reading import open_table
from rediffuse.data.importers.records import peek
from rediffuse.errors import InvalidInput, say

_NAMES = {
    "item": ("id", "offer_id"),
    "group_id": ("item_group_id",),
    "title": ("title",),
    "description": ("description",),
    "brand": ("brand",),
    "category_path": ("product_type", "product_types", "google_product_category", "product_category"),
    "price": ("price",),
    "sale_price": ("sale_price",),
    "availability": ("availability",),
    "image_link": ("image_link",),
    "more_images": ("additional_image_link", "additional_image_links"),
    "color": ("color",),
    "size": ("size", "sizes"),
    "gender": ("gender",),
    "age_group": ("age_group",),
    "material": ("material",),
    "created_at": ("availability_date",),
    "expires_at": ("expiration_date",),
}
_GOOGLE = "base.google.com/ns/1.0"
_TELLING = ("link", "image_link", "availability", "price", "gtin", "condition", "item_group_id")
_ITEMS = ("item", "entry")
_LONGEST_TEXT = 1 << 20
_ROWS = 50_000
_BEGINNING = 1 << 14
_NESTED = ("product_attributes", "attributes")


def load(source: Path) -> Dataset:
    """A feed holds products and no events. Raises: InvalidInput saying what to do with it."""
    remedy = "Give the events too: rediffuse import merchant FEED EVENTS --to DATASET"
    raise InvalidInput(say(f"{source.name!r} is a feed of products, which holds no events", remedy=remedy))


def products(source: Path) -> pl.DataFrame:
    """The table of items of a feed, as `products.catalog` gives it.

    Raises: InvalidInput when the file cannot be read or declares a document type, a price has no currency, prices are
        in several, or a row has no id or one that stands there twice.
    Limits: the table is held in memory.
    """
    raw = pl.concat(list(_xml(source)), how="diagonal") if _is_xml(source) else _table(source)
    found = found_columns(raw.columns, _NAMES)
    if "item" not in found:
        shown = ", ".join(map(repr, raw.columns[:20]))
        raise InvalidInput(say(f"{source.name!r} has no column 'id'", got=shown, remedy="Check that it is a feed"))
    columns = {ours: raw[theirs] for ours, theirs in found.items()}
    for name in ("price", "sale_price"):
        if name in columns:
            columns[name], code = money(columns[name])
            columns["currency"] = code.zip_with(code.is_not_null(), columns.get("currency", code))
    if "category_path" in columns:
        # the shop's own taxonomy first, Google's where it tells nothing
        theirs = found_columns(raw.columns, {name: (name,) for name in _NAMES["category_path"]}).values()
        columns["category_path"] = paths(
            raw.select(pl.coalesce(map(read_any, raw.select(theirs).iter_columns()))).to_series()
        )
    if "image_link" in columns:
        first, more = columns.pop("image_link"), columns.pop("more_images", None)
        texts = [read_any(first)] + ([] if more is None else [read_any(more)])
        joined = pl.DataFrame([text.alias(str(n)) for n, text in enumerate(texts)])
        columns["image_urls"] = (
            joined.select(pl.concat_str(pl.all(), separator=",", ignore_nulls=True)).to_series().str.split(",")
        )
    return catalog(columns, extras(raw, [*found.values()]), source.name)


def recognises(source: Path) -> bool:
    """Whether a file is XML in Google's namespace, or a table with an id, a title and three more columns of feeds."""
    if _is_xml(source):
        return _GOOGLE.encode() in _beginning(source)
    found = found_columns([*peek(source)], {name: (name,) for name in ("id", "title", *_TELLING)})
    return {"id", "title"} <= set(found) and len(found) >= 5


def _beginning(source: Path) -> bytes:
    try:
        return next(chunks(source), b"")[:_BEGINNING] if source.is_file() else b""
    except InvalidInput:
        return b""


def _is_xml(source: Path) -> bool:
    start = _beginning(source).removeprefix(b"\xef\xbb\xbf").lstrip()
    return start.startswith((b"<?xml", b"<rss", b"<feed"))


def _table(source: Path) -> pl.DataFrame:
    """A delimited feed or JSONL as text; prices of the API become text with a currency."""
    table = open_table(source)
    raw = table.read(table.columns)
    for name in _NESTED:
        camel = next((column for column in raw.columns if column.casefold() == name.replace("_", "")), None)
        if camel is not None and isinstance(raw[camel].dtype, pl.Struct):
            inner = raw[camel].struct.unnest()
            raw = pl.concat([raw.drop(camel), inner.select(pl.exclude(raw.columns))], how="horizontal")
    return pl.DataFrame([_flat(column) for column in raw.iter_columns()])


def _flat(column: pl.Series) -> pl.Series:
    if isinstance(column.dtype, pl.List) and not column.dtype.inner.is_nested():
        return column.cast(pl.List(pl.String)).list.join(",").alias(column.name)
    if isinstance(column.dtype, pl.Struct) and {"amountMicros", "currencyCode"} <= {
        f.name for f in column.dtype.fields
    }:
        micros = column.struct.field("amountMicros").cast(pl.Int64, strict=False)
        amount = (micros / 1_000_000).cast(pl.String)
        return (amount + " " + column.struct.field("currencyCode")).alias(column.name)
    return column


def _xml(source: Path) -> Iterator[pl.DataFrame]:
    """The items of an XML feed, some at a time."""
    reader = _Reader(source.name)
    try:
        for chunk in chunks(source):
            reader.parser.Parse(chunk, False)
            if len(reader.rows) >= _ROWS:
                yield pl.DataFrame(reader.rows, infer_schema_length=None)
                reader.rows.clear()
        reader.parser.Parse(b"", True)
    except InvalidInput:
        raise
    except (expat.ExpatError, LookupError, ValueError) as error:
        raise InvalidInput(
            say(f"{source.name!r} is cut off or no XML", got=str(error), remedy="Fetch it again")
        ) from None
    if not reader.count:
        raise InvalidInput(say(f"{source.name!r} has no products", allowed=f"elements {' or '.join(_ITEMS)}"))
    if reader.rows:
        yield pl.DataFrame(reader.rows, infer_schema_length=None)


class _Reader:
    """Collects what stands right below each item; of what is repeated, all images and the first of the others."""

    def __init__(self, name: str) -> None:
        self.rows: list[dict[str, str]] = []
        self.count = 0
        self._name, self._depth, self._size = name, 0, 0
        self._row: dict[str, tuple[bool, str]] = {}
        self._text: list[str] = []
        self.parser = parser = expat.ParserCreate(namespace_separator=" ")
        parser.buffer_text = True
        parser.StartDoctypeDeclHandler = self._doctype
        parser.StartElementHandler, parser.EndElementHandler = self._start, self._end
        parser.CharacterDataHandler = self._data

    def _doctype(self, *_: Any) -> None:
        raise InvalidInput(
            say(f"{self._name!r} declares a document type, which no feed needs", remedy="Remove <!DOCTYPE")
        )

    def _start(self, name: str, attributes: Mapping[str, str]) -> None:
        if self._depth:
            self._depth += 1
        elif name.rpartition(" ")[2] in _ITEMS:
            self._depth, self._row = 1, {}
        if self._depth == 2:
            self._text, self._size = [attributes.get("href", "")], 0

    def _data(self, text: str) -> None:
        if self._depth == 2:
            self._size += len(text)
            if self._size > _LONGEST_TEXT:
                line = self.parser.CurrentLineNumber
                raise InvalidInput(
                    say(f"A text of {self._name!r} in line {line} is longer than {_LONGEST_TEXT >> 20} MiB")
                )
            self._text.append(text)

    def _end(self, name: str) -> None:
        space, _, local = name.rpartition(" ")
        if self._depth == 2:
            text, google = "".join(self._text).strip(), _GOOGLE in space
            known = self._row.get(local)
            if known and known[0] and google and local == "additional_image_link":
                self._row[local] = (True, f"{known[1]},{text}")
            elif text and (known is None or (google and not known[0])):
                self._row[local] = (google, text)
        elif self._depth == 1:
            self.rows.append({name: text for name, (_, text) in self._row.items()})
            self.count += 1
        self._depth = max(self._depth - 1, 0)
