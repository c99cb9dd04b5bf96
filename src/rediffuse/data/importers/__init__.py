"""Foreign files -> a dataset, one source a file."""

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, get_args, get_type_hints

import polars as pl

from rediffuse.data.dataset import Dataset
from rediffuse.data.importers import (
    atelier,
    diffrec,
    ga4,
    lightgcn,
    merchant,
    movielens,
    personalize,
    recbole,
    retail_v2,
    s3rec,
    segment,
    shopify,
    table,
)
from rediffuse.data.importers.reading import FORMATS
from rediffuse.errors import InvalidInput, say, unknown

IMPORTERS: Mapping[str, Callable[..., Dataset]] = {
    "table": table.load,
    "diffrec": diffrec.load,
    "movielens": movielens.load,
    "recbole": recbole.load,
    "lightgcn": lightgcn.load,
    "s3rec": s3rec.load,
    "atelier": atelier.load,
    "merchant": merchant.load,
    "ga4": ga4.load,
    "shopify": shopify.load,
    "retail_v2": retail_v2.load,
    "personalize": personalize.load,
    "segment": segment.load,
}
"""Name of a format -> what reads its events; the first argument is the source."""

PRODUCTS: Mapping[str, Callable[[Path], pl.DataFrame]] = {
    "merchant": merchant.products,
    "shopify": shopify.products,
    "retail_v2": retail_v2.products,
    "personalize": personalize.products,
    "table": table.products,
}
"""Name of a format -> what reads its feed of products into a table of items, as `data/importers/products.py` tells it."""

SHOPS = ("merchant", "ga4", "shopify", "retail_v2", "personalize", "segment")
"""What shops export: read by a process of its own (`data/importers/child.py`)."""

_HOLDS_PRODUCTS: Mapping[str, Callable[[Path], bool]] = {
    "merchant": lambda _: True,
    "shopify": shopify.holds_products,
    "retail_v2": retail_v2.holds_products,
    "personalize": personalize.holds_products,
}

_RECOGNISES: Mapping[str, Callable[[Path], bool]] = {
    "diffrec": lambda source: (source / "train_list.npy").is_file(),
    "movielens": movielens.recognises,
    "recbole": recbole.recognises,
    "lightgcn": lightgcn.recognises,
    "s3rec": s3rec.recognises,
    "merchant": merchant.recognises,
    "ga4": ga4.recognises,
    "shopify": shopify.recognises,
    "retail_v2": retail_v2.recognises,
    "personalize": personalize.recognises,
    "segment": segment.recognises,
}
"""Name of a format -> whether a source looks like it: by the names of its files and the beginning of their content."""

_FOLDERS = (
    "train_list.npy (diffrec); u.data, ratings.dat or ratings.csv (movielens); NAME.inter (recbole); "
    "train.txt and test.txt (lightgcn); NAME.txt of ids (s3rec); events_YYYYMMDD.jsonl (ga4)"
)
_SHOWN = 12


def detect(source: Path) -> str:
    """The format of a source; a file that is none of the others is a table.

    Raises: InvalidInput when it is none that is known, or may be several; the message says what was seen.
    """
    found = [name for name, recognises in _RECOGNISES.items() if recognises(source)]
    if len(found) == 1:
        return found[0]
    if not found and source.is_file() and source.suffix.lower() != ".zip":
        return "table"
    seen = _seen(source)
    if found:
        remedy = f"Name the format: {' or '.join(found)}"
        raise InvalidInput(say(f"{str(source)!r} may be {' or '.join(found)}", got=seen, remedy=remedy))
    problem = "holds no files of a known format" if source.exists() else "is not there"
    allowed = f"a file (table: {FORMATS}), the name of a MovieLens set such as ml-100k, or a folder with {_FOLDERS}"
    raise InvalidInput(say(f"{str(source)!r} {problem}", got=seen, allowed=allowed))


def format_of(source: Path, form: str = "auto") -> str:
    """The format of a source, found where it is `auto`. Raises: InvalidInput for an unknown one."""
    chosen = detect(source) if form == "auto" else form
    if chosen not in IMPORTERS:
        raise InvalidInput(unknown("format", chosen, ["auto", *IMPORTERS]))
    return chosen


def shop_format(source: Path, form: str = "auto") -> str:
    """The format of a file of a shop. Raises: InvalidInput when it is of another kind."""
    chosen, allowed = format_of(source, form), (*SHOPS, "table")
    if chosen not in allowed:
        raise InvalidInput(say("This is no file of a shop", got=chosen, allowed=allowed))
    return chosen


def options_of(form: str) -> frozenset[str]:
    """What can be asked of the importer of a format, besides a feed: its arguments, those of a TypedDict among them."""
    load = IMPORTERS[form]
    names = set[str]()
    for name, parameter in inspect.signature(load).parameters.items():
        several = parameter.kind is parameter.VAR_KEYWORD
        names |= set(get_args(get_type_hints(load)[name])[0].__annotations__) if several else {name}
    return frozenset(names - {"source", "products"})


def holds_products(source: Path, form: str = "auto") -> bool:
    """Whether a source is a feed of products, which holds no events."""
    holds = _HOLDS_PRODUCTS.get(format_of(source, form))
    return holds is not None and holds(source)


def products(source: Path, form: str = "auto") -> pl.DataFrame:
    """The table of items of a feed: `item`, `group_id` and what is known of them, a row for each variant.

    Args: form: the format, found where it is `auto`; any table with a column of item ids is a feed, too.
    Raises: InvalidInput when the format knows no products, or the feed is not what it should be.
    """
    chosen = format_of(source, form)
    if chosen not in PRODUCTS:
        raise InvalidInput(say(f"{source.name!r} holds events, not products", got=chosen, allowed=tuple(PRODUCTS)))
    return PRODUCTS[chosen](source)


def read(
    source: Path, form: str = "auto", *, feed: Path | None = None, feed_format: str = "auto", **options: Any
) -> Dataset:
    """A dataset from a source of events, joined with a feed of products where there is one.

    Args: options: as the format's `load` takes them.
    Raises: InvalidInput, also when the format of the events cannot be joined with a feed.
    """
    chosen = format_of(source, form)
    if feed is None:
        return IMPORTERS[chosen](source, **options)
    if chosen not in (*SHOPS, "table"):
        raise InvalidInput(say(f"Events of {chosen} are joined with no feed", allowed=(*SHOPS, "table")))
    if chosen in _HOLDS_PRODUCTS and _HOLDS_PRODUCTS[chosen](source):
        raise InvalidInput(say(f"{source.name!r} is a feed of products, too", remedy="Give the feed, then the events"))
    return IMPORTERS[chosen](source, products=products(feed, feed_format), **options)


def _seen(source: Path) -> str | None:
    """The first names in a folder, for a message."""
    if not source.is_dir():
        return None
    names = [path.name for path in sorted(source.iterdir())]
    return ", ".join(names[:_SHOWN]) + (", .." if len(names) > _SHOWN else "") if names else "nothing"
