"""DDRM: its losses against plain formulas, its answers by hand, the authors' schedules, what is mended."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import softplus

from rediffuse import registry
from rediffuse.baselines.history_mean import HistoryMean, HistoryMeanConfig, NoTraining
from rediffuse.config import RunConfig
from rediffuse.denoisers.conditioning import HISTORY
from rediffuse.denoisers.point import PointDenoiser
from rediffuse.errors import InvalidConfig, InvalidInput
from rediffuse.models.ddrm import DDRM
from rediffuse.models.ddrm_training import DDRMConfig, DDRMTask, DDRMTraining, Points
from rediffuse.noise.process import posterior_weights, snr
from rediffuse.protocols import FitContext, FitData
from rediffuse.spaces.embeddings import Embeddings
from rediffuse.types import Condition, Options, Query, Ragged

ITEMS, WIDTH = 12, 4
RUN = RunConfig(device="cpu", threads=1, precision="float64")
HISTORIES = Ragged.of([[0, 1, 2], [3, 4, 5, 6], [7], [8, 9]])
KEYS = torch.tensor([11, -5, 30, 7])
DATA = FitData(HISTORIES, ITEMS, "sequence", keys=KEYS)
CLEAN = {"noise_scale": 0.0, "levels": 1, "dropout": 0.0, "condition_drop": 0.0, "skip": False, "hidden": (6,)}


def table(rows: int, seed: int, width: int = WIDTH) -> Tensor:
    return torch.empty(rows, width, dtype=torch.float64).normal_(generator=torch.Generator().manual_seed(seed))


TABLES = Embeddings.named(table(ITEMS, 1), table(4, 2), KEYS)
VECTORS = {key: row for key, row in zip(KEYS.tolist(), table(4, 2), strict=True)}  # noqa: C416


def task(**changes: object) -> tuple[DDRMTask, PointDenoiser]:
    """An untrained one in float64."""
    config = DDRMConfig.make({**CLEAN, **changes})
    network = config.denoiser(WIDTH, torch.Generator().manual_seed(3)).double()
    return DDRMTask(config, 8, Points.of(TABLES, unit=config.unit), network, DATA), network


def cond(c: Tensor) -> Condition:
    return Condition({HISTORY: c}, {HISTORY: torch.ones(len(c), dtype=torch.bool)})


def drawn_loss(mine: DDRMTask, events: list[int]) -> dict[str, Tensor]:
    places = mine.examples.items.tolist()
    return mine.loss(torch.tensor([places.index(e) for e in events]), torch.Generator().manual_seed(5))


def levels(n: int) -> Tensor:
    return torch.ones(n, dtype=torch.int64)


def test_the_published_loss_of_single_items() -> None:
    published = {"train_on": "item", "negative": "raw", "subject": "user", "unit": False, "reconstruction": 0.3}
    weighed = {"weight": "sigmoid_pow", "weight_power": 0.7}
    mine, f_i = task(**published, **weighed)
    f_u = PointDenoiser(WIDTH, (6,), generator=torch.Generator().manual_seed(4)).double()
    found = drawn_loss(mine.with_user_side(f_u), [2, 4])  # item 2 of the first user, item 4 of the second
    e_i, e_u = TABLES.items[[2, 4]], torch.stack([VECTORS[11], VECTORS[-5]])
    user, item = f_u(e_u, levels(2), cond(e_i)), f_i(e_i, levels(2), cond(e_u))
    re = ((user - e_u).square().mean(1) + (item - e_i).square().mean(1)) / 2
    score = (user * item).sum(1)
    weight = torch.sigmoid(score) ** 0.7
    rank = found["rank"]
    torch.testing.assert_close(found["loss"], weight * (0.7 * rank + 0.3 * re))
    # The negative is a raw vector of an item that the user has not.
    others = [[j for j in range(ITEMS) if j not in row] for row in HISTORIES.to_lists()[:2]]
    for place, free in enumerate(others):
        possible = softplus(TABLES.items[free] @ user[place] - score[place])
        assert float((possible - rank[place]).abs().min().detach()) < 1e-12


def test_a_negative_is_treated_like_the_positive() -> None:
    mine, f_i = task(train_on="item", subject="user", unit=False, reconstruction=0.0)
    found = drawn_loss(mine, [0])
    e_u = VECTORS[11].unsqueeze(0)
    item = f_i(TABLES.items[:1], levels(1), cond(e_u))
    free = TABLES.items[3:]
    denoised = f_i(free, levels(len(free)), cond(e_u.expand(len(free), -1)))
    possible = softplus(((denoised - item) * e_u).sum(1))
    assert float((possible - found["loss"]).abs().min().detach()) < 1e-12


def test_the_loss_of_a_mean_is_that_of_the_others() -> None:
    mine, f_i = task(reconstruction=0.25, unit=False, temperature=0.5, negatives=ITEMS, history_dropout=0.0)
    found = drawn_loss(mine, [5])  # item 5 of the second user
    mean = TABLES.items[[3, 4, 6]].mean(0, keepdim=True)
    query = f_i(mean, levels(1), cond(mean))
    rank = -torch.log_softmax(query @ TABLES.items.t() / 0.5, 1)[:, 5]
    re = (query - TABLES.items[5]).square().mean(1)
    torch.testing.assert_close(found["rank"], rank)
    torch.testing.assert_close(found["loss"], 0.75 * rank + 0.25 * re)


def test_before_means_before_and_not_too_far_ahead() -> None:
    mine, f_i = task(given="before", horizon=1, reconstruction=1.0, unit=False, history_dropout=0.0)
    assert mine.examples.to_lists() == [[1, 2], [4, 5, 6], [], [9]]
    found = drawn_loss(mine, [6])
    mean = TABLES.items[[3, 4, 5]].mean(0, keepdim=True)
    torch.testing.assert_close(found["loss"], (f_i(mean, levels(1), cond(mean)) - TABLES.items[6]).square().mean(1))
    wide, f_i = task(given="before", horizon=9, reconstruction=1.0, unit=False, history_dropout=0.0)
    many = wide.loss(torch.full((64,), wide.examples.items.tolist().index(6)), torch.Generator().manual_seed(1))
    means = torch.stack([TABLES.items[3 : 3 + n].mean(0) for n in (1, 2, 3)])
    possible = (f_i(means, levels(3), cond(means)) - TABLES.items[6]).square().mean(1)
    near = (many["loss"].unsqueeze(1) - possible).abs()
    assert float(near.min(1).values.max().detach()) < 1e-12
    assert len(near.argmin(1).unique()) == 3


def test_the_weights_of_examples() -> None:
    plain, _ = task(unit=False, reconstruction=0.0)
    score = [drawn_loss(task(unit=False, reconstruction=0.0, **w)[0], [0, 5, 9])["loss"] / drawn_loss(plain, [0, 5, 9])["loss"]
             for w in ({"weight": "softmax", "weight_power": 2.0}, {"weight": "sigmoid_pow", "weight_power": 0.0})]  # fmt: skip
    torch.testing.assert_close(score[0].mean(), torch.tensor(1.0, dtype=torch.float64))
    assert float(score[0].std().detach()) > 1e-3
    torch.testing.assert_close(score[1], torch.ones(3, dtype=torch.float64))


def test_examples_may_be_drawn_by_user() -> None:
    mine, _ = task(example="user")
    chosen = mine._chosen(torch.zeros(4000, dtype=torch.int64), torch.Generator().manual_seed(1))
    events = mine.examples.items[chosen]
    users = torch.searchsorted(HISTORIES.indptr, events, right=True) - 1
    share = torch.bincount(users, minlength=4) / 4000
    torch.testing.assert_close(share, torch.tensor([1, 1, 0, 1]) / 3, atol=0.03, rtol=0)
    assert sorted(events.unique().tolist()) == mine.examples.items.tolist()


def test_who_has_everything_or_too_little_is_no_example() -> None:
    full = FitData(Ragged.of([[0, 1, 2], [0]]), 3, "none")
    points = Points.of(Embeddings(table(3, 1)), unit=True)
    config = DDRMConfig.make(CLEAN)
    network = config.denoiser(WIDTH, None).double()
    with pytest.raises(InvalidInput, match="nobody has two events"):
        DDRMTask(config, 8, points, network, full)
    items = DDRMConfig.make({**CLEAN, "train_on": "item"})
    assert DDRMTask(items, 8, points, network, full).examples.items.tolist() == [3]


def model(**changes: object) -> DDRM:
    config = DDRMConfig.make({"hidden": (6,), "levels": 3, **changes})
    network = config.denoiser(WIDTH, torch.Generator().manual_seed(3)).double()
    return DDRM(config, TABLES, network)


def asked(keys: list[int], rows: list[list[int]]) -> Query:
    query = Query.from_history(Ragged.of(rows))
    return replace(query, key=torch.tensor(keys))


def test_an_untrained_network_with_a_skip_is_the_history_mean() -> None:
    query = asked([1, 2], [[0, 1, 5], [7]])
    control = HistoryMean(HistoryMeanConfig(), TABLES).recommend(query, 5)
    for changes in ({}, {"start": "history"}, {"unit": False}, {"noise_scale": 0.0}):
        found = model(**changes).recommend(query, 5)
        assert torch.equal(found.items, control.items)
        torch.testing.assert_close(found.scores, control.scores)


def test_the_condition_is_the_user_where_known_else_the_history() -> None:
    query = asked([-5, 99], [[0, 1], [0, 1]])
    found = model(subject="user").recommend(replace(query, exclude=None), ITEMS)
    mean = TABLES.items[[0, 1]].mean(0)
    for place, vector in enumerate((VECTORS[-5], mean)):
        wanted = (TABLES.items @ vector).sort(descending=True)
        assert torch.equal(found.items[place], wanted.indices)
        torch.testing.assert_close(found.scores[place], wanted.values.float())


def test_the_reverse_process_is_the_published_one() -> None:
    """Noise at the noisiest level, the posterior means, the last estimate: written out."""
    mine = model(skip=False, unit=False, start="history")
    query = asked([1], [[0, 3]])
    mean = TABLES.items[[0, 3]].mean(0, keepdim=True)
    schedule, x = mine.config.noise_schedule(), mean
    for t in (3, 2, 1):
        x0 = mine.denoiser(x, torch.tensor([t]), cond(mean))
        w_x, w_x0, _ = posterior_weights(schedule, t, t - 1)
        x = w_x * x + w_x0 * x0
    found = mine.recommend(replace(query, exclude=None), ITEMS)
    torch.testing.assert_close(found.scores, (x @ TABLES.items.t()).sort(descending=True).values.float())
    noisy = model(skip=False, unit=False)
    assert not torch.allclose(noisy.recommend(query, 3).scores, mine.recommend(query, 3).scores)


def test_real_noise_is_measured_against_the_table() -> None:
    points = Points.of(Embeddings(TABLES.items * 50), unit=True)
    torch.testing.assert_close(points.items.square().mean(), torch.tensor(1.0, dtype=torch.float64))
    torch.testing.assert_close(points.decode(points.items[:2]), 2500 * TABLES.items[:2] @ TABLES.items.t())
    assert float(DDRMConfig().noise_schedule().sigma[-1]) > 0.5


@pytest.mark.parametrize(
    ("preset", "golden"),
    [
        ("lightgcn-ml-1m", {"v_1": 1e-5, "v_T": 1.8999919e-05, "c1_2": 0.018036, "c1_T": 0.009667, "snr_T": 52630.8}),
        ("mf-ml-1m", {"v_T": 1.0089999e-05, "c1_2": 0.000473, "c1_T": 0.000469}),
        ("sgl-ml-1m", {"v_T": 1.0899991e-05, "c1_T": 0.001685}),
    ],
)
def test_the_schedules_of_the_authors(preset: str, golden: dict[str, float]) -> None:
    config = registry.recipe("ddrm", preset).config
    assert isinstance(config, DDRMConfig)
    schedule = config.noise_schedule()
    last = config.levels
    found = {
        "v_1": float(schedule.sigma[1] ** 2),
        "v_T": float(schedule.sigma[-1] ** 2),
        "c1_2": float(posterior_weights(schedule, 2, 1)[1]),
        "c1_T": float(posterior_weights(schedule, last, last - 1)[1]),
        "snr_T": float(snr(schedule)[-1]),
    }
    for name, value in golden.items():
        assert found[name] == pytest.approx(value, rel=2e-8 if name.startswith("v") else 1.1e-3)
    weights = posterior_weights(schedule, 1, 0)
    assert (float(weights[0]), float(weights[1])) == (0.0, 1.0)


def test_presets_are_possible_and_controls_are_controls() -> None:
    names = {f"{b}-{d}" for b in ("mf", "lightgcn", "sgl") for d in ("ml-1m", "yelp", "amazon-book")}
    assert names <= set(DDRM.presets)
    assert registry.role_of("ddrm", "one-step") == registry.role_of("ddrm", "no-noise") == "control"
    one = registry.recipe("ddrm", "one-step")
    assert isinstance(one.config, DDRMConfig)
    assert one.config.steps == 1
    assert [part.label for part in registry.recipe("ddrm", "sgl-yelp").parts] == ["sgl"]
    assert registry.recipe("history_mean").seeded
    assert not registry.recipe("history_mean", settings={"tables": "x"}).parts


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(InvalidConfig, match="condition must be history"):
        DDRMConfig.make(condition=["season"])
    bare = FitData(Ragged.of([[0, 1]]), ITEMS, "none")
    config = DDRMConfig.make(recency="linear")
    with pytest.raises(InvalidInput, match="order"):
        DDRM.fit(config, DDRMTraining(), bare, FitContext(RUN))


def test_it_learns_over_a_file_and_answers_many_draws(tmp_path: Path) -> None:
    """Users of two kinds; a table in which the items of a kind are unlike each other."""
    generator = torch.Generator().manual_seed(0)
    rows = [(torch.randperm(6, generator=generator)[:4] + 6 * (user % 2)).tolist() for user in range(40)]
    np.save(tmp_path / "items.npy", table(ITEMS, 9, 2 * ITEMS).numpy())
    settings = {"tables": str(tmp_path), "hidden": (32,), "dropout": 0.0, "temperature": 0.5}
    training = DDRMTraining(epochs=60, batch_size=40, learning_rate=5e-3)
    data = FitData(Ragged.of(rows), ITEMS, "none")
    query = Query.from_history(Ragged.of([[0, 1, 2], [6, 7, 8]]))
    kinds = [list(range(3, 6)), list(range(9, 12))]

    def right(found: DDRM | HistoryMean, options: Options = Options()) -> int:
        lists = found.recommend(query, 3, options=options).items.tolist()
        return sum(len(set(row) & set(kind)) for row, kind in zip(lists, kinds, strict=True))

    mine = DDRM.fit(DDRMConfig.make(settings), training, data, FitContext(RUN))
    control = HistoryMean.fit(HistoryMeanConfig.make(tables=str(tmp_path)), NoTraining(), data, FitContext(RUN))
    assert right(mine) == 6 > right(control)
    assert right(mine, Options(draws=8)) == 6
    again = DDRM.fit(DDRMConfig.make(settings), training, data, FitContext(RUN))
    assert all(torch.equal(value, again.state()[name]) for name, value in mine.state().items())
    back = DDRM.restore(mine.config, mine.state(), "cpu")
    assert torch.equal(back.recommend(query, 5).scores, mine.recommend(query, 5).scores)
