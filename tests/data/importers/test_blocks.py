"""A file is read some rows at a time: what it holds, and what is refused of it, does not depend on where it is cut."""

import gzip
import json
import random
import re
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rediffuse.data.importers import blocks, reading
from rediffuse.data.importers.blocks import blocks as read_blocks
from rediffuse.data.importers.table import load
from rediffuse.errors import InvalidInput

Row = tuple[str, str, int, str]
ROWS: list[Row] = [
    (f"u{n % 7}", f"i,{n % 5}", 1_700_000_000 + n // 2, ("plain", "two\nlines", "")[n % 3]) for n in range(60)
]
SIZES = [16, 61, 300, 1 << 24]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Any:
    def cut(size: int) -> None:
        monkeypatch.setattr(blocks, "BLOCK", size)
        monkeypatch.setattr(reading, "ROWS", max(size // 16, 1))

    return cut


def refused(message: str) -> Any:
    return pytest.raises(InvalidInput, match=re.escape(message))


def csv_of(rows: list[Row]) -> str:
    return "user,item,ts,note\n" + "".join(f'{u},"{i}",{t},"{note}"\n' for u, i, t, note in rows)


def tsv_of(rows: list[Row]) -> str:
    return "user\titem\tts\n" + "".join(f"{u}\t{i}\t{t}\n" for u, i, t, _ in rows)


def jsonl_of(rows: list[Row]) -> str:
    return "".join(json.dumps({"user": u, "item": i, "ts": t, "note": note}) + "\n" for u, i, t, note in rows)


@pytest.mark.parametrize("size", [5, 7, 1 << 24])
@pytest.mark.parametrize("packed", [False, True])
def test_blocks_hold_every_row_once(tmp_path: Path, small: Any, size: int, packed: bool) -> None:
    text = "\ufeffa,b\r\n\r\n1,é\r\n\n3,4\n\n\n"
    path = tmp_path / "e.csv"
    path.write_bytes(gzip.compress(text.encode(), mtime=0) if packed else text.encode())
    small(size)
    assert b"\n".join(read_blocks(path, quoted=False)).replace(b"\r", b"").decode() == "a,b\n\n1,é\n\n3,4"


@settings(max_examples=60)
@given(size=st.integers(1, 40), lines=st.lists(st.text("ab,\n", max_size=9), min_size=1, max_size=8))
def test_quoted_line_breaks_stay_inside_a_block(
    tmp_path_factory: pytest.TempPathFactory, size: int, lines: list[str]
) -> None:
    path = tmp_path_factory.mktemp("q") / "e.csv"
    text = "\n".join(f'x,"{line}"' for line in lines)
    path.write_text(text)
    before, blocks.BLOCK = blocks.BLOCK, size
    try:
        found = list(read_blocks(path, quoted=True))
    finally:
        blocks.BLOCK = before
    assert b"\n".join(found).decode() == text
    assert all(part.count(b'"') % 2 == 0 for part in found)


def test_an_endless_row_is_refused(tmp_path: Path, small: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "LONGEST", 1 << 20)
    path = tmp_path / "e.csv"
    path.write_text('user,item\n1,"a\n' + "2,b\n" * 600_000)
    small(1 << 16)
    with refused("A row of 'e.csv' is longer than 1 MiB. Check its quotes."):
        load(path)
    path.write_bytes(b"\xff" * (3 << 20))
    with refused("'e.csv' is not UTF-8 text (byte 0)."):
        load(path)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("form", ["csv", "csv.gz", "tsv", "jsonl", "jsonl.gz", "parquet"])
def test_any_order_form_and_cut_give_the_same_content(tmp_path: Path, small: Any, size: int, form: str) -> None:
    path = tmp_path / "e.csv"
    path.write_text(csv_of(ROWS))
    wanted = load(path)
    rows = [*ROWS, *ROWS[3:9]]
    random.Random(size).shuffle(rows)
    path = tmp_path / f"e.{form}"
    if form == "parquet":
        pl.DataFrame(rows, schema=["user", "item", "ts", "note"], orient="row").write_parquet(path, row_group_size=7)
    else:
        text = {"jsonl": jsonl_of, "csv": csv_of, "tsv": tsv_of}[form.removesuffix(".gz")](rows)
        path.write_bytes(gzip.compress(text.encode(), mtime=0) if form.endswith("gz") else text.encode())
    small(size)
    data = load(path)
    assert data.digest() == wanted.digest()
    assert data.events.frame.equals(wanted.events.frame)
    assert data.facts["duplicates"] == 6
    assert data.facts["rows"] == 66


GOOD = "user,item,ts,price\n" + "1,a,1700000000,1\n" * 40


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("last", "message"),
    [
        (",a,1700000000,1", "Column 'user' has no id in row 41. Give every row an id"),
        ("1,NULL,1700000000,1", "Column 'item' has no id in row 41. Got 'NULL'."),
        ('1,"x\ny",1700000000,1', "Column 'item' has an id with a line break or tab in it in row 41."),
        ("\n1,a,1700000000,1", "Column 'user' has no id in row 41."),
        ("1,a,,1", "Column 'ts' is empty in row 41."),
        ("1,a,yesterday,1", "Column 'ts' holds 'yesterday' in row 41; numbers were expected, as in row 1."),
        (
            "1,a,1700000000000,1",
            "in row 41, which reads as milliseconds; seconds were expected. Bring the column to one",
        ),
        ("1,a,1700000000,1 USD", "Column 'price' holds no number in row 41. Got '1 USD'."),
        ("1,a,1700000000,1,2", "A row of 'e.csv' has more fields than its first line."),
        ('1,"a', "'e.csv' cannot be read as fields separated by ','. Check its quotes."),
        ("1,a\0,1700000000,1", "'e.csv' is no text."),
        ("1,a\udcff,1700000000,1", "'e.csv' is not UTF-8 text (byte 702)."),
    ],
)
def test_a_wrong_row_is_named_wherever_it_stands(
    tmp_path: Path, small: Any, size: int, last: str, message: str
) -> None:
    path = tmp_path / "e.csv"
    path.write_bytes((GOOD + last + "\n").encode(errors="surrogateescape"))
    small(size)
    with refused(message):
        load(path)


@pytest.mark.parametrize("size", SIZES)
def test_dates_after_dates_and_text_after_dates(tmp_path: Path, small: Any, size: int) -> None:
    path = tmp_path / "e.csv"
    lines = ["2024-01-31 10:00:00"] * 20 + ["2024-01-31", "2024-01-31T12:00+02:00"]
    path.write_text("user,item,ts\n" + "".join(f"1,{n},{text}\n" for n, text in enumerate(lines)))
    small(size)
    assert load(path).events.frame["time_us"].unique().sort().diff().to_list() == [None, 36_000_000_000]
    path.write_text(path.read_text() + "1,a,1700000000\n")
    with refused("Column 'ts' holds '1700000000' in row 23; this is no time."):
        load(path)


@pytest.mark.parametrize("size", SIZES)
def test_lines_of_jsonl_are_counted_across_blocks(tmp_path: Path, small: Any, size: int) -> None:
    path = tmp_path / "e.jsonl"
    path.write_text('{"user": 1, "item": 2}\n\n' * 20 + '{"user": 1')
    small(size)
    with refused("Line 41 of 'e.jsonl' is not a JSON object."):
        load(path)
    path.write_text('{"user": 1, "item": 12}\n' * 20 + '{"user": 2, "item": 13.0, "price": 1}\n')
    data = load(path)
    assert data.catalog.items.ids == ("12", "13")
    assert data.events.frame["value"].to_list() == [None, 1.0]
    path.write_text('{"user": 1, "item": 12}\n' * 20 + '{"user": 2, "item": "007"}\n')
    assert load(path).catalog.items.ids == ("007", "12")
    path.write_text('{"user": 1, "item": 12}\n' * 20 + '{"user": 2, "item": [1]}\n')
    with refused("A column of 'e.jsonl' changes its type from line to line."):
        load(path)


@pytest.mark.parametrize("size", SIZES)
def test_quotes_of_a_tab_separated_file_are_read_alike_in_all_blocks(tmp_path: Path, small: Any, size: int) -> None:
    path = tmp_path / "e.tsv"
    small(size)
    path.write_text('user\titem\ttitle\n"1"\ta\tx\n' + '2\tb\t"open\n' * 30 + "3\tc\tlast\n")
    assert load(path).users.items.ids == ('"1"', "2", "3")
    path.write_text('user\titem\ttitle\n"1"\ta\tx\n' + '2\tb\t"tab\there"\n' * 30)
    assert load(path).users.items.ids == ("1", "2")


def test_a_cut_off_gzip_is_refused_in_a_later_block(tmp_path: Path, small: Any) -> None:
    path = tmp_path / "e.csv.gz"
    noise = "".join(f"{random.Random(n).random()},a\n" for n in range(2000))
    path.write_bytes(gzip.compress(("user,item\n" + noise).encode(), mtime=0)[:-20])
    small(256)
    with refused("'e.csv.gz' is cut off or no gzip file. Fetch it again."):
        load(path)


def test_a_parquet_column_of_bad_values_is_refused_in_a_later_batch(tmp_path: Path, small: Any) -> None:
    path = tmp_path / "e.parquet"
    good = pl.DataFrame({"user": ["a"] * 99, "item": [1.0] * 99})
    small(64)
    for last, message in (
        ({"user": None, "item": 1.0}, "Column 'user' has no id in row 100."),
        ({"user": "a", "item": 1.5}, "Column 'item' holds no whole number in row 100. Got 1.5."),
    ):
        pl.concat([good, pl.DataFrame([last], good.schema)]).write_parquet(path, row_group_size=10)
        with refused(message):
            load(path)
