"""Markov against the recipe written out pair by pair, and its figures on real data."""

from collections import defaultdict
from pathlib import Path

import pytest
import torch

from rediffuse.baselines.markov import Markov, MarkovConfig
from rediffuse.config import FrozenConfig, RunConfig
from rediffuse.errors import InvalidInput, UnsupportedOption
from rediffuse.evaluation.evaluate import Task, evaluate
from rediffuse.evaluation.protocol import protocol_for
from rediffuse.grounding import topk
from rediffuse.protocols import FitContext, FitData
from rediffuse.types import Options, Query, Ragged

ITEMS = 17
CONTEXT = FitContext(RunConfig(device="cpu", precision="float64"))


def histories() -> list[list[int]]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(ITEMS, (user % 9,), generator=generator).tolist() for user in range(40)]


DATA = FitData(Ragged.of(histories()), ITEMS, "sequence")


def fitted(data: FitData = DATA, **settings: object) -> Markov:
    return Markov.fit(MarkovConfig.make(settings), FrozenConfig(), data, CONTEXT)


def by_hand(config: MarkovConfig, history: list[int]) -> list[float]:
    """The recipe as it is told, a pair at a time."""
    counts: defaultdict[tuple[int, int], float] = defaultdict(float)
    for row in histories():
        for i, a in enumerate(row):
            for d, b in enumerate(row[i + 1 : i + 1 + config.distances], start=1):
                counts[a, b] += 1 / d
                counts[b, a] += config.backward / d
    out = [max(1.0, sum(counts[a, b] for b in range(ITEMS))) for a in range(ITEMS)]
    into = [max(1.0, sum(counts[a, b] for a in range(ITEMS))) for b in range(ITEMS)]
    newest = history[::-1][: config.history_length]
    return [
        sum(
            config.decay**age * counts[a, b] * out[a] ** -config.out_power * into[b] ** -config.in_power
            for age, a in enumerate(newest)
        )
        for b in range(ITEMS)
    ]


@pytest.mark.parametrize(
    "settings",
    [{}, {"distances": 1, "backward": 0.0, "history_length": 1}, {"distances": 9, "out_power": 1.0, "decay": 1.0}],
)
def test_scores_are_those_of_the_recipe(settings: dict[str, object]) -> None:
    model, asked = fitted(**settings), [[3, 0, 7], [5], [2, 2, 9, 1], list(range(ITEMS)) * 2]
    ranking = model.recommend(Query.from_history(Ragged.of(asked), exclude=Ragged.empty(len(asked))), ITEMS)
    found = torch.zeros(len(asked), ITEMS).scatter(1, ranking.items, ranking.scores)
    expected = torch.tensor([by_hand(model.config, history) for history in asked])
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)


def test_a_block_of_items_at_a_time_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    model, query = fitted(), Query.from_history(Ragged.of([[3, 0, 7], [5]]))
    whole = model.recommend(query, 6)
    monkeypatch.setattr("rediffuse.baselines.markov.TopK", lambda score, n: topk.TopK(score, n, block=4))
    parted = model.recommend(query, 6)
    assert torch.equal(parted.scores, whole.scores)


def test_the_newest_item_speaks_loudest() -> None:
    data = FitData(Ragged.of([[0, 1], [2, 3]] * 5), 4, "sequence")
    model = fitted(data, backward=0.0)
    ranking = model.recommend(Query.from_history(Ragged.of([[0, 2], [2, 0]])), 2)
    assert ranking.items.tolist() == [[3, 1], [1, 3]]


def test_it_is_rebuilt_from_its_state() -> None:
    model, query = fitted(), Query.from_history(Ragged.of([[3, 0, 7]]))
    again = Markov.restore(model.config, model.state(), "cpu")
    assert torch.equal(again.recommend(query, 5).scores, model.recommend(query, 5).scores)


def test_refusals() -> None:
    with pytest.raises(InvalidInput, match="markov needs events in a known order; this data has none"):
        fitted(FitData(DATA.history, ITEMS, "none"))
    with pytest.raises(UnsupportedOption, match="markov cannot use 'horizon'"):
        fitted().recommend(Query.from_history(DATA.history), 2, options=Options(horizon=2))


def test_users_with_one_event_teach_nothing() -> None:
    model = fitted(FitData(Ragged.of([[1], [2], []]), 4, "sequence"))
    assert model.transitions.nnz == 0
    assert model.recommend(Query.from_history(Ragged.of([[1]])), 3).scores.tolist() == [[0.0, 0.0, 0.0]]


@pytest.mark.slow
@pytest.mark.realdata
@pytest.mark.parametrize(
    ("name", "golden"),
    [("amazon-beauty", (0.0596, 0.0810, 0.0444, 0.0513)), ("amazon-toys", (0.0736, 0.0948, 0.0549, 0.0618))],
)
def test_figures_of_leave_last_out(real: Path, name: str, golden: tuple[float, ...]) -> None:
    """Learned from train alone, history masked."""
    from rediffuse.data.importers import s3rec
    from rediffuse.data.splits import LeaveLastOut

    dataset = s3rec.load(real / name).with_split(LeaveLastOut())
    protocol = protocol_for(dataset, "standard", metrics=("recall", "ndcg"), ks=(5, 10), select_by="ndcg@10")
    data = FitData(dataset.history("train"), len(dataset.catalog), dataset.events.order)
    found = evaluate(fitted(data), Task.of(dataset, protocol.report), protocol)
    names = ("recall@5", "recall@10", "ndcg@5", "ndcg@10")
    assert [found.mean(n) for n in names] == pytest.approx(golden, abs=1e-4)
