"""What the shop says of its items today, laid over what a model was saved with: prices, stock, groups."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from threading import Lock

import polars as pl

from rediffuse.errors import RediffuseError
from rediffuse.facade import Model
from rediffuse.grounding.filters import ITEM
from rediffuse.serving.engine import Answered, Ask, Engine
from rediffuse.serving.ladder import Rung
from rediffuse.serving.store import Item, Store

AVAILABLE, GROUP = "available", "group"
_LOOK_AGAIN_S = 1.0

Value = str | float | tuple[str, ...] | bool | None


@dataclass
class Shelf:
    """Items told of; safe to use from any thread."""

    store: Store
    clock: Callable[[], float]
    """Seconds that only grow."""
    _told: dict[str, Item] = field(default_factory=dict[str, Item])
    _seq: int = 0
    _looked: float = float("-inf")
    _dressed: tuple[Engine, int, Engine] | None = None
    """A model's engine, the seq of the items it was dressed in, and itself dressed."""
    _lock: Lock = field(default_factory=Lock)

    def refresh(self, *, now: bool = False) -> None:
        """Read what was told since; at most once a second, unless it must be now. Raises: StorageError."""
        with self._lock:
            if now or self.clock() - self._looked >= _LOOK_AGAIN_S:
                self._looked = self.clock()
                for seq, item in self.store.items_since(self._seq):
                    self._told[item.item_id], self._seq = item, seq

    def answer(self, engine: Engine, asks: Sequence[Ask], rung: Rung) -> list[Answered | RediffuseError]:
        """The engine's answers under today's items; what is not to be had is in no list."""
        engine = self.dressed(engine)
        with self._lock:
            gone = not all(item.available for item in self._told.values())
        if gone:
            asks = [replace(ask, where=(*ask.where, f"{AVAILABLE}=true")) for ask in asks]
        return engine.answer(asks, rung)

    def dressed(self, engine: Engine) -> Engine:
        """The engine under today's items; itself where nothing was told."""
        with self._lock:
            return self._dress(engine) if self._told else engine

    def forget_models(self) -> None:
        """Let go of the model that answered last."""
        with self._lock:
            self._dressed = None

    def _dress(self, engine: Engine) -> Engine:
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
    dtype = pl.String() if isinstance(dtype, pl.Categorical | pl.Enum) else dtype
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


def _as(value: Value, dtype: pl.DataType) -> object:
    """A value as one of the column's, None where it is none."""
    if isinstance(dtype, pl.List):
        return list(value) if isinstance(value, tuple) else [value] if isinstance(value, str) else None
    if isinstance(value, tuple):
        return None
    if dtype == pl.String:
        return value if isinstance(value, str) else f"{value:g}"
    if dtype == pl.Boolean:
        return {"true": True, "false": False}.get(value) if isinstance(value, str) else None
    return None if isinstance(value, str) else value
