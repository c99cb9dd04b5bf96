"""The power goes: what was acknowledged is in every state in which the disk may be found.

A file layer under SQLite keeps, for each file, what was synced and what was written since. The state found after a
power cut is what was synced and, of the rest, nothing, the beginning, or any sectors in any order. It is taken at
random operations, inside commits and check-points too, together with what had been acknowledged by then.
"""

import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import apsw
import pytest

from rediffuse.errors import StorageError
from rediffuse.serving.store import Event
from rediffuse.serving.store.sqlite import SQLiteStore

SECTOR = 512
BATCH = 8
Write = tuple[int, bytes | None]  # where and what; None: the file ends there


@dataclass
class Disk:
    """What is safe of a file, and what was written since the last sync."""

    safe: bytearray = field(default_factory=bytearray)
    pending: list[Write] = field(default_factory=list)

    def sync(self) -> None:
        self.safe = applied(self.safe, self.pending)
        self.pending = []

    def found(self, how: str, dice: random.Random) -> bytearray:
        """The file after a power cut."""
        if how == "dropped":
            return bytearray(self.safe)
        if how == "begun":
            return applied(self.safe, self.pending[: dice.randint(0, len(self.pending))])
        sectors = [piece for write in self.pending for piece in torn(write)]
        kept = [piece for piece in sectors if dice.random() < 0.5]
        dice.shuffle(kept)
        return applied(self.safe, kept)


def torn(write: Write) -> list[Write]:
    """A write as the sectors it touches."""
    start, data = write
    if data is None:
        return [write]
    return [(start + at, data[at : at + SECTOR]) for at in range(0, len(data), SECTOR)]


def applied(content: bytearray, writes: list[Write]) -> bytearray:
    """The content after writes."""
    content = bytearray(content)
    for start, data in writes:
        if data is None:
            del content[start:]
        else:
            content.extend(bytes(max(0, start - len(content))))
            content[start : start + len(data)] = data
    return content


class PowerLoss(apsw.VFS):
    """SQLite's own file layer, watched. `at` is called before each write and sync."""

    def __init__(self, at: Callable[[], None]) -> None:
        self.disks: dict[str, Disk] = {}
        self.at = at
        super().__init__("power-loss", "")

    def xOpen(self, name: apsw.URIFilename | str | None, flags: list[int]) -> apsw.VFSFile:
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        if path is None:
            return super().xOpen(name, flags)
        layer, disk = self, self.disks.setdefault(path, Disk())

        class File(apsw.VFSFile):
            def __init__(self) -> None:
                super().__init__("", name, flags)

            def xWrite(self, data: bytes, offset: int) -> None:
                layer.at()
                disk.pending.append((offset, bytes(data)))
                super().xWrite(data, offset)

            def xTruncate(self, size: int) -> None:
                disk.pending.append((size, None))
                super().xTruncate(size)

            def xSync(self, how: int) -> None:
                layer.at()
                super().xSync(how)
                disk.sync()

        return File()

    def xDelete(self, name: str, sync: bool) -> None:
        self.disks.pop(name, None)
        super().xDelete(name, sync)


def acknowledged_and_lost(
    folder: Path, synchronous: Literal["FULL", "NORMAL"], images: int, seed: int
) -> tuple[int, int, int]:
    """Ingest and erase, with power cuts. Returns: the images seen, events acknowledged over all of them, those lost."""
    dice = random.Random(seed)
    acknowledged: list[str] = []
    gone: list[str] = []
    seen = total = lost = 0

    def cut() -> None:
        nonlocal seen, total, lost
        if acknowledged and seen < images and dice.random() < 0.25:
            for how in ("dropped", "begun", "reordered"):
                seen += 1
                total += len(acknowledged)
                lost += lost_of(layer, how, dice, folder / "image", acknowledged, gone)

    layer = PowerLoss(cut)
    rounds = 0
    while seen < images:
        place = folder / f"round{rounds}"
        store = SQLiteStore(place / "events.db", vfs="power-loss", synchronous=synchronous, checkpoint_pages=12)
        for batch in range(20):
            told = [event_of(f"{rounds}-{batch}-{n}", dice) for n in range(BATCH)]
            store.append(told)
            acknowledged += [one.event_id for one in told]
        erased = [one.event_id for one in store.history("user0", 1000)]
        acknowledged[:] = [name for name in acknowledged if name not in erased]
        store.erase("user0")
        gone += erased
        for batch in range(20, 24):
            told = [event_of(f"{rounds}-{batch}-{n}", dice) for n in range(BATCH)]
            accepted = store.append(told).accepted
            acknowledged += [one.event_id for one, new in zip(told, accepted, strict=True) if new]
        acknowledged.clear()  # these files go
        gone.clear()
        store.close()
        layer.disks.clear()
        shutil.rmtree(place)
        rounds += 1
    return seen, total, lost


