"""What every shop's log of events needs: users joined with their visits, repeats told apart, items joined with the feed.

An importer gives one row for each event and item, with those of these columns that it knows:

| column | holds |
|---|---|
| item, product | the variant and its product; either may be missing |
| user_id, anonymous_id | at least one; a visit that logs in as one user becomes that user's |
| time_us, kind, value | as in `Dataset` |
| transaction, session | what the event belongs to; the first that is known is its group |
| event_id | the source's; else it is made of what tells the event from others |
| place | of the item in the event's list |
| turn | text that sorts the events of one moment |
| context_NAME | words that tell of the moment |
| title, brand, category_path | what the event says of its item, where there is no feed |
"""

import hashlib
from collections.abc import Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import Any, TypedDict, get_args

import polars as pl

from rediffuse.data.context import MOST_WORDS
from rediffuse.data.dataset import Dataset
from rediffuse.data.importers.products import Level, at_level
from rediffuse.data.importers.reading import stem
from rediffuse.data.importers.records import LINE, refuse
from rediffuse.data.importers.times import Clock
from rediffuse.data.importers.tolerance import REASON, readable, settle
from rediffuse.data.importers.values import MISSING
from rediffuse.data.interactions import CONTEXT
from rediffuse.data.rules import EventRules
from rediffuse.errors import InvalidInput, say

ANONYMOUS = "p:"
"""How the id of a visitor begins who is known by no other."""
NO_INTEREST = ("impression", "cart_remove")
"""Kinds that are left out unless kinds are weighed: they tell of no interest."""

MOST_REASONS = 50
"""Names of other events that are counted one by one."""

_ITEM = ("item", "product")
_TEXT = (*_ITEM, "user_id", "anonymous_id", "kind", "transaction", "session", "event_id", "turn")
_OWN: Mapping[Level, tuple[str, ...]] = {"group_id": _ITEM[::-1], "item_id": _ITEM}
_ABOUT = ("title", "brand", "category_path")
_TELL_APART = ("user_id", "anonymous_id", "item", "product", "time_us", "kind", "transaction", "turn", "place")
_GID = r"^gid://[^/]+/[^/]+/"
_EPOCH = r"^\s*[+-]?[0-9.]+([eE][+-]?[0-9]+)?\s*$"


class Wanted(TypedDict, total=False):
    """What can be asked of every importer of a shop's events."""

    products: pl.DataFrame | None
    """A table of items, as a feed gives it; None, the default: items are what events say of them."""
    level: Level
    """What is recommended: group_id, the default, products; item_id, their variants."""
    name: str | None
    """Of the dataset; None, the default: as the source is called."""
    time_zone: str
    """For seasons; UTC by default."""
    rules: EventRules | None
    """Which events count; None, the default: all that tell of interest (not NO_INTEREST), and refunds cancel."""


def dataset(
    source: Path,
    form: str,
    log: pl.DataFrame,
    dropped: Mapping[str, int],
    *,
    users: pl.DataFrame | None = None,
    logins: Sequence[pl.DataFrame] = (),
    products: pl.DataFrame | None = None,
    level: Level = "group_id",
    name: str | None = None,
    time_zone: str = "UTC",
    rules: EventRules | None = None,
) -> Dataset:
    """Events of a shop -> a dataset.

    Args: form: name of the format.   log: as above.   dropped: reason -> rows that were left out on the way.
        users: what is known of them.   logins: user_id, anonymous_id of whatever names both, besides the events.
        The others: as `Wanted` tells.
    Raises: InvalidInput when no event is left.
    """
    counts = dict(dropped)
    if bad := settle(source.name, log.height + sum(counts.values())):
        counts[REASON] = bad
    log, facts = _users(_whole_refunds(_plain(log)), [_plain(some) for some in logins])
    log = _without(log, pl.coalesce("item", "product").is_null(), "no item", counts)
    log = _once(_without(log, pl.col("user").is_null(), "no user", counts), counts)
    if not log.height:
        raise InvalidInput(
            say(f"{source.name!r} holds no event of an item", got=counts, remedy="Check which format it is")
        )
    log, items, found = joined(log, products, level)
    facts |= {"format": form, "source": source.name, "level": level, "dropped": counts, **found}
    turn = pl.col("turn").fill_null("").rank("dense").over("user", "time_us").cast(pl.Int64) - 1
    contexts = [c for c in log.columns if c.startswith(CONTEXT) and 1 <= log[c].drop_nulls().n_unique() <= MOST_WORDS]
    frame = log.select(
        "user",
        "item",
        pl.col("time_us") + turn,
        *("kind", "value", "event_id", *contexts),
        group=pl.coalesce("transaction", "session"),
    )
    frame = frame.select(column for column in frame.iter_columns() if column.count())
    if contexts:
        facts["contexts"] = {c.removeprefix(CONTEXT): frame[c].drop_nulls().n_unique() for c in contexts}
    return Dataset.from_events(
        name or stem(source),
        frame,
        items=items,
        users=users,
        facts=facts,
        time_zone=time_zone,
        rules=_rules(frame, rules),
    )


