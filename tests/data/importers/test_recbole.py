"""Atomic files: typed columns in, the same out again, and what the format cannot carry."""

import math
import re
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rediffuse.data.dataset import Dataset
from rediffuse.data.importers.recbole import load, recognises, write_recbole
from rediffuse.data.interactions import Order
from rediffuse.data.splits import AsShipped, UserOrder
from rediffuse.errors import InvalidInput

INTER = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n" + "".join(
    f"{user}\t{item}\t{rating}\t{time}\n"
    for user, item, rating, time in [
        *(("u1", f"i{n}", n % 5 + 1, 1_600_000_000 - n) for n in range(8)),
        *(("007", f"i{n}", 2.5, f"{1_600_000_000 + n}.5") for n in range(7)),
        *(("None", f"i{n}", "", 1_600_000_100 + n) for n in range(5)),
    ]
)
ITEM = (
    "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\tprice:float\tvector:float_seq\n"
    'i1\tThe "Great" Escape\t1963\tDrama War\t1.50\t0.5 -1e3\n'
    "i0\tÉtoiles\t\t\t\t\n"
    "new\t\t2001\tDrama\t3\t1\n"
)
USER = "user_id:token\tage:float\tname:token\nu1\t24\ta b\n"


def refused(message: str) -> Any:
    return pytest.raises(InvalidInput, match=re.escape(message))


def folder(place: Path, inter: str = INTER, **more: str) -> Path:
    place.mkdir(parents=True, exist_ok=True)
    for end, content in {"inter": inter, "item": ITEM, "user": USER, **more}.items():
        (place / f"shop.{end}").write_text(content)
    return place


def test_types_say_how_columns_are_read(tmp_path: Path) -> None:
    data = load(folder(tmp_path, net="source:token\ttarget:token\n"))
    assert (data.name, data.events.order, len(data.events)) == ("shop", "time", 20)
    assert data.users.items.ids == ("007", "None", "u1")
    assert data.catalog.items.ids == (*(f"i{n}" for n in range(8)), "new")
    first = data.events.frame.row(0, named=True)
    assert (first["time_us"], first["value"]) == (1_600_000_000_500_000, 2.5)
    assert data.events.frame.row(7, named=True)["value"] is None
    assert data.catalog.attributes.select(pl.all().gather([0, 1, 8])).rows() == [
        ("Étoiles", None, None, None, None),
        ('The "Great" Escape', "1963", ["Drama", "War"], 1.5, [0.5, -1000.0]),
        (None, "2001", ["Drama"], 3.0, [1.0]),
    ]
    assert data.catalog.attributes.columns == ["title", "release_year", "class", "price", "vector"]
    assert data.users.attributes.rows() == [(None, None), (None, None), (24.0, "a b")]
    assert data.facts["ignored"] == ["shop.net"]
    assert (data.facts["items"], data.facts["users"], data.facts["rows"]) == ("shop.item", "shop.user", 20)


def test_the_file_may_be_named_and_rows_may_move(tmp_path: Path) -> None:
    data = load(folder(tmp_path / "a") / "shop.inter", name="x")
    assert data.name == "x"
    header, *rows = INTER.splitlines(keepends=True)
    assert load(folder(tmp_path / "b", "\ufeff" + "".join([header, *rows[::-1]]))).digest() == data.digest()
    crlf = folder(tmp_path / "c")
    (crlf / "shop.inter").write_bytes(INTER.replace("\n", "\r\n").encode())
    assert load(crlf).digest() == data.digest()


