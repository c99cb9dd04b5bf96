"""Any table of events: what is found in it, and what is refused of it in one sentence."""

import gzip
import re
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from rediffuse.data.dataset import Dataset
from rediffuse.data.importers import IMPORTERS, detect
from rediffuse.data.importers.names import KNOWN, attribute_names, match, match_id, plain
from rediffuse.data.importers.table import load, read_ids, read_numbers, read_text
from rediffuse.errors import InvalidInput

ROWS = [("007", "a b", "2024-01-31"), ("7", "é", "2024-01-31T10:00:00+02:00"), ("007", "é", "2024-01-30")]
CSV = "user_id,item_id,timestamp\n" + "".join(",".join(row) + "\n" for row in ROWS)
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def publish(content: str | bytes, name: str = "events.csv") -> Path:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return publish


def jsonl(rows: list[tuple[str, ...]]) -> str:
    return "".join(f'{{"user_id": "{u}", "item_id": "{i}", "timestamp": "{t}"}}\n' for u, i, t in rows)


def histories(data: Dataset) -> dict[str, list[str]]:
    names = data.catalog.items
    return {u: names.decode(row) for u, row in zip(data.users.items.ids, data.history().to_lists(), strict=True)}


def refused(message: str) -> Any:
    return pytest.raises(InvalidInput, match=re.escape(message))


# formats


@pytest.mark.parametrize(
    ("name", "content", "form"),
    [
        ("e.csv", CSV, "csv"),
        ("e.csv", "\ufeff" + CSV.replace("\n", "\r\n") + "\r\n\r\n", "csv"),
        ("e.csv", CSV.strip().replace("\n", "\r"), "csv"),
        ("e.CSV", CSV.replace(",", ";"), "csv"),
        ("e.txt", CSV.replace(",", "|"), "csv"),
        ("e.tsv", CSV.replace(",", "\t"), "tsv"),
        ("e.inter", CSV.replace(",", "\t").replace("_id", "_id:token").replace("stamp", "stamp:float"), "tsv"),
        ("e", CSV, "csv"),
        ("e.csv.gz", gzip.compress(CSV.encode(), mtime=0), "csv"),
        ("e", gzip.compress(CSV.encode(), mtime=0), "csv"),
        ("e.jsonl", jsonl(ROWS), "jsonl"),
        ("e.ndjson.gz", gzip.compress(jsonl(ROWS).encode(), mtime=0), "jsonl"),
        ("e", "\n" + jsonl(ROWS), "jsonl"),
    ],
)
def test_every_format_gives_the_same_events(write: Write, name: str, content: str | bytes, form: str) -> None:
    data = load(write(content, name))
    assert histories(data) == {"007": ["é", "a b"], "7": ["é"]}
    assert data.events.order == "time"
    assert data.facts["format"] == form
    assert data.name == "e"
    assert data.digest() == load(write(CSV)).digest()


@pytest.mark.parametrize("name", ["e.parquet", "e[1].pq", "e"])
def test_parquet_is_known_by_suffix_or_content(tmp_path: Path, name: str) -> None:
    times = [datetime(2024, 1, 31, tzinfo=UTC), datetime(2024, 1, 31, 8, tzinfo=UTC), datetime(2024, 1, 30, tzinfo=UTC)]
    users, items = zip(*((u, i) for u, i, _ in ROWS), strict=True)
    pl.DataFrame({"user": users, "item": items, "ts": times}).write_parquet(tmp_path / name)
    data = load(tmp_path / name)
    assert histories(data) == {"007": ["é", "a b"], "7": ["é"]}
    assert data.facts["format"] == "parquet"


def test_what_happened_is_recorded(write: Write) -> None:
    data = load(write(CSV + "7,é,2024-01-31T08:00:00Z\n"), name="shop", time_zone="Europe/Berlin")
    assert (data.name, data.time_zone) == ("shop", "Europe/Berlin")
    assert dict(data.facts) == {
        "format": "csv",
        "source": "events.csv",
        "columns": {"user": "user_id", "item": "item_id", "time": "timestamp"},
        "rows": 4,
        "duplicates": 1,
    }


def test_every_column_is_read(write: Write) -> None:
    text = "User ID;Product-Id;event_type;Price;order_id;event_id;ts;note\n 1 ; 2 ;view;1.5; o1 ;e1;1700000000;x\n1;3;NULL;;;;1700000001;\n"
    frame = load(write(text)).events.frame
    assert frame.drop("user", "item", "position").rows() == [
        (1_700_000_000_000_000, "view", 1.5, "o1", "e1"),
        (1_700_000_001_000_000, None, None, None, None),
    ]


