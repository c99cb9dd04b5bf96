"""Asking so that an answer is the same to the last bit, alone or among any others.

The rows of a matrix product are independent in mathematics, but its rounding depends on the number of rows: a library
takes other kernels for 1, 7 and 512 of them. Rounding scores cannot mend that; it only moves the place where a last
bit decides. So a model is always asked about the same number of subjects, each in a place of its own.
"""

import torch
from torch import Tensor

from rediffuse.protocols import Recommender
from rediffuse.types import Options, Query, Ranking

BLOCK = 256
"""Subjects of every call."""


def ask(
    model: Recommender, query: Query, places: Tensor, k: int, *, options: Options = Options(), seed: int = 0
) -> Ranking:
    """The k best items for each subject, whoever else is asked about: empty places repeat the first subject.

    Args: query: at most BLOCK subjects.   places: (B,) int64, the place of each in the block, all different.
    Returns: items, scores and reasons, (B, ..) in the order of the query.
    Limits: exact where a model works row by row, and where the same call twice gives the same bits on its device.
    """
    rows = torch.zeros(BLOCK, dtype=torch.int64)
    rows[places] = torch.arange(len(query))
    ranking = model.recommend(query.select(rows), k, options=options, seed=seed)
    return ranking.select(places)
