"""The embedded world as a dataset: `import atelier small`."""

from pathlib import Path

from rediffuse.data.dataset import Dataset
from rediffuse.data.worlds.atelier import generate


def load(source: Path | str = "small", *, seed: int = 1, name: str | None = None) -> Dataset:
    """Generate the world of a size; nothing is read from disk.

    The facts hold the recipe with its hash: `worlds.atelier.regenerate` finds the truth again.

    Args: source: the size: tiny, small or large.
    Raises: InvalidInput for another size.
    Limits: `large` is 22 million events, as text ids some 2 GB before they are numbered.
    """
    size = str(source)
    world = generate(size, seed)
    return Dataset.from_events(
        name or f"atelier-{size}",
        world.events,
        order="time",
        items=world.items,
        users=world.users,
        facts={"format": "atelier", **world.recipe},
    )
