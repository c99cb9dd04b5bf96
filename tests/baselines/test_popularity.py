"""Popularity counts people, not events."""

import pytest
import torch

from rediffuse.baselines.popularity import Popularity, PopularityConfig
from rediffuse.config import FrozenConfig, RunConfig
from rediffuse.errors import UnsupportedOption
from rediffuse.protocols import FitContext, FitData
from rediffuse.types import Options, Query, Ragged

ROWS = Ragged.of([[0, 0, 0, 0, 2], [2, 1], [2, 1], []])


@pytest.fixture
def model() -> Popularity:
    return Popularity.fit(
        PopularityConfig(), FrozenConfig(), FitData(ROWS, 4, "none"), FitContext(RunConfig(device="cpu"))
    )


def test_distinct_users_are_counted(model: Popularity) -> None:
    assert model.counts.tolist() == [1, 2, 3, 0]
    assert model.n_items == 4


def test_everybody_gets_the_same_but_what_they_have(model: Popularity) -> None:
    ranking = model.recommend(Query.from_history(Ragged.of([[], [2], [0, 1, 2, 3]])), 3)
    assert ranking.items.tolist() == [[2, 1, 0], [1, 0, 3], [-1, -1, -1]]
    assert ranking.scores[0].tolist() == [3, 2, 1]
    assert model.counts.tolist() == [1, 2, 3, 0]


def test_options_are_refused(model: Popularity) -> None:
    with pytest.raises(UnsupportedOption, match="popularity cannot use 'temperature'"):
        model.recommend(Query.from_history(ROWS), 1, options=Options(temperature=0.5))


def test_save_and_restore(model: Popularity) -> None:
    again = Popularity.restore(PopularityConfig(), model.state(), "cpu")
    assert torch.equal(again.counts, model.counts)