def test_columns_order_and_unit_may_be_said(tmp_path: Path) -> None:
    inter = "who:token\twhat:token\tstamp:float\nb\ty\t1600000000001\na\tz\t1600000000000\nb\tx\t1600000000000\n"
    (tmp_path / "shop.inter").write_text(inter)
    names = {"user": "who", "item": "what", "time": "stamp"}
    with refused("Pass --time-unit ms"):
        load(tmp_path, columns=names)
    data = load(tmp_path, columns=names, time_unit="ms")
    assert data.events.frame["time_us"].to_list()[1:] == [1_600_000_000_000_000, 1_600_000_000_001_000]
    data = load(tmp_path, columns={**names, "time": ""}, order="sequence")
    assert data.history().to_lists() == [[2], [1, 0]]
    with refused("Unknown order"):
        load(tmp_path, order="x")  # type: ignore[arg-type]


def test_an_export_reads_back_to_the_same(tmp_path: Path) -> None:
    data = load(folder(tmp_path / "a"))
    write_recbole(data, tmp_path / "out")
    again = load(tmp_path / "out")
    assert again.digest() == data.digest()
    assert again.name == data.name
    assert again.catalog.attributes.equals(data.catalog.attributes)
    assert again.users.attributes.equals(data.users.attributes)
    with refused("exists already"):
        write_recbole(data, tmp_path / "out")


@pytest.mark.parametrize("order", ["time", "sequence", "none"])
def test_every_column_and_the_parts_survive(tmp_path: Path, order: Order) -> None:
    frame = pl.DataFrame(
        {
            "user": ["b", "a b", "b", "b", '"'],
            "item": ["x", "#", "y", "z", "x"],
            "time_us": [5 * 10**14, 6 * 10**14 + 1, 7 * 10**14 + 999_999, 8 * 10**14, 4 * 10**15],
            "kind": ["view", None, "buy", "view", "view"],
            "value": [0.1, None, 1e300, -2.0, 3.0],
            "group": [None, "g 1", "g", None, None],
            "event_id": [*"12345"],
        }
    )
    data = Dataset.from_events("a/b", frame if order == "time" else frame.drop("time_us"), order=order)
    write_recbole(data, tmp_path / "whole")
    again = load(tmp_path / "whole", order=order)
    assert again.name == "a-b"
    assert again.digest() == data.digest()
    if order != "none":
        parted = data.with_split(UserOrder(valid=0.34, test=0.34))
        write_recbole(parted, tmp_path / "parted")
        again = load(tmp_path / "parted", order=order)
        assert again.digest() == parted.digest()
        assert again.split is not None
        assert again.split.recipe == AsShipped()


@given(
    st.lists(st.tuples(st.floats(allow_nan=False, allow_infinity=False), st.integers(10**14, 4 * 10**15)), min_size=1)
)
def test_values_and_times_survive_to_the_last_digit(rows: list[tuple[float, int]]) -> None:
    import tempfile

    values, times = zip(*rows, strict=True)
    frame = pl.DataFrame({"user": "u", "item": [str(n) for n in range(len(rows))], "value": values, "time_us": times})
    data = Dataset.from_events("d", frame)
    with tempfile.TemporaryDirectory() as place:
        write_recbole(data, Path(place) / "out")
        assert load(Path(place) / "out").events.frame.equals(data.events.frame)


def test_what_the_format_cannot_carry_is_refused(tmp_path: Path) -> None:
    frame = pl.DataFrame({"user": ["u"], "item": ["i"]})

    def write(items: dict[str, Any], events: pl.DataFrame = frame) -> None:
        write_recbole(Dataset.from_events("d", events, items=pl.DataFrame({"item": ["i"], **items})), tmp_path / "out")

    with refused("Line 2 of 'd.inter' cannot hold a tab or line break in user_id:token. Got 'a\\tb'."):
        write({}, pl.DataFrame({"user": ["a\tb"], "item": ["i"]}))
    with refused("A list in 'genres' holds text with a space in it"):
        write({"genres": [["a b"]]})
    with refused("RecBole has no type for 'where'"):
        write({"where": [{"x": 1}]})
    with refused("A column of atomic files cannot be called so. Got 'a:b:token'."):
        write({"a:b": ["x"]})
    assert not list(tmp_path.iterdir())
    write({"new": [True], "since": [date(2020, 1, 2)], "weight": [math.nan], "none": [None]})
    assert load(tmp_path / "out").catalog.attributes.rows() == [("true", "2020-01-02", None, None)]


