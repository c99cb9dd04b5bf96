"""PureSVD against numpy's decomposition."""

import numpy as np
import pytest
import torch

from rediffuse import registry
from rediffuse.config import RunConfig
from rediffuse.errors import InvalidInput
from rediffuse.protocols import FitContext, FitData, Method
from rediffuse.types import Query, Ragged

ITEMS = 23


def histories() -> Ragged:
    generator = torch.Generator().manual_seed(0)
    return Ragged.of([torch.randperm(ITEMS, generator=generator)[: 3 + user % 6].tolist() for user in range(40)])


def fitted(rank: int) -> Method:
    chosen = registry.recipe("pure_svd", None, {"rank": rank})
    run = RunConfig(device="cpu", precision="float64")
    data = FitData(histories(), ITEMS, "sequence")
    return chosen.method.fit(chosen.config, chosen.training, data, FitContext(run))


@pytest.mark.parametrize("rank", [1, 5, 22])
def test_scores_are_projections(rank: int) -> None:
    x = np.zeros((40, ITEMS))
    for user, row in enumerate(histories().to_lists()):
        x[user, row] = 1
    v = np.linalg.svd(x, full_matrices=False)[2][:rank].T
    expected = torch.from_numpy(x @ v @ v.T).float()
    ranking = fitted(rank).recommend(Query.from_history(histories(), exclude=Ragged.empty(40)), ITEMS)
    found = torch.zeros(40, ITEMS).scatter(1, ranking.items, ranking.scores)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_a_rank_beyond_the_data_is_the_most_it_has() -> None:
    assert fitted(1000).state()["directions"].shape == (ITEMS, 22)


def test_one_item_is_too_few() -> None:
    chosen = registry.recipe("pure_svd")
    with pytest.raises(InvalidInput, match="at least two users and two items"):
        chosen.method.fit(chosen.config, chosen.training, FitData(Ragged.of([[0]]), 1, "none"), FitContext(RunConfig()))
