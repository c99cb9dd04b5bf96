"""Asking a recommender, and scoring its lists against us."""

import math
from dataclasses import dataclass, field, replace

import numpy as np
import polars as pl
import pytest
import torch
from torch import Tensor

from rediffuse.data.dataset import Dataset
from rediffuse.evaluation.evaluate import SPARE, Scores, Task, evaluate
from rediffuse.evaluation.protocol import Phase, Protocol
from rediffuse.grounding import top_k
from rediffuse.random import stable_key
from rediffuse.types import Options, Query, Ranking

PROTOCOL = Protocol.make(ks=[1, 5, 10], select_by="ndcg@10")


@dataclass
class Scored:
    """Scores that depend on the user alone, with as many ties as there are fewer values than items."""

    table: Tensor
    """(U, I)."""
    depths: list[int] = field(default_factory=list[int])
    asked: list[tuple[Options, int]] = field(default_factory=list[tuple[Options, int]])

    def recommend(self, query: Query, k: int, *, options: Options = Options(), seed: int = 0) -> Ranking:
        self.depths.append(k)
        self.asked.append((options, seed))
        return top_k(self.table[query.user].clone(), k, seen=query.exclude)


def scored(dataset: Dataset, values: int) -> Scored:
    generator = torch.Generator().manual_seed(0)
    shape = len(dataset.users), len(dataset.catalog)
    return Scored(torch.randint(values, shape, generator=generator).float())


def worst_case(model: Scored, task: Task, name: str) -> list[float]:
    """Every metric by sorting the whole catalog: higher score first, relevant items behind their ties."""
    metric, _, at = name.partition("@")
    k, out = int(at), []
    lists = zip(
        task.query.user.tolist(),
        task.query.exclude.to_lists(),
        task.relevant.to_lists(),
        strict=True,  # type: ignore[union-attr]
    )
    for user, masked, relevant in lists:
        scores = model.table[user].tolist()
        items = [i for i in range(len(scores)) if i not in set(masked)]
        order = sorted(items, key=lambda i: (-scores[i], i in set(relevant)))
        ranks = [rank for rank, i in enumerate(order[:k], start=1) if i in set(relevant)]
        out.append(
            {
                "recall": len(ranks) / len(relevant),
                "precision": len(ranks) / k,
                "hit": float(bool(ranks)),
                "mrr": 1 / ranks[0] if ranks else 0.0,
                "ndcg": sum(1 / math.log2(r + 1) for r in ranks)
                / sum(1 / math.log2(r + 1) for r in range(1, min(k, len(relevant)) + 1)),
                "map": sum(n / r for n, r in enumerate(ranks, start=1)) / min(k, len(relevant)),
            }[metric]
        )
    return out


@pytest.mark.parametrize("values", [1, 2, 5, 10_000])
def test_ties_are_settled_against_us_however_long_they_are(tiny: Dataset, values: int) -> None:
    model, task = scored(tiny, values), Task.of(tiny, PROTOCOL.report)
    scores = evaluate(model, task, PROTOCOL)
    for name in PROTOCOL.names:
        assert scores.of(name).tolist() == pytest.approx(worst_case(model, task, name), abs=1e-12), name
    assert (max(model.depths) > 10 + SPARE) == (values < 10)
    if values == 1:
        # All 240 items tie, so no relevant item may stand before the last irrelevant one.
        assert scores.mean("recall@10") == 0


def test_the_batch_size_changes_no_figure(tiny: Dataset) -> None:
    model, task = scored(tiny, 20), Task.of(tiny, PROTOCOL.report)
    first, *others = (evaluate(model, task, PROTOCOL, batch_size=size) for size in (1, 7, 512))
    for other in others:
        assert np.array_equal(first.values, other.values)
    assert first.names == PROTOCOL.names


def test_options_and_seed_are_handed_on(tiny: Dataset) -> None:
    model = scored(tiny, 10_000)
    evaluate(model, Task.of(tiny, PROTOCOL.report), PROTOCOL, options=Options(steps=2), seed=7)
    assert set(map(str, model.asked)) == {str((Options(steps=2), 7))}


def events(*rows: tuple[str, str, str]) -> Dataset:
    frame = pl.DataFrame(rows, schema=["user", "item", "part"], orient="row")
    return Dataset.from_events("hand", frame, order="sequence", parts=("train", "valid", "test"))


def test_a_task_asks_only_for_what_can_be_found() -> None:
    dataset = events(
        ("a", "x", "train"),
        ("a", "y", "test"),
        ("a", "y", "test"),  # taken twice, counts once
        ("a", "x", "test"),  # masked: no answer
        ("b", "x", "train"),
        ("b", "x", "test"),  # nothing left to find
        ("c", "y", "train"),  # nothing in the part
        ("d", "z", "test"),  # no history
    )
    task = Task.of(dataset, Phase(relevant="test", history=("train",), mask=("train",)))
    assert dataset.users.items.ids == ("a", "b", "c", "d")
    assert task.undefined == 2
    assert task.query.user.tolist() == [0, 3]
    assert task.query.history.to_lists() == [[0], []]
    assert task.relevant.to_lists() == [[1], [2]]
    assert task.query.key.tolist() == [stable_key("a"), stable_key("d")]
    assert task.query.exclude is not None
    assert task.query.exclude.to_lists() == [[0], []]
    repeats = Task.of(dataset, Phase(relevant="test", history=("train",), mask=()))
    assert repeats.query.user.tolist() == [0, 1, 3]
    assert repeats.relevant.to_lists() == [[0, 1], [0], [2]]
    assert repeats.query.exclude is not None
    assert repeats.query.exclude.to_lists() == [[], [], []]


def test_no_history_is_no_history() -> None:
    """An empty list of parts gives nothing, never everything."""
    dataset = events(("a", "x", "train"), ("a", "y", "test"))
    task = Task.of(dataset, Phase(relevant="test", history=(), mask=()))
    assert task.query.history.to_lists() == [[]]


def test_histories_keep_their_order_and_parts(tiny: Dataset) -> None:
    task = Task.of(tiny, Phase(relevant="test", history=("train", "valid"), mask=("train", "valid")))
    whole = tiny.history("train", "valid").select(task.query.user)
    assert task.query.history.to_lists() == whole.to_lists()
    assert task.query.history.time_us is not None
    assert len(task.query) + task.undefined == len(tiny.users)


def test_nobody_to_ask(tiny: Dataset) -> None:
    task = Task.of(tiny, PROTOCOL.report)
    nobody = torch.zeros(0, dtype=torch.int64)
    empty = replace(task, query=task.query.select(nobody), relevant=task.relevant.select(nobody))
    scores = evaluate(scored(tiny, 3), empty, PROTOCOL)
    assert scores.values.shape == (0, len(PROTOCOL.names))
    assert math.isnan(scores.mean("ndcg@10"))
    assert math.isnan(scores.intervals["ndcg@10"].mean)


def test_scores_are_read_by_name() -> None:
    scores = Scores(("recall@1", "ndcg@1"), np.array([[0.0, 1.0], [1.0, 1.0], [1.0, 1.0]]))
    assert scores.of("recall@1").tolist() == [0, 1, 1]
    assert scores.mean("recall@1") == pytest.approx(2 / 3)
    assert scores.intervals["ndcg@1"].to_json() == {"mean": 1.0, "low": 1.0, "high": 1.0}
    assert list(scores.intervals) == ["recall@1", "ndcg@1"]
