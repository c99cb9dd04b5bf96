"""The three generations of MovieLens, written by hand: the same ratings give the same events."""

import hashlib
import http.server
import re
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from rediffuse.data.dataset import Dataset
from rediffuse.data.importers import lines, movielens
from rediffuse.data.importers.movielens import load, recognises
from rediffuse.errors import InvalidInput

RATINGS = [  # 20 ratings of 4 users and 6 films, in no order
    (1, 1, 5, 974300000),
    (1, 10, 3, 974300100),
    (1, 3, 4, 974300050),
    (1, 100, 2, 974300050),
    (1, 4, 1, 974300300),
    (2, 1, 4, 974299000),
    (2, 3, 4, 974299000),
    (2, 10, 5, 974299500),
    (2, 5, 3, 974299400),
    (12, 100, 1, 974400000),
    (12, 1, 2, 974400001),
    (12, 3, 3, 974400002),
    (12, 4, 4, 974400003),
    (12, 10, 5, 974400004),
    (12, 5, 5, 974400005),
    (3, 5, 4, 974500000),
    (3, 4, 4, 974400000),
    (3, 3, 4, 974300000),
    (3, 1, 4, 974200000),
    (3, 10, 3, 974100000),
]
FILMS = [  # the last has no rating
    (1, "Toy Story (1995)", "Animation|Comedy"),
    (3, "Misérables, Les (1995)", "Drama"),
    (4, "Summer 2006-2007", ""),
    (5, 'The "Great" Escape (1963)', "Drama|War"),
    (10, "GoldenEye  (1995) ", "Action"),
    (100, "Se7en (1995)", "Crime"),
    (7, "Unseen (2001)", "Crime|Drama"),
]
TITLES = ["Toy Story", "GoldenEye", "Se7en", "Misérables, Les", "Summer 2006-2007", 'The "Great" Escape', "Unseen"]
YEARS = [1995, 1995, 1995, 1995, None, 1963, 2001]
GENRES = ["Action", "Animation", "Comedy", "Crime", "Drama", "War"]


def refused(message: str) -> Any:
    return pytest.raises(InvalidInput, match=re.escape(message))


def text(rows: Any, mark: str, end: str = "\n") -> str:
    return "".join(mark.join(map(str, row)) + end for row in rows)


def files_100k() -> dict[str, bytes]:
    films = [
        (number, title, "01-Jan-1995", "", "http://x", *(int(genre in listed.split("|")) for genre in GENRES))
        for number, title, listed in FILMS
    ]
    return {
        "u.data": text(RATINGS, "\t").encode(),
        "u.item": text(films, "|").encode("latin-1"),
        "u.genre": (text(((genre, n) for n, genre in enumerate(GENRES)), "|") + "\n").encode(),
        "u.user": b"1|24|M|technician|85711\n2|53|F|other|94043\n3|23|M|writer|32067\n12|28|F|other|06405\n",
    }


def files_1m() -> dict[str, bytes]:
    users = [(1, "F", 1, 10, "48067"), (2, "M", 56, 16, "70072"), (3, "M", 25, 15, "55117"), (12, "M", 25, 12, "0")]
    return {
        "ratings.dat": text(RATINGS, "::").encode(),
        "movies.dat": text(FILMS, "::").encode("latin-1"),
        "users.dat": text(users, "::").encode(),
    }


def files_csv() -> dict[str, bytes]:
    films = [(n, '"' + t.replace('"', '""') + '"', g or "(no genres listed)") for n, t, g in FILMS]
    return {
        "ratings.csv": ("userId,movieId,rating,timestamp\r\n" + text(RATINGS, ",", "\r\n")).encode(),
        "movies.csv": ("movieId,title,genres\r\n" + text(films, ",", "\r\n")).encode(),
        "tags.csv": b"userId,movieId,tag,timestamp\n",
    }


GENERATIONS = {"100k": files_100k, "1m": files_1m, "csv": files_csv}


