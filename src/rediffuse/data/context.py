"""What surrounds an event besides its user and item: the season, what the shop declared of the moment, who the user is.

| name | of | value |
|---|---|---|
| season | each event whose time is known | share of the year gone by in the shop's time zone, 0 .. 1: a cycle |
| price_tier | each event | low, middle or high: thirds of the catalog's prices |
| a column of `users.parquet` in words | each user | that word |
| a declared column of the events | each event | that word |
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

import polars as pl
import torch
from torch import Tensor

from rediffuse.data.catalog import Catalog
from rediffuse.data.dataset import Dataset
from rediffuse.data.interactions import CONTEXT
from rediffuse.errors import InvalidInput, say, unknown
from rediffuse.protocols import Context
from rediffuse.types import Ragged

SEASON, PRICE_TIER = "season", "price_tier"
NOT_WORDS = ("history", SEASON, PRICE_TIER)
"""Names of conditions that no column can take."""
SEASONS: Mapping[str, float] = {"spring": 0.29, "summer": 0.54, "autumn": 0.79, "winter": 0.04}
"""Share of the year in the middle of each season, northern half of the earth: mid April, July, October, January."""
TIERS = ("low", "middle", "high")
_ENOUGH = 20
"""Events by which a column of items is told from one of moments."""
MOST_WORDS = 1000
"""A column with more different words tells users apart; it is no context."""


def context_names(dataset: Dataset) -> list[str]:
    """What may be a condition on this data, besides the history."""
    names = [SEASON] if dataset.events.order == "time" else []
    price = dataset.catalog.attributes.schema.get("price")
    names += [PRICE_TIER] if price is not None and price.is_numeric() else []
    declared = [name for name, words in dataset.events.contexts.items() if words and name not in NOT_WORDS]
    return [*names, *declared, *_of_users(dataset)]


def contexts_of(dataset: Dataset, names: Iterable[str], history: Ragged) -> dict[str, Context]:
    """The named contexts along a history of all users.

    Raises: InvalidInput for a name that this data does not know.
    """
    out: dict[str, Context] = {}
    known = context_names(dataset)
    for name in names:
        if name not in known:
            raise InvalidInput(unknown("condition", name, ["history", *known]))
        if name == SEASON:
            assert history.time_us is not None
            out[name] = Context("event", share_of_year(history.time_us, dataset.time_zone))
        elif name == PRICE_TIER:
            out[name] = Context("event", price_tiers(dataset.catalog)[history.items], TIERS)
        elif name in dataset.events.contexts:
            out[name] = Context("event", history.context[name], dataset.events.contexts[name])
        else:
            words = _words(dataset.users.attributes[name])
            assert words is not None
            codes = words.to_physical().cast(pl.Int64).fill_null(-1).to_numpy()
            out[name] = Context("user", torch.from_numpy(codes.copy()), _categories(words))
    return out


def moments(dataset: Dataset, users: Tensor, relevant: Ragged) -> tuple[Tensor | None, dict[str, Tensor]]:
    """When some users' answers are wanted, and what is known of that moment before the answer is.

    The moment is that of the first event that is asked. What tells of the item itself, its price or a declared column that
    says the same of an item every time, is not known.

    Args: users: (B,) int64.   relevant: their rows of the part that is asked, oldest first, none empty.
    Returns: at_us (B,), and name -> (B,).
    """
    first = relevant.indptr[:-1]
    at_us = None if relevant.time_us is None else relevant.time_us[first]
    found: dict[str, Tensor] = {}
    for name, context in contexts_of(dataset, _told(dataset), relevant).items():
        found[name] = context.values[users if context.per == "user" else first]
    return at_us, found


def share_of_year(time_us: Tensor, time_zone: str = "UTC") -> Tensor:
    """The part of its year, by the calendar of a time zone, that a moment stands in; days count whole, from 0.

    Args: time_us: (n,) int64, UTC. Returns: (n,) float32, 0 .. 1, 1 excluded.
    """
    stamps = pl.Series(time_us.cpu().numpy()).cast(pl.Datetime("us", "UTC")).dt.convert_time_zone(time_zone)
    days = 365 + stamps.dt.is_leap_year().cast(pl.Int64)
    share = (stamps.dt.ordinal_day().cast(pl.Float64) - 1) / days
    return torch.from_numpy(share.to_numpy().astype("float32")).to(time_us.device)


def season_of(text: str, time_zone: str = "UTC") -> float:
    """Words for a season, a date, or a day of the year (1 .. 366) -> the share of the year. Raises: InvalidInput."""
    word = text.strip().lower()
    if word in SEASONS:
        return SEASONS[word]
    if word == "now":
        return float(share_of_year(torch.tensor([int(datetime.now(UTC).timestamp() * 1e6)]), time_zone)[0])
    if word.isdecimal() and 1 <= int(word) <= 366:
        return (int(word) - 1) / 366
    try:
        noon = datetime.combine(date.fromisoformat(word), datetime.min.time().replace(hour=12), ZoneInfo(time_zone))
    except ValueError:
        raise InvalidInput(
            say(
                "This is no season",
                got=text,
                allowed=f"{', '.join(SEASONS)}, now, a date like 2026-01-14, or a day of the year 1..366",
            )
        ) from None
    return float(share_of_year(torch.tensor([int(noon.timestamp() * 1e6)]), time_zone)[0])


def value_of(name: str, text: str, names: Sequence[str], time_zone: str = "UTC") -> float | int:
    """What a word for a context means to a model. Args: names: of its codes. Raises: InvalidInput for another word."""
    if name == SEASON:
        return season_of(text, time_zone)
    if text not in names:
        raise InvalidInput(unknown(name, text, names))
    return list(names).index(text)


def user_words(dataset: Dataset, names: Iterable[str]) -> dict[str, list[str | None]]:
    """Those of the names that tell of users -> the word of each user, None unknown."""
    known = _of_users(dataset)
    return {name: dataset.users.attributes[name].cast(pl.String).to_list() for name in names if name in known}


def price_tiers(catalog: Catalog) -> Tensor:
    """The third of the catalog's prices that each item stands in, (I,) int64: 0 low .. 2 high, -1 unknown."""
    price = catalog.attributes["price"].cast(pl.Float64).fill_nan(None)
    ranks = (price.rank("average") - 0.5) / max(price.count(), 1)
    tiers = (ranks * len(TIERS)).floor().cast(pl.Int64).clip(0, len(TIERS) - 1).fill_null(-1)
    return torch.from_numpy(tiers.to_numpy().copy())