def test_numbers_of_jsonl_and_quoted_fields_are_text(write: Write) -> None:
    data = load(write('{"user": 7, "item": 12.0, "x": [1]}\n\n{"item": 13, "user": "007"}\n', "e.jsonl"))
    assert data.users.items.ids == ("007", "7")
    assert data.catalog.items.ids == ("12", "13")
    data = load(write('user,item,title\n1,"a, ""b""","two\nlines"\n2,c,x\n'))
    assert data.catalog.items.ids == ('a, "b"', "c")


def test_quotes_in_tab_separated_titles_swallow_nothing(write: Write) -> None:
    data = load(write('user\titem\ttitle\n1\ta\t"Great" Cats\n2\tb\t"open\n3\tc\tlast\n', "e.tsv"))
    assert data.users.items.ids == ("1", "2", "3")
    data = load(write('user\titem\ttitle\n1\ta\t"tab\there"\n', "e.tsv"))
    assert data.catalog.items.ids == ("a",)
    data = load(write('"user"\t"item"\n"1"\t"a"\n', "e.tsv"))
    assert data.catalog.items.ids == ("a",)


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        ("", "e.csv", "'e.csv' is empty."),
        (" \n\n", "e.jsonl", "'e.jsonl' is empty."),
        (gzip.compress(b"", mtime=0), "e.csv.gz", "'e.csv.gz' is empty."),
        ("user,item\n", "e.csv", "'e.csv' has no rows. Check that it is the file of events."),
        (bytes(range(256)) * 9, "e.csv", "'e.csv' is not UTF-8 text (byte 128)."),
        (b"PK\x03\x04\0\0\0", "e.xlsx", "'e.xlsx' is no text. Allowed: CSV, TSV, JSONL (each also .gz), parquet."),
        ("user,item\n1,caf\xe9\n".encode("latin-1"), "e.csv", "Save it as UTF-8."),
        ("user,item\n1,2\n".encode("utf-16"), "e.csv", "'e.csv' is not UTF-8 text"),
        (
            gzip.compress(CSV.encode() * 99, mtime=0)[:-9],
            "e.csv.gz",
            "'e.csv.gz' is cut off or no gzip file. Fetch it again.",
        ),
        (b"\x1f\x8bjunk", "e.csv.gz", "'e.csv.gz' is cut off or no gzip file."),
        ("PAR1 and more", "e.parquet", "'e.parquet' is cut off or no parquet file. Fetch it again."),
        ("PAR1 and more", "e", "'e' is cut off or no parquet file."),
        (
            "user,item\n1,2\n1,Toy, The\n",
            "e.csv",
            "A row of 'e.csv' has more fields than its first line. Quote fields that",
        ),
        ('user,item\n1,"a\n2,3\n', "e.csv", "'e.csv' cannot be read as fields separated by ','. Check its quotes."),
        ("user,item,user\n1,2,3\n", "e.csv", "Column 'user' stands twice in 'e.csv'. Rename one."),
        ("x" * 200_000, "e.csv", "The first line of 'e.csv' holds no column names."),
        (
            "196\t242\t3\n1\t2\t3\n",
            "u.data",
            "The first line holds no column names. Got '196, 242, 3'. Add a line such as",
        ),
        (
            '{"user":1,"item":2}\n{"user"',
            "e.jsonl",
            "Line 2 of 'e.jsonl' is not a JSON object. Write one object a line.",
        ),
        ('[{"user":1,"item":2}]', "e.json", "Line 1 of 'e.json' is not a JSON object."),
        ('{"user":1,"item":NaN}', "e.jsonl", "Line 1 of 'e.jsonl' is not a JSON object."),
        ("[" * 100_000, "e.jsonl", "Line 1 of 'e.jsonl' is not a JSON object."),
        (
            '{"user":12345678901234567890}\n{"user":true}',
            "e.jsonl",
            "A column of 'e.jsonl' changes its type from line to",
        ),
    ],
)
def test_what_is_no_table_is_refused(write: Write, content: str | bytes, name: str, message: str) -> None:
    with refused(message) as error:
        load(write(content, name))
    assert "\n" not in str(error.value)


