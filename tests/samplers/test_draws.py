"""What several draws say together, against the same counted by hand."""

import torch

from rediffuse.grounding.topk import TopK
from rediffuse.samplers.draws import fanned, numbers, told
from rediffuse.types import Ragged, Ranking

B, S, H, K, ITEMS = 3, 7, 4, 5, 12


def head(points: torch.Tensor, items: torch.Tensor | None = None) -> torch.Tensor:
    """An affine head."""
    weight = torch.randn(ITEMS, H, generator=torch.Generator().manual_seed(1))
    scores = points @ weight.T + torch.arange(ITEMS) / 10
    if items is None:
        return scores
    return scores[:, items] if items.dim() == 1 else scores.gather(1, items)


def test_rows_of_a_fan_stand_side_by_side() -> None:
    assert fanned(torch.tensor([[1, 2], [3, 4]]), 2).tolist() == [[1, 2], [1, 2], [3, 4], [3, 4]]
    assert numbers(2, 3).tolist() == [0, 1, 2, 0, 1, 2]


def test_spread_and_probability_are_those_counted_by_hand() -> None:
    points = torch.randn(B, S, H, generator=torch.Generator().manual_seed(0))
    seen = Ragged.of([[1], [], list(range(9))])
    top = TopK(head, ITEMS)
    ranking = top(points.mean(1), K, seen=seen)
    everyone = seen.select(torch.arange(B).repeat_interleave(S))
    lists = top(points.flatten(0, 1), K, seen=everyone).items.view(B, S, K)
    found = told(ranking, points, head, lists, ITEMS)
    assert found.spread is not None
    assert found.probability is not None
    assert found.probability_of == "top_k"
    assert torch.equal(found.items, ranking.items)
    for row in range(B):
        for place, item in enumerate(ranking.items[row].tolist()):
            spread, probability = float(found.spread[row, place]), float(found.probability[row, place])
            if item < 0:
                assert (spread, probability) == (0, 0)
                continue
            scores = [float(head(points[row, s : s + 1])[0, item]) for s in range(S)]
            torch.testing.assert_close(spread, float(torch.tensor(scores).std()), rtol=1e-4, atol=1e-5)
            mine = sum(item in lists[row, s].tolist() for s in range(S))
            assert abs(probability - mine / S) < 1e-6
    assert ranking.items[2].tolist()[3:] == [-1, -1]
    assert found.probability[2, :3].tolist() == [1, 1, 1]


def test_an_item_of_every_draw_has_probability_1_whatever_their_number() -> None:
    for draws in (3, 10, 49):
        ranking = Ranking(torch.tensor([[0]]), torch.zeros(1, 1))
        lists = torch.zeros(1, draws, 1, dtype=torch.int64)
        found = told(ranking, torch.zeros(1, draws, H), head, lists, ITEMS)
        assert found.probability is not None
        assert found.spread is not None
        assert (float(found.probability), float(found.spread)) == (1, 0)