def _categories(column: pl.Series) -> tuple[str, ...]:
    assert isinstance(column.dtype, pl.Enum)
    return tuple(column.dtype.categories)


def _of_users(dataset: Dataset) -> list[str]:
    """The columns of the users in words, but for those whose name means something else."""
    table, others = dataset.users.attributes, {*NOT_WORDS, *dataset.events.contexts}
    return [name for name in table.columns if name not in others and _words(table[name]) is not None]


def _told(dataset: Dataset) -> list[str]:
    of_items = {PRICE_TIER, *(name for name in dataset.events.contexts if _of_items(dataset, name))}
    return [name for name in context_names(dataset) if name not in of_items]


def _of_items(dataset: Dataset, name: str) -> bool:
    """Whether a declared column is an attribute of items in disguise: it would give the answer away.

    The events whose word is not the commonest of their item are counted against those whose word is not the commonest of
    all: a column of items has next to none of the first where there are many of the second.
    """
    words = dataset.events.frame.select("item", word=CONTEXT + name).drop_nulls()
    counts = words.group_by("item", "word").agg(n=pl.len()).filter(pl.col("n").sum().over("item") > 1)
    commonest = counts.group_by("item").agg(pl.col("n").max())["n"].to_numpy().sum()
    of_all = counts.group_by("word").agg(pl.col("n").sum())["n"].to_numpy()
    by_item, by_all = of_all.sum() - commonest, of_all.sum() - of_all.max(initial=0)
    return bool(by_all >= _ENOUGH and by_item < by_all / 100)


def _words(column: pl.Series) -> pl.Series | None:
    """A column of few words as categories in their order; None where it is none."""
    if not isinstance(column.dtype, pl.String | pl.Categorical | pl.Enum | pl.Boolean):
        return None
    text = column.cast(pl.String)
    present = text.unique().drop_nulls().sort()
    return text.cast(pl.Enum(present)) if 1 < len(present) <= MOST_WORDS else None
