"""What lists are like besides right: how much of the catalog they show, how well known it is, how much alike.

| name at k | definition | users in the mean |
|---|---|---|
| coverage | share of the catalog in any list | one number of all lists |
| gini | Gini coefficient of exposures over all items; 0 all alike .. 1 one item only | one number of all lists |
| novelty | mean over the list of -log2((n_i + 1) / (U + 1)) | with an item in the list |
| serendipity | places with a relevant item that no expected list holds, over k | with a relevant item |
| ild | mean of 1 - cos over the pairs of the list, of the items' columns of users | with two items in the list |
| ild_category | likewise, of the items' categories | with two items in the list |
| popularity | mean over the list of n_i / U | with an item in the list |
| tail | share of the list that is neither head nor mid (`shelves`) | with an item in the list |

n_i of U users have item i; U counts those with an event in the data learned from. Adding one on both sides gives an
item that nobody has the novelty log2(U + 1), the highest there is, and one that all have 0. Expected is what the most
popular items not masked would have been, and whatever other lists are given. A column without an entry has the cosine
0 with every other. Everything is computed from the lists, and depends on nothing but them and the data.

References: ILD Ziegler et al. 2005; novelty (self-information) Vargas & Castells 2011, eq. 1; serendipity Ge et al.
2010, section 3.2, with list length k; Gini and coverage Herlocker et al. 2004 and Shani & Gunawardana 2011, 8.3.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from scipy import sparse

from rediffuse.data.catalog import Catalog
from rediffuse.data.dataset import Dataset
from rediffuse.evaluation.accuracy import hits, of_lists
from rediffuse.evaluation.evaluate import Task
from rediffuse.evaluation.protocol import Protocol
from rediffuse.evaluation.statistics import Interval, bootstrap
from rediffuse.protocols import FitData
from rediffuse.types import Ragged

Lists = NDArray[np.int32]
"""(U, K) items, best first, -1 padded."""
Values = NDArray[np.float64]

SHELVES = ("head", "mid", "tail", "unseen")
"""Items that make the first half of the events, those up to nine tenths, the others, and those without an event."""
CATEGORY_COLUMNS = ("category", "categories", "genre", "genres")
"""Where a catalog tells its categories: text (several parted by |) or lists of text; the first that is there counts."""
_CELLS = 1 << 22
"""Numbers held at a time, at most, in what grows with users or items."""


@dataclass(frozen=True)
class Background:
    """What the lists of a comparison are seen against: the same for all its methods."""

    data: FitData
    """What the methods learned from."""
    popular: Lists
    """(U, max K): what popularity would have shown each user of the task."""
    categories: sparse.csr_matrix | None
    """(categories, I), where the catalog tells them."""

    @classmethod
    def of(cls, dataset: Dataset, protocol: Protocol, task: Task) -> "Background":
        """Of the parts that the protocol learns from for the report."""
        data = FitData(dataset.history(*(protocol.refit or protocol.fit)), len(dataset.catalog), dataset.events.order)
        mask = Ragged.empty(len(task.query)) if task.query.exclude is None else task.query.exclude
        return cls(data, popular_lists(data, mask, max(protocol.ks)), category_matrix(dataset.catalog))


def beyond(
    lists: Lists, relevant: Ragged, background: Background, ks: Sequence[int], *, expected: Sequence[Lists] = ()
) -> Mapping[str, Interval]:
    """Every figure at every k by name (`coverage@20`): means over users with 95 % bootstrap intervals.

    Args: lists: (U, K).   relevant: U rows.   expected: more lists, (U, K) each, whose items are no surprise (ItemKNN's).
    Returns: low = high = mean for coverage and gini, each one number of all lists together; ild_category only where
        categories are known.
    """
    data, users = background.data, _users(background.data)
    n_items, known = data.n_items, data.users_per_item().numpy().astype(np.float64)
    per_item = {
        "novelty": np.log2((users + 1) / (known + 1)),
        "popularity": known / max(users, 1),
        "tail": (shelves(data) >= SHELVES.index("tail")).astype(np.float64),
    }
    features = {"ild": _columns(data), "ild_category": background.categories}
    apart = {name: intra_list_distance(lists, rows, ks) for name, rows in features.items() if rows is not None}
    out: dict[str, Interval] = {}
    for name, figure in (("coverage", coverage), ("gini", gini)):
        for k in ks:
            value = figure(lists[:, :k], n_items)
            out[f"{name}@{k}"] = Interval(value, value, value)
    columns = {f"novelty@{k}": list_mean(lists[:, :k], per_item["novelty"]) for k in ks}
    surprises = [background.popular, *expected]
    columns |= {f"serendipity@{k}": serendipity(lists, relevant, surprises, k) for k in ks}
    columns |= {f"{name}@{k}": values for name, per_k in apart.items() for k, values in zip(ks, per_k, strict=True)}
    columns |= {f"{name}@{k}": list_mean(lists[:, :k], per_item[name]) for name in ("popularity", "tail") for k in ks}
    return out | _intervals(columns)


def coverage(lists: Lists, n_items: int) -> float:
    """Share of the catalog in any list; NaN when there is no list."""
    return len(np.unique(lists[lists >= 0])) / n_items if len(lists) else np.nan


def gini(lists: Lists, n_items: int) -> float:
    """Sum_i (2 i - I - 1) c_i / (I sum c) over exposures c of all I items in rising order; NaN when nothing is shown."""
    shown = np.sort(np.bincount(lists[lists >= 0], minlength=n_items))
    total = int(shown.sum())
    weights = 2 * np.arange(1, n_items + 1) - n_items - 1
    return float(weights @ shown) / (n_items * total) if total else np.nan


def list_mean(lists: Lists, values: Values) -> Values:
    """Mean over each list of a value per item, (U,); NaN for an empty list. Args: values: (I,)."""
    there = lists >= 0
    total = np.where(there, values[lists], 0.0).sum(axis=1)
    return _over(total, there.sum(axis=1))


def serendipity(lists: Lists, relevant: Ragged, expected: Sequence[Lists], k: int) -> Values:
    """Relevant items among the first k that stand in the first k of no expected list, over k, (U,).

    Returns: NaN where nothing is relevant.
    """
    ranking = of_lists(lists)
    found = hits(ranking, relevant, k)
    for others in expected:
        found &= ~hits(ranking, _ragged(others[:, :k]), k)
    counts = found.sum(1).numpy() / k
    return np.where(relevant.lengths.numpy() > 0, counts, np.nan)


def intra_list_distance(lists: Lists, features: sparse.csr_matrix, ks: Sequence[int]) -> list[Values]:
    """Mean of 1 - cos over the pairs of the first k, (U,) for each k; NaN with fewer than two items.

        cos(i, j) = n_ij / sqrt(n_i n_j),   n_ij the rows that have both i and j

    Args: features: (F, I), 1 where item i has feature f, else 0.
    Limits: a sparse product that costs the sum over rows of their entries squared, of the items shown only; memory is
        that of the lists and of one block of it.
    """
    shown = np.unique(lists[lists >= 0])
    matrix: Any = features  # the stubs know neither its shape nor its columns
    place = np.full(matrix.shape[1] + 1, -1)  # the last is the place of -1
    place[shown] = np.arange(len(shown))
    distance = _distances(place[lists], matrix[:, shown])
    items = (lists >= 0).sum(axis=1)
    out: list[Values] = []
    for k in ks:
        count = np.minimum(items, k)
        out.append(_over(distance[:, :k].sum(axis=1), count * (count - 1) / 2))
    return out


def _distances(lists: NDArray[np.int64], columns: sparse.csr_matrix) -> Values:
    """For each place of a list, the sum of 1 - cos to the places before it, (U, K)."""
    out = np.zeros(lists.shape)
    count = np.asarray(columns.sum(axis=0), dtype=np.float64).ravel()
    n_items, rows = len(count), columns.T.tocsr()
    orders = [np.argsort(column, kind="stable") for column in lists.T]
    block = max(1, _CELLS // max(n_items, 1))
    for start in range(0, n_items, block):
        both = cast("sparse.csr_matrix", rows[start : start + block] @ columns).toarray()
        for first in range(lists.shape[1] - 1):
            order = orders[first]
            low, high = np.searchsorted(lists[:, first], [start, start + block], sorter=order)
            for users in np.split(order[low:high], range(1 << 16, high - low, 1 << 16)):
                one, others = lists[users, first, None], lists[users, first + 1 :]
                size = np.sqrt(count[one] * count[others])
                cosine = np.divide(both[one - start, others], size, out=np.zeros(size.shape), where=size > 0)
                out[users, first + 1 :] += np.where(others >= 0, 1 - cosine, 0.0)
    return out


def popular_lists(data: FitData, mask: Ragged, k: int) -> Lists:
    """The k items that most users have and that are not masked, (U, k); the lower number first among equals.

    Args: mask: U rows of items not to be shown.
    """
    order = torch.sort(data.users_per_item(), descending=True, stable=True).indices
    rank = torch.empty_like(order)
    rank[order] = torch.arange(data.n_items)
    out = torch.full((len(mask), k), -1)
    for users in (
        mask.lengths.argsort(stable=True).split(128) if len(mask) else ()
    ):  # of like lengths: few are as wide as the longest
        reach = min(k + int(mask.lengths[users[-1]]), data.n_items)
        masked = mask.select(users)
        ranks, inside = rank[masked.items], rank[masked.items] < reach
        free = torch.ones((len(users), reach), dtype=torch.bool)
        free[masked.rows[inside], ranks[inside]] = False
        place = free.cumsum(1)
        row, column = (free & (place <= k)).nonzero(as_tuple=True)
        out[users[row], place[row, column] - 1] = order[column]
    return out.numpy().astype(np.int32)


def shelves(data: FitData) -> NDArray[np.int64]:
    """Where each item stands among SHELVES, (I,): 0 head .. 3 unseen.

    Items by falling number of events, the lower number first among equals; an item is head when those before it make
    less than half of the events, mid when they make less than nine tenths.
    """
    events = np.bincount(data.history.items.numpy(), minlength=data.n_items)
    order = np.argsort(-events, kind="stable")
    before = np.empty(data.n_items, dtype=np.int64)
    before[order] = np.cumsum(events[order]) - events[order]
    found = (2 * before >= events.sum()).astype(np.int64) + (10 * before >= 9 * events.sum())
    return np.where(events > 0, found, SHELVES.index("unseen"))


def category_matrix(catalog: Catalog) -> sparse.csr_matrix | None:
    """Which item is of which category, (categories, I); None where the catalog tells none."""
    table = catalog.attributes
    name = next((name for name in CATEGORY_COLUMNS if name in table.columns), None)
    if name is None:
        return None
    column = table[name]
    if not isinstance(column.dtype, pl.List):
        column = column.cast(pl.String).str.split("|")
    pairs = pl.DataFrame({"item": range(len(catalog)), "name": column}).explode("name").drop_nulls().unique()
    pairs = pairs.filter(pl.col("name").cast(pl.String).str.strip_chars() != "")
    if pairs.height == 0:
        return None
    numbers = pairs["name"].rank("dense").to_numpy().astype(np.int64) - 1
    shape = int(numbers.max()) + 1, len(catalog)
    return sparse.csr_matrix((np.ones(pairs.height, np.float32), (numbers, pairs["item"].to_numpy())), shape=shape)


def _columns(data: FitData) -> sparse.csr_matrix:
    """(users, I) float32, 1 where a user has an item, however often."""
    pairs = torch.unique(data.history.rows * data.n_items + data.history.items).numpy()
    rows, columns = np.divmod(pairs, data.n_items)
    return sparse.csr_matrix((np.ones(len(pairs), np.float32), (rows, columns)), (len(data.history), data.n_items))


def _users(data: FitData) -> int:
    return int((data.history.lengths > 0).sum())


def _ragged(lists: Lists) -> Ragged:
    items = torch.from_numpy(lists).to(torch.int64)
    rows = Ragged(torch.arange(len(items) + 1) * items.shape[1], items.reshape(-1))
    return rows.keep(rows.items >= 0)


def _over(total: Values, count: NDArray[np.int64] | Values) -> Values:
    """Total / count, NaN where the count is 0."""
    return np.divide(total, count, out=np.full(len(total), np.nan), where=count > 0)


def _intervals(columns: Mapping[str, Values]) -> dict[str, Interval]:
    """Mean and interval of each column over its own defined users; those defined alike share one resampling."""
    alike: dict[bytes, list[str]] = {}
    for name, values in columns.items():
        alike.setdefault(np.isnan(values).tobytes(), []).append(name)
    found: dict[str, Interval] = {}
    for names in alike.values():
        found |= dict(zip(names, bootstrap(np.stack([columns[name] for name in names], axis=1)), strict=True))
    return {name: found[name] for name in columns}
