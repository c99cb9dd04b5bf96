"""A shop's own files, taken in while the service runs: staged on disk, read by a process of its own, kept in one commit.

An upload is staged in a folder of ours under a name of ours; `data/importers/child.py` reads it as a feed of products or a
log of events, or says in one sentence why it is neither; all of it is kept in one transaction, or nothing. What is staged
outlives the service: the next start goes on with it.
"""

import asyncio
import logging
import os
import re
import shutil
from collections import Counter
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import date
from decimal import Decimal
from functools import partial
from hashlib import blake2b
from itertools import count
from pathlib import Path
from subprocess import Popen
from typing import Any, Literal, TypeVar

import polars as pl

from rediffuse.data.dataset import Dataset
from rediffuse.data.importers import child
from rediffuse.data.importers.products import Level, at_level
from rediffuse.data.importers.shop import ANONYMOUS
from rediffuse.data.importers.tolerance import FIRST, REASON, SHARE
from rediffuse.data.interactions import CONTEXT
from rediffuse.errors import InvalidInput, RediffuseError, StorageError, say
from rediffuse.files import claim, held, read_json, storage, sync_folder, write_json
from rediffuse.serving.batcher import Overloaded
from rediffuse.serving.service import Service
from rediffuse.serving.store import Event, Item

State = Literal["waiting", "running", "done", "failed"]
BAD_ROWS = SHARE
"""Share of rows that may be left out because they cannot stand."""
WAITING, REMEMBERED, LONGEST_PAUSE_S = 4, 200, 60.0
MOST_TRIES = 2
"""How often a file is begun: one that may have ended the service is not read for ever."""
_OURS = re.compile(r"[0-9a-f]{32}")
_UPLOAD, _READING, _TRIES, _WORK = "upload", "reading.json", "tries", "work"
_OUT = "out_of_stock"
_log = logging.getLogger(__name__)
T = TypeVar("T", Event, Item)


