"""The embedded world as a dataset: `import atelier small`."""

from pathlib import Path

from rediffuse.data.dataset import Dataset
from rediffuse.data.worlds.atelier import generate


def load(source: Path | str = "small", *, seed: int = 1, name: str | None = None) -> Dataset:
    """Generate the world of a size; nothing is read from disk.

    Args: source: the size, tiny or small.
    Raises: InvalidInput for another size.
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
