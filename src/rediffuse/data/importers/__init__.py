"""Foreign files -> a dataset, one source a file."""

from collections.abc import Callable, Mapping
from pathlib import Path

from rediffuse.data.dataset import Dataset
from rediffuse.data.importers import atelier, diffrec, table
from rediffuse.data.importers.reading import FORMATS
from rediffuse.errors import InvalidInput, say

IMPORTERS: Mapping[str, Callable[..., Dataset]] = {
    "table": table.load,
    "diffrec": diffrec.load,
    "atelier": atelier.load,
}
"""Name of a format -> what reads it; the first argument is the source."""


def detect(source: Path) -> str:
    """The format of a source. Raises: InvalidInput when it is none that is known."""
    if source.is_file():
        return "table"
    if (source / "train_list.npy").is_file():
        return "diffrec"
    problem = "holds no train_list.npy" if source.is_dir() else "is not there"
    allowed = f"a file (table: {FORMATS}) or a folder with train_list.npy (diffrec)"
    raise InvalidInput(say(f"{str(source)!r} {problem}", allowed=allowed))
