"""Rows and points: each group of items has its own encoder and its own part of a point."""

import pytest
import torch
from torch import Tensor

from rediffuse.data.weighting import RecencyConfig, weigh
from rediffuse.errors import InvalidConfig
from rediffuse.spaces.latent import LatentRows, joined_groups, shares
from rediffuse.types import Ragged, SparseRows

ITEMS = 11
GROUPS = torch.tensor([0, 1, 0, 0, 2, 1, 0, 1, 0, 0, 1])
HISTORY = Ragged.of([[0, 1, 4], [2, 3, 9, 10], [5], [], [8, 6, 4, 1, 0]])


def rows() -> SparseRows:
    return weigh(HISTORY, RecencyConfig(recency="linear", weight_min=0.2), ITEMS)


def space(groups: Tensor = GROUPS, latent: int = 9, hidden: tuple[int, ...] = (), seed: int = 0) -> LatentRows:
    """A space of float64 whose points differ well."""
    made = LatentRows.of(groups, latent, hidden, generator=torch.Generator().manual_seed(seed)).double()
    with torch.no_grad():
        for weight in made.parameters():
            weight.mul_(2 if weight.dim() == 2 else 200)
    return made


def test_the_parts_are_those_of_the_authors_on_their_data() -> None:
    assert shares([1850, 960], 300) == [197, 103]


def test_every_group_has_a_part_however_small_it_is() -> None:
    assert shares([7], 30) == [30]
    assert shares([2809, 1], 300) == [298, 2]
    assert shares([991, *[1] * 9], 10) == [1] * 10
    assert shares([500, 300, 1], 20) == [11, 7, 2]
    with pytest.raises(InvalidConfig, match="3 groups of items need a width of as many"):
        shares([5, 4, 3], 2)


@pytest.mark.parametrize("hidden", [(), (12,), (12, 7)])
def test_an_encoder_reads_its_own_items_layer_by_layer(hidden: tuple[int, ...]) -> None:
    found = space(hidden=hidden)
    mu, log_variance = found.posterior(rows())
    assert mu.shape == log_variance.shape == (5, 9)
    dense = rows().dense().double()
    means, variances = [], []
    for group in range(3):
        h = dense[:, group == GROUPS] @ found.lifts[group] + found.lift_biases[group]
        for layer in found.bodies[group]:  # type: ignore[union-attr]
            h = torch.tanh(h) @ layer.weight.t() + layer.bias
        mean, variance = torch.tanh(h).chunk(2, dim=1)
        means.append(mean)
        variances.append(variance)
    torch.testing.assert_close(mu, torch.cat(means, 1))
    torch.testing.assert_close(log_variance, torch.cat(variances, 1))
    assert torch.equal(found.encode(rows()), mu)


def test_an_item_moves_the_part_of_its_group_alone() -> None:
    found = space()
    with_4, without = (weigh(Ragged.of([row]), RecencyConfig(), ITEMS) for row in ([0, 1, 4], [0, 1]))
    moved = (found.encode(with_4) - found.encode(without)).detach().abs().squeeze(0)
    first, second, third = (float(part.max()) for part in moved.split(shares([6, 4, 1], 9)))
    assert first == second == 0
    assert third > 0.1


def test_items_keep_their_numbers() -> None:
    """Renumbering the items renumbers the scores and changes nothing else."""
    turn = torch.randperm(ITEMS, generator=torch.Generator().manual_seed(1))  # new number of each item
    one, other = space(), space(GROUPS[turn.argsort()])
    with torch.no_grad():
        for group in range(3):
            turned = turn[torch.eq(GROUPS, group)]
            other.lifts[group][turned.argsort().argsort()] = one.lifts[group]
        other.out.weight[turn], other.out.bias[turn] = one.out.weight, one.out.bias
    z = one.encode(rows())
    renumbered = SparseRows(rows().indptr, turn[rows().items], rows().values, ITEMS)
    torch.testing.assert_close(other.encode(renumbered), z)
    torch.testing.assert_close(other.decode(z)[:, turn], one.decode(z))


def test_some_items_score_as_in_the_whole() -> None:
    found = space()
    z = found.encode(rows())
    whole = found.decode(z)
    assert whole.shape == (5, ITEMS)
    torch.testing.assert_close(found.decode(z, torch.tensor([7, 2])), whole[:, [7, 2]])
    own = torch.tensor([[0, 1, 2], [10, 0, 3], [4, 4, 4], [5, 6, 7], [9, 8, 1]])
    torch.testing.assert_close(found.decode(z, own), whole.gather(1, own))


@pytest.mark.parametrize("hidden", [(), (12, 7)])
def test_a_space_is_rebuilt_from_its_weights_also_for_more_items(hidden: tuple[int, ...]) -> None:
    found = space(hidden=hidden)
    state = found.state_dict()
    again = LatentRows.like(state, state["groups"]).double()
    again.load_state_dict(state)
    assert torch.equal(again.decode(again.encode(rows())), found.decode(found.encode(rows())))
    more = LatentRows.like(state, torch.cat((GROUPS, torch.tensor([2, 0]))))
    assert [len(lift) for lift in more.lifts] == [7, 4, 2]
    assert [b.shape for b in more.lift_biases] == [b.shape for b in found.lift_biases]


def test_later_items_join_the_nearest_group() -> None:
    vectors = torch.tensor([[0.0, 1.0], [0.2, 1.0], [1.0, 0.0], [0.9, 0.1], [0.1, 0.7]])
    assert joined_groups(torch.tensor([1, 1, 0]), vectors).tolist() == [1, 1, 0, 0, 1]
    assert joined_groups(torch.tensor([1, 1, 0, 0, 1]), vectors).tolist() == [1, 1, 0, 0, 1]