def folder(place: Path, files: dict[str, bytes]) -> Path:
    place.mkdir()
    for name, data in files.items():
        (place / name).write_bytes(data)
    return place


def archive(place: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(place, "w", zipfile.ZIP_DEFLATED) as made:
        for name, data in files.items():
            made.writestr(f"inner/{name}", data)
    return place


def check(data: Dataset) -> None:
    assert (len(data.users), len(data.catalog), len(data.events)) == (4, 7, 20)
    assert data.users.items.ids == ("1", "12", "2", "3")
    assert data.catalog.items.ids == ("1", "10", "100", "3", "4", "5", "7")
    assert data.events.order == "time"
    histories = [data.catalog.items.decode(row) for row in data.history().to_lists()]
    assert histories == [
        ["1", "100", "3", "10", "4"],
        ["100", "1", "3", "4", "10", "5"],
        ["1", "3", "5", "10"],
        ["10", "1", "3", "4", "5"],
    ]
    first = data.events.frame.row(0, named=True)
    assert (first["time_us"], first["value"]) == (974_300_000_000_000, 5.0)
    films = data.catalog.attributes
    assert films["title"].to_list() == TITLES
    assert films["year"].to_list() == YEARS
    assert films["genres"].to_list()[:5] == [["Animation", "Comedy"], ["Action"], ["Crime"], ["Drama"], []]


@pytest.mark.parametrize("name", GENERATIONS)
def test_every_generation_gives_the_same_from_folder_and_archive(name: str, tmp_path: Path) -> None:
    files = GENERATIONS[name]()
    for source in (folder(tmp_path / "ml-x", files), archive(tmp_path / "ml-x.zip", files)):
        assert recognises(source)
        data = load(source)
        assert data.name == "ml-x"
        assert load(source, name="y").name == "y"
        check(data)
        assert data.facts["films_listed"] == 7
        if name == "csv":
            assert not data.users.attributes.width
        else:
            assert data.users.attributes["age"].to_list() == ([24, 28, 53, 23] if name == "100k" else [1, 25, 56, 25])
            assert data.users.attributes["zip_code"].to_list()[1] == ("06405" if name == "100k" else "0")


def test_rows_in_any_order_and_blocks_of_any_size_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = load(folder(tmp_path / "a", files_1m())).digest()
    turned = {**files_1m(), "ratings.dat": text(RATINGS[::-1], "::").encode()}
    monkeypatch.setattr(lines, "_BLOCK", 50)
    assert load(folder(tmp_path / "b", turned)).digest() == digest


def test_ratings_alone_are_enough(tmp_path: Path) -> None:
    data = load(folder(tmp_path / "a", {"ratings.csv": b"userId,movieId,rating,timestamp\n1,2,3.5,974300000\n"}))
    assert data.events.frame["value"].to_list() == [3.5]
    assert data.catalog.titles() == ["2"]


@pytest.mark.parametrize(
    ("generation", "name", "old", "new", "message"),
    [
        ("100k", "u.data", b"\t10\t3\t", b"\t10\t", "Line 2 of 'u.data' has 3 fields. Got '1\\t10\\t974300100'."),
        ("100k", "u.data", b"\t10\t3\t", b"\tten\t3\t", "Line 2 of 'u.data' holds no item. Got 'ten'."),
        ("1m", "ratings.dat", b"1::3::4::", b"1::3::four::", "Line 3 of 'ratings.dat' holds no rating. Got 'four'."),
        ("1m", "ratings.dat", b"::974300050", b"::974300050000", "Line 3 of 'ratings.dat' holds no time from 1971"),
        (
            "csv",
            "ratings.csv",
            b"974300050",
            b"974300050000",
            "Line 4 of 'ratings.csv' holds no time from 1971 to 2100",
        ),
        ("csv", "ratings.csv", b"userId", b"user", "The first line of 'ratings.csv' is another. Got 'user,movieId"),
        ("csv", "movies.csv", b",Drama\r", b",Drama,x\r", "Line 3 of 'movies.csv' has 4 fields."),
        ("csv", "movies.csv", b"100,", b"x1,", "Line 7 of 'movies.csv' holds no id. Got 'x1'."),
        ("csv", "movies.csv", "é".encode(), b"\xe9", "Line 3 of 'movies.csv' is not UTF-8 text"),
        ("csv", "movies.csv", b'(2001)"', b'(2001)"x', "Line 8 of 'movies.csv' cannot be read."),
        ("csv", "movies.csv", b'"Unseen', b'x,"Unseen', "Line 8 of 'movies.csv' has 4 fields"),
        ("csv", "movies.csv", b'(2001)"', b"(2001)", "Line 8 of 'movies.csv' cannot be read. Got 'unexpected end"),
        ("csv", "movies.csv", b"movieId", b"id", "The first line of 'movies.csv' is another."),
        ("1m", "movies.dat", b"::Drama\n", b"\n", "Line 2 of 'movies.dat' has 2 fields."),
        ("1m", "users.dat", b"2::M", b"two::M", "Line 2 of 'users.dat' holds no id. Got 'two'."),
        ("100k", "u.item", b"|0|0|0|0|1|0\n", b"|1|0\n", "Line 2 of 'u.item' has 7 fields."),
        ("1m", "movies.dat", b"100::", b"10::", "An id stands twice in the item table. Got '10'."),
    ],
)
def test_wrong_lines_are_named(
    tmp_path: Path, generation: str, name: str, old: bytes, new: bytes, message: str
) -> None:
    files = GENERATIONS[generation]()
    assert old in files[name]
    files[name] = files[name].replace(old, new, 1)
    with refused(message):
        load(archive(tmp_path / "a.zip", files))


def test_what_is_none_of_movielens_is_refused(tmp_path: Path) -> None:
    with refused("'d' holds no ratings of MovieLens. Allowed: u.data, ratings.dat, ratings.csv."):
        load(folder(tmp_path / "d", {"x": b""}))
    with refused("Unknown MovieLens data set 'ml-33m'. Nearest known MovieLens data set: 'ml-32m'."):
        load(Path("ml-33m"))
    with refused("There is no file 'none.zip'. Give a folder, a zip archive or one of: ml-100k"):
        load(Path("none.zip"))
    assert not recognises(Path("none.zip"))
    assert not recognises(tmp_path / "d")
    assert not recognises(folder(tmp_path / "e", {"ratings.csv": b"user,movie\n"}))
    (tmp_path / "cut.zip").write_bytes(b"PK\x03\x04")
    with refused("'cut.zip' is cut off or no zip archive"):
        load(tmp_path / "cut.zip")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that a server of this machine publishes as the site; the cache is beside it."""
    place = tmp_path / "site"
    place.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(place)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setattr(movielens, "SITE", f"http://127.0.0.1:{server.server_port}/")
    monkeypatch.setenv("REDIFFUSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "*")
    yield place
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_bare_name_is_fetched_and_then_read_from_the_cache(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    packed = archive(site / "ml-1m.zip", files_1m())
    (site / "ml-1m.zip.md5").write_text(hashlib.md5(packed.read_bytes()).hexdigest())
    assert recognises(Path("ml-1m"))
    done: list[int] = []
    data = load(Path("ml-1m"), progress=lambda so_far, _: done.append(so_far))
    check(data)
    assert data.name == "ml-1m"
    assert done[-1] == packed.stat().st_size
    packed.unlink()
    assert load(Path("ml-1m")).digest() == data.digest()


def test_a_folder_of_that_name_is_read_instead(site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder(tmp_path / "ml-100k", files_100k())
    check(load(Path("ml-100k")))
    with refused("ml-20m.zip.md5 answered 404"):
        load(Path("ml-20m"))
