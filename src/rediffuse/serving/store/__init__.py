"""Where events are kept: what was acknowledged stays, what was erased is gone.

`SQLiteStore` for one service, `PostgresStore` for several replicas, `open_store` by URL. Both are `TableStore`s: the
statements stand once, in `tables`; commits are shared by whoever waits, in `group`.
"""

from pathlib import Path

from rediffuse.errors import InvalidInput, say
from rediffuse.serving.store.types import (
    SHOWN,
    Appended,
    Event,
    Item,
    Receipt,
    Store,
    StoreBusy,
    StoreState,
    anonymous_subject,
)

__all__ = [
    "SHOWN",
    "Appended",
    "Event",
    "Item",
    "Receipt",
    "Store",
    "StoreBusy",
    "StoreState",
    "anonymous_subject",
    "open_store",
]


def open_store(url: str, *, read_only: bool = False) -> Store:
    """The store at a URL: `sqlite:///path/to/file` (or a plain path), `postgresql://user@host/database`.

    Args: read_only: to read a store that a service may be writing.
    Raises: InvalidInput for another kind of URL; MissingExtra; StorageError when it cannot be opened.
    """
    scheme, separator, rest = url.partition("://")
    if separator and scheme in {"postgresql", "postgres"}:
        from rediffuse.serving.store.postgres import PostgresStore

        return PostgresStore(url)
    if not separator or (scheme == "sqlite" and rest.startswith("/") and rest != "/"):
        from rediffuse.serving.store.sqlite import SQLiteReader, SQLiteStore

        path = Path(rest[1:] if separator else url)
        return SQLiteReader(path) if read_only else SQLiteStore(path)
    raise InvalidInput(
        say(
            "This URL names no event store",
            got=scheme + separator,
            allowed="sqlite:///file, postgresql://user@host/database",
        )
    )
