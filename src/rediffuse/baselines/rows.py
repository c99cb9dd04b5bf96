"""The training data as a sparse matrix, for methods in closed form."""

from typing import Any

import numpy as np
from scipy import sparse

from rediffuse.data.weighting import RecencyConfig, weigh
from rediffuse.protocols import FitData


def event_weights(data: FitData, dtype: type[np.floating[Any]] = np.float64) -> sparse.csr_matrix:
    """(U, I): what a user's events with an item weigh, the most of them where there are several; 1 where nothing is said.

    Recency does not enter: a fit sees who took what, the row that is scored also when.
    """
    rows = weigh(data.history, RecencyConfig(), data.n_items)
    values = rows.values.numpy().astype(dtype)
    return sparse.csr_matrix((values, rows.items.numpy(), rows.indptr.numpy()), shape=(len(rows), rows.width))
