"""The inverse of a large positive definite matrix in its own memory, on any device."""

import torch
from torch import Tensor

from rediffuse.errors import InvalidInput, say

BLOCK = 512
"""Pivots of one sweep: beside the matrix stand two panels of so many columns."""


def invert(matrix: Tensor, block: int = BLOCK) -> Tensor:
    """Replace a symmetric positive definite matrix by its inverse, block by block of pivots.

    With A_kk the pivots, D = A_kk^-1 and C = A_:k the columns of one block, a sweep turns

        A -> A - C D C^T outside them,   A_:k -> C D,   A_kk -> -D,

    all of it symmetric, so only the lower triangle is kept up to date; after all sweeps A is minus the inverse.
    It takes n^3 multiply-adds, as many as Cholesky's way, nearly all of them in matrix products.

    Args: matrix: (n, n), changed in place.
    Returns: the same memory.
    Raises: InvalidInput when it is not positive definite in its number format.
    Reference: Goodnight 1979, "A tutorial on the SWEEP operator".
    """
    n = len(matrix)
    bounds = [(start, min(start + block, n)) for start in range(0, n, block)]
    for start, stop in bounds:
        columns = torch.cat((matrix[start:stop, :start].t(), matrix[start:, start:stop]))
        inverse = _inverse(columns[start:stop])
        swept = columns @ inverse
        for top, bottom in bounds:
            matrix[top:bottom, :bottom].addmm_(swept[top:bottom], columns[:bottom].t(), alpha=-1)
        matrix[start:stop, :start] = swept[:start].t()
        matrix[start:, start:stop] = swept[start:]
        matrix[start:stop, start:stop] = -inverse
    for top, bottom in bounds:
        lower = matrix[top:bottom, :bottom].neg_()
        matrix[:top, top:bottom] = lower[:, :top].t()
        pivots = lower[:, top:]
        pivots.copy_(pivots.tril() + pivots.tril(-1).t())
    return matrix


def _inverse(pivots: Tensor) -> Tensor:
    """Args: pivots: (b, b), only the lower triangle is read."""
    factor, failed = torch.linalg.cholesky_ex(pivots)
    if bool(failed):
        raise InvalidInput(
            say("The matrix is not positive definite within its precision", remedy="Raise regularization")
        )
    return torch.cholesky_inverse(factor)