def joined(
    log: pl.DataFrame, products: pl.DataFrame | None, level: Level
) -> tuple[pl.DataFrame, pl.DataFrame | None, dict[str, Any]]:
    """Bring the items of events to one level and join them with a table of items.

    An event may name a variant or a product, whole or without the prefix gid://shopify/..; on the level of variants, an
    event of a product with a single variant is that variant's, and of another stays the product's.

    Args: log: item, product.   products: None: items are what events say of them.
    Returns: the events, the table of items, facts.
    Raises: InvalidInput for an unknown level.
    """
    if level not in get_args(Level):
        raise InvalidInput(say("Unknown level", got=level, allowed=get_args(Level)))
    if products is None:
        log = log.with_columns(item=pl.coalesce(_OWN[level]))
        return log, _told(log), {}
    items = at_level(products, level)
    keys = _keys(products, level)
    if "product" not in log.columns:
        log = log.with_columns(product=pl.lit(None, dtype=pl.String))
    for theirs in ("item", "product"):
        log = log.with_columns(_bare(pl.col(theirs)).alias("key")).join(
            keys.rename({"ours": f"of_{theirs}"}), on="key", how="left", maintain_order="left"
        )
    known = pl.coalesce("of_item", "of_product")
    missing = log.select(known.is_null().sum()).item()
    log = log.with_columns(item=pl.coalesce(known, *_OWN[level])).drop("key", "of_item", "of_product")
    return log, items, {"products": products.height, "events_not_in_the_feed": missing}


def moments(frame: pl.DataFrame, column: str, name: str, clock: Clock | None = None) -> pl.Series:
    """Times of records -> (n,) Int64 UTC microseconds.

    Args: clock: reads epoch numbers of one unit; None: ISO 8601 text, and numbers are refused.
    Raises: InvalidInput naming the column, the first value that is no time and its record; where that is tolerated, the
        time is null.
    """
    wrong = pl.repeat(value=False, n=frame.height, dtype=pl.Boolean, eager=True)
    if clock is None:
        wrong = frame[column].str.contains(_EPOCH).fill_null(value=False)
        remedy = "This format writes times as 2024-01-31T10:00:00Z"
        refuse(frame, wrong, column, name, "holds a number where a time was expected", remedy=remedy)
    before = 0 if frame.is_empty() else int(frame[LINE][0]) - 1
    clock = clock or Clock()
    good = ~wrong & readable(lambda some: copy(clock).read(some), frame[column])
    if good.all():
        return clock.read(frame[column], before)
    refuse(frame, ~(good | wrong), column, name, "holds no time", remedy="Write it as the format says")
    out = pl.Series(column, [None] * frame.height, dtype=pl.Int64)
    return out.scatter(good.arg_true(), clock.read(frame[column].filter(good), before)) if good.any() else out


def kinds(frame: pl.DataFrame, column: str, table: Mapping[str, str], dropped: dict[str, int]) -> pl.DataFrame:
    """Keep the records whose event is one of the table, with `kind`; others are counted by their name."""
    frame = frame.with_columns(kind=pl.col(column).replace_strict(table, default=None, return_dtype=pl.String))
    for word, count in frame.filter(pl.col("kind").is_null())[column].value_counts(sort=True).rows():
        reason = f"event {word}"
        reason = reason if reason in dropped or len(dropped) < MOST_REASONS else "other events"
        dropped[reason] = dropped.get(reason, 0) + count
    return frame.filter(pl.col("kind").is_not_null())


def listed(frame: pl.DataFrame, items: str) -> pl.DataFrame:
    """One row for each item of a column of lists, with its `place`; a record without items keeps one row."""
    return frame.with_columns(place=pl.int_ranges(pl.col(items).list.len())).explode(items, "place", empty_as_null=True)


def _plain(log: pl.DataFrame) -> pl.DataFrame:
    """All columns, null where nothing is known; text without surrounding white space, null where it says it is missing."""
    kinds_of_columns = {**dict.fromkeys(_TEXT, pl.String), "place": pl.Int64, "value": pl.Float64}
    missing = [pl.lit(None, dtype=t).alias(name) for name, t in kinds_of_columns.items() if name not in log.columns]
    log = log.with_columns(missing)
    text = [pl.col(name).str.strip_chars() for name, dtype in log.schema.items() if dtype == pl.String]
    log = log.with_columns(text)
    absent = pl.selectors.string().str.to_lowercase().is_in(MISSING)
    return log.with_columns(pl.when(~absent).then(pl.selectors.string()).name.keep())