def test_parquet_that_is_cut_off_or_has_a_damaged_footer_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "e.parquet"
    pl.DataFrame({"user": list(range(500)), "item": list(range(500))}).write_parquet(path)
    whole = path.read_bytes()
    for end in (0, 4, 8, 99, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:end])
        with refused("'e.parquet' is cut off or no parquet file."):
            load(path)
    path.write_bytes(whole[:-8] + b"\xff\xff\xff\x7fPAR1")
    with refused("'e.parquet' is cut off or no parquet file."):
        load(path)


def test_folders_and_missing_files_are_refused(tmp_path: Path) -> None:
    with refused(f"'{tmp_path}' is a folder. Allowed: a file: CSV"):
        load(tmp_path)
    with refused("There is no file "):
        load(tmp_path / "none.csv")


def test_a_file_that_may_not_be_read_is_refused(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(CSV)

    def deny(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", deny)
    with refused("'events.csv' cannot be read. Got 'Permission denied'."):
        load(path)


# columns


@pytest.mark.parametrize(
    ("columns", "found"),
    [
        (["userId", "movieId", "rating", "timestamp"], ["userId", "movieId", None, "timestamp"]),
        (["visitorid", "itemid", "event", "transactionid"], ["visitorid", "itemid", "event", None]),
        (["Customer ID", "SKU", "Created At"], ["Customer ID", "SKU", None, "Created At"]),
        (
            ["uid", "PRODUCT_ID", "event_time", "event_type", "user_session"],
            ["uid", "PRODUCT_ID", "event_type", "event_time"],
        ),
        (
            ["user_id:token", "item_id:token", "timestamp:float"],
            ["user_id:token", "item_id:token", None, "timestamp:float"],
        ),
        (["USER_ID", "ITEM_ID", "TIMESTAMP", "EVENT_TYPE"], ["USER_ID", "ITEM_ID", "EVENT_TYPE", "TIMESTAMP"]),
    ],
)
def test_well_known_names_are_found(columns: list[str], found: list[str | None]) -> None:
    names = match(columns, {})
    assert [names["user"], names["item"]] == found[:2]
    assert names.get("kind") == found[2]
    assert names.get("time") == (found[3] if len(found) > 3 else None)


def test_no_well_known_name_means_two_things() -> None:
    names = [plain(name) for known in KNOWN.values() for name in known]
    assert len(set(names)) == len(names)


def test_the_first_of_several_values_or_groups_is_taken() -> None:
    found = match(["user", "item", "price", "rating", "session_id", "order_id"], {})
    assert (found["value"], found["group"]) == ("rating", "order_id")


def test_what_is_given_wins_and_is_not_taken_again() -> None:
    found = match(["session_id", "item_id", "sku", "Artikel"], {"user": "session_id", "item": "artikel"})
    assert found == {"user": "session_id", "item": "Artikel"}
    assert match(["user", "item", "ts", "price"], {"time": "", "value": ""}) == {"user": "user", "item": "item"}
    assert match(["user", "item"], {"user": ""}) == {"user": "user", "item": "item"}


@pytest.mark.parametrize(
    ("columns", "given", "message"),
    [
        (["a", "b"], {}, "No column is called like 'user'. Columns: 'a', 'b'. Pass --map user=COLUMN."),
        (["user", "b"], {}, "No column is called like 'item'. Columns: 'user', 'b'. Pass --map item=COLUMN."),
        (
            ["user", "customer_id", "item"],
            {},
            "Several columns may mean 'user': 'user', 'customer_id'. Pass --map user=",
        ),
        (["user", "item", "date", "ts"], {}, "Several columns may mean 'time': 'ts', 'date'. Pass --map time=COLUMN."),
        (["user", "item"], {"time": "when"}, "There is no column 'when' for 'time'. Columns: 'user', 'item'."),
        (["user", "item"], {"itm": "item"}, "Unknown name 'itm'. Nearest known name: 'item'."),
        (["user", "item"], {"itm": ""}, "Unknown name 'itm'."),
        (["user", "item"], {"user": "item"}, "No column is called like 'item'."),
        (["user", "item"], {"user": "item", "item": "item"}, "Column 'item' cannot mean both user and item."),
    ],
)
def test_missing_and_ambiguous_columns_are_refused(columns: list[str], given: dict[str, str], message: str) -> None:
    with refused(message):
        match(columns, given)


# values


@pytest.mark.parametrize(
    ("column", "ids"),
    [
        (pl.Series(["007", " a b ", "É\t"]), ["007", "a b", "É"]),
        (pl.Series([7, -1]), ["7", "-1"]),
        (pl.Series([12.0, 2.0**53]), ["12", "9007199254740992"]),
        (pl.Series([2**64 - 1], dtype=pl.UInt64), ["18446744073709551615"]),
        (pl.Series([Decimal("12.00")]), ["12"]),
        (pl.Series(["x"], dtype=pl.Categorical), ["x"]),
        (pl.Series(["x"], dtype=pl.Enum(["x"])), ["x"]),
    ],
)
def test_ids_are_text(column: pl.Series, ids: list[str]) -> None:
    assert read_ids(column).to_list() == ids


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pl.Series("u", ["a", None]), "Column 'u' has no id in row 2. Give every row an id, or remove the row."),
        (pl.Series("u", ["a", " "]), "Column 'u' has no id in row 2. Got ' '."),
        (pl.Series("u", ["NULL"]), "Column 'u' has no id in row 1. Got 'NULL'."),
        (pl.Series("u", ["\\N"]), "Column 'u' has no id in row 1."),
        (pl.Series("u", [None]), "Column 'u' has no id in row 1."),
        (pl.Series("u", [1.0, float("nan")]), "Column 'u' has no id in row 2. Got nan."),
        (pl.Series("u", [1.0, 1.5]), "Column 'u' holds no whole number in row 2. Got 1.5. Write ids as text."),
        (pl.Series("u", [1e17]), "Column 'u' holds no whole number in row 1."),
        (pl.Series("u", [float("inf")]), "Column 'u' holds no whole number in row 1."),
        (pl.Series("u", ["x\ny"]), "Column 'u' has an id with a line break or tab in it in row 1."),
        (pl.Series("u", [True]), "Column 'u' is neither text nor whole numbers. Got 'Boolean'."),
        (pl.Series("u", [date(2024, 1, 1)]), "Column 'u' is neither text nor whole numbers. Got 'Date'."),
        (pl.Series("u", [[1]]), "Column 'u' is neither text nor whole numbers. Got 'List(Int64)'."),
    ],
)
def test_what_is_no_id_is_refused(column: pl.Series, message: str) -> None:
    with refused(message):
        read_ids(column)


