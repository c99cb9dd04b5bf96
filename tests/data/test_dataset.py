"""A dataset: made from events in any order, kept in a folder that cannot be altered unnoticed."""

import json
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rediffuse.data.dataset import Dataset
from rediffuse.data.interactions import Order
from rediffuse.data.splits import AsShipped, LeaveLastOut, UserOrder
from rediffuse.errors import ArtifactError, InvalidInput
from rediffuse.files import MANIFEST, sha256

EVENTS = pl.DataFrame(
    {
        "user": ["u1", "u2", "u1", "u1", "u2", "u1"],
        "item": ["007", "a b", "é", "7", "007", "a b"],
        "time_us": [3, 1, 1, 2, 2, 3],
        "kind": ["view", "buy", None, "view", "view", "buy"],
        "value": [1.5, None, 2.0, 0.0, 1.0, 4.0],
        "group": ["g", None, "g", "h", None, None],
        "event_id": ["1", "2", "3", "4", "5", "6"],
    }
)
ITEMS = pl.DataFrame({"item": ["7", "new", "007"], "title": ["Seven", "Newcomer", None], "price": [7.0, 1.0, 2.0]})
USERS = pl.DataFrame({"user": ["u2", "u3"], "age": [30, 40]})


def dataset() -> Dataset:
    return Dataset.from_events(
        "shop", EVENTS, items=ITEMS, users=USERS, facts={"source": "test"}, time_zone="Asia/Tokyo"
    )


def test_ids_without_events_are_kept_and_order_follows_time() -> None:
    data = dataset()
    assert data.users.items.ids == ("u1", "u2", "u3")
    assert data.catalog.items.ids == ("007", "7", "a b", "new", "é")
    assert data.events.order == "time"
    assert [data.catalog.items.decode(row) for row in data.history().to_lists()] == [
        ["é", "7", "007", "a b"],
        ["a b", "007"],
        [],
    ]
    assert data.catalog.titles() == ["007", "Seven", "a b", "Newcomer", "é"]
    assert data.users.attributes["age"].to_list() == [None, 30, 40]


def test_a_folder_gives_back_what_was_written(tmp_path: Path) -> None:
    data = dataset().with_split(LeaveLastOut())
    folder = tmp_path / "shop[1]"
    data.write(folder)
    again = Dataset.read(folder)
    assert again.describe() == data.describe()
    assert again.digest() == data.digest()
    assert again.events.frame.equals(data.events.frame)
    assert again.catalog.attributes.equals(data.catalog.attributes)
    assert again.users.attributes.equals(data.users.attributes)
    assert again.split is not None
    assert again.split.recipe == LeaveLastOut()
    assert again.part_counts() == {"train": 4, "valid": 1, "test": 1}
    assert again.history("test").to_lists() == [[2], [], []]
    assert again.time_zone == "Asia/Tokyo"


def test_a_folder_without_split_attributes_or_times_is_whole_too(tmp_path: Path) -> None:
    data = Dataset.from_events("bare", EVENTS.select("user", "item"))
    data.write(tmp_path / "bare")
    again = Dataset.read(tmp_path / "bare")
    assert again.describe() == data.describe()
    assert again.split is None
    assert "first_event" not in again.describe()


def test_a_description_counts() -> None:
    facts = dataset().describe()
    assert (facts["users"], facts["items"], facts["events"]) == (3, 5, 6)
    assert (facts["users_with_events"], facts["items_with_events"]) == (2, 4)
    assert facts["kinds"] == {"buy": 2, "view": 3}
    assert facts["first_event"] == "1970-01-01T00:00:00.000001+00:00"
    assert facts["facts"] == {"source": "test", "duplicates": 0}
    json.dumps(facts, allow_nan=False)


def test_a_folder_is_never_overwritten(tmp_path: Path) -> None:
    dataset().write(tmp_path / "d")
    with pytest.raises(InvalidInput, match="exists already"):
        dataset().write(tmp_path / "d")


def test_what_is_no_dataset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="is no dataset folder"):
        Dataset.read(tmp_path)


@pytest.mark.parametrize("name", ["dataset.json", "events.parquet", "items.parquet", "users.parquet"])
def test_altered_files_are_refused(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "d"
    dataset().write(folder)
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / name).write_bytes(data)
    with pytest.raises(ArtifactError, match=f"{name} in .* differs from its manifest"):
        Dataset.read(folder)


