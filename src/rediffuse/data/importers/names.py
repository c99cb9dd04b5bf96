"""Which column of a foreign table means what: as told, else by well-known names.

Names match whatever their case, spaces, underscores and RecBole type (`user_id:token`).
"""

import re
from collections.abc import Mapping, Sequence

from rediffuse.errors import InvalidInput, say, unknown

KNOWN: Mapping[str, tuple[str, ...]] = {
    "user": (
        *("user", "user_id", "customer", "customer_id", "visitor", "visitor_id", "uid", "client", "client_id"),
        *("member", "member_id", "buyer_id", "shopper_id", "account_id", "person_id", "reviewer_id", "user_pseudo_id"),
    ),
    "item": (
        *("item", "item_id", "product", "product_id", "sku", "iid", "article", "article_id", "stock_code", "asin"),
        *("movie", "movie_id", "book_id", "isbn", "track_id", "song_id", "artist_id", "video_id", "business_id"),
    ),
    "time": (
        *("time", "time_us", "timestamp", "timestamp_ms", "ts", "datetime", "date", "event_time", "event_timestamp"),
        *("event_date", "created_at", "created", "occurred_at", "order_date", "purchase_date", "invoice_date"),
        *("t_dat", "unix_time", "unix_timestamp", "unix_review_time", "epoch"),
    ),
    "kind": (
        *("kind", "event", "event_type", "event_name", "behavior", "behavior_type", "behaviour", "action"),
        *("action_type", "interaction", "interaction_type", "feedback_type", "type"),
    ),
    "value": (
        *("value", "event_value", "rating", "overall", "stars", "score", "amount", "revenue", "price", "unit_price"),
        *("weight", "play_count"),
    ),
    "group": (
        *("group", "group_id", "order_id", "basket", "basket_id", "transaction", "transaction_id"),
        *("invoice", "invoice_no", "cart_id", "session", "session_id", "user_session", "visit_id"),
    ),
    "event_id": ("event_id", "message_id"),
}
"""Our name -> names that mean it; of several of the last four in a file, the first in this list is taken."""

TITLES = ("title", "name", "product_name", "product_title", "movie_title", "item_name", "item_title")

_UNAMBIGUOUS = ("user", "item", "time")
_REQUIRED = ("user", "item")


def plain(name: str) -> str:
    """What of a name counts: letters and digits in lower case, without a RecBole type."""
    return re.sub(r"[\W_]+", "", _untyped(name).casefold())


def match(columns: Sequence[str], given: Mapping[str, str]) -> dict[str, str]:
    """Find the columns of an event table.

    Args: columns: those of the file.   given: our name -> theirs; an empty one leaves ours out.
    Returns: our name -> theirs, in our order.
    Raises: InvalidInput when user or item is missing, or user, item or time is ambiguous, or a name is unknown.
    """
    for ours in given:
        if ours not in KNOWN:
            raise InvalidInput(unknown("name", ours, KNOWN))
    found = {ours: match_column(ours, theirs, columns) for ours, theirs in given.items() if theirs}
    for ours in KNOWN:
        if ours in given and not (ours in _REQUIRED and not given[ours]):
            continue
        fits = _fitting(KNOWN[ours], [c for c in columns if c not in found.values()])
        if len(fits) > 1 and ours in _UNAMBIGUOUS:
            shown = ", ".join(map(repr, fits))
            raise InvalidInput(say(f"Several columns may mean {ours!r}: {shown}", remedy=f"Pass --map {ours}=COLUMN"))
        if fits:
            found[ours] = fits[0]
        elif ours in _REQUIRED:
            raise InvalidInput(_missing(ours, columns))
    if found["user"] == found["item"]:
        raise InvalidInput(say(f"Column {found['user']!r} cannot mean both user and item", remedy="Pass two columns"))
    return {ours: found[ours] for ours in KNOWN if ours in found}


def match_column(ours: str, theirs: str, columns: Sequence[str]) -> str:
    """The one column that is called so, or likewise. Raises: InvalidInput when there is none, or several."""
    fits = [theirs] if theirs in columns else [c for c in columns if plain(c) == plain(theirs)]
    if len(fits) != 1:
        shown = ", ".join(map(repr, columns))
        raise InvalidInput(say(f"There is no column {theirs!r} for {ours!r}", remedy=f"Columns: {shown}"))
    return fits[0]


def match_id(columns: Sequence[str], ours: str, like: str) -> str:
    """Find the id column of an attribute table.

    Args: ours: "item" or "user".   like: what the events call it; the same name wins here.
    Raises: InvalidInput when there is none, or several.
    """
    same = [c for c in columns if plain(c) == plain(like)]
    fits = same or _fitting(KNOWN[ours], columns) or _fitting(("id",), columns)
    if len(fits) == 1:
        return fits[0]
    shown = ", ".join(map(repr, fits or columns))
    problem = f"Several columns may be the {ours} id" if fits else f"No column is called like a {ours} id"
    raise InvalidInput(say(f"{problem}: {shown}", remedy=f"Call the one that is {ours}_id"))


def attribute_names(columns: Sequence[str], identity: str, *, title: bool) -> dict[str, str]:
    """New names of the attributes: without RecBole types; the first title column becomes `title`.

    Args: identity: our name of the id, which no attribute may take.   title: whether titles are looked for.
    """
    titles = _fitting(TITLES, columns) if title else []
    names = dict.fromkeys(titles[:1], "title")
    taken = {identity, *names.values()}
    for column in columns:
        if column not in names:
            free = _untyped(column)
            while free in taken:
                free += "_"
            names[column] = free
            taken.add(free)
    return names


def _fitting(names: Sequence[str], columns: Sequence[str]) -> list[str]:
    """The columns with one of the names, in the order of the names."""
    return [c for name in map(plain, names) for c in columns if plain(c) == name]


def _missing(ours: str, columns: Sequence[str]) -> str:
    if all(re.fullmatch(r"[\d.\s+-]*", c) for c in columns):
        return say(
            "The first line holds no column names", got=", ".join(columns), remedy="Add a line such as user,item"
        )
    shown = ", ".join(map(repr, columns))
    return say(f"No column is called like {ours!r}. Columns: {shown}", remedy=f"Pass --map {ours}=COLUMN")


def _untyped(name: str) -> str:
    return re.sub(r":(token|float)(_seq)?$", "", name.strip())
