"""Blend against sums worked by hand, what it chooses on a selection part, and what it is saved with."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from rediffuse import registry
from rediffuse.baselines.blend import UNITS, Blend, BlendConfig, Remembered, choose
from rediffuse.config import RunConfig
from rediffuse.data.dataset import Dataset
from rediffuse.errors import ArtifactError, InvalidConfig, InvalidInput, UnsupportedOption
from rediffuse.evaluation.evaluate import Task
from rediffuse.evaluation.protocol import Protocol
from rediffuse.grounding.topk import top_k
from rediffuse.protocols import Composed, FitContext, FitData
from rediffuse.testing.contracts import RecommenderContract
from rediffuse.testing.subjects import RUN, bare_context, checkerboard
from rediffuse.types import Options, Query, Ragged, Ranking


class TestByRank(RecommenderContract):
    """All contracts again for ranks instead of scores."""

    only: ClassVar[Sequence[str]] = ("blend",)
    settings: ClassVar[Mapping[str, object]] = {"how": "rank"}
    checkerboard_settings: ClassVar[Mapping[str, object]] = {"how": "rank"}


class TestByLogarithm(TestByRank):
    """And for a logarithm of scores, with a control among the parts."""

    settings: ClassVar[Mapping[str, object]] = {
        "parts": "item_knn,popularity",
        "links": ["log", "log"],
        "weights": [1.0, 0.1],
        "eps": 0.01,
    }
    checkerboard_settings: ClassVar[Mapping[str, object]] = settings


@dataclass
class Fixed:
    """A part that says the same of everybody."""

    scores: Tensor
    """(I,)."""
    asked: int = 0

    @property
    def n_items(self) -> int:
        return len(self.scores)

    def recommend(self, query: Query, k: int, *, options: Options = Options(), seed: int = 0) -> Ranking:
        self.asked += 1
        whole = self.scores.expand(len(query), -1).clone()
        return top_k(whole, k, seen=query.exclude, candidates=query.candidates)

    def state(self) -> dict[str, Tensor]:
        return {"scores": self.scores}


A, B = torch.tensor([0.9, 0.5, 0.1, 0.0]), torch.tensor([-1.0, 3.0, 2.0, 0.0])
ASKED = Query.from_history(Ragged.of([[]]))


def blended(*scores: Tensor, **settings: Any) -> Blend:
    config = BlendConfig.make(parts=[f"part{n}" for n in range(len(scores))], **settings)
    return Blend(config, [Fixed(values) for values in scores])  # type: ignore[list-item]


def by_item(ranking: Ranking) -> dict[int, float]:
    there = ranking.items[0] >= 0
    return dict(zip(ranking.items[0][there].tolist(), ranking.scores[0][there].tolist(), strict=True))


def test_scores_add_up_with_their_weights_and_links() -> None:
    model = blended(A, B, weights=[2.0, 0.5], links=["log", "score"], eps=0.01)
    found = by_item(model.recommend(ASKED, 4))
    expected = 2.0 * torch.log(A + 0.01) + 0.5 * B
    assert found == pytest.approx(dict(enumerate(expected.tolist())))


def test_a_row_of_log_softmax_ranks_as_its_logits() -> None:
    parts, weights = (A, B), [0.7, 1.3]
    logs = [torch.log_softmax(part, 0) for part in parts]
    one, other = (blended(*some, weights=weights).recommend(ASKED, 4) for some in (parts, logs))
    assert torch.equal(one.items, other.items)
    torch.testing.assert_close(one.scores - one.scores[:, :1], other.scores - other.scores[:, :1])


def test_ranks_fuse_reciprocally_and_an_item_outside_a_list_gets_nothing() -> None:
    model = blended(A, B, how="rank", rank_offset=60, weights=[1.0, 2.0], depth=2)
    found = by_item(model.recommend(ASKED, 2))
    assert found == pytest.approx({1: 1 / 62 + 2 / 61, 2: 2 / 62})
    assert set(by_item(model.recommend(ASKED, 3))) == {1, 2, 3}  # a longer list asks the parts for as much


def test_outside_a_list_an_item_is_as_good_as_its_last() -> None:
    found = by_item(blended(A, B, weights=[1.0, 1.0], depth=2).recommend(ASKED, 2))
    assert found == pytest.approx({1: 0.5 + 3.0, 0: 0.9 + 2.0})
    found = by_item(blended(A, B, weights=[0.1, 1.0], depth=2).recommend(ASKED, 2))
    assert found == pytest.approx({1: 0.05 + 3.0, 0: 0.09 + 2.0})


def test_candidates_keep_their_order_in_either_way() -> None:
    for how in ("log_linear", "rank"):
        model = blended(A, B, torch.tensor([0.0, 0.1, 0.2, 5.0]), how=how, depth=4)
        whole = by_item(model.recommend(ASKED, 4))
        few = by_item(model.recommend(replace(ASKED, candidates=Ragged.of([[0, 2, 3]])), 4))
        assert few == pytest.approx({item: whole[item] for item in (0, 2, 3)})


def test_it_takes_no_options() -> None:
    with pytest.raises(UnsupportedOption, match="blend cannot use 'draws'"):
        blended(A, B).recommend(ASKED, 2, options=Options(draws=2))


def chosen(value: Any, *scores: Tensor, **settings: Any) -> tuple[BlendConfig, list[BlendConfig], list[Fixed]]:
    """What is chosen by a value of the list, all that was tried, and the parts."""
    parts, tried = [Fixed(some) for some in scores], list[BlendConfig]()
    config = BlendConfig.make(parts=[f"part{n}" for n in range(len(scores))], **settings)
    lists = Remembered(lambda query, depth, seed: [part.recommend(query, depth, seed=seed) for part in parts])

    def validate(candidate: BlendConfig) -> float:
        tried.append(candidate)
        return value(Blend(candidate, parts, lists).recommend(ASKED, 4).items[0].tolist())  # type: ignore[arg-type]

    return choose(config, lists, validate), tried, parts


def test_the_best_weights_are_chosen_and_each_part_is_asked_once() -> None:
    best, tried, parts = chosen(lambda items: float(items == [0, 1, 2, 3]), A, B)
    assert Blend(best, parts).recommend(ASKED, 4).items[0].tolist() == [0, 1, 2, 3]  # type: ignore[arg-type]
    assert [part.asked for part in parts] == [1 + 1, 1 + 1]  # once in choosing, once here
    assert len(tried) == len({one.model_dump_json() for one in tried})
    assert all(any(one.weights) for one in tried)
    assert len(best.weights) == len(best.links) == 2
    assert best.eps is not None


def test_a_scale_does_not_matter() -> None:
    wanted = [1, 0, 2, 3]  # neither part has it so
    for factor in (1e-3, 1.0, 1e3):
        best, _, parts = chosen(lambda items: float(items == wanted), A, B * factor)
        assert Blend(best, parts).recommend(ASKED, 4).items[0].tolist() == wanted  # type: ignore[arg-type]


def test_a_logarithm_is_tried_only_where_no_score_is_below_0() -> None:
    _, tried, _ = chosen(lambda _: 0.0, A, B)
    assert {one.links for one in tried} == {("score", "score"), ("log", "score")}
    assert {one.eps for one in tried if "log" in one.links} == {0.001, 0.01, 0.1}


def test_what_is_given_stays_and_nothing_open_costs_nothing() -> None:
    best, tried, _ = chosen(lambda items: -items.index(3), A, A.flip(0), weights=[1.0, 0.25])
    assert {one.weights for one in tried} == {(1.0, 0.25)}
    assert best.weights == (1.0, 0.25)
    _, tried, _ = chosen(lambda _: 0.0, A, A, links=["log", "score"], eps=0.5)
    assert {(one.links, one.eps) for one in tried} == {(("log", "score"), 0.5)}
    _, tried, parts = chosen(lambda _: 0.0, A, B, weights=[1, 1], how="rank")
    assert tried == []
    assert [part.asked for part in parts] == [0, 0]


def test_ranks_are_weighed_on_one_scale() -> None:
    _, tried, _ = chosen(lambda _: 0.0, A, B, how="rank")
    assert {weight for one in tried for weight in one.weights} == set(UNITS)
    assert {one.links for one in tried} == {("score", "score")}


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"parts": "ease"}, "parts = .* is not possible: tuple should have at least 2 items"),
        ({"parts": "ease,ease"}, "a part stands twice: ease, ease"),
        ({"weights": [1.0]}, "weights holds 1 values for 2 parts"),
        ({"links": ["score"] * 3}, "links holds 3 values for 2 parts"),
        ({"weights": [0.0, 0.0]}, "all weights are 0"),
        ({"settings": {"als": {}}}, "settings are given for 'als', which is not among the parts"),
        ({"settings": {"ease": {"regularisation": 3}}}, "Nearest known key: 'regularization'"),
        ({"parts": "ease,esae"}, "Nearest known method: 'ease'"),
        ({"parts": "ease,item_knn:none"}, "Unknown preset 'none'"),
    ],
)
def test_impossible_settings_are_refused_before_any_work(settings: Mapping[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidConfig, match=sentence):
        registry.recipe("blend", settings=settings)


def test_the_settings_of_parts_are_written_out_and_may_change() -> None:
    recipe = registry.recipe(
        "blend", settings={"parts": "ease:linear, item_knn", "settings": {"item_knn": {"shrink": 3}}}
    )
    assert issubclass(recipe.method, Composed)
    written = recipe.settings["settings"]
    assert list(written) == ["ease:linear", "item_knn"]
    assert (written["ease:linear"]["recency"], written["ease:linear"]["weight_min"]) == ("linear", 0.01)
    assert (written["item_knn"]["shrink"], written["item_knn"]["neighbors"]) == (3.0, 50)
    assert [part.label for part in recipe.parts] == ["ease:linear", "item_knn"]
    assert recipe.changed({"depth": 7}).settings == {**recipe.settings, "depth": 7}
    config = recipe.config
    assert type(config).from_toml(config.to_toml()) == config
    assert type(config).make(json.loads(json.dumps(recipe.settings))) == config


def test_seeds_and_conditions_are_those_of_the_parts() -> None:
    plain = registry.recipe("blend")
    assert not plain.seeded
    assert plain.conditions == ()
    steered = registry.recipe(
        "blend", settings={"parts": "ease,diffrec", "settings": {"diffrec": {"condition": "season"}}}
    )
    assert steered.seeded
    assert steered.conditions == ("season",)


def test_it_is_fitted_through_the_registry_only() -> None:
    recipe, data = registry.recipe("blend"), checkerboard()
    with pytest.raises(InvalidInput, match=r"blend is built over other methods\. Fit it with rediffuse\.fit"):
        recipe.method.fit(recipe.config, recipe.training, data, FitContext(RUN))
    with pytest.raises(InvalidInput, match=r"Restore it with rediffuse\.load"):
        recipe.method.restore(recipe.config, {}, "cpu")


def test_data_without_order_is_refused_by_the_part_that_needs_it() -> None:
    recipe, data = registry.recipe("blend", settings={"parts": "ease:linear,item_knn"}), checkerboard()
    bare = FitData(Ragged(data.history.indptr, data.history.items), data.n_items, "none")
    with pytest.raises(InvalidInput, match="order"):
        recipe.method.fit(recipe.config, recipe.training, bare, bare_context(bare))


PARTS = {"parts": "popularity,ease:exponential,diffrec", "settings": {"diffrec": {"hidden": [8], "epochs": 2}}}


def test_it_is_no_worse_than_its_parts_where_it_chooses_and_saves_its_choice(tiny: Dataset, tmp_path: Path) -> None:
    protocol, run = Protocol(), RunConfig(device="cpu", threads=1)
    fitted = registry.fit(registry.recipe("blend", settings=PARTS), tiny, protocol, run)
    reached = fitted.folder.metrics["recall@20"]["mean"]
    for part in fitted.recipe.parts:
        alone = registry.fit(part, tiny, protocol, run, refit=False)
        assert reached >= alone.folder.metrics["recall@20"]["mean"]
    assert len(fitted.folder.config["weights"]) == 3
    assert fitted.course == []  # epochs of a part are none of its own
    fitted.write(tmp_path / "blend")
    again = registry.load(tmp_path / "blend", device="cpu")
    query = Task.of(tiny, protocol.report).query
    one, other = (model.recommend(query, 10) for model in (fitted.model, again.recommender))
    assert torch.equal(one.items, other.items)
    assert torch.equal(one.scores, other.scores)
    assert again.folder.config["settings"]["ease:exponential"]["half_life"] == 5.0


def test_a_refit_keeps_what_was_chosen(tiny: Dataset) -> None:
    run = RunConfig(device="cpu", threads=1)
    one = registry.fit(registry.recipe("blend"), tiny, Protocol(), run)
    refitted = registry.fit(registry.recipe("blend"), tiny, Protocol(refit=("train", "valid")), run)
    assert refitted.folder.config == one.folder.config
    assert refitted.folder.config["weights"] != [1.0, 1.0]
    assert not torch.equal(refitted.folder.tensors["1.weight"], one.folder.tensors["1.weight"])


def test_parts_of_unlike_catalogs_or_unknown_names_are_refused(tiny: Dataset) -> None:
    recipe = registry.recipe("blend", settings={"parts": "popularity,ease"})
    folder = registry.fit(recipe, tiny, Protocol(), RunConfig(device="cpu", threads=1)).folder
    short = {**folder.tensors, "0.counts": folder.tensors["0.counts"][:-1]}
    with pytest.raises(ArtifactError, match="the parts rank catalogs of different sizes"):
        registry.restore(replace(folder, tensors=short), "cpu")
    config = {**folder.config, "parts": ["popularity", "nothing"], "settings": {}}
    with pytest.raises(ArtifactError, match="Unknown method 'nothing'"):
        registry.restore(replace(folder, config=config), "cpu")