@pytest.mark.parametrize(
    ("end", "old", "new", "message"),
    [
        ("inter", "user_id:token", "user_id", "The first line of 'shop.inter' is no typed header. Got 'user_id'."),
        ("inter", "item_id:token", "user_id:token", "Column 'user_id:token' stands twice in 'shop.inter'."),
        ("inter", "i2\t3\t", "i2\t", "Line 4 of 'shop.inter' has 3 fields. Got 'u1\\ti2\\t1599999998'."),
        ("inter", "i2\t3\t", "i2\tx\t", "Line 4 of 'shop.inter' holds no number in rating:float. Got 'x'."),
        ("inter", "i2\t3\t", "i2\tinf\t", "Line 4 of 'shop.inter' holds no number in rating:float. Got 'inf'."),
        ("inter", "i2\t3\t", "\t3\t", "Line 4 of 'shop.inter' has no item_id:token."),
        ("inter", "1599999998", "soon", "Line 4 of 'shop.inter' holds no number in timestamp:float. Got 'soon'."),
        ("inter", "i2\t3\t", "i\x002\t3\t", "Line 4 of 'shop.inter' holds a NUL byte"),
        ("item", "1.50", "1,50", "Line 2 of 'shop.item' holds no number in price:float. Got '1,50'."),
        ("item", "-1e3", "x", "Line 2 of 'shop.item' holds no numbers in vector:float_seq. Got '0.5 x'."),
        ("item", "i0\t", "i1\t", "Line 3 of 'shop.item' holds an id that stands on an earlier line. Got 'i1'."),
        ("user", "user_id", "person", "No column is called like a user id"),
    ],
)
def test_wrong_lines_are_named(tmp_path: Path, end: str, old: str, new: str, message: str) -> None:
    path = folder(tmp_path) / f"shop.{end}"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    with refused(message):
        load(tmp_path)


def test_text_that_is_not_utf8_and_missing_files_are_refused(tmp_path: Path) -> None:
    (folder(tmp_path / "a") / "shop.item").write_bytes(ITEM.encode("latin-1"))
    with refused("Line 3 of 'shop.item' is not UTF-8 text"):
        load(tmp_path / "a")
    (tmp_path / "a" / "more.inter").touch()
    with refused("holds several files NAME.inter. Got 'more.inter, shop.inter'. Name the file itself."):
        load(tmp_path / "a")
    (tmp_path / "b").mkdir()
    with refused("holds no file NAME.inter"):
        load(tmp_path / "b")
    with refused("There is no file or folder"):
        load(tmp_path / "none.inter")


def test_only_typed_headers_are_recognised(tmp_path: Path) -> None:
    assert recognises(folder(tmp_path / "a"))
    assert recognises(tmp_path / "a" / "shop.inter")
    assert not recognises(folder(tmp_path / "b", "user\titem\n1\t2\n"))
    assert not recognises(tmp_path / "a" / "shop.item")


@pytest.mark.realdata
def test_movielens(real: Path, tmp_path: Path) -> None:
    data = load(real / "ml-100k")
    assert (len(data.users), len(data.catalog), len(data.events)) == (943, 1682, 100_000)
    assert int((data.events.frame["value"] >= 4).sum()) == 55_375
    assert data.events.frame["time_us"].min() == 874_724_710_000_000
    assert data.events.frame["time_us"].max() == 893_286_638_000_000
    assert data.catalog.titles()[0] == "Toy Story"
    assert data.catalog.attributes["class"].to_list()[0] == ["Animation", "Children's", "Comedy"]
    write_recbole(data, tmp_path / "out")
    assert load(tmp_path / "out").digest() == data.digest()
