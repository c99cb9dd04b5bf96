"""Text in blocks: lines keep their numbers wherever a block ends, and every fault names file, line and value."""

import io
import re
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rediffuse.data.importers import lines
from rediffuse.data.importers.lines import blocks, fields, id_rows, refuse
from rediffuse.errors import InvalidInput

PAIRS = {"user": pl.UInt32(), "item": pl.UInt32()}
RATED = {**PAIRS, "rating": pl.Float32(), "time": pl.Int64()}


def refused(message: str) -> Any:
    return pytest.raises(InvalidInput, match=re.escape(message))


def read(data: bytes, columns: dict[str, Any] = PAIRS, **more: str) -> list[Any]:
    return fields(io.BytesIO(data), "f", columns, **more).rows()


@given(st.lists(st.sampled_from([b"", b"a", b"bc\r", b"12345678"]), max_size=20), st.integers(1, 9), st.booleans())
def test_blocks_are_the_file_in_whole_lines(rows: list[bytes], size: int, end: bool) -> None:
    data = b"\n".join(rows) + b"\n" * end
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "_BLOCK", size)
        found = list(blocks(io.BytesIO(data), "f"))
    whole = data.rstrip(b"\r\n")
    assert b"".join(block.data for block in found).rstrip(b"\r\n") == whole
    assert all(block.data.endswith(b"\n") for block in found[:-1])
    assert [b.first for b in found] == [
        1 + sum(b.data.count(b"\n") for b in found[:place]) for place in range(len(found))
    ]


def test_fields_are_the_same_whatever_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    data = b"".join(b"%d::%d::%d.5::%d\r\n" % (n, n * 7, n % 5, n * 1000) for n in range(200)) + b"\r\n\n"
    whole = fields(io.BytesIO(data), "f", RATED, separator="::")
    assert whole.rows()[2] == (2, 14, 2.5, 2000)
    assert whole.height == 200
    monkeypatch.setattr(lines, "_BLOCK", 37)
    assert fields(io.BytesIO(data), "f", RATED, separator="::").equals(whole)
    with refused("Line 151 of 'f' holds no item. Got 'x'. Allowed: whole numbers from 0."):
        fields(io.BytesIO(data.replace(b"150::1050", b"150::x")), "f", RATED, separator="::")


def test_a_byte_order_mark_a_header_and_line_ends_make_no_difference() -> None:
    rows = [(1, 2), (3, 4)]
    assert read(b"1,2\n3,4", separator=",") == rows
    assert read(b"\xef\xbb\xbfu,i\r\n1,2\r\n3,4\r\n\r\n", separator=",", header="u,i") == rows
    with refused("The first line of 'f' is another. Got '1,2'. Allowed: u,i."):
        read(b"1,2\n3,4", separator=",", header="u,i")


def test_empty_text_is_null_and_quotes_are_text() -> None:
    text = dict.fromkeys("ab", pl.String())
    assert read(b'"x\ty"\n\tz\n#\t\n', text) == [('"x', 'y"'), (None, "z"), ("#", None)]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "'f' has no rows. Check that it is whole."),
        (b"\n\r\n", "'f' has no rows."),
        (b"1\t2\n3\n", "Line 2 of 'f' has 1 field. Got '3'. Allowed: 2: user, item."),
        (b"1\t2\n3\t4\t5\n", "Line 2 of 'f' has 3 fields. Got '3\\t4\\t5'. Allowed: 2"),
        (b"1\t2\n3\n4\t5\t6\n", "Line 2 of 'f' has 1 field"),
        (b"1\t2\n\n3\t4\n", "Line 2 of 'f' has 1 field. Got ''."),
        (b"1\t2\n3\t\n", "Line 2 of 'f' holds no item. Got ''. Allowed: whole numbers from 0."),
        (b"1\t2\n3\tx", "Line 2 of 'f' holds no item. Got 'x'."),
        (b"1\t-2\n", "Line 1 of 'f' holds no item. Got '-2'."),
        (b"1\t2.0\n", "Line 1 of 'f' holds no item. Got '2.0'."),
        (b"4294967296\t1\n", "Line 1 of 'f' holds no user. Got '4294967296'."),
        (b"1\t2\n\xff\t3\n", "Line 2 of 'f' is not UTF-8 text. Save it as UTF-8."),
        (b"1\t2\n1\t\x003\n", "Line 2 of 'f' holds a NUL byte: it is no text."),
    ],
)
def test_wrong_lines_are_named(data: bytes, message: str) -> None:
    with refused(message):
        read(data)


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "", "4,5", "1_0", "4 ", "٤", "1e999", "x" * 200])
def test_numbers_are_finite(value: str) -> None:
    with refused(f"Line 1 of 'f' holds no rating. Got {value[:60]!r}. Allowed: numbers."):
        read(f"1\t2\t{value}\t5\n".encode(), RATED)


def test_a_file_without_line_breaks_is_not_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "LONGEST_LINE", 1 << 20)
    monkeypatch.setattr(lines, "_BLOCK", 1 << 20)
    file = io.BytesIO(b"1\t2\n" + b"9" * (1 << 23))
    with refused("Line 2 of 'f' is longer than 1 MiB"):
        fields(file, "f", PAIRS)
    assert file.tell() < 1 << 22


def test_rows_of_ids_take_any_white_space() -> None:
    found = id_rows(io.BytesIO(b"0\t5 7\n\n 1 \n2   3 \r\n"), "f")
    assert found.rows() == [(1, [0, 5, 7]), (3, [1]), (4, [2, 3])]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b" \n\n", "'f' has no rows"),
        (b"1 2\n\n3 4 x5 y\n", "Line 3 of 'f' holds no id. Got 'x5'. Allowed: whole numbers from 0."),
        (b"1 2\n3 -4\n", "Line 2 of 'f' holds no id. Got '-4'."),
        (b"1 2\n3 4.5\n", "Line 2 of 'f' holds no id. Got '4.5'."),
        (b"1 99999999999\n", "Line 1 of 'f' holds no id. Got '99999999999'."),
        (b"1 2\n3 +\n", "Line 2 of 'f' holds no id. Got '+'."),
        (b"1 2\n3 \xe9\n", "Line 2 of 'f' is not UTF-8 text"),
        (b"1 2\n3 \x01 4\n", "Line 2 of 'f' has 2 fields"),
    ],
)
def test_rows_that_hold_no_ids_are_named(data: bytes, message: str) -> None:
    with refused(message):
        id_rows(io.BytesIO(data), "f")


def test_refuse_names_the_first_wrong_row_below_the_header() -> None:
    values = pl.Series(["a", "b", "c"])
    refuse(pl.Series([False, False, False]), "f", "is wrong", values)
    with refused("Line 3 of 'f' is wrong. Got 'b'. Mend it."):
        refuse(pl.Series([False, True, True]), "f", "is wrong", values, header=1, remedy="Mend it")
