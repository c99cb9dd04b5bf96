"""`collect`: what happened since, from the event store into the next dataset."""

import time
from pathlib import Path
from typing import Annotated

import typer

from rediffuse.cli.console import DataOption, line, tell
from rediffuse.data.dataset import Dataset
from rediffuse.errors import MissingExtra, say


def collect(
    store: Annotated[str, typer.Argument(help="Where `serve` keeps events: a file, or postgresql://USER@HOST/NAME.")],
    data: DataOption,
    to: Annotated[Path, typer.Option("--to", help="Dataset folder to make.")],
) -> None:
    """Join a dataset and the events of a store, without whoever was erased; the service may go on meanwhile.

    Example: `rediffuse collect events.sqlite --data data/shop --to data/shop-2`
    """
    try:
        from rediffuse.serving.learning import collected
        from rediffuse.serving.store import open_store
    except ImportError as error:
        message = say(f"The store needs {error.name}, which is not installed", remedy='pip install "rediffuse[serve]"')
        raise MissingExtra(message) from None
    base = Dataset.read(data)
    kept = open_store(store, read_only=True)
    try:
        found = collected(kept, base, time.time_ns() // 1000)
    finally:
        kept.close()
    found.write(to)
    tell(f"Wrote {to}: {len(found.events):,} events of {len(found.users):,} users, {len(base.events):,} were known")
    tell(f"Next: {line('rediffuse', 'split', to, 'global-time', '--to', f'{to}-split')}")
