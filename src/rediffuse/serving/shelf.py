"""What the shop says of its items today, laid over what a model was saved with: prices, stock, groups."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from threading import Lock

import polars as pl

from rediffuse.errors import RediffuseError, StorageError
from rediffuse.facade import Model
from rediffuse.grounding.filters import ITEM
from rediffuse.serving.engine import Answered, Ask, Engine
from rediffuse.serving.ladder import Rung
from rediffuse.serving.store import Item, Store

AVAILABLE, GROUP = "available", "group"
_LOOK_AGAIN_S = 1.0
_log = logging.getLogger(__name__)

Value = str | float | tuple[str, ...] | bool | None


@dataclass
class Shelf:
    """Items told of; safe to use from any thread."""

    store: Store
    clock: Callable[[], float]
    """Seconds that only grow."""
    _told: dict[str, Item] = field(default_factory=dict[str, Item])
    _seq: int = 0
    _looked: float | None = None
    _away: bool = False
    """Whether the store could not be read when it was last looked at."""
    _dressed: tuple[Engine, int, Engine] | None = None
    """A model's engine, the seq of the items it was dressed in, and itself dressed."""
    _lock: Lock = field(default_factory=Lock)
    """Of what was told; never held while the store is read."""
    _reading: Lock = field(default_factory=Lock)

    def look(self) -> None:
        """Read what was told since, at most once a second; where the store cannot be read, what was told goes on to count.

        Who comes while another reads does not wait, but for the first time.
        """
        if not self._reading.acquire(blocking=self._looked is None):
            return
        try:
            if self._looked is None or self.clock() - self._looked >= _LOOK_AGAIN_S:
                self._read()
        except StorageError as error:
            if not self._away:  # once, however long it lasts
                _log.warning("what is said of items cannot be read, and what was said goes on to count: %s", error)
            self._away = True
        finally:
            self._reading.release()

    def refresh(self) -> None:
        """Read what was told since, now. Raises: StorageError."""
        with self._reading:
            self._read()

    def answer(self, engine: Engine, asks: Sequence[Ask], rung: Rung) -> list[Answered | RediffuseError]:
        """The engine's answers under today's items; what is not to be had is in no list."""
        with self._lock:
            engine = self._dress(engine)
            gone = not all(item.available for item in self._told.values())
        if gone:
            asks = [replace(ask, where=(*ask.where, f"{AVAILABLE}=true")) for ask in asks]
        return engine.answer(asks, rung)

    def dressed(self, engine: Engine) -> Engine:
        """The engine under today's items; itself where nothing was told."""
        with self._lock:
            return self._dress(engine)

    def forget_models(self) -> None:
        """Let go of the model that answered last."""
        with self._lock:
            self._dressed = None

    def _read(self) -> None:
        try:
            found = self.store.items_since(self._seq)
        finally:
            self._looked = self.clock()
        with self._lock:
            for seq, item in found:
                self._told[item.item_id], self._seq = item, seq
        self._away = False

    def _dress(self, engine: Engine) -> Engine:
        if not self._told:
            return engine
        if self._dressed is None or self._dressed[0] is not engine or self._dressed[1] != self._seq:
            classic = None if engine.classic is None else under(engine.classic, self._told)
            self._dressed = engine, self._seq, replace(engine, model=under(engine.model, self._told), classic=classic)
        return self._dressed[2]


def under(model: Model, told: Mapping[str, Item]) -> Model:
    """The model under what is told of its items; of others, and of attributes not told, it knows what it knew.

    A value of another kind than its column's is not known: a word where numbers stand.
    """
    table = pl.DataFrame({ITEM: model.items.ids}).hstack(model.folder.attributes)
    ours = {model.items.number(item.item_id): item for item in told.values() if item.item_id in model.items}
    columns = dict[str, dict[int, Value]]({AVAILABLE: {number: item.available for number, item in ours.items()}})
    for number, item in ours.items():
        named = item.attributes if item.group is None else {**item.attributes, GROUP: item.group}
        for name, value in named.items():
            if name not in (ITEM, AVAILABLE):
                columns.setdefault(name, {})[number] = value
    return model.knowing(table.with_columns(_laid(table, name, values) for name, values in columns.items()))


def _laid(table: pl.DataFrame, name: str, values: Mapping[int, Value]) -> pl.Series:
    """A column with some of its values replaced."""
    if name == AVAILABLE:
        return pl.Series(name, [values.get(row, True) for row in range(table.height)], dtype=pl.Boolean)
    dtype = table.schema[name] if name in table.columns else _kind(values.values())
    dtype = pl.String() if isinstance(dtype, pl.Categorical | pl.Enum) else _wide(dtype, values.values())
    old: list[object] = table[name].cast(dtype).to_list() if name in table.columns else [None] * table.height
    for row, value in values.items():
        old[row] = _as(value, dtype)
    return pl.Series(name, old, dtype=dtype, strict=False)


def _kind(values: Iterable[Value]) -> pl.DataType:
    """Of a column that the model did not have."""
    kinds = {type(value) for value in values}
    if tuple in kinds:
        return pl.List(pl.String)
    return pl.String() if str in kinds else pl.Float64()


def _wide(dtype: pl.DataType, values: Iterable[Value]) -> pl.DataType:
    """The kind of a column; of whole numbers, one that holds a fraction or a larger number that was told."""
    told = pl.Series([float(value) for value in values if isinstance(value, int | float)], dtype=pl.Float64)
    whole = not dtype.is_integer() or told.cast(dtype, strict=False).cast(pl.Float64).eq_missing(told).all()
    return dtype if whole else pl.Float64()


def _as(value: Value, dtype: pl.DataType) -> object:
    """A value as one of the column's, None where it is none."""
    if isinstance(dtype, pl.List):
        return list(value) if isinstance(value, tuple) else [value] if isinstance(value, str) else None
    if isinstance(value, tuple):
        return None
    if dtype == pl.String:
        return _worded(value) if isinstance(value, int | float) else value
    if dtype == pl.Boolean:
        return {"true": True, "false": False}.get(value) if isinstance(value, str) else None
    return None if isinstance(value, str) else value


def _worded(number: float) -> str:
    """A number where words stand: 1234567, 49.95."""
    return f"{number:.0f}" if float(number).is_integer() else repr(number)
