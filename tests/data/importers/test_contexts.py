"""Columns that tell of the moment of an event: declared, read in blocks, kept on the way to a model."""

import re
from pathlib import Path

import pytest

from rediffuse.data.context import context_names, contexts_of, moments
from rediffuse.data.dataset import Dataset
from rediffuse.data.importers import blocks
from rediffuse.data.importers.table import load
from rediffuse.data.splits import UserOrder
from rediffuse.errors import InvalidInput

DEVICES = ("phone", "", "desktop", "tablet")
ROWS = [(f"u{n % 5}", f"i{n % 7}", 1_700_000_000 + 60 * n, DEVICES[n % 4], f"c{n % 3}") for n in range(60)]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "events.csv"
    text = "".join(",".join(map(str, row)) + "\n" for row in ROWS)
    path.write_text("user,item,time,Device Type,channel\n" + text)
    return path


def told(data: Dataset, name: str) -> list[tuple[str, str, str | None]]:
    """User, item and word of every event, in order."""
    history, words = data.history(), data.events.contexts[name]
    users, items = data.users.items.ids, data.catalog.items.ids
    return [
        (users[user], items[item], None if code < 0 else words[code])
        for user, item, code in zip(
            history.rows.tolist(), history.items.tolist(), history.context[name].tolist(), strict=True
        )
    ]


def expected() -> list[tuple[str, str, str | None]]:
    return [(user, item, device or None) for user, item, _, device, _ in sorted(ROWS, key=lambda row: (row[0], row[2]))]


@pytest.mark.parametrize("block", [1 << 24, 100])
def test_words_stay_with_their_events(source: Path, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(blocks, "BLOCK", block)
    data = load(source, contexts={"device": "device_type", "channel": "channel"})
    assert data.events.contexts == {"device": ("desktop", "phone", "tablet"), "channel": ("c0", "c1", "c2")}
    assert told(data, "device") == expected()
    assert data.facts["contexts"] == {"device": 3, "channel": 3}
    assert set(context_names(data)) == {"season", "device", "channel"}


def test_they_survive_the_folder_a_split_and_another_order_of_items(source: Path, tmp_path: Path) -> None:
    data = load(source, contexts={"device": "Device Type"}).with_split(UserOrder())
    facts = data.write(tmp_path / "d")
    assert facts["facts"]["contexts"] == {"device": 3}
    again = Dataset.read(tmp_path / "d")
    assert again.digest() == data.digest()
    turned = again.numbered_like(["new", *reversed(data.catalog.items.ids)])
    assert turned.catalog.items.ids != data.catalog.items.ids
    for one in (again, turned):
        assert told(one, "device") == expected()
    train = again.history("train")
    assert contexts_of(again, ["device"], train)["device"].values.tolist() == train.context["device"].tolist()
    asked = again.history("test")
    users = asked.lengths.nonzero().squeeze(1)
    _, context = moments(again, users, asked.select(users))
    assert context["device"].tolist() == [row[0] for row in asked.context["device"].split(asked.lengths.tolist())]


def test_without_them_nothing_is_declared(source: Path) -> None:
    data = load(source)
    assert data.events.contexts == {}
    assert "contexts" not in data.facts


@pytest.mark.parametrize(
    ("contexts", "message"),
    [
        ({"device": "devices"}, "There is no column 'devices' for 'device'. Columns: 'user', 'item', 'time',"),
        (
            {"season": "channel"},
            "A context cannot take the name of a condition that is known anyway. Got 'season'. Give",
        ),
        ({"nothing": "empty"}, "Column 'empty' is no context: it has 0 different words. Allowed: 1..1000."),
        ({"many": "many"}, "Column 'many' is no context: it has 1,001 different words. Allowed: 1..1000."),
    ],
)
def test_what_is_no_context_is_refused(tmp_path: Path, contexts: dict[str, str], message: str) -> None:
    path = tmp_path / "events.csv"
    rows = "".join(f"u{n % 9},i{n % 8},{1_700_000_000 + n},c,,w{n}\n" for n in range(1001))
    path.write_text("user,item,time,channel,empty,many\n" + rows)
    with pytest.raises(InvalidInput, match=re.escape(message)):
        load(path, contexts=contexts)
