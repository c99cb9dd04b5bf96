"""Pairs, the draw of what a user has not, and the two losses against their definitions."""

import math

import pytest
import torch

from rediffuse.errors import InvalidInput
from rediffuse.networks.graph import distinct
from rediffuse.training.pairs import Pairs, bpr, softmax
from rediffuse.types import Ragged


def test_distinct_items_ascend_and_events_of_no_weight_are_none() -> None:
    history = Ragged.of([[4, 1, 4], [], [2, 0]])
    assert distinct(history, 5).to_lists() == [[1, 4], [], [0, 2]]
    weighed = Ragged(history.indptr, history.items, weight=torch.tensor([0.0, 2.0, 0.5, 1.0, 0.0]))
    assert distinct(weighed, 5).to_lists() == [[1, 4], [], [2]]


def test_who_has_everything_is_no_example() -> None:
    pairs = Pairs.of(Ragged.of([[0, 1, 2], [1], []]), 3)
    assert (pairs.users.tolist(), pairs.items.tolist(), len(pairs)) == ([1], [1], 1)
    for nobody in ([[0, 1, 2], []], [[], []]):
        with pytest.raises(InvalidInput, match="There is nothing to learn from"):
            Pairs.of(Ragged.of(nobody), 3)


def test_negatives_are_all_that_a_user_has_not_equally_often() -> None:
    met = [[0, 1, 2, 9], [3, 5, 8], [4], [0, 2, 3, 4, 5, 6, 7, 8, 9]]
    pairs = Pairs.of(Ragged.of(met), 10)
    count = 30_000
    for user, row in enumerate(met):
        drawn = pairs.negatives(torch.full((count,), user), torch.Generator().manual_seed(user))
        times = torch.bincount(drawn, minlength=10)
        assert len(times) == 10
        free = [item for item in range(10) if item not in row]
        assert times[row].sum() == 0
        share = count / len(free)
        assert all(abs(int(times[item]) - share) < 5 * math.sqrt(share) for item in free)


def test_bpr_is_the_log_of_a_sigmoid() -> None:
    positive, negative = torch.tensor([1.0, -2.0]), torch.tensor([0.5, 3.0])
    torch.testing.assert_close(bpr(positive, negative), -torch.log(torch.sigmoid(positive - negative)))


def test_the_softmax_over_all_items_is_the_cross_entropy() -> None:
    scores = torch.randn(4, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    target = torch.tensor([3, 0, 6, 3])
    order = torch.tensor([5, 3, 1, 0, 6, 2, 4])
    found = softmax(scores.gather(1, target[:, None])[:, 0], scores[:, order], order == target[:, None], 7)
    torch.testing.assert_close(found, torch.nn.functional.cross_entropy(scores, target, reduction="none"))


def test_a_sample_estimates_the_sum_without_bias() -> None:
    """exp(loss) - 1 is the sum over the others, divided by the positive's term; of samples its mean is the whole one."""
    scores = torch.randn(1, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    generator = torch.Generator().manual_seed(1)
    sums = []
    for _ in range(4000):
        drawn = torch.randperm(40, generator=generator)[:8]
        loss = softmax(scores[:, 5], scores[:, drawn], drawn == torch.tensor([[5]]), 40)
        sums.append(float(loss.exp() - 1))
    whole = float((scores.exp().sum() - scores[0, 5].exp()) / scores[0, 5].exp())
    found = torch.tensor(sums)
    assert abs(float(found.mean()) - whole) < 4 * float(found.std()) / math.sqrt(len(sums))
