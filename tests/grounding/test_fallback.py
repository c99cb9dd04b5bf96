"""An empty history is answered with what is popular, and the answer says so."""

import torch

from rediffuse.grounding.fallback import WithFallback
from rediffuse.types import Fallback, Options, Query, Ragged, Ranking

POPULARITY = torch.tensor([1.0, 5.0, 3.0, 0.0])


class Fixed:
    """Always recommends 3, 2, 1, 0 and remembers how it was asked."""

    asked: tuple[int, Options, int] | None = None

    def recommend(self, query: Query, k: int, *, options: Options = Options(), seed: int = 0) -> Ranking:
        self.asked = k, options, seed
        items = torch.tensor([3, 2, 1, 0])[:k].expand(len(query), -1)
        return Ranking(items, -items.float())


def test_others_keep_the_answer_of_the_method() -> None:
    query = Query.from_history(Ragged.of([[0], [], [2]]))
    model = Fixed()
    ranking = WithFallback(model, POPULARITY).recommend(query, 2, options=Options(steps=3), seed=9)
    assert model.asked == (2, Options(steps=3), 9)
    assert ranking.items.tolist() == [[3, 2], [1, 2], [3, 2]]
    assert ranking.scores[1].tolist() == [5, 3]
    assert ranking.fallback is not None
    assert ranking.fallback.tolist() == [Fallback.NONE, Fallback.EMPTY_HISTORY, Fallback.NONE]


def test_nothing_changes_where_nobody_is_empty() -> None:
    ranking = WithFallback(Fixed(), POPULARITY).recommend(Query.from_history(Ragged.of([[0]])), 2)
    assert ranking.fallback is None
    assert ranking.items.tolist() == [[3, 2]]


def test_popular_items_obey_the_same_limits() -> None:
    history = Ragged.of([[], [], [0]])
    query = Query(
        user=torch.tensor([-1, -1, -1]),
        history=history,
        key=torch.zeros(3, dtype=torch.int64),
        exclude=Ragged.of([[1], [], []]),
        candidates=Ragged.of([[0, 1, 2], [3, 0], [0]]),
    )
    ranking = WithFallback(Fixed(), POPULARITY).recommend(query, 3)
    assert ranking.items[:2].tolist() == [[2, 0, -1], [0, 3, -1]]
    assert POPULARITY.tolist() == [1, 5, 3, 0]