def test_missing_text_and_numbers_are_null() -> None:
    assert read_text(pl.Series(["view", "", " none ", None])).to_list() == ["view", None, None, None]
    assert read_numbers(pl.Series(["1.5", " 2 ", "", "NaN", None, "-1e3"])).to_list() == [
        1.5,
        2,
        None,
        None,
        None,
        -1000,
    ]
    assert read_numbers(pl.Series([1, None])).to_list() == [1.0, None]
    assert read_numbers(pl.Series([0.5, float("nan")])).to_list() == [0.5, None]


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (
            pl.Series("price", ["1", "", "29.99 USD"]),
            "Column 'price' holds no number in row 3. Got '29.99 USD'. Write plain",
        ),
        (pl.Series("price", ["1,5"]), "Column 'price' holds no number in row 1."),
        (pl.Series("price", [1.0, float("inf")]), "Column 'price' holds no number in row 2. Got inf."),
        (pl.Series("price", [[1.0]]), "Column 'price' is neither text nor whole numbers."),
    ],
)
def test_what_is_no_number_is_refused(column: pl.Series, message: str) -> None:
    with refused(message):
        read_numbers(column)


def test_a_value_that_is_no_number_can_be_left_out(write: Write) -> None:
    path = write("user,item,price\n1,2,29.99 USD\n")
    with refused("--map value="):
        load(path)
    assert "value" not in load(path, columns={"value": ""}).events.frame.columns


def test_units_reach_the_times(write: Write) -> None:
    path = write("user,item,ts\n1,2,1700000000\n")
    assert load(path, time_unit="s").events.frame["time_us"].to_list() == [1_700_000_000_000_000]
    with refused("Column 'ts' holds 1700000000 in row 1, which reads as seconds; milliseconds were expected."):
        load(path, time_unit="ms")


# order


def test_order_is_that_of_time_else_none_unless_declared(write: Write) -> None:
    path = write("user,item\n1,b\n1,a\n1,b\n")
    assert load(path).events.order == "none"
    assert load(path).facts["duplicates"] == 1
    data = load(path, order="sequence")
    assert histories(data) == {"1": ["b", "a", "b"]}
    timed = load(write(CSV), order="sequence")
    assert histories(timed)["007"] == ["a b", "é"]
    assert timed.events.order == "sequence"
    assert load(write(CSV), order="none").events.order == "none"


