"""The benchmarks of little data and of a condition that means nothing, on the tiny world."""

import numpy as np
import pytest
import torch

from benchmarks import conditions, sparsity
from rediffuse.config import RunConfig
from rediffuse.data.context import contexts_of
from rediffuse.data.dataset import Dataset
from rediffuse.evaluation.evaluate import Scores
from rediffuse.evaluation.protocol import Protocol
from rediffuse.registry import recipe

RUN = RunConfig(device="cpu", threads=1)


def test_every_share_is_learned_from_and_the_first_method_held_against_the_others(tiny: Dataset) -> None:
    study = sparsity.learned(tiny, Protocol(), [recipe("ease"), recipe("popularity")], [1, 0.1], RUN)
    few, everything = study.values["shares"].values()
    assert list(study.values["shares"]) == ["10\u00a0%", "100\u00a0%"]
    reached = [part["methods"]["ease"]["recall@20"].mean for part in (few, everything)]
    assert reached[0] < reached[1]
    assert list(few["ahead"]) == ["popularity"]


def test_the_condition_that_means_nothing_is_one_and_depends_on_the_id_alone(tiny: Dataset) -> None:
    noisy = conditions.with_noise(tiny, 4)
    told = contexts_of(noisy, ["noise"], noisy.history("train"))["noise"]
    assert (told.per, told.names) == ("user", ("w0", "w1", "w2", "w3"))
    assert torch.bincount(told.values).min() > len(tiny.users) / 8
    assert noisy.digest() == tiny.digest()
    found = conditions.scores(
        noisy, Protocol(), None, {"hidden": [8], "epochs": 1, "condition": ["noise"]}, [1, 2], RUN
    )
    assert found.names == ("ndcg@10",)


def test_a_change_is_a_share_of_the_mean_without() -> None:
    rng = np.random.default_rng(0)
    base = Scores(("ndcg@10",), rng.random((400, 1)))
    more = Scores(("ndcg@10",), base.values * 1.01)
    gap = conditions.change(more, base)
    assert gap.mean == pytest.approx(0.01)
    assert 0.009 < gap.low < gap.mean < gap.high < 0.011
