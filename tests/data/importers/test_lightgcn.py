"""The two layouts of the LightGCN authors, and the part that is cut from train."""

import re
from pathlib import Path
from typing import Any

import pytest

from rediffuse.data.dataset import Dataset
from rediffuse.data.importers.lightgcn import PROTOCOL, load, recognises
from rediffuse.data.splits import AsShipped, ShippedDrawn, ShippedTail
from rediffuse.data.weighting import RecencyConfig
from rediffuse.errors import InvalidConfig, InvalidInput
from rediffuse.evaluation.protocol import protocol_for

TRAIN = "0 9 8 7 6 5 4 3 2 1 0 \n1\t4  11 3\n2 5\n3\n4 1 0 1 \n"  # 10, 3, 1, 0 and 2 items, one of them twice
TEST = "0 10 11\n1 0\n2 \n5 12\n\n"
LASTFM_TRAIN = "2\t30\t13883\r\n1\t7\t3.2466e+05\r\n2\t31\t5\r\n2\t7\t1\r\n1\t9\t2\r\n\r\n"
LASTFM_TEST = "1\t30\t4\n3\t8\t1\n"
TRUST = "1\t2\n2\t1\n2\t4\n4\t2\n"


def refused(message: str, kind: type[Exception] = InvalidInput) -> Any:
    return pytest.raises(kind, match=re.escape(message))


def folder(place: Path, train: str = TRAIN, test: str = TEST, **more: str) -> Path:
    place.mkdir(exist_ok=True)
    (place / "train.txt").write_text(train)
    (place / "test.txt").write_text(test)
    for name, content in more.items():
        (place / f"{name}.txt").write_text(content)
    return place


def lastfm(place: Path, train: str = LASTFM_TRAIN, test: str = LASTFM_TEST, trust: str = TRUST) -> Path:
    place.mkdir(exist_ok=True)
    for name, content in (("data1", train), ("test1", test), ("trustnetwork", trust)):
        (place / f"{name}.txt").write_bytes(content.encode())
    return place


def part(data: Dataset, name: str) -> dict[str, list[str]]:
    rows = data.history(name).to_lists()
    return {u: data.catalog.items.decode(row) for u, row in zip(data.users.items.ids, rows, strict=True) if row}


def test_the_last_of_each_training_row_as_shipped_select(tmp_path: Path) -> None:
    data = load(folder(tmp_path / "g"), valid=0.25, cut="tail")
    assert (data.name, data.events.order) == ("g", "none")
    assert part(data, "valid") == {"0": ["0", "1"], "1": ["3"], "4": ["0"]}
    assert part(data, "train") == {"0": [*"23456789"], "1": ["11", "4"], "2": ["5"], "4": ["1"]}
    assert part(data, "test") == {"0": ["10", "11"], "1": ["0"], "5": ["12"]}
    assert data.users.items.ids == ("0", "1", "2", "3", "4", "5")
    assert len(data.catalog) == 13
    assert data.split is not None
    assert data.split.recipe == ShippedTail(valid=0.25)
    assert dict(data.facts) == {
        "format": "lightgcn",
        "files": ["train.txt", "test.txt"],
        "test_users_not_in_train": 1,
        "test_items_not_in_train": 2,
        "duplicates": 1,
    }


def test_a_tenth_is_the_default_and_at_least_one(tmp_path: Path) -> None:
    data = load(folder(tmp_path / "g"), cut="tail")
    assert part(data, "valid") == {"0": ["0"], "1": ["3"], "4": ["0"]}
    drawn = load(folder(tmp_path / "g"))
    assert {user: len(items) for user, items in part(drawn, "valid").items()} == {"0": 1, "1": 1, "4": 1}
    assert load(folder(tmp_path / "g")).digest() == drawn.digest()


def test_a_drawn_part_does_not_follow_the_file(tmp_path: Path) -> None:
    """Neither the order of rows nor that of items in them matters, and the highest ids are not preferred."""
    rows = {user: list(range(40)) for user in range(30)}
    forward = "".join(f"{user} {' '.join(map(str, items))}\n" for user, items in rows.items())
    backward = "".join(f"{user} {' '.join(map(str, items[::-1]))}\n" for user, items in reversed(rows.items()))
    one, other = (load(folder(tmp_path / name, text)) for name, text in (("f", forward), ("b", backward)))
    assert part(one, "valid") == part(other, "valid")
    chosen = [int(item) for items in part(one, "valid").values() for item in items]
    assert len(chosen) == 30 * 4
    assert 17 < sum(chosen) / len(chosen) < 22
    assert len({tuple(items) for items in part(one, "valid").values()}) > 20
    assert one.split is not None
    assert one.split.recipe == ShippedDrawn(seed=1)


