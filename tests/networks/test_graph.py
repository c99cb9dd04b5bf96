"""Spreading along a graph against the dense matrix, its gradient, and the newcomer's formula."""

import pytest
import torch
from torch import Tensor

from rediffuse.networks.graph import BipartiteGraph
from rediffuse.types import Ragged

MET = Ragged.of([[0, 1, 3], [1], [0, 3], []])
USERS, ITEMS, WIDTH = 4, 5, 3


def dense(met: Ragged = MET) -> Tensor:
    """A_hat, (U + I, U + I) float64, by the definition."""
    a = torch.zeros(len(met) + ITEMS, len(met) + ITEMS, dtype=torch.float64)
    for user, row in enumerate(met.to_lists()):
        for item in row:
            a[user, len(met) + item] = a[len(met) + item, user] = 1
    scale = torch.where(a.sum(1) > 0, a.sum(1).rsqrt(), 0)
    return scale[:, None] * a * scale


def tables(users: int = USERS) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    drawn = (torch.randn(rows, WIDTH, generator=generator, dtype=torch.float64) for rows in (users, ITEMS))
    one, other = (table.requires_grad_() for table in drawn)
    return one, other


def test_a_hop_is_the_dense_product() -> None:
    users, items = tables()
    graph = BipartiteGraph.of(MET, ITEMS, torch.float64)
    torch.testing.assert_close(torch.cat(graph.hop(users, items)), dense() @ torch.cat((users, items)))


def test_the_gradient_is_the_numerical_one() -> None:
    graph = BipartiteGraph.of(MET, ITEMS, torch.float64)

    def mean(users: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
        return graph.mean(users, items, 2)

    assert torch.autograd.gradcheck(mean, tables())


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_the_mean_is_that_of_the_powers(layers: int) -> None:
    users, items = tables()
    hops = [torch.cat((users, items))]
    for _ in range(layers):
        hops.append(dense() @ hops[-1])
    found = BipartiteGraph.of(MET, ITEMS, torch.float64).mean(users, items, layers)
    torch.testing.assert_close(torch.cat(found), torch.stack(hops).mean(0))


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_a_newcomer_meets_the_items_as_they_were(layers: int) -> None:
    """u^k = sum_i e_i^{k-1} / sqrt(|h| d_i), u^0 = 0, item by item; nobody's item gives nothing."""
    users, items = tables()
    graph, history = BipartiteGraph.of(MET, ITEMS, torch.float64), [1, 3, 4]
    degree, hops = [2, 2, 0, 2, 0], [items]
    whole = torch.cat((users, items))
    for _ in range(layers - 1):
        whole = dense() @ whole
        hops.append(whole[USERS:])
    expected = torch.zeros(WIDTH, dtype=torch.float64)
    for hop in hops:
        for item in (1, 3):
            expected += hop[item] / (len(history) * degree[item]) ** 0.5 / (layers + 1)
    found = graph.newcomer(users, items, layers)
    torch.testing.assert_close(found[history].sum(0) / len(history) ** 0.5, expected)
    assert not found[2].any()
