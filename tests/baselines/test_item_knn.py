"""ItemKNN against the formula written out."""

import numpy as np
import pytest
import torch

from rediffuse import registry
from rediffuse.baselines import item_knn
from rediffuse.baselines.item_knn import ItemKNN
from rediffuse.config import RunConfig
from rediffuse.protocols import FitContext, FitData
from rediffuse.types import Query, Ragged

ITEMS = 23


def histories() -> Ragged:
    generator = torch.Generator().manual_seed(0)
    return Ragged.of([torch.randperm(ITEMS, generator=generator)[: 3 + user % 6].tolist() for user in range(40)])


def fitted(**settings: object) -> ItemKNN:
    chosen = registry.recipe("item_knn", None, settings)
    data = FitData(histories(), ITEMS, "sequence")
    method = chosen.method.fit(chosen.config, chosen.training, data, FitContext(RunConfig()))
    assert isinstance(method, ItemKNN)
    return method


@pytest.mark.parametrize("numbers", [1 << 25, 5 * ITEMS, 1])
@pytest.mark.parametrize(("neighbors", "shrink"), [(4, 20.0), (1, 0.0), (100, 3.0)])
def test_scores_are_those_of_the_formula(
    neighbors: int, shrink: float, numbers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(item_knn, "_COMPARED", numbers)
    x = np.zeros((40, ITEMS))
    for user, row in enumerate(histories().to_lists()):
        x[user, row] = 1
    norm = np.sqrt((x**2).sum(0))
    likeness = x.T @ x / (np.outer(norm, norm) + shrink)
    np.fill_diagonal(likeness, 0)
    floor = np.sort(likeness, axis=1)[:, ::-1][:, min(neighbors, ITEMS) - 1]
    query = Query.from_history(histories(), exclude=Ragged.empty(40))
    ranking = fitted(neighbors=neighbors, shrink=shrink).recommend(query, ITEMS)
    found = torch.zeros(40, ITEMS).scatter(1, ranking.items, ranking.scores)
    # Among neighbours of the same likeness any may be kept: the score then lies between these two.
    kept, least = (likeness * (likeness > floor[:, None] + slack) for slack in (-1e-9, 1e-9))
    assert (found.numpy() <= x @ kept.T + 1e-6).all()
    assert (found.numpy() >= x @ least.T - 1e-6).all()


@pytest.mark.realdata
def test_ml_1m_as_shipped(real) -> None:
    from rediffuse.data.importers import diffrec
    from rediffuse.evaluation.evaluate import Task, evaluate
    from rediffuse.evaluation.protocol import protocol_for

    dataset = diffrec.load(real / "ml-1m_clean")
    protocol = protocol_for(dataset)
    data = FitData(dataset.history("train"), len(dataset.catalog), "sequence")
    for name, expected in (("item_knn", 0.1665), ("pure_svd", 0.1646)):
        chosen = registry.recipe(name)
        method = chosen.method.fit(chosen.config, chosen.training, data, FitContext(RunConfig().resolve()))
        found = evaluate(method, Task.of(dataset, protocol.report), protocol).mean("recall@20")
        assert found == pytest.approx(expected, abs=1e-3), name