@pytest.mark.parametrize(("key", "value"), [("format_version", 1), ("format_version", 3), ("order", "alphabet")])
def test_another_format_or_order_is_refused(tmp_path: Path, key: str, value: object) -> None:
    folder = tmp_path / "d"
    dataset().write(folder)
    path = folder / "dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["files"]["dataset.json"] = {"bytes": path.stat().st_size, "sha256": sha256(path)}
    (folder / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(
        ArtifactError, match=rf"format version. Got {value}. Allowed: 2. Make one with: rediffuse import|{value}"
    ):
        Dataset.read(folder)


def test_no_event_is_refused() -> None:
    with pytest.raises(InvalidInput, match="There is no event"):
        Dataset.from_events("none", EVENTS.clear())


def test_parts_need_a_split() -> None:
    data = dataset()
    for ask in (data.part_counts, lambda: data.history("train")):
        with pytest.raises(InvalidInput, match="Dataset 'shop' is not split yet"):
            ask()


def test_a_new_split_drops_protocols_of_the_old_one() -> None:
    parts = pl.Series(["a", "b", "a", "b", "a", "a"])
    data = Dataset.from_events(
        "s", EVENTS.with_columns(part=parts), parts=("a", "b"), order="sequence", protocols={"p": {}}
    )
    assert data.split is not None
    assert data.split.recipe == AsShipped(parts=("a", "b"))
    assert data.part_counts() == {"a": 4, "b": 2}
    assert data.history("b").to_lists() == [[1], [2]]
    again = data.with_split(UserOrder(valid=0.3, test=0.3))
    assert not again.protocols
    assert again.digest() != data.digest()


def test_parts_stand_before_time_and_duplicates_are_told_apart_by_part() -> None:
    twice = pl.DataFrame(
        {"user": ["u"] * 4, "item": ["x"] * 4, "time_us": [1] * 4, "part": ["late", "early", "early", "late"]}
    )
    data = Dataset.from_events("s", twice, parts=("early", "late"))
    assert data.split is not None
    assert data.split.part.tolist() == [0, 1]
    assert data.facts["duplicates"] == 2


def test_ids_of_users_and_items_are_told_apart() -> None:
    left = Dataset.from_events("x", pl.DataFrame({"user": ["ab"], "item": ["c"]}))
    right = Dataset.from_events("x", pl.DataFrame({"user": ["a"], "item": ["bc"]}))
    assert left.digest() != right.digest()


def test_in_a_sequence_the_order_counts_and_repeats_stay() -> None:
    frame = pl.DataFrame({"user": ["u"] * 3, "item": ["b", "a", "b"]})
    data = Dataset.from_events("s", frame, order="sequence")
    assert data.history().to_lists() == [[1, 0, 1]]
    assert data.facts["duplicates"] == 0
    assert data.digest() != Dataset.from_events("s", frame.sort("item"), order="sequence").digest()


ROWS = st.lists(
    st.tuples(
        st.sampled_from(["u", "v"]),
        st.sampled_from(["x", "y"]),
        st.integers(0, 2),
        st.sampled_from(["view", "buy", None]),
        st.sampled_from([1.0, 2.0, None]),
        st.sampled_from(["g", None]),
    ),
    min_size=1,
    max_size=12,
)
NAMES = {
    "user": pl.String,
    "item": pl.String,
    "time_us": pl.Int64,
    "kind": pl.String,
    "value": pl.Float64,
    "group": pl.String,
}


@settings(max_examples=60, deadline=None)
@given(rows=ROWS, data=st.data(), order=st.sampled_from(["time", "none"]))
def test_the_order_of_rows_and_exact_duplicates_change_nothing(
    rows: list[tuple], data: st.DataObject, order: Order
) -> None:
    def made(some: list[tuple]) -> Dataset:
        return Dataset.from_events("x", pl.DataFrame(some, schema=NAMES, orient="row"), order=order)

    one = made(rows)
    again = made(data.draw(st.permutations(rows + rows[: data.draw(st.integers(0, 3))])))
    assert again.digest() == one.digest()
    assert again.events.frame.equals(one.events.frame)
    assert one.facts["duplicates"] == len(rows) - len(one.events)
