"""Oracle and ceiling: who they are, that the posterior is the right one, and what they are asked and refuse."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from rediffuse.data.dataset import Dataset
from rediffuse.data.importers.atelier import load
from rediffuse.data.splits import GlobalTime, UserOrder
from rediffuse.data.worlds import atelier
from rediffuse.data.worlds.atelier import SIZES, World, generate
from rediffuse.data.worlds.atelier_config import DAY_US, END_US, START_US
from rediffuse.data.worlds.atelier_filter import infer
from rediffuse.data.worlds.atelier_latents import Cloud, Laws, Window, chance, true_cloud
from rediffuse.data.worlds.atelier_references import Ceiling, Oracle, references, window_of
from rediffuse.data.worlds.atelier_seen import Seen, seen_of, span_of
from rediffuse.errors import InvalidInput, UnsupportedOption
from rediffuse.evaluation.evaluate import Task, evaluate
from rediffuse.evaluation.protocol import Protocol
from rediffuse.protocols import Recommender
from rediffuse.types import Options, Query, Ragged

CUT = START_US + 600 * DAY_US
WINDOW = (CUT, END_US)


@pytest.fixture(scope="module")
def world() -> World:
    return generate("tiny", seed=1)


@pytest.fixture(scope="module")
def split() -> Dataset:
    return load("tiny", seed=1).with_split(GlobalTime())


def history_of(world: World, until_us: int = CUT) -> Ragged:
    """All events before a time, a row for each user."""
    events = Dataset.from_events("tiny", world.events, order="time", items=world.items, users=world.users).events
    history = events.history()
    assert history.time_us is not None
    return history.keep(history.time_us < until_us)


def query_of(history: Ragged, users: list[int]) -> Query:
    rows = torch.tensor(users)
    return Query(rows, history.select(rows), torch.zeros(len(users), dtype=torch.int64))


def test_laws_give_the_preference_of_the_truth(world: World) -> None:
    """The formulas of the yardsticks against `Truth.preference`: one day, so that nothing is averaged."""
    laws = Laws.of(world.truth.utility, world.truth.trend, END_US)
    noon = CUT + DAY_US // 2
    window = Window.of(CUT, CUT + DAY_US)
    for user in (0, 31, 77, 159):
        found = chance(laws, true_cloud(world.truth.utility, user), window, span_of(world.truth.utility.users, user))[0]
        p = world.truth.preference(np.array([user]), np.array([noon]))[0]
        config, users = world.truth.utility.config, world.truth.utility.users
        span = span_of(world.truth.utility.users, user)
        visits = window.visits * max(users.visits[user] * span, 1.0) / span
        visit = 1.0 - (1.0 - p) * np.exp(-(config.views_per_session - 1.0) * p)
        np.testing.assert_allclose(found, 1.0 - np.exp(-visits * visit), rtol=2e-4, atol=1e-9)


def test_window_shares_the_visits_of_its_days() -> None:
    window = Window.of(CUT + DAY_US // 3, CUT + 3 * DAY_US)
    assert window.days.tolist() == [600, 601, 602]
    assert window.share.sum().item() == pytest.approx(1.0)
    assert window.share[0] < 0.9 * window.share[1]
    assert Window.of(START_US, END_US).visits == pytest.approx(1.0)


def test_true_latents_come_through(world: World) -> None:
    users, config = world.truth.utility.users, world.truth.utility.config
    for user in (3, 42):
        cloud = true_cloud(world.truth.utility, user)
        first, fresh = cloud.shares()[0]
        torch.testing.assert_close(first, torch.from_numpy(users.style_first[user]).float(), atol=1e-6, rtol=1e-5)
        last = (1.0 - config.drift) * first + config.drift * fresh
        torch.testing.assert_close(last, torch.from_numpy(users.style_last[user]).float(), atol=1e-6, rtol=1e-5)
        assert cloud.loyalty.exp().item() == pytest.approx(users.loyalty[user], rel=1e-5)


def test_what_the_shop_saw_of_a_user(world: World) -> None:
    history = history_of(world)
    seen = seen_of(world.truth.utility.users, 5, history, 5, CUT)
    events = world.events.filter(user="U00005").filter(world.events.filter(user="U00005")["time_us"] < CUT)
    counts = dict(events.group_by("kind").len().rows())
    assert len(seen.item) == counts["view"]
    assert seen.carts.sum() == counts.get("cart", 0)
    assert seen.purchases.sum() == counts.get("purchase", 0)
    assert (seen.purchases <= seen.carts).all()
    assert torch.equal(seen.days[seen.day], (seen.time_us - START_US) // DAY_US)
    assert 0.0 < seen.so_far < 1.0
    assert 1 <= seen.visits <= len(seen.item)


TOY = replace(
    SIZES["tiny"], users=40, items=30, brands=4, styles=2, drift=0.0, style_concentration=0.5, category_spread=1e-6,
    budget_width=1e3, sessions=3.0,
)  # fmt: skip


@pytest.fixture(scope="module")
def toy() -> World:
    """Two styles, no drift, four brands, no budget: three latents matter, and a grid holds them all."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(atelier, "SIZES", {"tiny": TOY})
        return generate("tiny", seed=5)


