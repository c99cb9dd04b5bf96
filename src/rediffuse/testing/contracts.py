"""What every recommender, every sampler and every schedule keeps, whoever wrote it.

A recommender is examined by being registered: each contract runs for each name in the registry, trained in about a
second on the tiny embedded world. Samplers and schedules are given to a subclass as a table name -> function.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from rediffuse import registry
from rediffuse.config import FrozenConfig
from rediffuse.errors import ArtifactError, InvalidConfig, InvalidInput, RediffuseError, UnsupportedOption
from rediffuse.grounding.topk import top_k
from rediffuse.noise.schedules import SCHEDULES
from rediffuse.protocols import Range, Sampler, Schedule, Stepwise
from rediffuse.random import PhiloxNoise
from rediffuse.testing.subjects import (
    SQUARES,
    Subject,
    assert_close,
    bare_context,
    changed,
    checkerboard,
    on_checkerboard,
    small_recipe,
    trained,
)
from rediffuse.types import Assortment, Condition, Options, Query, Ragged, Ranking

K = 10
OPTIONS: Mapping[str, object] = {
    "steps": 1,
    "draws": 2,
    "start": "pure_noise",
    "temperature": 0.5,
    "guidance_scale": 2.0,
    "diversity": 0.5,
    "horizon": 5,
}
"""A value of every field of `Options` that asks for something else than usual."""


class RecommenderContract:
    """Subclass it with a name that pytest collects; narrow or widen it by these values."""

    only: ClassVar[Sequence[str]] = ()
    """Names of methods; empty: all that are registered."""
    settings: ClassVar[Mapping[str, object]] = {"hidden": [32], "levels": 5, "epochs": 3}
    """What makes training short; a method takes the keys it has."""
    checkerboard_settings: ClassVar[Mapping[str, object]] = {
        "hidden": [32],
        "levels": 5,
        "epochs": 150,
        "batch_size": 10,
        "learning_rate": 0.01,
        "rank": 2,
        "horizon": 8,
    }
    """What lets a method learn 40 users well."""
    learned: ClassVar[float] = 1.0
    """Share of the answers on the checkerboard that must be right; guessing gets .4."""

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """One test for each method, and for each option where a test asks for one."""
        if "name" in metafunc.fixturenames:
            metafunc.parametrize("name", tuple(self.only) or tuple(registry.methods()))
        if "option" in metafunc.fixturenames:
            metafunc.parametrize("option", tuple(OPTIONS))

    @pytest.fixture
    def subject(self, name: str) -> Subject:
        """The method, trained."""
        return trained(name, self.settings)

    def test_lists_have_the_promised_form(self, subject: Subject) -> None:
        """(B, K) int64 and float32 in main memory, best first, no item twice; the query stays as it was."""
        query, before = subject.query, replace(subject.query)
        kept = query.history.items.clone()
        ranking = subject.method.recommend(query, K)
        assert ranking.items.shape == ranking.scores.shape == (len(query), K)
        assert (ranking.items.dtype, ranking.scores.dtype) == (torch.int64, torch.float32)
        assert ranking.items.device.type == ranking.scores.device.type == "cpu"
        assert bool((ranking.scores[:, :-1] >= ranking.scores[:, 1:]).all())
        assert all(len(set(row)) == K for row in ranking.items.tolist())
        assert subject.method.n_items == subject.n_items
        assert query == before
        assert torch.equal(query.history.items, kept)

    def test_a_batch_agrees_with_a_single_query(self, subject: Subject) -> None:
        """Neither batch mates nor their order matter."""
        query = subject.query
        whole = subject.method.recommend(query, K, seed=3)
        back = torch.arange(len(query) - 1, -1, -1)
        turned = subject.method.recommend(query.select(back), K, seed=3)
        assert_close(_rows(turned, back), whole)
        for row in range(0, len(query), 7):
            at = torch.tensor([row])
            assert_close(subject.method.recommend(query.select(at), K, seed=3), _rows(whole, at))

    def test_draws_of_a_batch_agree_with_a_single_query(self, subject: Subject) -> None:
        """The same for an answer that begins in noise, and for several at once; another seed gives another one."""
        kinds = [o for o in map(partial(_honoured, subject), (Options(start="pure_noise"), Options(draws=3))) if o]
        if not kinds:
            pytest.skip("draws nothing")
        query = subject.query
        for options in kinds:
            whole = subject.method.recommend(query, K, options=options, seed=3)
            for row in range(0, len(query), 11):
                at = torch.tensor([row])
                assert_close(subject.method.recommend(query.select(at), K, options=options, seed=3), _rows(whole, at))
            assert changed(subject.method.recommend(query, K, options=options, seed=4), whole)

    def test_several_draws_say_how_sure_they_are(self, subject: Subject) -> None:
        """A spread of 0 or more and a share of the draws for each place; of a whole catalog every draw holds all."""
        options = _honoured(subject, Options(draws=4))
        if options is None:
            pytest.skip("draws nothing")
        ranking = subject.method.recommend(subject.query, K, options=options)
        assert ranking.spread is not None
        assert ranking.probability is not None
        assert ranking.probability_of in ("top_k", "consumption")
        assert ranking.spread.shape == ranking.probability.shape == ranking.items.shape
        assert bool((ranking.spread >= 0).all())
        assert bool(((ranking.probability >= 0) & (ranking.probability <= 1)).all())
        if ranking.probability_of == "top_k":
            assert bool((ranking.probability.sum(1) <= K + 1e-4).all())
            free = replace(subject.query, exclude=None)
            whole = subject.method.recommend(free, subject.n_items, options=options).probability
            assert whole is not None
            assert bool((whole == 1).all())

    def test_the_same_seed_gives_the_same_list(self, subject: Subject) -> None:
        """To the last bit, with every option that is honoured."""
        for name, value in OPTIONS.items():
            options = _honoured(subject, replace(Options(), **{name: value})) or Options()
            one, two = (subject.method.recommend(subject.query, K, options=options, seed=5) for _ in range(2))
            assert not changed(one, two)

    def test_excluded_items_never_return(self, subject: Subject) -> None:
        """Neither what the user has, nor whatever else is excluded."""
        query = subject.query
        free = subject.method.recommend(replace(query, exclude=None), K)
        for exclude in (query.history, Ragged.of(free.items.tolist())):
            ranking = subject.method.recommend(replace(query, exclude=exclude), K)
            for row, forbidden in zip(ranking.items.tolist(), exclude.to_lists(), strict=True):
                assert not set(row) & set(forbidden)

    def test_a_list_longer_than_the_catalog_is_padded(self, subject: Subject) -> None:
        """Everything that may be returned, then -1 with a score of -inf."""
        query = replace(subject.query, exclude=subject.query.history)
        ranking = subject.method.recommend(query, subject.n_items + 5)
        for items, scores, seen in zip(ranking.items, ranking.scores, query.history.to_lists(), strict=True):
            there = subject.n_items - len(set(seen))
            assert len(set(items[:there].tolist())) == there
            assert bool((items[:there] >= 0).all())
            assert bool(torch.isfinite(scores[:there]).all())
            assert bool((items[there:] == -1).all())
            assert bool((scores[there:] == float("-inf")).all())

    def test_candidates_are_respected(self, subject: Subject) -> None:
        """Only candidates come, in the order of the whole list; none means none."""
        query = replace(subject.query, exclude=None)
        whole = subject.method.recommend(query, subject.n_items)
        wanted = [sorted(row[::3]) for row in whole.items.tolist()]
        ranking = subject.method.recommend(replace(query, candidates=Ragged.of(wanted)), subject.n_items)
        for row, allowed in zip(ranking.items.tolist(), wanted, strict=True):
            assert sorted(i for i in row if i >= 0) == allowed
        size = len(wanted[0])
        assert_close(_part(ranking, slice(0, size)), _part(whole, slice(0, None, 3)))
        nothing = replace(query, candidates=Ragged.empty(len(query)))
        assert bool((subject.method.recommend(nothing, K).items == -1).all())

    def test_an_assortment_is_searched_within(self, subject: Subject) -> None:
        """What is offered to all comes in the order of the whole list, the best variant of each product alone."""
        query = replace(subject.query, exclude=None)
        whole = subject.method.recommend(query, subject.n_items)
        offered = torch.arange(subject.n_items) % 3 > 0
        products = torch.arange(subject.n_items) // 4
        limited = replace(query, candidates=Assortment(offered, groups=products))
        for model in (subject.method, subject.fitted.model):
            ranking = model.recommend(limited, subject.n_items)
            for row in ranking.items:
                there = row[row >= 0]
                assert sorted(products[there].tolist()) == products[offered].unique().tolist()
                assert bool(offered[there].all())
        only = subject.method.recommend(replace(query, candidates=Assortment(offered)), subject.n_items)
        expected = [[item for item in row if offered[item]] for row in whole.items.tolist()]
        scores = [values[offered[row]] for row, values in zip(whole.items, whole.scores, strict=True)]
        width = len(expected[0])
        assert_close(
            _part(only, slice(0, width)), replace(whole, items=torch.tensor(expected), scores=torch.stack(scores))
        )

    def test_nobody_may_ask(self, subject: Subject) -> None:
        """A batch of no queries gets no lists, whatever it asks for."""
        query = subject.query.select(torch.zeros(0, dtype=torch.int64))
        for name, value in OPTIONS.items():
            options = _honoured(subject, replace(Options(), **{name: value})) or Options()
            assert subject.method.recommend(query, K, options=options).items.shape == (0, K)
        assert subject.fitted.model.recommend(query, K).items.shape == (0, K)

    def test_a_posted_history_needs_no_user_and_no_times(self, subject: Subject) -> None:
        """Bare items of an unknown user, an item twice among them, are enough."""
        ranking = subject.method.recommend(Query.from_history(Ragged.of([[3, 1, 3], [7]])), K)
        assert bool((ranking.items >= 0).all())

    def test_unknown_items_are_reported_and_left_out(self, subject: Subject) -> None:
        """A history with unknown ids gets the answer of the history without them."""
        known = list(subject.model.items.ids[5:9])
        answer = subject.model.recommend([known[0], "no such item", *known[1:], "nor this"], K)
        assert answer.unknown == ("no such item", "nor this")
        assert answer.items == subject.model.recommend(known, K).items
        assert not {place.item for place in answer.items} & set(known)

    def test_an_empty_history_gets_a_labelled_fallback(self, subject: Subject) -> None:
        """What is popular, called so; its batch mates get their own answers."""
        known = list(subject.model.items.ids[5:9])
        empty, mate, strange = subject.model.recommend_many([[], known, ["no such item"]], K)
        popular = top_k(subject.fitted.folder.popularity.unsqueeze(0).clone(), K)
        assert [place.score for place in empty.items] == popular.scores[0].tolist()
        assert (empty.fallback, mate.fallback, strange.fallback) == ("empty_history", None, "empty_history")
        assert empty.items == strange.items
        alone = subject.model.recommend(known, K)
        assert [p.score for p in mate.items] == pytest.approx([p.score for p in alone.items], rel=1e-4, abs=1e-5)

    def test_options_are_honoured_or_refused(self, subject: Subject, option: str) -> None:
        """An option that is taken changes the answer, in every mode the method has; else it is refused by name."""
        modes = [Options()] if option == "start" else [Options(), Options(start="pure_noise")]
        for mode in modes:
            if _honoured(subject, mode) is None:
                continue
            asked = replace(mode, **{option: OPTIONS[option]})
            usual = subject.method.recommend(subject.query, K, options=mode, seed=1)
            try:
                answer = subject.method.recommend(subject.query, K, options=asked, seed=1)
            except UnsupportedOption as error:
                assert repr(option) in str(error)  # noqa: PT017
            else:
                assert changed(answer, usual), f"{option} is taken and ignored"

    def test_impossible_options_are_refused(self, subject: Subject) -> None:
        """Neither taken for the default nor met by a failure deep inside."""
        for options in (Options(steps=0), Options(steps=10**9), Options(start="nowhere"), Options(start="")):
            with pytest.raises(RediffuseError):
                subject.method.recommend(subject.query, K, options=options)
        with pytest.raises(InvalidInput, match="k must be at least 1"):
            subject.method.recommend(subject.query, 0)

    def test_steps_can_be_watched(self, subject: Subject) -> None:
        """A walk has an entry for each step, noisiest level first, and ends in the list that `recommend` gives."""
        method = subject.method
        if not isinstance(method, Stepwise):
            pytest.skip("answers in one go")
        for options, steps in ((Options(), method.steps), (Options(steps=1), 1)):
            walk = method.walk(subject.query, K, options=options)
            levels = [level for level, _ in walk]
            assert len(walk) == steps
            assert levels == sorted(set(levels), reverse=True)
            assert_close(walk[-1][1], subject.method.recommend(subject.query, K, options=options))

    def test_a_saved_model_answers_the_same(self, subject: Subject, tmp_path: Path) -> None:
        """Through the folder on disk and the registry, to the last bit."""
        subject.fitted.write(tmp_path / "model")
        loaded = registry.load(tmp_path / "model", device="cpu")
        histories = [list(subject.model.items.ids[at : at + 6]) for at in range(0, 60, 6)]
        assert loaded.recommend_many(histories, K) == subject.model.recommend_many(histories, K)
        assert loaded.folder.config == subject.fitted.folder.config
        query = subject.query
        assert not changed(loaded.recommender.recommend(query, K), subject.fitted.model.recommend(query, K))

    def test_its_state_is_finite_and_complete(self, subject: Subject) -> None:
        """A tensor that is missing or misshapen is refused when the model is rebuilt."""
        state = subject.method.state()
        for name, tensor in state.items():
            assert bool(torch.isfinite(tensor).all())
            broken = [{key: value for key, value in state.items() if key != name}]
            broken += [{**state, name: tensor.narrow(d, 0, tensor.shape[d] - 1)} for d in range(tensor.dim())]
            for tensors in broken:
                with pytest.raises(ArtifactError, match="Train it anew"):
                    registry.restore(replace(subject.fitted.folder, tensors=tensors), "cpu")

    def test_settings_survive_toml_and_json(self, name: str) -> None:
        """For the defaults, the small settings of this suite and every preset."""
        presets = registry.method_class(name).presets
        for chosen in (
            registry.recipe(name),
            small_recipe(name, self.settings),
            *(registry.recipe(name, preset) for preset in presets),
        ):
            for config in (chosen.config, chosen.training):
                kind = type(config)
                assert kind.from_toml(config.to_toml()) == config
                assert kind.make(json.loads(json.dumps(config.model_dump(mode="json")))) == config

    def test_what_may_be_tuned_is_possible(self, name: str) -> None:
        """Every value a tuner may try is a setting the method takes; controls are presets."""
        method = registry.method_class(name)
        for preset, keys in method.controls.items():
            assert set(keys) <= set(method.presets[preset])
            assert not set(keys) & set(registry.recipe(name, preset).tunable())
        for key, values in method.tunable.items():
            for value in (values.low, values.high) if isinstance(values, Range) else values:
                registry.recipe(name, settings={key: value})

    def test_unknown_settings_are_refused(self, name: str) -> None:
        """The nearest known key is named."""
        method = registry.method_class(name)
        known = [*method.Config.model_fields, *method.Training.model_fields]
        for key in known:
            with pytest.raises(InvalidConfig, match="Nearest known key: "):
                registry.recipe(name, None, {f"{key}x": 1})
        with pytest.raises(InvalidConfig, match="Unknown key 'qqqq'"):
            registry.recipe(name, None, {"qqqq": 1})
        kinds: tuple[type[FrozenConfig], ...] = (method.Config, method.Training)
        for kind in kinds:
            with pytest.raises(InvalidConfig, match="Unknown key 'qqqq'"):
                kind.make(qqqq=1)

    def test_data_without_order_is_taken_or_refused(self, name: str) -> None:
        """In one sentence that says what is missing."""
        chosen = small_recipe(name, {**self.checkerboard_settings, "epochs": 1})
        data = checkerboard()
        bare = replace(data, history=Ragged(data.history.indptr, data.history.items), order="none")
        try:
            method = chosen.method.fit(chosen.config, chosen.training, bare, bare_context(bare))
        except InvalidInput as error:
            assert "order" in str(error)  # noqa: PT017
        else:
            assert method.n_items == SQUARES

    def test_the_same_seed_learns_the_same(self, name: str) -> None:
        """Two trainings with one seed end in equal weights."""
        one, two = (method.state() for method in on_checkerboard(name, self.checkerboard_settings))
        assert one.keys() == two.keys()
        assert all(torch.equal(one[key], two[key]) for key in one)

    def test_the_checkerboard_is_learned(self, name: str) -> None:
        """Whoever took four items of one colour is given the eight others of it; controls need not know better."""
        if registry.methods()[name].role == "control":
            pytest.skip("a control")
        method, _ = on_checkerboard(name, self.checkerboard_settings)
        histories = [list(range(colour, SQUARES, 2))[at : at + 4] for colour in (0, 1) for at in range(8)]
        ranking = method.recommend(Query.from_history(Ragged.of(histories)), SQUARES // 2 - 4)
        right = [
            item % 2 == history[0] % 2 and item not in history
            for row, history in zip(ranking.items.tolist(), histories, strict=True)
            for item in row
        ]
        assert sum(right) >= self.learned * len(right)


class ScheduleContract:
    """Subclass it with a name that pytest collects and the table of schedules."""

    schedules: ClassVar[Mapping[str, Callable[[int], Schedule]]] = {}
    """name -> levels T -> the two tables."""

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """One test for each schedule and several T."""
        if "name" in metafunc.fixturenames:
            metafunc.parametrize("name", tuple(self.schedules))
            metafunc.parametrize("T", (1, 2, 5, 40, 1000))

    def test_level_0_is_clean_and_the_signal_fades(self, name: str, T: int) -> None:
        """alpha[0] = 1, sigma[0] = 0, alpha / sigma strictly falls; float64, (T+1,)."""
        schedule = type(self).schedules[name](T)
        assert schedule.alpha.dtype == schedule.sigma.dtype == torch.float64
        assert schedule.alpha.shape == schedule.sigma.shape == (T + 1,)
        assert (float(schedule.alpha[0]), float(schedule.sigma[0])) == (1.0, 0.0)
        ratio = schedule.alpha[1:] / schedule.sigma[1:]
        assert bool(torch.isfinite(ratio).all())
        assert bool((ratio > 0).all())
        assert bool((ratio.diff() < 0).all())


class SamplerContract:
    """Subclass it with a name that pytest collects and the table of samplers."""

    samplers: ClassVar[Mapping[str, Sampler]] = {}
    levels: ClassVar[tuple[tuple[int, ...], ...]] = ((10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0), (10, 4, 1, 0), (10, 0))
    """Walks to examine, each from the noisiest of 10 levels down to the clean one."""

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """One test for each sampler and walk."""
        if "name" in metafunc.fixturenames:
            metafunc.parametrize("name", tuple(self.samplers))
        if "walk" in metafunc.fixturenames:
            metafunc.parametrize("walk", self.levels)

    @pytest.fixture
    def sampler(self, name: str) -> Sampler:
        """The function."""
        return type(self).samplers[name]

    def test_it_ends_in_the_last_estimate(self, sampler: Sampler, walk: tuple[int, ...]) -> None:
        """The step to level 0 is the answer of the denoiser; with or without noise, the start stays as it was."""
        x0, x, schedule = _walked()
        kept = x.clone()
        for noise in (None, PhiloxNoise(1, torch.arange(len(x)))):
            end = sampler(lambda _x, _t, _c=None: x0, x, torch.tensor(walk), schedule, noise=noise)
            torch.testing.assert_close(end, x0, rtol=0, atol=1e-12)
            assert torch.equal(x, kept)

    def test_it_visits_the_levels_it_was_given(self, sampler: Sampler, walk: tuple[int, ...]) -> None:
        """Each but the last, once at least, from above; `on_step` sees the state and the estimate, (B, *D)."""
        x0, x, schedule = _walked()
        seen: list[int] = []

        def on_step(t: int, x_t: Tensor, estimate: Tensor) -> None:
            assert x_t.shape == x.shape
            torch.testing.assert_close(estimate, x0)
            seen.append(t)

        sampler(lambda _x, _t, _c=None: x0, x, torch.tensor(walk), schedule, noise=None, on_step=on_step)
        assert seen == sorted(seen, reverse=True)
        assert set(walk[:-1]) <= set(seen)

    def test_draws_do_not_depend_on_batch_mates(self, sampler: Sampler, walk: tuple[int, ...]) -> None:
        """A query alone ends where it ends among others; another seed ends elsewhere or nothing is drawn."""
        _, x, schedule = _walked()
        key, levels = torch.arange(len(x)) + 17, torch.tensor(walk)
        whole = sampler(_half, x, levels, schedule, noise=PhiloxNoise(1, key))
        for row in range(len(x)):
            alone = sampler(_half, x[row : row + 1], levels, schedule, noise=PhiloxNoise(1, key[row : row + 1]))
            torch.testing.assert_close(alone, whole[row : row + 1], rtol=0, atol=1e-12)

    def test_it_may_stop_early(self, sampler: Sampler) -> None:
        """The state at the last level is returned: going on from it with a first-order walk ends at x_0 too."""
        x0, x, schedule = _walked()
        middle = sampler(lambda _x, _t, _c=None: x0, x, torch.tensor([10, 5]), schedule, noise=None)
        assert middle.shape == x.shape
        assert bool(torch.isfinite(middle).all())
        end = sampler(lambda _x, _t, _c=None: x0, middle, torch.tensor([5, 0]), schedule, noise=None)
        torch.testing.assert_close(end, x0, rtol=0, atol=1e-12)

    def test_levels_that_do_not_fall_are_refused(self, sampler: Sampler) -> None:
        """Rising, standing and negative ones."""
        _, x, schedule = _walked()
        for levels in ([1, 2], [3, 3, 0], [2, -1]):
            with pytest.raises(InvalidInput, match="Levels must strictly fall"):
                sampler(_half, x, torch.tensor(levels), schedule, noise=None)


def _walked() -> tuple[Tensor, Tensor, Schedule]:
    """Clean points and a state at level 10, both (4, 3) float64, and a schedule of 10 levels."""
    generator = torch.Generator().manual_seed(0)
    x0, x = (torch.randn(4, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    return x0, x, SCHEDULES["cosine"](10)


def _half(x_t: Tensor, t: Tensor, cond: Condition | None = None) -> Tensor:
    del t, cond
    return x_t / 2


def _honoured(subject: Subject, options: Options) -> Options | None:
    """The options, or None when the method refuses them."""
    try:
        subject.method.recommend(subject.query.select(torch.tensor([0])), 1, options=options)
    except UnsupportedOption:
        return None
    return options


def _rows(ranking: Ranking, rows: Tensor) -> Ranking:
    return Ranking(ranking.items[rows], ranking.scores[rows])


def _part(ranking: Ranking, places: slice) -> Ranking:
    return Ranking(ranking.items[:, places], ranking.scores[:, places])