def test_nothing_need_be_cut(tmp_path: Path) -> None:
    data = load(folder(tmp_path / "g"), valid=0)
    assert data.part_counts() == {"train": 16, "test": 4}
    assert data.split is not None
    assert data.split.recipe == AsShipped(parts=("train", "test"))
    assert not data.protocols


def test_the_last_fm_layout_has_counts_and_friends(tmp_path: Path) -> None:
    data = load(lastfm(tmp_path / "l"), cut="tail")
    assert data.users.items.ids == ("1", "2", "3", "4")
    assert part(data, "train") == {"1": ["7"], "2": ["30", "31"]}
    assert part(data, "valid") == {"1": ["9"], "2": ["7"]}
    assert part(data, "test") == {"1": ["30"], "3": ["8"]}
    assert data.users.attributes["friends"].to_list() == [["2"], ["1", "4"], None, ["2"]]
    values = data.events.frame.filter(data.events.frame["user"] == 0)["value"].to_list()
    assert sorted(values) == [2.0, 4.0, 324_660.0]
    (tmp_path / "l" / "trustnetwork.txt").unlink()
    assert len(load(tmp_path / "l").users) == 3


def test_the_protocol_fits_and_the_folder_keeps_all_of_it(tmp_path: Path) -> None:
    data = load(folder(tmp_path / "g"))
    protocol = protocol_for(data)
    assert protocol.name == "lightgcn"
    assert protocol.model_copy(update={"ks": (2,)}).leaks(data) == []
    assert data.protocols == {"lightgcn": PROTOCOL}
    data.write(tmp_path / "d")
    again = Dataset.read(tmp_path / "d")
    assert again.describe() == data.describe()
    assert again.split is not None
    assert again.split.recipe == ShippedDrawn()


def test_what_needs_an_order_is_refused(tmp_path: Path) -> None:
    order = load(folder(tmp_path / "g")).events.order
    with refused("needs events in a known order; this data has none"):
        RecencyConfig(recency="linear").check_order(order)


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ("0 1\n1 2 x\n", "Line 2 of 'train.txt' holds no id. Got 'x'."),
        ("0 1\n1 -2\n", "Line 2 of 'train.txt' holds no id. Got '-2'."),
        ("", "'train.txt' has no rows"),
        ("0 1\n1 \x002\n", "Line 2 of 'train.txt' holds a NUL byte"),
    ],
)
def test_wrong_lines_are_named(tmp_path: Path, train: str, message: str) -> None:
    with refused(message):
        load(folder(tmp_path / "g", train))


def test_wrong_lines_of_last_fm_are_named(tmp_path: Path) -> None:
    with refused("Line 2 of 'data1.txt' has 2 fields. Got '1\\t7'. Allowed: 3: user, item, value."):
        load(lastfm(tmp_path / "l", "2\t30\t1\n1\t7\n"))
    with refused("Line 1 of 'trustnetwork.txt' holds no friend. Got 'x'."):
        load(lastfm(tmp_path / "l", trust="1\tx\n"))


def test_missing_files_and_shares_are_refused(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("0 1\n")
    with refused("holds no files of LightGCN. Got 'train.txt'. Allowed: train.txt and test.txt or data1.txt and"):
        load(tmp_path)
    with refused("There is no file or folder"):
        load(tmp_path / "none")
    with refused("valid = 0.7 is not possible", InvalidConfig):
        load(folder(tmp_path / "g"), valid=0.7)
    with refused("Unknown cut 'tial'. Nearest known cut: 'tail'"):
        load(folder(tmp_path / "g"), cut="tial")  # pyright: ignore[reportArgumentType]
    assert not recognises(tmp_path)
    assert recognises(tmp_path / "g")


@pytest.mark.realdata
def test_gowalla_and_last_fm(real: Path) -> None:
    data = load(real / "gowalla")
    assert (len(data.users), len(data.catalog)) == (29_858, 40_981)
    counts = data.part_counts()
    assert counts["train"] + counts["valid"] == 810_128
    assert counts["test"] == 217_242
    assert data.history("valid").lengths.min() == 1
    facts = load(real / "lastfm-hetrec").describe()
    assert (facts["users_with_events"], facts["users"], facts["items"]) == (1880, 1892, 4489)
    assert facts["split"]["parts"]["train"] + facts["split"]["parts"]["valid"] == 42_135
    assert facts["split"]["parts"]["test"] == 10_533
    assert (facts["facts"]["test_users_not_in_train"], facts["facts"]["test_items_not_in_train"]) == (2, 13)
    assert facts["facts"]["duplicates"] == data.facts["duplicates"] == 0
