"""From a recipe to a fitted model: training under a protocol, refits, what an earlier model must keep."""

import pytest
import torch

from rediffuse import registry
from rediffuse.config import RunConfig
from rediffuse.data.dataset import Dataset
from rediffuse.data.splits import UserOrder
from rediffuse.errors import InvalidInput
from rediffuse.evaluation.protocol import Protocol
from rediffuse.models.diffrec import DiffRec
from rediffuse.protocols import Progress

RUN = RunConfig(device="cpu", threads=1)
SMALL = {"hidden": [8], "epochs": 2, "levels": 2}


def test_fitting_reports_validates_and_describes(tiny: Dataset) -> None:
    seen: list[Progress] = []
    protocol = Protocol(select_by="ndcg@10")
    chosen = registry.recipe("diffrec", None, {**SMALL, "validate_every": 1})
    fitted = registry.fit(chosen, tiny, protocol, RUN, report=seen.append)
    assert [progress.epoch for progress in seen] == [1, 2]
    assert all(progress.validation is not None for progress in seen)
    assert isinstance(fitted.method, DiffRec)
    best = max(progress.validation or 0 for progress in seen)
    assert fitted.folder.metrics["ndcg@10"]["mean"] == pytest.approx(best)
    folder = fitted.folder
    assert folder.items == tiny.catalog.items.ids
    assert folder.data == {
        "name": "atelier-tiny",
        "content_sha256": tiny.digest(),
        "fit": ["train"],
        "until_us": int(tiny.history("train").time_us.max()),
        "users": 160,
        "events": 6950,
        "time_zone": "UTC",
        "contexts": {},
    }
    assert folder.run == {"device": "cpu", "precision": "float32", "threads": 1, "seed": 1}
    assert folder.protocol["split"]["recipe"] == "global-time"
    assert folder.made["torch"] == torch.__version__
    assert fitted.seconds > 0


def test_only_the_parts_of_the_protocol_are_learned_from(tiny: Dataset) -> None:
    fitted = registry.fit(registry.recipe("popularity"), tiny, Protocol(), RUN)
    pairs = {(u, i) for u, row in enumerate(tiny.history("train").to_lists()) for i in row}
    counts = torch.bincount(torch.tensor([item for _, item in pairs]), minlength=len(tiny.catalog))
    assert torch.equal(fitted.folder.tensors["counts"], counts.to(torch.float32))
    assert torch.equal(fitted.folder.popularity, counts.to(torch.float32))


def test_float64_is_kept(tiny: Dataset) -> None:
    run = RunConfig(device="cpu", threads=1, precision="float64")
    fitted = registry.fit(registry.recipe("diffrec", None, SMALL), tiny, Protocol(), run)
    assert {tensor.dtype for tensor in fitted.folder.tensors.values()} == {torch.float64}


def test_data_and_protocol_must_fit(tiny: Dataset) -> None:
    with pytest.raises(InvalidInput, match="K of a metric exceeds the catalog"):
        registry.fit(registry.recipe("popularity"), tiny, Protocol(ks=(20, 241)), RUN)
    bare = Dataset(tiny.name, tiny.users, tiny.catalog, tiny.events)
    with pytest.raises(InvalidInput, match="is not split yet"):
        registry.fit(registry.recipe("popularity"), bare, Protocol(), RUN)


def test_times_reach_the_method(tiny: Dataset) -> None:
    settings = {"recency": "exponential", "half_life_days": 30.0}
    fitted = registry.fit(registry.recipe("ease", None, settings), tiny.with_split(UserOrder()), Protocol(), RUN)
    plain = registry.fit(registry.recipe("ease"), tiny.with_split(UserOrder()), Protocol(), RUN)
    assert fitted.folder.metrics != plain.folder.metrics


def test_a_refit_that_an_earlier_model_beats_learns_nothing(tiny: Dataset) -> None:
    """Where no epoch was better than what was taken over, the refit keeps what was taken over."""
    run = RunConfig(device="cpu")
    chosen = registry.recipe("diffrec", settings={"hidden": [8], "epochs": 6, "validate_every": 1})
    first = registry.fit(chosen, tiny, Protocol(), run)
    still = chosen.changed({"learning_rate": 1e-12, "patience": 2})
    again = registry.fit(still, tiny, Protocol(refit=("train", "valid")), run, earlier=first.folder)
    assert again.folder.made["best_epoch"] == 0
    for name, tensor in first.folder.tensors.items():
        assert torch.equal(tensor, again.folder.tensors[name])


@pytest.mark.parametrize("condition", [["region", "season"], ["season"], []])
def test_going_on_needs_the_conditions_in_their_order(tiny: Dataset, condition: list[str]) -> None:
    """A network knows them by their places: two of as many words would change theirs unseen."""
    run = RunConfig(device="cpu", threads=1)
    first = registry.recipe("diffrec", None, {**SMALL, "epochs": 1, "condition": ["season", "region"]})
    earlier = registry.fit(first, tiny, Protocol(), run, refit=False).folder
    registry.fit(first, tiny, Protocol(), run, earlier=earlier, refit=False)
    with pytest.raises(InvalidInput, match="The conditions are not those of the earlier model, in its order"):
        registry.fit(first.changed({"condition": condition}), tiny, Protocol(), run, earlier=earlier, refit=False)


def test_a_share_of_the_events_is_learned_from_and_whole_histories_are_asked(tiny: Dataset) -> None:
    few, all_ = (registry.fit(registry.recipe("popularity"), tiny, Protocol(fit_share=s), RUN) for s in (0.2, 1.0))
    counts, everything = (one.folder.popularity for one in (few, all_))
    assert bool((counts <= everything).all())
    assert float(counts.sum() / everything.sum()) == pytest.approx(0.2, abs=0.05)
    assert few.folder.protocol["fit_share"] == 0.2