def _whole_refunds(log: pl.DataFrame) -> pl.DataFrame:
    """A refund of a whole order names no item: it is one of each that the order's purchases name."""
    whole = (pl.col("kind") == "refund") & pl.coalesce(_ITEM).is_null() & pl.col("transaction").is_not_null()
    whole = whole.fill_null(value=False)
    bought = log.filter((pl.col("kind") == "purchase") & pl.coalesce(_ITEM).is_not_null())
    lines = bought.select("transaction", *_ITEM).unique().sort(_ITEM)
    lines = lines.with_columns(place=pl.int_range(pl.len()).over("transaction"))
    refunds = log.filter(whole).drop(*_ITEM, "place").join(lines, on="transaction")
    return pl.concat([log.filter(~whole), refunds.select(log.columns)])


def _users(log: pl.DataFrame, logins: Sequence[pl.DataFrame]) -> tuple[pl.DataFrame, dict[str, Any]]:
    """One `user` for each event: the known one, else the one that the visitor logged in as, else the visitor."""
    pairs = pl.concat(some.select("anonymous_id", "user_id") for some in (log, *logins)).drop_nulls().unique()
    single = pairs.filter(pl.len().over("anonymous_id") == 1).rename({"user_id": "alias"})
    log = log.join(single, on="anonymous_id", how="left", maintain_order="left")
    user = pl.coalesce("user_id", "alias", ANONYMOUS + pl.col("anonymous_id"))
    shared = pairs["anonymous_id"].n_unique() - single.height
    merged = log.filter(pl.col("user_id").is_null() & pl.col("alias").is_not_null())["anonymous_id"].n_unique()
    facts = {"visitors_merged_with_users": merged, "visitors_of_several_users": shared}
    return log.with_columns(user=user), facts if log["anonymous_id"].count() else {}


def _once(log: pl.DataFrame, counts: dict[str, int]) -> pl.DataFrame:
    """Events by their id, and purchases by order and item, once: the earliest."""
    text = pl.concat_str([pl.col(name).cast(pl.String).fill_null("") for name in _TELL_APART], separator="\x1f")
    made = pl.Series([_digest(key) for key in log.select(text).to_series()], dtype=pl.String)
    later = pl.concat_str("event_id", pl.lit("."), "place")
    given = pl.when(pl.col("place") > 0).then(later).otherwise("event_id")
    log = log.with_columns(event_id=pl.coalesce(given, made)).sort("time_us", *_TELL_APART, "event_id", nulls_last=True)
    log = _without(log, ~pl.col("event_id").is_first_distinct(), "event id again", counts)
    bought = (pl.col("kind") == "purchase").fill_null(value=False) & pl.col("transaction").is_not_null()
    again = bought & ~pl.struct("transaction", *_ITEM, bought.alias("bought")).is_first_distinct()
    return _without(log, again, "item of an order again", counts)


def _without(log: pl.DataFrame, wrong: pl.Expr, reason: str, counts: dict[str, int]) -> pl.DataFrame:
    kept = log.filter(~wrong)
    if gone := log.height - kept.height:
        counts[reason] = counts.get(reason, 0) + gone
    return kept


def _told(log: pl.DataFrame) -> pl.DataFrame | None:
    """What the latest events say of their items."""
    names = [name for name in _ABOUT if name in log.columns and log[name].count()]
    if not names:
        return None
    if "category_path" in names:
        log = log.with_columns(category_path=pl.when(pl.col("category_path").list.len() > 0).then("category_path"))
    return (
        log.sort("time_us", "event_id")
        .group_by("item")
        .agg(pl.col(name).drop_nulls().last() for name in names)
        .sort("item")
    )


def _keys(products: pl.DataFrame, level: Level) -> pl.DataFrame:
    """What an event may call an item -> our item: variants before products."""
    variants = pl.col("item") if level == "item_id" else pl.col("group_id")
    single = pl.when(pl.len() == 1).then(pl.col("item").first()).otherwise(pl.col("group_id").first())
    of_groups = products.group_by("group_id").agg(ours=single if level == "item_id" else pl.col("group_id").first())
    keys = [
        products.select(key=_bare(pl.col("item")), ours=variants),
        of_groups.select(key=_bare(pl.col("group_id")), ours="ours"),
    ]
    return pl.concat(keys).unique("key", keep="first", maintain_order=True)


def _bare(ids: pl.Expr) -> pl.Expr:
    return ids.str.replace(_GID, "")


def _rules(frame: pl.DataFrame, rules: EventRules | None) -> EventRules:
    """Unless kinds are weighed, those that tell of no interest are left out."""
    rules = rules or EventRules()
    if "kind" not in frame.columns or rules.kinds is not None:
        return rules
    present: Sequence[str] = frame["kind"].drop_nulls().unique().sort().to_list()
    returns = [name.casefold() for name in rules.returns]
    liked = {kind: 1.0 for kind in present if kind not in NO_INTEREST and kind.casefold() not in returns}
    if not liked or not set(present) & set(NO_INTEREST):
        return rules
    return rules.model_copy(update={"kinds": liked})


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
