"""EASE: the worked example, recency in the scored row, and the figures on real rows."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from rediffuse.baselines import ease
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


def rectangle() -> FitData:
    """60 items, some of them always together, one of nobody."""
    generator = torch.Generator().manual_seed(0)
    lists = [torch.randperm(58, generator=generator)[: 4 + user % 9].tolist() for user in range(90)]
    return FitData(Ragged.of([[*row, 58] if row[0] % 2 else row for row in lists]), 60, "none")


@pytest.mark.parametrize("counted", [1 << 23, 7 * 60, 1])
def test_large_catalogs_are_solved_in_the_precision_of_the_run(counted: int, monkeypatch: pytest.MonkeyPatch) -> None:
    exact = EASE.fit(EASEConfig(regularization=20.0), FrozenConfig(), rectangle(), CONTEXT).weight
    monkeypatch.setattr(ease, "_DOUBLE_UP_TO", 59)
    monkeypatch.setattr(ease, "_COUNTED", counted)
    single, double = (
        EASE.fit(
            EASEConfig(regularization=20.0),
            FrozenConfig(),
            rectangle(),
            FitContext(RunConfig(device="cpu", precision=p)),
        ).weight
        for p in ("float32", "float64")
    )
    assert (single.dtype, double.dtype) == (torch.float32, torch.float64)
    torch.testing.assert_close(double.float(), exact, rtol=0, atol=1e-8)
    torch.testing.assert_close(single, exact, rtol=0, atol=2e-6)
    assert bool((single[59] == 0).all())
    assert bool((single[:, 59] == 0).all())


def test_a_catalog_that_does_not_fit_is_refused_with_its_size() -> None:
    with pytest.raises(
        InvalidInput, match=r"ease for 10,000,000 items takes 400,000\.0 GB on cpu\. Use item_knn or als"
    ):
        fitted(FitData(ROWS, 10**7, "none"))


@pytest.mark.slow
@pytest.mark.parametrize(("doubles", "matrices"), [(0, 1.0), (20_000, 3.0)])
def test_it_takes_one_matrix_of_memory(doubles: int, matrices: float) -> None:
    """In a process of its own: the highest resident memory grows by so many float32 matrices, and little more."""
    code = f"""
import resource, torch
from rediffuse.baselines import ease
from rediffuse.config import RunConfig
from rediffuse.protocols import FitContext, FitData
from rediffuse.types import Ragged
torch.set_num_threads(1)
ease._DOUBLE_UP_TO = {doubles}
context = FitContext(RunConfig(device="cpu"))
def fit(rows, n):
    ease.EASE.fit(ease.EASEConfig(), ease.EASEConfig(), FitData(Ragged.of(rows), n, "none"), context)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
before = fit([[0, 1], [1, 2]], 3)
print(fit([[i, (7 * i + 1) % 6000, (13 * i + 5) % 6000] for i in range(6000)], 6000) - before)
"""
    grown = float(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)
    one = 6000**2 * 4 / 2**20
    assert grown < matrices * one + 120


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
    model = EASE.fit(EASEConfig(regularization=1000.0), FrozenConfig(), data, CONTEXT)
    found = evaluate(model, task, protocol)
    golden = {"recall@10": 0.1066, "recall@20": 0.1816, "ndcg@10": 0.0910, "ndcg@20": 0.1165}
    assert {name: round(found.mean(name), 4) for name in golden} == pytest.approx(golden, abs=2e-4)
    popular = evaluate(Popularity.fit(PopularityConfig(), FrozenConfig(), data, CONTEXT), task, protocol)
    golden = {"recall@10": 0.0535, "recall@20": 0.0993, "ndcg@10": 0.0587, "ndcg@20": 0.0721}
    assert {name: round(popular.mean(name), 4) for name in golden} == pytest.approx(golden, abs=2e-4)
