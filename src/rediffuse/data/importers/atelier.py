"""The embedded world as a dataset: `import atelier small`."""

from pathlib import Path

import polars as pl

from rediffuse.data.dataset import Dataset
from rediffuse.data.worlds.atelier import World, generate

MANY = 1_000_000
"""Events above which they get no ids of their own and are never written out as text."""


def _named(world: World) -> pl.DataFrame:
    """The log with external ids, as numbers into the two tables."""
    ids = {name: pl.Enum(table[name]) for name, table in (("user", world.users), ("item", world.items))}
    return world.log.with_columns(pl.col(name).cat.to(kind) for name, kind in ids.items())


def load(source: Path | str = "small", *, seed: int = 1, name: str | None = None) -> Dataset:
    """Generate the world of a size; nothing is read from disk.

    The facts hold the recipe with its hash: `worlds.atelier.regenerate` finds the truth again.

    Args: source: the size: tiny, small or large.
    Raises: InvalidInput for another size.
    Limits: `large` is 22 million events: minutes, and some 3 GB.
    """
    size = str(source)
    world = generate(size, seed)
    return Dataset.from_events(
        name or f"atelier-{size}",
        _named(world) if world.log.height > MANY else world.events,
        order="time",
        items=world.items,
        users=world.users,
        facts={"format": "atelier", **world.recipe},
    )
