"""Little known of a user, little learned: the questions that are asked, and what is said of the answers."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from rediffuse.data.dataset import Dataset
from rediffuse.evaluation.evaluate import Scores, evaluate
from rediffuse.evaluation.protocol import Protocol
from rediffuse.evaluation.report.as_json import to_plain
from rediffuse.evaluation.report.blocks import Bullets, Picture, Table
from rediffuse.evaluation.slices import LABELS
from rediffuse.evaluation.statistics import paired
from rediffuse.evaluation.studies.sparsity import POSTED, by_history, by_share, pair_of
from rediffuse.evaluation.study import Examined
from rediffuse.types import Options, Query, Ranking


class Newest:
    """Ranks items by number, beginning after the newest of the history; keeps what it was asked."""

    def __init__(self, n_items: int, shift: int = 1) -> None:
        self.n_items, self.shift = n_items, shift
        self.asked: list[Query] = []

    def recommend(self, query: Query, k: int, *, options: Options = Options(), seed: int = 0) -> Ranking:
        self.asked.append(query)
        last = query.history.indptr[1:] - 1
        padded = torch.cat((query.history.items, torch.zeros(1, dtype=torch.int64)))
        newest = torch.where(query.history.lengths > 0, padded[last], 0)
        items = (newest.unsqueeze(1) + self.shift + torch.arange(k)) % self.n_items
        return Ranking(items, -torch.arange(k, dtype=torch.float32).expand(len(query), -1))


@pytest.fixture
def examined(tiny: Dataset) -> Examined:
    return Examined("mine", Newest(len(tiny.catalog)), tiny, Protocol())


def test_histories_are_cut_to_the_newest_events_of_somebody_unknown(examined: Examined) -> None:
    by_history(examined)
    query = examined.task.query
    lists = dict(zip(query.key.tolist(), query.history.to_lists(), strict=True))
    masks = dict(zip(query.key.tolist(), query.exclude.to_lists(), strict=True))
    model = examined.model
    assert isinstance(model, Newest)
    blocks = -(-len(query) // 256)
    lengths = []
    for call in model.asked[blocks:]:
        assert bool((call.user == -1).all())
        n = int(call.history.lengths.max())
        lengths.append(n)
        for key, row, mask in zip(call.key.tolist(), call.history.to_lists(), call.exclude.to_lists(), strict=True):
            assert row == lists[key][-n:]
            assert row
            assert mask == masks[key]
    assert set(lengths) == set(POSTED)


def test_figures_are_those_of_an_evaluation_and_paired(examined: Examined, tiny: Dataset) -> None:
    other = Newest(len(tiny.catalog), shift=5)
    found = by_history(examined, [("other", other)])
    values = found.values
    assert values["metrics"] == ["recall@20", "ndcg@20"]
    assert list(values["posted"]) == ["1 event", *(f"{n} events" for n in POSTED[1:]), "all events"]
    own, theirs = (evaluate(model, examined.task, pair_of(examined.protocol)) for model in (examined.model, other))
    told = examined.task.query.history.lengths.numpy() > 0
    everything = values["posted"]["all events"]
    assert everything["users"] == int(told.sum())
    assert everything["methods"]["mine"]["ndcg@20"].mean == pytest.approx(own.of("ndcg@20")[told].mean())
    gap, _ = paired(own.of("recall@20")[told], theirs.of("recall@20")[told])
    assert everything["ahead"]["other"]["recall@20"].mean == pytest.approx(gap.mean)
    assert everything["ahead"]["other"]["recall@20"].low == pytest.approx(gap.low)
    # Only the newest event is looked at, so no more of the history changes anything.
    assert all(part["methods"] == everything["methods"] for part in values["posted"].values())
    bands = values["bands"]
    assert list(bands) == [label for label in LABELS if label in bands]
    assert sum(part["users"] for part in bands.values()) == len(examined.task.query)
    weighed = sum(part["users"] * part["methods"]["mine"]["recall@20"].mean for part in bands.values())
    assert weighed / len(examined.task.query) == pytest.approx(own.mean("recall@20"))
    to_plain(values)


def test_the_section_says_pictures_and_tabulates_it(examined: Examined, tiny: Dataset) -> None:
    blocks = by_history(examined, [("other", Newest(len(tiny.catalog), shift=5))]).section.blocks
    said = blocks[0]
    assert isinstance(said, Bullets)
    # Neither reads more than one event, so whole histories are worth no more and nothing is said of it.
    assert said.items[0].startswith("Newest events posted: mine against other on ndcg@20 is ")
    (picture,) = (block for block in blocks if isinstance(block, Picture))
    assert "posted histories" in picture.draw(992, "n")
    assert [mark.words for mark in picture.key] == ["mine", "other"]
    posted, bands = (block for block in blocks if isinstance(block, Table))
    assert [row[0].text for row in posted.rows] == ["mine", "other", "users"] == [row[0].text for row in bands.rows]


def test_nobody_to_ask_is_said(tiny: Dataset) -> None:
    protocol = Protocol.make(report={"relevant": "test", "history": [], "mask": []})
    found = by_history(Examined("mine", Newest(len(tiny.catalog)), tiny, protocol))
    assert found.values["posted"] == {}
    assert list(found.values["bands"]) == ["0 events"]
    assert found.section.blocks[0] == Bullets(["Nobody has a history."])


def test_without_an_order_no_event_is_the_newest(examined: Examined) -> None:
    data = examined.dataset
    frame = data.events.frame.drop("time_us")
    found = by_history(replace(examined, dataset=replace(data, events=replace(data.events, frame=frame, order="none"))))
    assert found.values["posted"] == {}
    assert found.section.blocks[0] == Bullets(["The order of these events is not known: none of them is the newest."])


def test_shares_are_compared_user_by_user() -> None:
    rng = np.random.default_rng(0)
    names = ("recall@20", "ndcg@20")
    low, high = (Scores(names, rng.random((50, 2)) * scale) for scale in (0.1, 0.5))
    found = by_share(
        [
            (0.1, {"mine": low, "other": replace(low, values=low.values + 0.01)}),
            (1.0, {"mine": high, "other": replace(high, values=high.values - 0.01)}),
        ],
        names,
    )
    assert list(found.values["shares"]) == ["10\u00a0%", "100\u00a0%"]
    assert found.values["shares"]["10\u00a0%"]["ahead"]["other"]["ndcg@20"].mean == pytest.approx(-0.01)
    said = found.section.blocks[0]
    assert isinstance(said, Bullets)
    assert said.items[0].startswith("After training on 10\u00a0% mine reaches ndcg@20 0.0")
    assert said.items[0].endswith("after training on 100\u00a0%.")
    assert said.items[2:] == [
        "Share of the events learned from: mine against other on ndcg@20 is ahead with 100\u00a0%, behind with 10\u00a0%."
    ]
