"""Which events count, and how much: kinds, ratings, returns and repeats, as a value that is recorded."""

from collections.abc import Mapping
from typing import Any, Literal, Self

import polars as pl
from pydantic import NonNegativeFloat, model_validator

from rediffuse.config import FrozenConfig
from rediffuse.data.interactions import Order
from rediffuse.errors import InvalidInput, say, unknown

Repeats = Literal["mask", "allow"]


class EventRules(FrozenConfig):
    """What an event counts. Kinds of returns and purchases match in any case; those that weigh match as they stand."""

    kinds: Mapping[str, NonNegativeFloat] | None = None
    """Weight of each kind; events of other kinds are left out and counted. None: every event counts 1."""
    min_rating: float | None = None
    """Events whose value is below are left out and counted; those without a value stay."""
    returns: tuple[str, ...] = ("return", "refund", "cancel")
    """Kinds that cancel the same user's latest earlier purchase of that item: both then weigh 0 and stay on record."""
    purchases: tuple[str, ...] = ("purchase", "buy", "order", "transaction")
    """Kinds that a return cancels; where none of them occurs, those of the largest weight."""
    repeats: Repeats = "mask"
    """Whether an item that somebody has had may be recommended to them again: mask (no) or allow."""

    @model_validator(mode="after")
    def _weighs_or_cancels(self) -> Self:
        for name in self.kinds or ():
            if _plain(name) in map(_plain, self.returns):
                raise ValueError(say(f"kind {name!r} cannot both weigh and cancel", remedy="Take it out of returns"))
        return self


def kept(frame: pl.DataFrame, rules: EventRules) -> tuple[pl.DataFrame, dict[str, int]]:
    """The events that the rules take, and how many others there were by reason.

    Args: frame: kind as an Enum of what occurs, value: where known.
    Raises: InvalidInput when a rule needs a column that is not there, names a kind that does not occur, or leaves none.
    """
    left_out: dict[str, int] = {}
    if rules.kinds is not None:
        present = _present(frame)
        for name in rules.kinds:
            if name not in present:
                raise InvalidInput(unknown("kind", name, present))
        wanted = [name for name in present if name in rules.kinds or _plain(name) in map(_plain, rules.returns)]
        count = frame["kind"].value_counts()
        left_out = {
            f"kind {name}" if name else "no kind": number
            for name, number in sorted(count.rows(), key=str)
            if name not in wanted
        }
        frame = frame.filter(pl.col("kind").is_in(wanted)) if left_out else frame
    if rules.min_rating is not None:
        if "value" not in frame.columns:
            raise InvalidInput(say("min_rating needs a column of values", remedy="Name it: --map value=COLUMN"))
        enough = (frame["value"] >= rules.min_rating).fill_null(value=True)
        left_out[f"value below {rules.min_rating:g}"] = int((~enough).sum())
        frame = frame.filter(enough)
    if not frame.height:
        raise InvalidInput(say("The rules leave no event", got=left_out, remedy="Loosen kinds or min_rating"))
    return frame, left_out


def weights(frame: pl.DataFrame, rules: EventRules, order: Order) -> tuple[pl.Series | None, dict[str, Any]]:
    """What each event weighs, None when all weigh 1; and what returns did.

    Where no order is known, a return cancels any purchase of the same user and item.

    Args: frame: events in canonical order, as in Interactions.
    Returns: (n,) Float32.
    """
    present = _present(frame) if "kind" in frame.columns else []
    returns = [name for name in present if _plain(name) in map(_plain, rules.returns)]
    if rules.kinds is None and not returns:
        return None, {}
    table = {name: 0.0 if name in returns else (rules.kinds or {}).get(name, 1.0) for name in present}
    weight = frame["kind"].replace_strict(table, default=1.0, return_dtype=pl.Float32)
    if not returns:
        return weight, {}
    bought = [name for name in present if _plain(name) in map(_plain, rules.purchases) and name not in returns]
    bought = bought or [name for name in present if table[name] == max(table.values()) and name not in returns]
    cancelled = _cancelled(frame, bought, returns, order)
    counts = {"events": int(frame["kind"].is_in(returns).sum()), "cancelled": len(cancelled)}
    return weight.scatter(cancelled, 0.0), {"returns": {"kinds": returns, "of": bought, **counts}}


def _cancelled(frame: pl.DataFrame, bought: list[str], returns: list[str], order: Order) -> pl.Series:
    """Row numbers of the purchases that a later return takes back: they match like brackets, the latest first.

    With +1 for a purchase and -1 for a return, the level of an event is how many purchases stand open with it; a
    return takes back the purchase that stands right before it on its level.
    """
    pair, level = ["user", "item"], ["user", "item", "level"]
    step = pl.when(pl.col("kind").is_in(returns)).then(-1).when(pl.col("kind").is_in(bought)).then(1)
    steps = frame.lazy().with_row_index("row").with_columns(step=step).filter(pl.col("step").is_not_null())
    steps = steps.join(steps.filter(pl.col("step") < 0).select(pair).unique(), on=pair, how="semi")
    when = {"time": ["time_us", "turn"], "sequence": ["position"], "none": ["turn"]}[order]
    # at the same moment a purchase stands before its return
    steps = steps.with_columns(turn=-pl.col("step")).sort([*pair, *when, "row"])
    steps = steps.with_columns(total=pl.col("step").cum_sum().over(pair))
    unmatched = pl.min_horizontal(pl.col("total").cum_min().over(pair), 0)
    steps = steps.with_columns(level=pl.col("total") - unmatched + (pl.col("step") < 0).cast(pl.Int32))
    taken = (pl.col("step") > 0) & (pl.col("step").shift(-1).over(level) < 0)
    return steps.filter(taken).select("row").collect()["row"].sort()


def _present(frame: pl.DataFrame) -> list[str]:
    if "kind" not in frame.columns:
        raise InvalidInput(say("Kinds need a column of kinds", remedy="Name it: --map kind=COLUMN"))
    return frame["kind"].unique().drop_nulls().cast(pl.String).sort().to_list()


def _plain(name: str) -> str:
    return name.casefold()