def test_orders_that_are_not_known_are_refused(write: Write) -> None:
    path = write("user,item\n1,b\n")
    with refused("No column is called like 'time'. Columns: 'user', 'item'. Pass --map time=COLUMN."):
        load(path, order="time")
    wrong: Any = "alphabet"
    with refused("Unknown order. Got 'alphabet'. Allowed: time, sequence, none."):
        load(path, order=wrong)


@pytest.mark.parametrize("zone", ["Mars/Olympus", "../etc", ""])
def test_unknown_time_zones_are_refused(write: Write, zone: str) -> None:
    with refused("Unknown time zone."):
        load(write(CSV), time_zone=zone)


# attributes


def test_attributes_of_items_and_users(write: Write) -> None:
    items = write(
        "id\tproduct_name:token_seq\tprice:float\tyear\tcode\tmixed\n7\t1984\t2.50\t1949\t07\t\n8\tDune\t3\t1965\t12\tx\n",
        "i.tsv",
    )
    users = write('{"User": 1, "name": "Ann", "zip": "0815"}\n', "u.jsonl")
    data = load(write("user,item\n1,7\n"), items=items, users=users)
    assert data.catalog.items.ids == ("7", "8")
    assert data.catalog.titles() == ["1984", "Dune"]
    assert data.catalog.attributes.rows() == [("1984", 2.5, 1949, "07", None), ("Dune", 3.0, 1965, "12", "x")]
    assert data.catalog.attributes.columns == ["title", "price", "year", "code", "mixed"]
    assert data.users.attributes.rows() == [("Ann", "0815")]
    assert (data.facts["items"], data.facts["users"]) == ("i.tsv", "u.jsonl")


def test_an_empty_attribute_stays_and_the_folder_round_trips(write: Write, tmp_path: Path) -> None:
    items = write("item_id,blank,\n7,,\n", "i.csv")
    data = load(write("user,item\n1,7\n"), items=items)
    data.write(tmp_path / "d")
    assert Dataset.read(tmp_path / "d").catalog.attributes.rows() == [(None,)]


def test_an_attribute_table_is_found_by_the_name_the_events_use() -> None:
    assert match_id(["sku", "product_id", "title"], "item", "SKU") == "sku"
    assert match_id(["id", "product_id"], "item", "artikel") == "product_id"
    with refused("Several columns may be the item id: 'product_id', 'sku'. Call the one that is item_id."):
        match_id(["sku", "product_id"], "item", "artikel")
    with refused("No column is called like a user id: 'age', 'zip'. Call the one that is user_id."):
        match_id(["age", "zip"], "user", "user")


def test_attribute_names_never_collide() -> None:
    names = attribute_names(["name", "title", "item", "price:float", "price:token"], "item", title=True)
    assert names == {"title": "title", "name": "name", "item": "item_", "price:float": "price", "price:token": "price_"}


def test_an_item_that_stands_twice_or_has_no_id_is_refused(write: Write) -> None:
    events = write("user,item\n1,7\n")
    with refused("Column 'item_id' holds an id that stands there twice in row 1. Got '7'. Keep one row for each item."):
        load(events, items=write("item_id,x\n7,1\n 7,2\n", "i.csv"))
    with refused("Column 'user_id' has no id in row 2."):
        load(events, users=write("user_id,x\n7,1\n,2\n", "u.csv"))


# which importer


def test_the_importer_is_detected(write: Write, tmp_path: Path) -> None:
    assert detect(write(CSV)) == "table"
    with refused("holds no files of a known format. Got 'events.csv'. Allowed: a file (table: CSV, TSV"):
        detect(tmp_path)
    (tmp_path / "train_list.npy").touch()
    assert detect(tmp_path) == "diffrec"
    with refused("is not there."):
        detect(tmp_path / "none")
    assert {"table", "diffrec"} <= set(IMPORTERS)
    assert IMPORTERS["table"](write(CSV)).name == "events"


@pytest.mark.realdata
def test_movielens_in_recbole_files(real: Path) -> None:
    files = real / "ml-100k"
    data = load(files / "ml-100k.inter", items=files / "ml-100k.item", users=files / "ml-100k.user")
    assert (len(data.users), len(data.catalog), len(data.events)) == (943, 1682, 100_000)
    assert data.describe()["first_event"] == "1997-09-20T03:05:10+00:00"
    assert data.catalog.titles()[data.catalog.items.number("1")] == "Toy Story"
