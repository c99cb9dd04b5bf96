"""Foreign files -> a dataset, one source a file."""

from collections.abc import Callable, Mapping
from pathlib import Path

from rediffuse.data.dataset import Dataset
from rediffuse.data.importers import atelier, diffrec, lightgcn, movielens, recbole, s3rec, table
from rediffuse.data.importers.reading import FORMATS
from rediffuse.errors import InvalidInput, say

IMPORTERS: Mapping[str, Callable[..., Dataset]] = {
    "table": table.load,
    "diffrec": diffrec.load,
    "movielens": movielens.load,
    "recbole": recbole.load,
    "lightgcn": lightgcn.load,
    "s3rec": s3rec.load,
    "atelier": atelier.load,
}
"""Name of a format -> what reads it; the first argument is the source."""

_RECOGNISES: Mapping[str, Callable[[Path], bool]] = {
    "diffrec": lambda source: (source / "train_list.npy").is_file(),
    "movielens": movielens.recognises,
    "recbole": recbole.recognises,
    "lightgcn": lightgcn.recognises,
    "s3rec": s3rec.recognises,
}
"""Name of a format -> whether a source looks like it: by the names of its files and the beginning of their content."""

_FOLDERS = (
    "train_list.npy (diffrec); u.data, ratings.dat or ratings.csv (movielens); NAME.inter (recbole); "
    "train.txt and test.txt (lightgcn); NAME.txt of ids (s3rec)"
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


def _seen(source: Path) -> str | None:
    """The first names in a folder, for a message."""
    if not source.is_dir():
        return None
    names = [path.name for path in sorted(source.iterdir())]
    return ", ".join(names[:_SHOWN]) + (", .." if len(names) > _SHOWN else "") if names else "nothing"
