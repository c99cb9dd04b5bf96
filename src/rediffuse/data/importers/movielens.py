"""MovieLens as GroupLens publishes it: 100k (u.data), 1m and 10m (.dat, `::`), 20m, 25m, 32m, latest (csv).

A folder, a zip archive (read in place) or a bare name such as ml-1m, which is fetched from files.grouplens.org.
Ratings become `value`. Films without a rating stay in the catalog.
"""

import csv
import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from rediffuse.data.dataset import Dataset
from rediffuse.data.importers.archive import Members
from rediffuse.data.importers.download import Progress, fetch
from rediffuse.data.importers.lines import blocks, fields, refuse
from rediffuse.data.importers.times import EARLIEST_US, LATEST_US, SPAN
from rediffuse.data.rules import EventRules
from rediffuse.errors import InvalidInput, say, unknown

SITE = "https://files.grouplens.org/datasets/movielens/"
NAMES = ("ml-100k", "ml-1m", "ml-10m", "ml-20m", "ml-25m", "ml-32m", "ml-latest", "ml-latest-small")
"""What can be fetched by name."""

_CSV = "userId,movieId,rating,timestamp"
_RATINGS: Mapping[str, tuple[str, str]] = {"u.data": ("\t", ""), "ratings.dat": ("::", ""), "ratings.csv": (",", _CSV)}
"""File of ratings -> separator, header; which of them is there tells the generation."""

_COLUMNS = {"user": pl.UInt32(), "item": pl.UInt32(), "rating": pl.Float32(), "timestamp": pl.Int64()}
_NO_GENRE = "(no genres listed)"


def load(
    source: Path,
    *,
    name: str | None = None,
    rules: EventRules | None = None,
    progress: Progress = lambda _done, _total: None,
) -> Dataset:
    """Read ratings, films (title, year, genres) and, where they are shipped, users (age, gender, occupation, zip code).

    Args: rules: which ratings count; None: all.   progress: told of the bytes while a bare name is fetched.
    Raises: InvalidInput when the source is none of MovieLens, cannot be fetched, or a line is not what it should be.
    Limits: ratings are read in blocks, about 70 bytes a rating; what a data set takes comes on top.
    """
    place = source if source.exists() else _fetched(source, progress)
    files = Members.of(place)
    ratings = next((name for name in _RATINGS if name in files), None)
    if ratings is None:
        raise InvalidInput(say(f"{place.name!r} holds no ratings of MovieLens", allowed=", ".join(_RATINGS)))
    items = _READ_ITEMS[ratings](files)
    users = _users(files, *_USERS[ratings])
    facts: dict[str, Any] = {"format": "movielens", "source": place.name, "ratings": ratings}
    if items is not None:
        facts["films_listed"] = items.height
    return Dataset.from_events(
        name or (place.stem if place.is_file() else place.resolve().name),
        _events(files, ratings),
        order="time",
        items=items,
        users=users,
        facts=facts,
        rules=rules,
    )


def recognises(source: Path) -> bool:
    """Whether it looks like MovieLens: by the names of its files and the header of the csv."""
    if not source.exists():
        return str(source) in NAMES
    if source.is_file() and source.suffix.lower() != ".zip":
        return False
    files = Members.of(source)
    if "ratings.csv" in files:
        with files.open("ratings.csv") as file:
            return file.read(len(_CSV)) == _CSV.encode()
    return any(name in files for name in _RATINGS)


def _fetched(source: Path, progress: Progress) -> Path:
    name = str(source)
    if name not in NAMES:
        problem = (
            unknown("MovieLens data set", name, NAMES) if name.startswith("ml-") else f"There is no file {name!r}."
        )
        raise InvalidInput(f"{problem} Give a folder, a zip archive or one of: {', '.join(NAMES)}.")
    return fetch(f"{SITE}{name}.zip", progress=progress)


