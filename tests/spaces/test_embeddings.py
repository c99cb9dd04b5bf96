"""Tables of vectors: whose row is whose, and what is refused."""

import pytest
import torch

from rediffuse.errors import InvalidInput
from rediffuse.spaces.embeddings import Embeddings
from rediffuse.types import Query, Ragged

ITEMS = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 4.0]])


def _query(keys: list[int]) -> Query:
    query = Query.from_history(Ragged.of([[0]] * len(keys)))
    return Query(query.user, query.history, torch.tensor(keys))


def test_users_are_found_by_their_keys_in_any_order() -> None:
    table = Embeddings.named(ITEMS, torch.tensor([[1.0, 1.0], [2.0, 2.0]]), torch.tensor([50, -7]))
    vectors, known = table.of_users(_query([-7, 3, 50, 99]))
    assert known.tolist() == [True, False, True, False]
    assert vectors.tolist() == [[2.0, 2.0], [0.0, 0.0], [1.0, 1.0], [0.0, 0.0]]


def test_tables_without_users_know_nobody() -> None:
    vectors, known = Embeddings(ITEMS).of_users(_query([1, 2]))
    assert vectors.tolist() == [[0.0, 0.0]] * 2
    assert not bool(known.any())


def test_scores_are_inner_products_for_all_or_some_items() -> None:
    table, points = Embeddings(ITEMS), torch.tensor([[1.0, 1.0], [0.0, 1.0]])
    everything = table.score(points)
    assert everything.tolist() == [[1.0, 2.0, 7.0], [0.0, 2.0, 4.0]]
    assert table.score(points, torch.tensor([2, 0])).tolist() == [[7.0, 1.0], [4.0, 0.0]]
    assert table.score(points, torch.tensor([[2], [1]])).tolist() == [[7.0], [2.0]]


def test_tables_that_do_not_fit_are_refused() -> None:
    for tables in (
        {"items": torch.zeros(3)},
        {"items": ITEMS, "users": torch.zeros(2, 3), "keys": torch.arange(2)},
        {"items": ITEMS, "users": torch.zeros(2, 2)},
        {"items": ITEMS, "users": torch.zeros(2, 2), "keys": torch.arange(3)},
        {"items": torch.full((1, 1), torch.nan)},
    ):
        with pytest.raises(InvalidInput):
            Embeddings(**tables)
