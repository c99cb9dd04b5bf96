"""The training data as a sparse matrix, for methods in closed form."""

from typing import Any

import numpy as np
from scipy import sparse

from rediffuse.data.weighting import RecencyConfig, weigh
from rediffuse.protocols import FitData


def binary_matrix(data: FitData, dtype: type[np.floating[Any]] = np.float64) -> sparse.csr_matrix:
    """(U, I), 1 where a user has an item, however often."""
    rows = weigh(data.history, RecencyConfig(), data.n_items)
    values = rows.values.numpy().astype(dtype)
    return sparse.csr_matrix((values, rows.items.numpy(), rows.indptr.numpy()), shape=(len(rows), rows.width))