def _events(files: Members, ratings: str) -> pl.DataFrame:
    separator, header = _RATINGS[ratings]
    with files.open(ratings) as file:
        frame = fields(file, ratings, _COLUMNS, separator=separator, header=header)
    seconds = frame["timestamp"]
    bounds = (bound // 1_000_000 for bound in (EARLIEST_US, LATEST_US))
    outside = ~seconds.is_between(*bounds, closed="left")
    refuse(outside, ratings, f"holds no time {SPAN} in seconds", seconds, header=int(bool(header)))
    return frame.select(
        pl.col("user", "item").cast(pl.String),
        time_us=pl.col("timestamp") * 1_000_000,
        value=pl.col("rating").cast(pl.Float64),
    )


def _items_100k(files: Members) -> pl.DataFrame | None:
    """Number, title, release date, video date, address, then a flag for each line of u.genre."""
    if "u.item" not in files:
        return None
    genres = [name for _, (name, _) in _records(files, "u.genre", "|", ("genre", "number"))]
    columns = ("movie", "title", "released", "video", "address", *genres)
    rows = [
        (number, values[0], values[1], [genre for genre, flag in zip(genres, values[5:], strict=True) if flag == "1"])
        for number, values in _records(files, "u.item", "|", columns)
    ]
    return _films("u.item", rows)


def _items_listed(name: str, separator: str) -> Callable[[Members], pl.DataFrame | None]:
    """Number, title, genres separated by |."""

    def read(files: Members) -> pl.DataFrame | None:
        if name not in files:
            return None
        records = _records(files, name, separator, ("movieId", "title", "genres"))
        return _films(name, [(at, i, t, [] if g in ("", _NO_GENRE) else g.split("|")) for at, (i, t, g) in records])

    return read


_READ_ITEMS = {
    "u.data": _items_100k,
    "ratings.dat": _items_listed("movies.dat", "::"),
    "ratings.csv": _items_listed("movies.csv", ","),
}
_USERS: Mapping[str, tuple[str, str, tuple[str, ...]]] = {
    "u.data": ("u.user", "|", ("user", "age", "gender", "occupation", "zip_code")),
    "ratings.dat": ("users.dat", "::", ("user", "gender", "age", "occupation", "zip_code")),
    "ratings.csv": ("", "", ()),
}
"""File of ratings -> file of users, separator, columns. In 1m, age is the lower end of a bracket, occupation a code."""


def _films(name: str, rows: Sequence[tuple[int, str, str, list[str]]]) -> pl.DataFrame:
    """Line, number, title with the year in brackets at its end, genres -> item, title, year, genres."""
    schema = {"item": pl.String, "title": pl.String, "year": pl.Int64, "genres": pl.List(pl.String)}
    out: list[tuple[str, str, int | None, list[str]]] = []
    for line, number, title, genres in rows:
        found = re.fullmatch(r"(.*\S)\s*\(([0-9]{4})\)\s*", title)
        year = int(found[2]) if found else None
        out.append((_number(number, name, line), found[1] if found else title.strip(), year, genres))
    return pl.DataFrame(out, schema=schema, orient="row")


def _users(files: Members, name: str, separator: str, columns: tuple[str, ...]) -> pl.DataFrame | None:
    if name not in files:
        return None
    rows = [(_number(values[0], name, line), *values[1:]) for line, values in _records(files, name, separator, columns)]
    return pl.DataFrame(rows, schema=dict.fromkeys(columns, pl.String), orient="row").with_columns(
        pl.col("age").cast(pl.Int64, strict=False)
    )


def _records(files: Members, name: str, separator: str, columns: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    """Fields of a small file with the number of their line; csv has a header and quotes, the older files neither."""
    with files.open(name) as file:
        text = _decoded(b"".join(block.data for block in blocks(file, name)).rstrip(b"\r\n"), name)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    plain = enumerate((line.rstrip("\r").split(separator) for line in text.split("\n")), start=1)
    allowed = f"{len(columns)}: {', '.join(columns)}"
    try:
        for line, row in ((reader.line_num, row) for row in reader) if separator == "," else plain:
            if len(row) != len(columns):
                raise InvalidInput(say(f"Line {line} of {name!r} has {len(row)} fields", got=row, allowed=allowed))
            if separator != "," or line > 1:
                yield line, row
            elif row != [*columns]:
                raise InvalidInput(say(f"The first line of {name!r} is another", got=row, allowed=",".join(columns)))
    except csv.Error as error:
        raise InvalidInput(say(f"Line {reader.line_num} of {name!r} cannot be read", got=str(error))) from None


def _decoded(data: bytes, name: str) -> str:
    """UTF-8; the files of the 100k and 1m sets are published in Latin-1."""
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        if not name.endswith(".csv"):
            return data.decode("latin-1")
        line = data.count(b"\n", 0, error.start) + 1
        raise InvalidInput(say(f"Line {line} of {name!r} is not UTF-8 text", remedy="Save it as UTF-8")) from None


def _number(text: str, name: str, line: int) -> str:
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise InvalidInput(say(f"Line {line} of {name!r} holds no id", got=text, allowed="whole numbers from 0"))
    return str(int(text))