@dataclass(frozen=True)
class Reading:
    """How a file is to be read."""

    form: str = "auto"
    level: Level | None = None
    """What the model recommends; None: as the format does by itself."""
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Of the importer."""
    bad_rows: float = BAD_ROWS
    """Share of rows that may be left out because they cannot stand; with more the import is refused."""


@dataclass
class Import:
    """What became of a file so far."""

    id: str
    state: State = "waiting"
    holds: Literal["products", "events"] | None = None
    form: str | None = None
    rows: int = 0
    """That were read: events and items, a record may hold several."""
    kept: int = 0
    known: int = 0
    """Of those that were kept, the events that the store had already."""
    unknown_items: int = 0
    """Events, or products, of which the model of the moment knows no item."""
    left_out: dict[str, int] = field(default_factory=dict[str, int])
    """Reason -> rows."""
    first: list[str] = field(default_factory=list[str])
    """The first rows that could not stand, in words."""
    seq: int | None = None
    message: str | None = None
    """Why it failed, and then nothing of it was kept; or what a started one waits for."""


class Imports:
    """Takes files in, one after the other."""

    def __init__(self, service: Service, folder: Path, timeout_s: float = child.TIMEOUT_S) -> None:
        """Args: folder: where files are staged; made when the first comes.   timeout_s: for reading one."""
        self.service, self.folder, self.timeout_s = service, folder, timeout_s
        self._known: dict[str, Import] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._children = list[Popen[bytes]]()
        self._turn = asyncio.Semaphore(1)

    async def take(self, chunks: AsyncIterator[bytes], reading: Reading) -> Import:
        """Stage a file and begin to read it.

        Raises: Overloaded; StorageError; whatever the chunks raise, and nothing is left.
        """
        if len(self._tasks) > WAITING:
            raise Overloaded(say("Too many imports wait", got=len(self._tasks), remedy="Send it again later"), 10.0)
        place, lock = self.folder / self.service.clock.fresh(), ExitStack()
        try:
            with storage(place):
                await asyncio.to_thread(lock.enter_context, held(place, partial(place.mkdir, parents=True)))
                with (place / _UPLOAD).open("wb") as file:
                    async for chunk in chunks:
                        await asyncio.to_thread(file.write, chunk)
                    file.flush()
                    await asyncio.to_thread(os.fsync, file.fileno())
                # Last: a folder that tells how it is to be read is whole.
                await asyncio.to_thread(write_json, place / _READING, asdict(reading))
                await asyncio.to_thread(sync_folder, self.folder)
        except BaseException:
            shutil.rmtree(place, ignore_errors=True)
            lock.close()
            raise
        return self._begin(place, lock)

    def resume(self) -> None:
        """Go on with what was staged when a service ended, in the order it came; clear away what never was whole.

        What another service holds that lives stays its own, and what has no name of ours is nobody's business.
        """
        left = list[tuple[float, Path, int]]()
        for place in self.folder.iterdir() if self.folder.is_dir() else ():
            if _OURS.fullmatch(place.name):
                with suppress(FileNotFoundError):  # another service has just done with it
                    handle = claim(place)
                    left += [] if handle is None else [(place.stat().st_mtime, place, handle)]
        for _, place, handle in sorted(left):
            lock = ExitStack()
            lock.callback(os.close, handle)
            if (place / _READING).is_file():
                self._begin(place, lock)
            else:
                shutil.rmtree(place, ignore_errors=True)
                lock.close()

    async def close(self) -> None:
        """Stop; what is not done stays staged."""
        tasks = [*self._tasks.values()]
        for task in tasks:
            task.cancel()
        for process in self._children:
            process.kill()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _begin(self, place: Path, lock: ExitStack) -> Import:
        found = Import(place.name)
        while len(self._known) >= REMEMBERED:
            del self._known[next(iter(self._known))]
        self._known[found.id] = found
        self._tasks[found.id] = task = asyncio.create_task(self._run(found, place))

        def ended(_: asyncio.Task[None]) -> None:
            del self._tasks[found.id]
            lock.close()

        task.add_done_callback(ended)
        return found

    def find(self, name: str) -> Import | None:
        """One of the newest imports."""
        return self._known.get(name)

    async def finish(self, name: str, wait_s: float) -> None:
        """Wait for an import, at most so long."""
        if name in self._tasks:
            await asyncio.wait([self._tasks[name]], timeout=wait_s)

    async def _run(self, found: Import, place: Path) -> None:
        state, message = "done", None
        try:
            async with self._turn:
                await self._whatever_it_takes(found, place)
        except RediffuseError as error:
            state, message = "failed", str(error)
        except Exception:  # noqa: BLE001  # whoever asks is told, and the log has it
            _log.exception("an import failed")
            state, message = "failed", "Something went wrong here; the log of the service tells where."
        # Not when it is cancelled: the next start goes on with it. Told once nothing is left that could be read again.
        await asyncio.to_thread(shutil.rmtree, place, ignore_errors=True)
        found.state, found.message = state, message

    async def _whatever_it_takes(self, found: Import, place: Path) -> None:
        """Read and keep a file; what is not its fault, a store that is away or a child that was stopped, is waited for."""
        for again in count():
            found.state = "running"
            try:
                with _trying(place / _TRIES):
                    reading = Reading(**await asyncio.to_thread(read_json, place / _READING))
                    await self._import(found, place, reading)
            except (StorageError, child.Stopped) as error:
                found.state, found.message = "waiting", str(error)
                await asyncio.sleep(min(2.0**again, LONGEST_PAUSE_S))
            else:
                return

    async def _import(self, found: Import, place: Path, reading: Reading) -> None:
        read = await asyncio.to_thread(self._read, place, reading)
        found.form, found.first, found.left_out = read.form, [*read.first], {}
        if isinstance(read.data, Dataset):
            found.holds = "events"
            events = await asyncio.to_thread(self._events, found, read.data, reading.bad_rows)
            said = await self.service.record(events)
            erased = sum(said.refused)
            found.known = len(events) - sum(said.accepted) - erased
            found.kept, found.seq = len(events) - erased, said.seq
            if erased:
                found.left_out["erased user"] = erased
        else:
            found.holds = "products"
            found.left_out |= {REASON: read.left_out} if read.left_out else {}
            items = await asyncio.to_thread(self._items, found, read.data, reading)
            found.seq, found.kept = await self.service.put_items(items), len(items)

    def _read(self, place: Path, reading: Reading) -> child.Found:
        """What a child makes of a file. What lies between it and us lies in the same place, and goes with it."""
        work = place / _WORK
        with storage(work):
            shutil.rmtree(work, ignore_errors=True)
            work.mkdir()
        options: dict[str, Any] = {**reading.options}
        if reading.level is not None:
            options["level"] = reading.level
        try:
            return child.either(
                place / _UPLOAD,
                reading.form,
                bad_rows=reading.bad_rows,
                timeout_s=self.timeout_s,
                work=work,
                started=self._children.append,
                **options,
            )
        finally:
            self._children.clear()  # one at a time

    def _events(self, found: Import, data: Dataset, bad_rows: float) -> list[Event]:
        """Events as the store keeps them; an item that the model knows by its product is the product."""
        if "time_us" not in data.events.frame.columns:
            raise InvalidInput(say("These events have no times", remedy="Name the column: map=time=COLUMN"))
        groups = {item.item_id: item.group for _, item in self.service.store.items_since(0) if item.group is not None}
        with self.service.versions.current() as version:
            known = version.engine.model.items
        names = {
            item: groups[item] if item not in known and groups.get(item, item) in known else item
            for item in data.catalog.items.ids
        }
        facts = data.facts
        found.left_out.update({**facts.get("dropped", {}), **facts.get("left_out", {})})
        if facts["duplicates"]:
            found.left_out["again"] = facts["duplicates"]
        found.rows = len(data.events) + sum(found.left_out.values())
        events = _sound(found, bad_rows, (_maker(row, names) for row in _rows(data)))
        found.unknown_items = sum(event.item not in known for event in events)
        return events

    def _items(self, found: Import, products: pl.DataFrame, reading: Reading) -> list[Item]:
        """Items as the store keeps them: those that are recommended, and which product the variants belong to."""
        level = reading.level or "group_id"
        chosen = at_level(products, level)
        others = products.filter(~pl.col("item").is_in(chosen["item"].implode()))
        rows = [*chosen.iter_rows(named=True)]
        variants = others.select(pl.col("item", "group_id"), *(c for c in ("availability",) if c in others.columns))
        rows += variants.iter_rows(named=True) if level == "group_id" else ()
        found.rows = len(rows) + sum(found.left_out.values())
        items = _sound(found, reading.bad_rows, (_item_maker(row) for row in rows))
        with self.service.versions.current() as version:
            known = version.engine.model.items
        found.unknown_items = sum(item.item_id not in known for item in items[: chosen.height])
        return items


@contextmanager
def _trying(told: Path) -> Generator[None]:
    """Count what is begun and never ends, nor is cancelled. Raises: InvalidInput when it is too much."""
    with storage(told):
        begun = len(told.read_bytes()) if told.is_file() else 0
        if begun < MOST_TRIES:
            told.write_bytes(b"." * (begun + 1))
    if begun >= MOST_TRIES:
        raise InvalidInput(say("The service ended whenever it read this", got=begun, remedy="Send it in parts"))
    try:
        yield
    finally:
        told.unlink(missing_ok=True)


def _sound(found: Import, bad_rows: float, makers: Iterable[Callable[[], T]]) -> list[T]:
    """What can be kept; the rest is counted. Raises: InvalidInput when it is more than a share of all rows."""
    out, wrong = list[T](), Counter[str]()
    for make in makers:
        try:
            out.append(make())
        except InvalidInput as error:
            wrong[str(error).partition(".")[0]] += 1
            if len(found.first) < FIRST:
                found.first.append(str(error))
    found.left_out.update(wrong)
    if wrong.total() > bad_rows * found.rows or not out:
        problem = (
            f"{wrong.total()} of {found.rows} rows cannot stand, the first: {found.first[0] if found.first else ''}"
        )
        raise InvalidInput(
            say(problem, allowed=f"a share of {bad_rows:g}", remedy="Mend them, or allow more: bad_rows")
        )
    return out


def _rows(data: Dataset) -> Iterable[dict[str, Any]]:
    """Events with the ids of users and items."""
    users, items = data.users.items.ids, data.catalog.items.ids
    for row in data.events.frame.iter_rows(named=True):
        yield {**row, "user": users[row["user"]], "item": items[row["item"]]}


def _maker(row: Mapping[str, Any], names: Mapping[str, str]) -> Callable[[], Event]:
    user, kind = row["user"], row.get("kind") or "view"
    visitor = user.removeprefix(ANONYMOUS) if user.startswith(ANONYMOUS) else None
    told = [str(row.get(name)) for name in ("user", "item", "time_us", "kind", "value", "group")]
    made = blake2b("\x1f".join(told).encode(), digest_size=16).hexdigest()
    context = {name.removeprefix(CONTEXT): word for name, word in row.items() if name.startswith(CONTEXT) and word}
    return lambda: Event(
        event_id=row.get("event_id") or made,
        item=names[row["item"]],
        kind=kind,
        time_us=row["time_us"],
        user=user if visitor is None else None,
        anonymous=visitor,
        session=row.get("group"),
        value=row.get("value"),
        context=context,
    )


def _item_maker(row: Mapping[str, Any]) -> Callable[[], Item]:
    item, group = row["item"], row.get("group_id")
    rest = {name: _plain(value) for name, value in row.items() if name not in ("item", "group_id", "availability")}
    told = {name: value for name, value in rest.items() if value is not None}
    return lambda: Item(item, None if group == item else group, row.get("availability") != _OUT, told)


def _plain(value: object) -> str | float | tuple[str, ...] | None:
    """A value of a feed as one that is told of an item; None: it is not told."""
    if isinstance(value, list | tuple):
        return tuple(str(one) for one in value if one is not None)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Decimal | int | float):
        return float(value)
    return None if value is None or isinstance(value, date) else str(value)
