"""Asking a recommender, and scoring its lists against us."""

import hashlib
import json
import math
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from torch import Tensor

from rediffuse import registry
from rediffuse.config import RunConfig
from rediffuse.data.dataset import Dataset
from rediffuse.denoisers import MLPDenoiser
from rediffuse.evaluation.accuracy import METRICS, of_lists
from rediffuse.evaluation.beyond_accuracy import Background, beyond
from rediffuse.evaluation.evaluate import SPARE, Scores, Task, evaluate
from rediffuse.evaluation.protocol import Phase, Protocol, protocol_for
from rediffuse.evaluation.slices import slices
from rediffuse.grounding import top_k
from rediffuse.grounding.fallback import WithFallback
from rediffuse.models.diffrec import DiffRec, DiffRecConfig
from rediffuse.protocols import FitContext, FitData, Recommender
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


@dataclass
class Shaky:
    """Last bits that depend on how many are asked about, on the place among them, and on nothing else."""

    table: Tensor

    def recommend(self, query: Query, k: int, *, options: Options = Options(), seed: int = 0) -> Ranking:
        del options, seed
        places = torch.arange(len(query)).unsqueeze(1)
        noise = ((places * 7919 + len(query) * 104729 + torch.arange(self.table.shape[1]) * 31) % 97) * 1e-7
        return top_k(self.table[query.user] + noise, k, seen=query.exclude)


def everything(model: Recommender, dataset: Dataset, task: Task, protocol: Protocol, batch_size: int) -> str:
    """A checksum of all that is published of a method, and of its lists and values."""
    scores = evaluate(model, task, protocol, batch_size=batch_size)
    background = Background.of(dataset, protocol, task)
    published = {
        "metrics": {name: value.to_json() for name, value in scores.intervals.items()},
        "beyond": {
            name: value.to_json()
            for name, value in beyond(scores.lists, task.relevant, background, protocol.ks).items()
        },
        "slices": [
            (part.by, part.label, part.users, part.value.to_json())
            for part in slices(scores, task, background.data, protocol.select_by)
        ],
    }
    text = json.dumps(published).encode()
    return hashlib.sha256(
        text + scores.values.tobytes() + scores.lists.tobytes() + scores.fallback.tobytes()
    ).hexdigest()


def untrained(dataset: Dataset, hidden: tuple[int, ...], dtype: torch.dtype, **settings: object) -> DiffRec:
    """A DiffRec with drawn weights: its scores lie close together, so that last bits would decide."""
    config = DiffRecConfig.make(hidden=hidden, **settings)
    denoiser = MLPDenoiser(len(dataset.catalog), hidden, generator=torch.Generator().manual_seed(0))
    return DiffRec(config, denoiser.to(dtype))


def test_the_batch_size_changes_nothing_to_the_last_bit(tiny: Dataset) -> None:
    task = Task.of(tiny, PROTOCOL.report)
    data = FitData(tiny.history("train"), len(tiny.catalog), "time")
    models: list[Recommender] = [
        scored(tiny, 20),
        Shaky(scored(tiny, 20).table),
        WithFallback(untrained(tiny, (64, 32, 64), torch.float32), data.users_per_item()),
        untrained(tiny, (64, 32, 64), torch.float64),
        untrained(tiny, (64,), torch.float32, sampling_noise=True, start="noised_history", noise_scale=1.0),
    ]
    for model in models:
        first, *others = (everything(model, tiny, task, PROTOCOL, size) for size in (512, 1, 7))
        assert others == [first, first]
    assert everything(models[0], tiny, task, PROTOCOL, 512) != everything(models[1], tiny, task, PROTOCOL, 512)


@pytest.mark.slow
@pytest.mark.realdata
def test_the_batch_size_changes_nothing_at_real_size(real: Path) -> None:
    """Some 500 users of MovieLens-1M and its whole catalog; networks and steps of the published size."""
    from rediffuse.data.importers import diffrec

    dataset = diffrec.load(real / "ml-1m_clean")
    protocol = protocol_for(dataset)
    whole = Task.of(dataset, protocol.report)
    some = torch.arange(0, len(whole.query), 12)
    task = Task(whole.query.select(some), whole.relevant.select(some), whole.undefined)
    ease = registry.recipe("ease")
    data = FitData(dataset.history(*protocol.fit), len(dataset.catalog), dataset.events.order)
    models: list[Recommender] = [
        ease.method.fit(ease.config, ease.training, data, FitContext(RunConfig(device="cpu"))),
        untrained(dataset, (600, 200, 600), torch.float32),
    ]
    for model in models:
        first, *others = (everything(model, dataset, task, protocol, size) for size in (512, 1, 7))
        assert others == [first, first]


@pytest.mark.gpu
def test_the_batch_size_changes_nothing_on_a_gpu(tiny: Dataset) -> None:
    task = Task.of(tiny, PROTOCOL.report)
    config = DiffRecConfig.make(hidden=(64, 32, 64))
    state = untrained(tiny, (64, 32, 64), torch.float32).state()
    model = DiffRec.restore(config, state, "cuda")
    first, *others = (everything(model, tiny, task, PROTOCOL, size) for size in (512, 1, 7))
    assert others == [first, first]


def test_lists_are_kept_as_they_were_scored(tiny: Dataset) -> None:
    model, task = scored(tiny, 5), Task.of(tiny, PROTOCOL.report)
    scores = evaluate(model, task, PROTOCOL)
    assert scores.lists.shape == (len(task.query), 10)
    assert scores.lists.dtype == np.int32
    for name in PROTOCOL.names:
        metric, _, k = name.partition("@")
        again = METRICS[metric](of_lists(scores.lists), task.relevant, int(k))
        assert again.tolist() == scores.of(name).tolist()
    assert not scores.fallback.any()


def test_ties_are_settled_by_number_whatever_came_first() -> None:
    """All items tie: what a model happened to put first does not matter, only relevance and number."""
    dataset = events(*((user, item, "train") for user in "ab" for item in "z"), *(("a", item, "test") for item in "vx"))
    task = Task.of(dataset, Phase(relevant="test", history=("train",), mask=()))
    only = Protocol.make(ks=[2], select_by="recall@2")
    scores = evaluate(Scored(torch.zeros(2, 3)), task, only)
    assert dataset.catalog.items.ids == ("v", "x", "z")
    assert scores.lists.tolist() == [[2, 0]]


def test_fallback_answers_are_marked(tiny: Dataset) -> None:
    task = Task.of(tiny, Phase(relevant="test", history=("train",), mask=()))
    data = FitData(tiny.history("train"), len(tiny.catalog), "time")
    scores = evaluate(WithFallback(scored(tiny, 9), data.users_per_item()), task, PROTOCOL)
    assert scores.fallback.tolist() == (task.query.history.lengths == 0).int().tolist()
    assert 0 < scores.fallback.sum() < len(scores.fallback)


def test_over_seeds_values_are_averaged_and_the_last_lists_kept() -> None:
    one, two = (
        Scores(("recall@1",), np.array([[v]]), np.array([[item]], np.int32)) for v, item in ((0.0, 4), (1.0, 5))
    )
    found = Scores.over_seeds([one, two])
    assert found.values.tolist() == [[0.5]]
    assert found.lists.tolist() == [[5]]


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
