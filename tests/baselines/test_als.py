"""ALS: a user is folded in as `implicit` itself would, by the normal equations, alone or among others."""

import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from implicit.cpu.als import AlternatingLeastSquares
from threadpoolctl import threadpool_limits

from rediffuse.baselines import als
from rediffuse.baselines.als import ALS, ALSConfig, ALSTraining
from rediffuse.baselines.rows import event_weights
from rediffuse.config import RunConfig
from rediffuse.data.importers.diffrec import load
from rediffuse.data.weighting import weigh
from rediffuse.errors import InvalidInput, MissingExtra, TrainingDiverged, UnsupportedOption
from rediffuse.evaluation.evaluate import Task, evaluate
from rediffuse.evaluation.protocol import protocol_for
from rediffuse.protocols import FitContext, FitData
from rediffuse.registry import recipe
from rediffuse.types import Options, Query, Ragged, SparseRows

ITEMS = 23


def histories() -> Ragged:
    generator = torch.Generator().manual_seed(0)
    return Ragged.of([torch.randperm(ITEMS, generator=generator)[: 3 + user % 6].tolist() for user in range(40)])


DATA = FitData(histories(), ITEMS, "sequence")


def fitted(data: FitData = DATA, run: RunConfig | None = None, iterations: int = 5, **settings: object) -> ALS:
    config = ALSConfig.make({"factors": 6, "regularization": 2.0, "alpha": 3.0, **settings})
    run = run or RunConfig(device="cpu", threads=1)
    return ALS.fit(config, ALSTraining(iterations=iterations), data, FitContext(run))


def test_one_item_worked_by_hand() -> None:
    """Y = 2, lambda = 1, alpha = 3: an event of weight r gives x = 2 (1 + 3 r) / (4 + 1 + 12 r); none gives 0."""
    model = ALS(ALSConfig(factors=1, regularization=1.0, alpha=3.0), torch.tensor([[2.0]]))
    weights = torch.tensor([1.0, 0.5, 0.0])
    rows = SparseRows(torch.tensor([0, 1, 2, 3, 3]), torch.zeros(3, dtype=torch.int64), weights, 1)
    expected = torch.tensor([[8 / 17], [5 / 11], [0.0], [0.0]])
    torch.testing.assert_close(model.fold_in(rows), expected)


def test_users_are_folded_in_as_implicit_recalculates_them() -> None:
    model = fitted()
    with threadpool_limits(1, "blas"):
        theirs = AlternatingLeastSquares(factors=6, regularization=2.0, num_threads=1)
    theirs.item_factors = model.factors.numpy()
    expected = theirs.recalculate_user(np.arange(40), (4.0 * event_weights(DATA)).astype(np.float32))
    found = model.fold_in(weigh(DATA.history, model.config, ITEMS))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4, atol=1e-5)


def test_recency_weights_are_the_r_of_the_scored_row_and_not_of_the_fit() -> None:
    model = fitted(recency="linear", weight_min=0.2)
    assert torch.equal(model.factors, fitted().factors)
    y = model.factors.double().numpy()
    r = np.zeros(ITEMS)
    r[[3, 0, 2]] = [0.2, 0.6, 1.0]
    confidence = 1 + 3.0 * r
    x = np.linalg.solve(y.T @ (confidence[:, None] * y) + 2.0 * np.eye(6), y.T @ (confidence * (r > 0)))
    query = Query.from_history(Ragged.of([[3, 0, 2]]), exclude=Ragged.empty(1))
    ranking = model.recommend(query, ITEMS)
    np.testing.assert_allclose(ranking.scores[0], (y @ x)[ranking.items[0]], rtol=1e-5, atol=1e-6)


def test_the_factors_are_a_fixed_point_of_the_alternation() -> None:
    """After many iterations, solving for the items from the folded-in users gives the same items: eq. 5."""
    model = fitted(run=RunConfig(device="cpu", precision="float64"), iterations=500)
    assert model.factors.dtype == torch.float64
    rows = weigh(DATA.history, model.config, ITEMS)
    users = ALS(model.config, model.fold_in(rows))
    columns = rows.dense().t()
    lists = Ragged.of([column.nonzero().squeeze(1).tolist() for column in columns])
    torch.testing.assert_close(users.fold_in(weigh(lists, model.config, 40)), model.factors, rtol=1e-3, atol=1e-5)


