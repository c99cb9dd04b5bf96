"""What items are alike, from the events alone: a vector for each item, and groups of alike items.

    X ~ U S V^T of rank D,  X binary users x items;   the vector of item i is row i of V S at length 1

The rows of V S have the inner products of the columns of X as nearly as D directions allow, so the cosine of two
vectors is about |users of both| / sqrt(|users of one| |users of the other|).
Reference: Deerwester et al. 1990 (truncated decomposition); Arthur & Vassilvitskii 2007 (k-means++).
"""

import warnings
from typing import Any, cast

import numpy as np
import torch
from scipy import sparse
from scipy.cluster.vq import kmeans2
from scipy.sparse import linalg
from torch import Tensor

from rediffuse.data.weighting import RecencyConfig, weigh
from rediffuse.errors import InvalidInput, say
from rediffuse.types import Ragged

_ROUNDING, _ROUNDS = 1e-6, 50


def item_vectors(history: Ragged, n_items: int, width: int = 64, seed: int = 0) -> Tensor:
    """A vector for each item; who took it counts, not how often, when or how strongly.

    The entry of largest size in each direction is positive, so that runs agree in sign.

    Args: history: U lists of items.   n_items: I.   width: D, cut to what the data has: at most min(U, I) - 1.
        seed: of the start of the iteration.
    Returns: (I, D) float32, rows of length 1; 0 for items without events, and for those that the D directions miss.
    Raises: InvalidInput when there are fewer than two users or two items.
    Limits: O(D (events + D min(U, I))) for each iteration of ARPACK.
    """
    rows = weigh(Ragged(history.indptr, history.items).to("cpu"), RecencyConfig(), n_items)
    least = min(len(rows), n_items)
    if least < 2:
        raise InvalidInput(say("Item vectors need at least two users and two items", got=(len(rows), n_items)))
    values = rows.values.numpy().astype(np.float64)
    x = sparse.csr_matrix((values, rows.items.numpy(), rows.indptr.numpy()), shape=(len(rows), n_items))
    rank = min(width, least - 1)
    if not x.nnz:
        return torch.zeros(n_items, rank)
    start = np.random.default_rng(seed).standard_normal(least)
    found = cast("Any", linalg.svds(x, k=rank, v0=start))
    strengths, directions = found[1][::-1], found[2][::-1].T
    kept = strengths > _ROUNDING * strengths[0]
    points = directions[:, kept] * strengths[kept]
    points *= np.sign(points[np.abs(points).argmax(0), np.arange(points.shape[1])])
    size, whole = np.linalg.norm(points, axis=1), np.sqrt(np.bincount(rows.items.numpy(), minlength=n_items))
    # A size far below that of the item's column is rounding, and has no direction.
    known = size > _ROUNDING * whole.clip(min=1)
    points = np.where(known[:, None], points / np.where(known, size, 1)[:, None], 0)
    return torch.from_numpy(points.astype(np.float32))


def clusters(vectors: Tensor, k: int, seed: int = 0) -> Tensor:
    """Part items into at most k groups by k-means, numbered by falling size; of equal ones, by their first item.

    No group is empty: there are at most as many as distinct vectors, and one that loses its last item is dropped.

    Args: vectors: (I, D).   k: groups asked for.   seed: of the first centres.
    Returns: (I,) int64, 0 .. G-1 with G <= k.
    Raises: InvalidInput when k < 1.
    """
    if k < 1:
        raise InvalidInput(say("The number of groups must be at least 1", got=k, remedy="Use 1 for a single group"))
    points = vectors.detach().to("cpu", torch.float64).numpy()
    count = min(k, len(np.unique(points, axis=0)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # an empty cluster, which is dropped below
        found = kmeans2(points, count, iter=_ROUNDS, minit="++", rng=np.random.default_rng(seed))
    _, first, label, size = np.unique(found[1], return_index=True, return_inverse=True, return_counts=True)
    number = np.empty_like(first)
    number[np.lexsort((first, -size))] = np.arange(len(first))
    return torch.from_numpy(number[label].astype(np.int64)).to(vectors.device)
