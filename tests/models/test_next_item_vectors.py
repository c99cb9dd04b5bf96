"""Where the first vectors of the items come from, and whether they stay."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from rediffuse import registry
from rediffuse.errors import InvalidInput
from rediffuse.models.next_item import first_vectors
from rediffuse.protocols import FitContext
from rediffuse.spaces.item_vectors import item_vectors
from rediffuse.types import Options, Query, Ragged
from tests.models.next_items import ITEMS, METHODS, RUN, TRAINING, config, data, query, trained

IDLE = TRAINING.model_copy(update={"learning_rate": 1e-30, "epochs": 1})


def first(context: FitContext | None = None, **changes: object) -> Tensor:
    return first_vectors(config("dreamrec", **changes), data(), context or FitContext(RUN))


def spread(vectors: Tensor) -> float:
    return float(vectors.square().mean().sqrt())


def test_spectral_vectors_are_those_of_the_data_in_the_scale_asked_for() -> None:
    found = first(items="spectral", item_scale=0.2)
    plain = item_vectors(data().history, ITEMS, 8, seed=RUN.seed)
    wide = plain.shape[1]
    assert spread(found[:, :wide]) == pytest.approx(0.2, rel=1e-5)
    torch.testing.assert_close(found[:, :wide] / found.norm(dim=1, keepdim=True), plain)


def test_directions_that_the_data_lacks_are_0() -> None:
    found = first(items="spectral", width=32)
    assert found.shape == (ITEMS, 32)
    assert float(found[:, :11].abs().amin(0).max()) > 0
    assert not found[:, 11:].any()


def test_tables_of_a_file_are_scaled_and_padded(tmp_path: Path) -> None:
    mine = np.random.default_rng(0).normal(size=(ITEMS, 6)).astype(np.float32)
    np.save(tmp_path / "items.npy", 50 * mine)
    source = str(tmp_path)
    found = first(items="tables", tables=source)
    assert spread(found[:, :6]) == pytest.approx(1.0, rel=1e-5)
    torch.testing.assert_close(found[:, :6] / found[:, :6].norm(), torch.from_numpy(mine / np.linalg.norm(mine)))
    assert not found[:, 6:].any()
    with pytest.raises(InvalidInput, match=r"The vectors of the items are 6 wide\. Got 4\. Set width=6"):
        first(items="tables", tables=source, width=4)


def test_a_backbone_is_fitted_first() -> None:
    recipe = registry.recipe("dreamrec", None, {"items": "tables", "backbone": "als"})
    assert [part.label for part in recipe.parts] == ["als"]
    assert not registry.recipe("dreamrec", None, {"items": "spectral"}).parts
    context = registry.with_parts(FitContext(RUN), data())
    found = first(context, items="tables", backbone="als", backbone_settings={"factors": 4})
    assert found.shape == (ITEMS, 8)
    assert spread(found[:, :4]) == pytest.approx(1.0, rel=1e-5)


@pytest.mark.parametrize("name", METHODS)
def test_vectors_stay_where_they_are_not_learned(name: str) -> None:
    start: dict[str, object] = {"items": "spectral"}
    before = trained(name, start, IDLE).state()
    fixed, free = trained(name, {**start, "items_learned": False}), trained(name, start)
    torch.testing.assert_close(fixed.state()["table"], before["table"])
    assert not torch.allclose(free.state()["table"], before["table"], atol=1e-3)
    assert not torch.allclose(fixed.state()["level.layers.0.weight"], before["level.layers.0.weight"], atol=1e-3)
    again = METHODS[name].restore(fixed.config, fixed.state(), "cpu")
    assert torch.equal(again.recommend(query(), 5).scores, fixed.recommend(query(), 5).scores)


def test_an_earlier_model_brings_its_own_vectors() -> None:
    earlier = trained("dreamrec")
    later = trained("dreamrec", {"items": "spectral"}, IDLE, initial=earlier.state())
    torch.testing.assert_close(later.state()["table"], earlier.state()["table"])


def test_items_that_nobody_took_are_answered_about_all_the_same() -> None:
    """Their vectors are 0, and so are their scores."""
    model = trained("dreamrec", {"items": "spectral", "items_learned": False}, of=data(n_items=ITEMS + 2))
    assert not model.state()["table"][ITEMS:].any()
    found = model.recommend(Query.from_history(Ragged.of([[0, ITEMS]])), ITEMS + 2, options=Options(steps=1))
    assert bool(torch.isfinite(found.scores[found.items >= 0]).all())
    assert float(found.scores[found.items == ITEMS + 1]) == 0
