"""The model is asked in one shape, each subject in a place of its own."""

from dataclasses import dataclass, field

import pytest
import torch

from rediffuse.grounding.steady import BLOCK, ask
from rediffuse.types import Options, Query, Ragged, Ranking


@dataclass
class Notes:
    """Answers each subject with the last item of the history, and keeps what it was asked."""

    asked: list[tuple[list[list[int]], int, Options, int]] = field(default_factory=list)
    fallback: bool = False

    def recommend(self, query: Query, k: int, *, options: Options = Options(), seed: int = 0) -> Ranking:
        lists = query.history.to_lists()
        self.asked.append((lists, k, options, seed))
        items = torch.tensor([[row[-1]] for row in lists])
        return Ranking(items, items.float(), fallback=items[:, 0] if self.fallback else None)


def test_places_are_kept_and_the_rest_repeats_the_first() -> None:
    model = Notes(fallback=True)
    query = Query.from_history(Ragged.of([[4], [5, 6]]))
    found = ask(model, query, torch.tensor([3, BLOCK - 1]), 1, options=Options(steps=2), seed=8)
    ((lists, k, options, seed),) = model.asked
    assert (k, options, seed) == (1, Options(steps=2), 8)
    assert lists == [[4]] * (BLOCK - 1) + [[5, 6]]
    assert found.items.tolist() == [[4], [6]]
    assert found.scores.tolist() == [[4.0], [6.0]]
    assert found.fallback is not None
    assert found.fallback.tolist() == [4, 6]


def test_a_full_block_is_asked_as_it_is() -> None:
    model = Notes()
    rows = [[n] for n in range(BLOCK)]
    found = ask(model, Query.from_history(Ragged.of(rows)), torch.arange(BLOCK), 1)
    assert model.asked[0][0] == rows
    assert found.items.tolist() == rows
    assert found.fallback is None


def test_more_than_a_block_has_no_place() -> None:
    with pytest.raises(IndexError):
        ask(Notes(), Query.from_history(Ragged.of([[1]])), torch.tensor([BLOCK]), 1)