def event_of(name: str, dice: random.Random) -> Event:
    return Event(
        event_id=name,
        item=f"item{dice.randrange(50)}",
        kind="view",
        time_us=1_700_000_000_000_000 + dice.randrange(10**9),
        user=f"user{dice.randrange(9)}",
        context={"padding": "x" * dice.randrange(400)},
    )


def lost_of(
    layer: PowerLoss, how: str, dice: random.Random, image: Path, acknowledged: list[str], gone: list[str]
) -> int:
    """Open what a power cut would leave, without the layer.

    Returns: acknowledged events that are not there, and erased ones that are.
    """
    image.mkdir()
    for path, disk in layer.disks.items():
        (image / Path(path).name).write_bytes(disk.found(how, dice))
    try:
        store = SQLiteStore(image / "events.db")  # looks at the whole file, since it was not closed
        there = [told.event_id for _, told in store.since(0, 10_000)]
        assert len(there) == len(set(there)) == store.state().events
        assert store.append([Event("after", "i", "view", 0, user="new")]).accepted == (True,)
        store.close()
    finally:
        shutil.rmtree(image)
    return len(set(acknowledged) - set(there)) + len(set(gone) & set(there))


@pytest.mark.parametrize(
    "images", [pytest.param(200, id="200 images"), pytest.param(2000, marks=pytest.mark.slow, id="2000 images")]
)
def test_nothing_acknowledged_is_lost(tmp_path: Path, images: int) -> None:
    seen, acknowledged, lost = acknowledged_and_lost(tmp_path, "FULL", images, seed=images)
    assert seen >= images
    assert acknowledged > 20 * images
    assert lost == 0


def test_the_control_loses(tmp_path: Path) -> None:
    """Without a sync at each commit the same cuts must show, or they are no cuts."""
    _, _, lost = acknowledged_and_lost(tmp_path, "NORMAL", 60, seed=1)
    assert lost > 100


def test_the_disk_model() -> None:
    disk = Disk(bytearray(b"abcd"), [(1, b"XY"), (3, None), (6, b"Z")])
    assert disk.found("dropped", random.Random(0)) == b"abcd"
    found = {bytes(disk.found("begun", random.Random(seed))) for seed in range(30)}
    assert found == {b"abcd", b"aXYd", b"aXY", b"aXY\0\0\0Z"}
    found = {bytes(disk.found("reordered", random.Random(seed))) for seed in range(200)}
    assert {b"abcd", b"abc", b"abcd\0\0Z", b"aXYd\0\0Z", b"aXY"} <= found
    disk.sync()
    assert disk.found("reordered", random.Random(0)) == b"aXY\0\0\0Z"
    assert [len(piece or b"") for _, piece in torn((3, bytes(1100)))] == [512, 512, 76]


def test_a_broken_image_is_told(tmp_path: Path) -> None:
    """The images are judged by a check that can fail."""
    layer = PowerLoss(lambda: None)
    store = SQLiteStore(tmp_path / "events.db", vfs="power-loss")
    store.append([event_of(str(n), random.Random(n)) for n in range(200)])
    store.close()
    layer.disks[str(tmp_path / "events.db")].safe[4096 * 3 : 4096 * 4] = bytes(4096)
    layer.disks[str(tmp_path / "events.db-wal")] = Disk(bytearray(b"left"))
    with pytest.raises(StorageError, match="damaged"):
        lost_of(layer, "dropped", random.Random(0), tmp_path / "image", [], [])