def test_neither_threads_nor_the_size_of_a_batch_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = (fitted(run=RunConfig(device="cpu", threads=threads)) for threads in (1, 2))
    assert torch.equal(one.factors, two.factors)
    assert not torch.equal(one.factors, fitted(run=RunConfig(device="cpu", seed=2)).factors)
    rows = weigh(DATA.history, one.config, ITEMS)
    whole = one.fold_in(rows)
    monkeypatch.setattr(als, "_NUMBERS", 7 * 36)
    assert torch.equal(one.fold_in(rows), whole)


@pytest.mark.parametrize(("rows", "items"), [([[0]], 1), ([[0], [0]], 1), ([[0, 2]], 3), ([[1], []], 2)])
def test_one_user_or_one_item_is_enough(rows: list[list[int]], items: int) -> None:
    model = fitted(FitData(Ragged.of(rows), items, "none"))
    ranking = model.recommend(Query.from_history(Ragged.of(rows), exclude=Ragged.empty(len(rows))), items)
    assert ranking.items.shape == (len(rows), items)
    assert bool(torch.isfinite(ranking.scores).all())


def test_it_is_silent(capfd: pytest.CaptureFixture[str]) -> None:
    """Neither a progress bar nor the warning about threads of the matrix library."""
    import implicit.utils

    implicit.utils._checked_blas_config = False
    with warnings.catch_warnings(), threadpool_limits(2, "blas"):
        warnings.simplefilter("error")
        fitted()
    assert capfd.readouterr() == ("", "")


def test_without_implicit_it_names_the_extra_and_still_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    model = fitted()
    monkeypatch.setitem(sys.modules, "implicit.cpu.als", None)
    with pytest.raises(MissingExtra, match=r'als needs implicit.* Run: pip install "rediffuse\[baselines\]"'):
        fitted()
    again = ALS.restore(model.config, model.state(), "cpu")
    query = Query.from_history(histories())
    assert torch.equal(again.recommend(query, 5).scores, model.recommend(query, 5).scores)


def test_refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidInput, match="needs events in a known order"):
        fitted(FitData(histories(), ITEMS, "none"), recency="linear")
    with pytest.raises(UnsupportedOption, match="als cannot use 'steps'"):
        fitted().recommend(Query.from_history(histories()), 2, options=Options(steps=1))
    monkeypatch.setattr(als, "_item_factors", lambda *_: np.full((ITEMS, 6), np.nan))
    with pytest.raises(TrainingDiverged, match=r"A factor is not finite\. Raise regularization"):
        fitted()


def test_its_seed_matters_to_a_comparison() -> None:
    assert recipe("als").seeded


@pytest.mark.slow
@pytest.mark.realdata
def test_ml_1m_as_shipped(real: Path) -> None:
    """What the preset reaches; its settings were chosen on the selection part."""
    dataset = load(real / "ml-1m_clean")
    protocol = protocol_for(dataset, "as-shipped", metrics=("recall",))
    chosen = recipe("als", "ml-1m-clean")
    data = FitData(dataset.history("train"), len(dataset.catalog), dataset.events.order)
    run = RunConfig(device="cpu", threads=1)
    model = ALS.fit(chosen.config, chosen.training, data, FitContext(run))
    found = evaluate(model, Task.of(dataset, protocol.report), protocol)
    assert found.mean("recall@20") == pytest.approx(0.1737, abs=2e-3)


@pytest.mark.gpu
def test_it_answers_on_a_gpu() -> None:
    model = fitted()
    there = ALS.restore(model.config, model.state(), "cuda")
    query = Query.from_history(histories())
    found = there.recommend(query, 5)
    assert found.items.device.type == "cpu"
    torch.testing.assert_close(found.scores, model.recommend(query, 5).scores, rtol=1e-4, atol=1e-5)
