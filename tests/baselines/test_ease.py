"""EASE: the worked example, recency in the scored row, and the figures on real rows."""

from pathlib import Path

import numpy as np
import pytest
import torch

from rediffuse.baselines.ease import EASE, EASEConfig
from rediffuse.baselines.popularity import Popularity, PopularityConfig
from rediffuse.config import FrozenConfig, RunConfig
from rediffuse.data.importers.diffrec import load
from rediffuse.errors import InvalidInput, UnsupportedOption
from rediffuse.evaluation.evaluate import Task, evaluate
from rediffuse.evaluation.protocol import protocol_for
from rediffuse.protocols import FitContext, FitData
from rediffuse.types import Options, Query, Ragged

CONTEXT = FitContext(RunConfig(device="cpu"))
ROWS = Ragged.of([[0, 1], [0, 2], [1, 2, 3], [0, 1, 2]])
DATA = FitData(ROWS, 4, "sequence")
GOLDEN = [[0.0, 0.4, 0.4, -0.25], [0.4, 0.0, 0.2, 0.25], [0.4, 0.2, 0.0, 0.25], [-0.4, 0.4, 0.4, 0.0]]
SCORES = [[0.4, 0.4, 0.6, 0], [0.4, 0.6, 0.4, 0], [0.4, 0.6, 0.6, 0.5], [0.8, 0.6, 0.6, 0.25]]


def fitted(data: FitData = DATA, **changes: object) -> EASE:
    return EASE.fit(EASEConfig.make(regularization=1.0, **changes), FrozenConfig(), data, CONTEXT)


def scores(model: EASE, history: Ragged) -> torch.Tensor:
    """All scores in the order of the items; nothing is masked."""
    ranking = model.recommend(Query.from_history(history, exclude=Ragged.empty(len(history))), 4)
    return torch.zeros(len(history), 4).scatter(1, ranking.items, ranking.scores)


def test_the_worked_example() -> None:
    model = fitted()
    torch.testing.assert_close(model.weight, torch.tensor(GOLDEN))
    assert (model.weight.diagonal() == 0).all()
    torch.testing.assert_close(scores(model, ROWS), torch.tensor(SCORES), atol=1e-6, rtol=0)
    assert model.n_items == 4


def test_each_column_is_the_ridge_regression_on_the_other_items() -> None:
    """Min |x_j - X b|^2 + lambda |b|^2 with b_j = 0, solved column by column."""
    rng = np.random.default_rng(0)
    lists = [np.flatnonzero(rng.random(12) < 0.3).tolist() for _ in range(40)]
    weight = fitted(FitData(Ragged.of(lists), 12, "none")).weight.numpy()
    x = np.zeros((40, 12))
    for row, items in enumerate(lists):
        x[row, items] = 1
    for j in range(12):
        others = np.delete(np.arange(12), j)
        b = np.linalg.solve(x[:, others].T @ x[:, others] + np.eye(11), x[:, others].T @ x[:, j])
        np.testing.assert_allclose(weight[others, j], b, atol=1e-6)


def test_repeated_events_count_once() -> None:
    twice = FitData(Ragged.of([[0, 1, 0], [0, 2], [1, 2, 3, 3], [0, 1, 2]]), 4, "sequence")
    assert torch.equal(fitted(twice).weight, fitted().weight)
    torch.testing.assert_close(scores(fitted(), Ragged.of([[0, 1, 0]])), torch.tensor(SCORES[:1]), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("settings", "weights"),
    [
        ({"recency": "linear", "weight_min": 0.1}, [0.1, 0.55, 1.0]),
        ({"recency": "linear", "weight_min": 0.2, "weight_max": 0.8}, [0.2, 0.5, 0.8]),
        ({"recency": "exponential", "half_life": 2.0}, [0.5, 0.5**0.5, 1.0]),
    ],
)
def test_recency_weighs_the_scored_row_and_not_the_fit(settings: dict[str, object], weights: list[float]) -> None:
    model = fitted(**settings)
    assert torch.equal(model.weight, fitted().weight)
    row = torch.zeros(1, 4)
    row[0, [3, 0, 2]] = torch.tensor(weights)
    torch.testing.assert_close(scores(model, Ragged.of([[3, 0, 2]])), row @ model.weight)


@pytest.mark.parametrize("recency", [{"recency": "linear"}, {"recency": "exponential", "half_life": 5}])
def test_recency_needs_an_order(recency: dict[str, object]) -> None:
    unordered = FitData(ROWS, 4, "none")
    fitted(unordered)
    with pytest.raises(InvalidInput, match="needs events in a known order; this data has none"):
        fitted(unordered, **recency)


def test_options_are_refused_and_limits_kept() -> None:
    model = fitted()
    query = Query.from_history(Ragged.of([[0, 1]]))
    with pytest.raises(UnsupportedOption, match="ease cannot use 'steps'"):
        model.recommend(query, 2, options=Options(steps=1))
    found = model.recommend(query, 4)
    assert found.items.tolist() == [[2, 3, -1, -1]]
    limited = Query(query.user, query.history, query.key, candidates=Ragged.of([[1]]))
    assert model.recommend(limited, 2).items.tolist() == [[1, -1]]


def test_save_and_restore() -> None:
    model = fitted()
    again = EASE.restore(model.config, model.state(), "cpu")
    assert torch.equal(scores(again, ROWS), scores(model, ROWS))


@pytest.mark.gpu
@pytest.mark.parametrize("method", [(EASE, EASEConfig()), (Popularity, PopularityConfig())])
def test_answers_come_back_to_main_memory(method) -> None:
    cls, config = method
    model = cls.fit(config, FrozenConfig(), DATA, FitContext(RunConfig(device="cuda")))
    query = Query.from_history(ROWS)
    limited = Query(query.user, ROWS, query.key, candidates=Ragged.of([[1]] * 4))
    for asked in (query, limited):
        assert model.recommend(asked, 2).items.device.type == "cpu"


@pytest.mark.realdata
def test_figures_on_movielens_as_shipped(real: Path) -> None:
    """Closed forms, so the figures are the published ones to the last digit (reference of DiffRec, section 13)."""
    dataset = load(real / "ml-1m_clean")
    protocol = protocol_for(dataset, "as-shipped", metrics=("recall", "ndcg"))
    protocol.check(dataset)
    task = Task.of(dataset, protocol.report)
    assert (len(task.query), task.undefined) == (5949, 0)
    data = FitData(dataset.history("train"), len(dataset.catalog), dataset.events.order)
    ease = EASE.fit(EASEConfig(regularization=1000.0), FrozenConfig(), data, CONTEXT)
    found = evaluate(ease, task, protocol)
    golden = {"recall@10": 0.1066, "recall@20": 0.1816, "ndcg@10": 0.0910, "ndcg@20": 0.1165}
    assert {name: round(found.mean(name), 4) for name in golden} == pytest.approx(golden, abs=2e-4)
    popular = evaluate(Popularity.fit(PopularityConfig(), FrozenConfig(), data, CONTEXT), task, protocol)
    golden = {"recall@10": 0.0535, "recall@20": 0.0993, "ndcg@10": 0.0587, "ndcg@20": 0.0721}
    assert {name: round(popular.mean(name), 4) for name in golden} == pytest.approx(golden, abs=2e-4)
