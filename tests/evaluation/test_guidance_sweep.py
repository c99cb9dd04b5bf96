"""How far lists lean towards another season: by a model whose leaning is known."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch
from scipy import stats

from rediffuse.data.catalog import Catalog
from rediffuse.data.context import SEASONS
from rediffuse.data.dataset import Dataset
from rediffuse.evaluation.evaluate import evaluate
from rediffuse.evaluation.protocol import Protocol
from rediffuse.evaluation.report.as_json import to_plain
from rediffuse.evaluation.report.blocks import Bullets, Picture, Table
from rediffuse.evaluation.studies.guidance import SCALES, auroc, guidance_sweep
from rediffuse.evaluation.study import Examined
from rediffuse.grounding.diverse import Diverse
from rediffuse.grounding.topk import top_k
from rediffuse.types import Options, Query, Ranking


class Leaning:
    """Scores items by number, and those of the season that is asked for higher, in step with the guidance scale."""

    def __init__(self, seasons: list[str], step: float = 1.0) -> None:
        self.seasons, self.step = np.array(seasons), step

    def recommend(self, query: Query, k: int, *, options: Options = Options(), seed: int = 0) -> Ranking:
        scale = options.guidance_scale
        assert isinstance(scale, float)
        names = list(SEASONS)
        middles = torch.tensor([SEASONS[name] for name in names])
        asked = (query.context["season"][:, None] - middles).abs()
        on = torch.minimum(asked, 1 - asked).argmin(1)
        of = torch.tensor([[season == name for season in self.seasons] for name in names])
        plain = -torch.arange(len(self.seasons), dtype=torch.float32) / len(self.seasons)
        return top_k(plain + self.step * scale * of[on], k, seen=query.exclude)


@pytest.fixture
def examined(tiny: Dataset) -> Examined:
    return Examined("mine", Leaning(tiny.catalog.attributes["season"].to_list()), tiny, Protocol())


def test_a_model_that_leans_is_seen_to(examined: Examined) -> None:
    found = guidance_sweep(examined, ["season"])
    scales = found.values["scales"]
    assert tuple(scales) == SCALES
    for scale, row in scales.items():
        for name in ("season auroc", "opposite season auroc"):
            assert row[name].mean == (0.5 if scale == 0 else pytest.approx(1.0))
        assert row["ndcg@10 less scale 1"].mean == pytest.approx(row["ndcg@10"].mean - scales[1.0]["ndcg@10"].mean)
    # A season that outweighs all else fills the list.
    assert scales[3.0]["share of the season"].mean == pytest.approx(1.0)
    assert scales[0.0]["share of the season"].mean == scales[0.0]["share before"].mean
    assert scales[3.0]["share before"].mean < 0.1
    assert found.values["users of other seasons"] <= 256
    to_plain(found.values)


def test_one_that_leans_away_and_one_that_does_not(examined: Examined) -> None:
    seasons = examined.dataset.catalog.attributes["season"].to_list()
    for step, area in ((-1.0, 0.0), (0.0, 0.5)):
        found = guidance_sweep(replace(examined, model=Leaning(seasons, step)), ["season"])
        assert found.values["scales"][2.0]["season auroc"].mean == pytest.approx(area)


def test_the_section_says_pictures_and_tabulates_it(examined: Examined) -> None:
    said, picture, table, note = guidance_sweep(examined, ["season"]).section.blocks
    assert isinstance(said, Bullets)
    assert isinstance(picture, Picture)
    assert isinstance(table, Table)
    assert (
        "Asking for another season at scale 1 raises its items above those of others with an AUROC of 1.000"
        in (said.items[1])
    )
    assert "100\u00a0%" in said.items[2]
    svg = picture.draw(992, "n")
    assert all(word in svg for word in ("AUROC of a season", "Share of the list", "guidance scale"))
    assert [row[0].text for row in table.rows] == ["0", "0.5", "1", "1.5", "2", "3", "5"]
    assert table.rows[2][2].text == "–"
    assert note.words.startswith("Guided by season.")


def test_without_seasons_only_accuracy_is_told(examined: Examined) -> None:
    catalog = examined.dataset.catalog
    bare = replace(examined.dataset, catalog=Catalog(catalog.items, catalog.attributes.drop("season")))
    for study in (
        guidance_sweep(replace(examined, dataset=bare), ["season"]),
        guidance_sweep(examined, ["history"]),
    ):
        assert set(study.values["scales"][1.0]) == {"ndcg@10", "ndcg@10 less scale 1"}
        assert "users of other seasons" not in study.values
        assert "AUROC" not in study.section.blocks[-1].words
        assert "Share of the list" not in study.section.blocks[1].draw(992, "n")


def test_the_scale_is_chosen_on_the_selection_part(examined: Examined) -> None:
    seasons, only = examined.dataset.catalog.attributes["season"].to_list(), Protocol().only("ndcg@10")
    leaning = replace(examined, model=Leaning(seasons, 0.1))
    found = guidance_sweep(leaning, ["season"])
    tried = {
        scale: evaluate(leaning.model, leaning.selection, only, options=Options(guidance_scale=scale)).mean("ndcg@10")
        for scale in SCALES
    }
    chosen = found.values["chosen"]
    assert tried[chosen] == max(tried.values()) > tried[1.0]
    assert f"scale {chosen:g}, the best on valid, reaches" in found.section.blocks[0].items[0]
    # A model that no scale moves is left as it is.
    same = guidance_sweep(replace(examined, model=Leaning(seasons, 0.0)), ["season"])
    assert same.values["chosen"] == 1
    assert same.section.blocks[0].items[0].startswith("No guidance (scale 1) is best on valid; ndcg@10 on test is ")


def test_a_re_ranker_does_not_bend_the_scores_that_are_compared(examined: Examined) -> None:
    """Scores of a re-ranked list follow its order; only its items are the answer."""
    generator = torch.Generator().manual_seed(0)
    vectors = torch.nn.functional.normalize(torch.randn(len(examined.dataset.catalog), 8, generator=generator), dim=1)
    model = Diverse(examined.model, vectors)
    plain, unlike = (
        guidance_sweep(replace(examined, model=model, options=Options(diversity=one)), ["season"]).values["scales"][2.0]
        for one in (0.0, 1.0)
    )
    assert plain["season auroc"] == unlike["season auroc"]
    assert plain["share of the season"] != unlike["share of the season"]


def test_one_season_alone_is_none_and_nobody_is_said(examined: Examined) -> None:
    catalog = examined.dataset.catalog
    table = catalog.attributes.with_columns(season=pl.lit("summer"))
    alone = replace(examined, dataset=replace(examined.dataset, catalog=Catalog(catalog.items, table)))
    assert "users of other seasons" not in guidance_sweep(alone, ["season"]).values
    nobody = replace(examined)
    nobody.__dict__["task"] = replace(examined.task, query=examined.task.query.select(torch.arange(0)))
    assert guidance_sweep(nobody, ["season"]).section.blocks[0].words == "No user has anything to find."


def test_auroc_is_that_of_mann_and_whitney() -> None:
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 6, (4, 30)).astype(float)
    positive = rng.random(30) < 0.4
    found = auroc(scores, positive)
    for row, area in zip(scores, found, strict=True):
        u = stats.mannwhitneyu(row[positive], row[~positive]).statistic
        assert area == pytest.approx(u / (positive.sum() * (~positive).sum()))
    assert np.isnan(auroc(scores, np.zeros(30, bool))).all()


def test_items_of_all_seasons_are_left_out(examined: Examined) -> None:
    """They neither gain nor lose here, and would stand between the two kinds."""
    seasons = examined.dataset.catalog.attributes["season"]
    assert (seasons == "all").any()
    table = examined.dataset.catalog.attributes.with_columns(
        pl.when(seasons == "all").then(None).otherwise("season").alias("season")
    )
    other = replace(examined.dataset, catalog=Catalog(examined.dataset.catalog.items, table))
    assert (
        guidance_sweep(replace(examined, dataset=other), ["season"]).values["scales"][1.0]
        == guidance_sweep(examined, ["season"]).values["scales"][1.0]
    )
