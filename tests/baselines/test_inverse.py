"""The inverse in place, against numpy's."""

import numpy as np
import pytest
import torch
from torch import Tensor

from rediffuse.baselines.inverse import invert
from rediffuse.errors import InvalidInput


def gram(n: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """X^T X + 5 I of sparse binary rows: exact in either format."""
    x = (torch.rand(3 * n, n, generator=torch.Generator().manual_seed(n)) < 0.2).to(dtype)
    return x.t() @ x + 5 * torch.eye(n, dtype=dtype)


@pytest.mark.parametrize(("n", "block"), [(1, 4), (4, 4), (7, 3), (24, 8), (50, 64), (50, 7), (50, 1)])
def test_it_is_the_inverse(n: int, block: int) -> None:
    matrix = gram(n)
    expected = np.linalg.inv(matrix.numpy())
    found = invert(matrix, block)
    assert found.data_ptr() == matrix.data_ptr()
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-14)
    assert torch.equal(found, found.t())


def test_single_precision_agrees_with_double() -> None:
    single, double = invert(gram(300, torch.float32), 64), invert(gram(300), 64)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), double, rtol=0, atol=1e-6 * float(double.abs().max()))


@pytest.mark.parametrize("block", [1, 2, 8])
def test_what_is_not_positive_definite_is_refused(block: int) -> None:
    with pytest.raises(InvalidInput, match=r"not positive definite within its precision\. Raise regularization"):
        invert(torch.tensor([[1.0, 0.0, 2.0], [0.0, 1.0, 0.0], [2.0, 0.0, 1.0]]), block)


@pytest.mark.gpu
def test_it_is_the_same_on_a_gpu() -> None:
    torch.testing.assert_close(invert(gram(300).cuda(), 64).cpu(), invert(gram(300), 64), rtol=1e-10, atol=1e-14)