def enumerated(world: World, seen: Seen) -> tuple[np.ndarray, float, float]:
    """Exactly: chance that each brand is no favourite, mean share of style 0, mean log bonus, by sums over a grid."""
    utility, config = world.truth.utility, TOY
    a = utility.users.concentration[seen.age_band]
    middle = (np.arange(200) + 0.5) / 200
    share = stats.beta.ppf(middle, a[0], a[1])
    bonus = config.loyalty * stats.gamma.ppf(middle[::4] + 0.0075, 4.0, scale=0.25)
    density = share[:, None] * utility.densities[0] + (1 - share[:, None]) * utility.densities[1]
    liked = share[:, None] * utility.styles.brand[0] + (1 - share[:, None]) * utility.styles.brand[1]
    chosen = np.exp(liked) / np.exp(liked).sum(axis=1, keepdims=True)
    log = np.zeros((4, 200, 50))
    for left_out in range(4):
        brands = [b for b in range(4) if b != left_out]
        law = np.zeros(200)
        for one, two, three in itertools.permutations(brands):
            c1, c2, c3 = chosen[:, one], chosen[:, two], chosen[:, three]
            law += c1 * c2 / (1 - c1) * c3 / (1 - c1 - c2)
        log[left_out] += np.log(law)[:, None]
        lift = np.where(np.isin(utility.items.brand, brands), np.exp(bonus)[:, None], 1.0)
        for n, item in enumerate(seen.item.tolist()):
            day = int((seen.time_us[n] - START_US) // DAY_US)
            shop = utility.on_day(np.array([day]))[0] * np.exp(world.truth.trend[day // 7])
            weight = density[:, None] * lift * shop
            p = weight / weight.sum(axis=2, keepdims=True)
            fit = np.log(p[..., item] / (p**2).sum(axis=2))
            log[left_out] += np.log(p[..., item])
            for odds, done, of in ((config.cart, seen.carts, 1), (config.purchase, seen.purchases, seen.carts[n])):
                moved = 1.0 / (1.0 + np.exp(-(odds + config.fit * fit)))
                log[left_out] += np.where(done[n] > 0, np.log(moved), np.where(of > 0, np.log(1 - moved), 0.0))
    weight = np.exp(log - log.max())
    weight /= weight.sum()
    return weight.sum(axis=(1, 2)), float((weight.sum(axis=(0, 2)) * share).sum()), float((weight.sum(axis=(0, 1)) * np.log(bonus)).sum())  # fmt: skip


@pytest.mark.parametrize("user", [0, 7])
def test_the_filter_agrees_with_an_exact_sum(toy: World, user: int) -> None:
    laws = Laws.of(toy.truth.utility, toy.truth.trend, CUT)
    seen = seen_of(toy.truth.utility.users, user, history_of(toy), user, CUT)
    assert len(seen.item) >= 5
    without, share, bonus = enumerated(toy, seen)
    exact = np.array([*without, share, bonus])
    runs = []
    for replicate in range(8):
        found = infer(laws, seen, 256, np.random.default_rng([replicate, user]))
        cloud, weight = found.cloud, found.weight
        missing = torch.ones(256, 4).scatter_(1, cloud.favourite, 0.0)
        runs.append([*(weight @ missing), weight @ cloud.shares()[:, 0, 0], weight @ cloud.loyalty])
    runs = np.array(runs, dtype=np.float64)
    error = runs.std(axis=0, ddof=1) / np.sqrt(len(runs))
    assert (error < 0.05).all()
    assert (np.abs(runs.mean(axis=0) - exact) < 4 * error + 0.004).all()


def ranks(seed: int, particles: int) -> dict[str, list[float]]:
    """Where the true latents of every user stand among the posterior draws, 0..1."""
    world = generate("tiny", seed)
    history, out = history_of(world), {}
    ceiling, rng = Ceiling(world, WINDOW, particles), np.random.default_rng(seed)
    for user in range(world.users.height):
        found = ceiling.posterior(history, user, user)
        for name, draws, truth in zip(
            NAMES, latents(found.cloud), latents(true_cloud(world.truth.utility, user)), strict=True
        ):
            below = found.weight[draws < truth - 1e-7].sum() + rng.random() * found.weight[(draws - truth).abs() <= 1e-7].sum()  # fmt: skip
            out.setdefault(name, []).append(float(below))
    return out


NAMES = ("budget", "activity", "category", "loyalty", "style", "brands")


def latents(cloud: Cloud) -> tuple[torch.Tensor, ...]:
    """Six numbers of every guess, each (P,)."""
    brands = cloud.favourite.float().sum(dim=1) + cloud.loyalty.exp()
    return cloud.taste[:, -2], cloud.taste[:, -1], cloud.taste[:, 4], cloud.loyalty, cloud.shares()[:, 0, 1], brands


@pytest.mark.slow
def test_true_latents_stand_anywhere_among_the_draws() -> None:
    """Simulation-based calibration (Talts et al. 2018): users are draws from the prior, so ranks are uniform."""
    found = {name: [] for name in NAMES}
    for seed in (1, 2, 3):
        for name, values in ranks(seed, 256).items():
            found[name] += values
    for name, values in found.items():
        assert stats.kstest(np.clip(values, 0, 1), "uniform").pvalue > 0.01, name


def test_answers_do_not_depend_on_batch_mates(world: World) -> None:
    history, users = history_of(world), [2, 30, 31, 99]
    both = [Ceiling(world, WINDOW, 16).recommend(query_of(history, some), 10) for some in (users, users[::-1])]
    alone = Ceiling(world, WINDOW, 16).recommend(query_of(history, [31]), 10)
    assert torch.equal(both[0].items, both[1].items.flip(0))
    assert torch.equal(both[0].scores, both[1].scores.flip(0))
    assert torch.equal(both[0].items[2:3], alone.items)
    assert torch.equal(both[0].scores[2:3], alone.scores)


def test_another_seed_another_filter(world: World) -> None:
    query = query_of(history_of(world), [4])
    one, again, other = (Ceiling(world, WINDOW, 16, seed).recommend(query, 20) for seed in (1, 1, 2))
    assert torch.equal(one.scores, again.scores)
    assert not torch.equal(one.scores, other.scores)


def test_a_history_is_filtered_once(world: World) -> None:
    history, ceiling = history_of(world), Ceiling(world, WINDOW, 16)
    first = ceiling.recommend(query_of(history, [4]), 5)
    known = dict(ceiling.known)
    assert torch.equal(ceiling.recommend(query_of(history, [4]), 9).items[:, :5], first.items)
    assert ceiling.known.keys() == known.keys()
    ceiling.recommend(query_of(history_of(world, CUT - 100 * DAY_US), [4]), 5)
    assert len(ceiling.known) == 2
    assert 1.0 <= ceiling.effective[4] <= 16.0


@pytest.mark.parametrize("kind", [Oracle, Ceiling])
def test_masks_and_paddings(world: World, kind: type) -> None:
    model: Recommender = kind(world, WINDOW) if kind is Oracle else kind(world, WINDOW, 16)
    history = history_of(world)
    plain = query_of(history, [3, 8])
    best = model.recommend(plain, 2).items
    masked = replace(plain, exclude=Ragged.of(best.tolist()))
    for row in range(2):
        assert not set(model.recommend(masked, 20).items[row].tolist()) & set(best[row].tolist())
    few = model.recommend(replace(plain, candidates=Ragged.of([[5, 7], [9]])), 3)
    assert [sorted(row) for row in few.items.tolist()] == [[-1, 5, 7], [-1, -1, 9]]
    assert model.recommend(plain, 300).items.shape == (2, 300)
    assert (model.recommend(plain, 300).items[:, 240:] == -1).all()


def test_a_user_without_events_is_answered_from_the_laws(world: World) -> None:
    none = torch.zeros(0, dtype=torch.int64)
    nothing = Query(torch.tensor([0]), Ragged(torch.zeros(2, dtype=torch.int64), none, none, none), torch.tensor([1]))
    ranking = Ceiling(world, WINDOW, 16).recommend(nothing, 20)
    assert (ranking.items >= 0).all()
    assert torch.isfinite(ranking.scores).all()


def test_references_stand_in_their_order(split: Dataset) -> None:
    """On tiny, a third of the users: popularity < ceiling < oracle, from the list that a comparison asks for."""
    task = Task.of(split, Protocol().report)
    protocol = Protocol(metrics=("recall",), ks=(20,))
    rows = torch.arange(0, len(task.query), 3)
    part = Task(task.query.select(rows), task.relevant.select(rows), task.undefined)
    found = references(split, *window_of(split, "test"), particles=32)
    assert [(one.name, one.replicates) for one in found] == [("ceiling", 4), ("oracle", 1)]
    assert all(one.meaning.endswith(".") for one in found)
    ceiling, oracle = (evaluate(one.make(0), part, protocol).mean("recall@20") for one in found)
    counts = torch.bincount(split.history("train").items, minlength=240)
    best = torch.argsort(-counts, stable=True)
    hits = []
    for masked, wanted in zip(part.query.exclude.to_lists(), part.relevant.to_lists(), strict=True):
        shown = [item for item in best.tolist() if item not in set(masked)][:20]
        hits.append(len(set(shown) & set(wanted)) / len(wanted))
    assert np.mean(hits) < ceiling < oracle + 0.05


def test_windows_are_the_parts_of_a_split_by_time(split: Dataset) -> None:
    (valid, middle), (test, end) = (window_of(split, part) for part in ("valid", "test"))
    assert START_US < valid < middle == test < end == END_US
    with pytest.raises(InvalidInput, match="parts that follow each other in time"):
        window_of(split.with_split(UserOrder()), "test")
    with pytest.raises(InvalidInput, match="not split yet"):
        window_of(replace(split, split=None), "test")


def test_what_is_refused(world: World, split: Dataset) -> None:
    history = history_of(world)
    for model in (Oracle(world, WINDOW), Ceiling(world, WINDOW, 16)):
        with pytest.raises(InvalidInput, match=r"Only users of the world can be asked for\. Got -1"):
            model.recommend(Query.from_history(history.select(torch.tensor([0]))), 5)
        with pytest.raises(UnsupportedOption, match="cannot use 'steps'"):
            model.recommend(query_of(history, [0]), 5, options=Options(steps=2))
    bare = Query(torch.tensor([0]), Ragged.of([[1, 2]]), torch.zeros(1, dtype=torch.int64))
    with pytest.raises(InvalidInput, match="needs times and kinds"):
        Ceiling(world, WINDOW, 16).recommend(bare, 5)
    for window in ((CUT, CUT), (START_US - 1, CUT), (CUT, END_US + 1)):
        with pytest.raises(InvalidInput, match="window must lie within the world"):
            Oracle(world, window)
    with pytest.raises(InvalidInput, match=r"at least 2 particles\. Got 1"):
        Ceiling(world, WINDOW, 1)
    with pytest.raises(InvalidInput, match="no world whose truth is known"):
        references(replace(split, facts={}), *WINDOW)
