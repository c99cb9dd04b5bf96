"""Protocols: what they refuse, what they call a leak."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from rediffuse.data.dataset import Dataset
from rediffuse.data.importers.diffrec import PROTOCOLS, load
from rediffuse.errors import InvalidConfig, InvalidInput
from rediffuse.evaluation.protocol import Phase, Protocol, protocol_for
from rediffuse.evaluation.wording import protocol_words


@pytest.fixture
def shipped(tmp_path: Path) -> Dataset:
    """Parts as the DiffRec authors ship them: in time train -> test -> valid."""
    users = np.repeat(np.arange(4), 6)
    items = np.concatenate([(np.arange(6) + 2 * user) % 12 for user in range(4)])
    pairs = np.stack((users, items), axis=1)
    rows = {"train": pairs[:, 1] >= 0, "test": (np.arange(24) % 6) == 0, "valid": (np.arange(24) % 6) == 1}
    for name, kept in rows.items():
        np.save(tmp_path / f"{name}_list.npy", pairs[kept])
    return load(tmp_path, name="shipped")


def small(**changes: object) -> Protocol:
    return Protocol.make({"ks": [2], "select_by": "recall@2", **changes})


def test_the_protocols_that_ship_with_the_data_have_no_leak(shipped: Dataset) -> None:
    assert list(shipped.protocols) == ["as-shipped", "in-time-order"] == list(PROTOCOLS)
    for name in shipped.protocols:
        protocol = protocol_for(shipped, name, ks=(2,), select_by="recall@2")
        assert protocol.leaks(shipped) == []
        protocol.check(shipped)
        assert protocol.name == name
    assert protocol_for(shipped, ks=(2,), select_by="recall@2").name == "as-shipped"
    standard = protocol_for(shipped, "standard", ks=(2,), select_by="recall@2")
    assert standard == small()


def test_the_standard_protocol_on_shipped_parts_gives_the_future_away(shipped: Dataset) -> None:
    """There `valid` lies after `test`: the usual train + valid history is a leak."""
    with pytest.raises(InvalidInput) as caught:
        small().check(shipped)
    assert str(caught.value) == (
        "Protocol 'standard' gives the future away: report: history holds 'valid', which is not earlier than 'test'. "
        "Set allow_leak = true to see what it is worth."
    )
    allowed = small(allow_leak=True)
    allowed.check(shipped)
    assert allowed.describe(shipped)["leak"] == ["report: history holds 'valid', which is not earlier than 'test'"]


def test_learning_from_the_answer_is_a_leak(tiny: Dataset) -> None:
    protocol = small(fit=("train", "valid"))
    assert protocol.leaks(tiny) == ["selection: fit holds 'valid', which is not earlier than 'valid'"]
    same = small(report={"relevant": "test", "history": ["test"], "mask": []})
    assert same.leaks(tiny) == ["report: history holds 'test', which is not earlier than 'test'"]
    # What is masked is not given: masking the future is no leak.
    masked = small(report={"relevant": "valid", "history": ["train"], "mask": ["train", "test"]})
    assert masked.leaks(tiny) == ["report: settings are chosen on 'valid' itself"]
    apart = small(selection={"relevant": "test", "history": ["train"], "mask": ["train"]}, report=masked.report)
    assert apart.leaks(tiny) == []
    assert apart.of_model(apart) == apart
    assert apart.of_model(small()).leaks(tiny) == ["report: settings are chosen on 'valid' itself"]
    # A model that learned from a part later than the one reported knows the future, whatever is asked of it.
    later = small(fit=("test",), allow_leak=True)
    assert "report: fit holds 'test', which is not earlier than 'valid'" in apart.of_model(later).leaks(tiny)


def test_what_would_make_a_figure_wrong_is_refused(tiny: Dataset) -> None:
    small().check(tiny)
    with pytest.raises(InvalidInput, match=r"K of a metric exceeds the catalog\. Got 241\. Allowed: 1\.\.240"):
        small(ks=[2, 241]).check(tiny)
    with pytest.raises(InvalidInput, match=r"Unknown part 'tests'\. Nearest known part: 'test'"):
        small(report={"relevant": "tests", "history": ["train"], "mask": []}).check(tiny)
    for part in ({"history": ["trian"], "mask": []}, {"history": ["train"], "mask": ["trian"]}):
        with pytest.raises(InvalidInput, match=r"Unknown part 'trian'\. Nearest known part: 'train'"):
            small(report={"relevant": "test", **part}).check(tiny)
    with pytest.raises(InvalidInput, match="Unknown part 'trian'"):
        small(fit=["trian"]).check(tiny)
    unsplit = replace(tiny, split=None)
    assert small().leaks(unsplit) == []
    assert small().describe(unsplit)["split"] is None
    with pytest.raises(InvalidInput, match=r"is not split yet\. Run: rediffuse split"):
        small().check(unsplit)


def test_unknown_metrics_name_the_nearest() -> None:
    with pytest.raises(InvalidConfig, match=r"^Unknown metric 'recal'\. Nearest known metric: 'recall'\.$"):
        Protocol.make(metrics=["recal"])
    with pytest.raises(InvalidConfig, match=r"^Unknown metric 'recall@50'\. Nearest known metric: 'recall@\d0'\.$"):
        Protocol.make(select_by="recall@50")
    for key in ("fit", "ks", "seeds"):
        with pytest.raises(InvalidConfig, match=f"{key} = "):
            Protocol.make({key: []})
    with pytest.raises(InvalidConfig, match=r"ks\.1 = 0"):
        Protocol.make(ks=[20, 0])


def test_unknown_protocols_name_the_nearest(shipped: Dataset, tiny: Dataset) -> None:
    with pytest.raises(InvalidConfig, match=r"Unknown protocol 'shipped'\. Nearest known protocol: 'as-shipped'"):
        protocol_for(shipped, "shipped")
    with pytest.raises(InvalidConfig, match=r"Unknown protocol 'in-time-order'\. Known: standard"):
        protocol_for(tiny, "in-time-order")
    assert protocol_for(tiny) == Protocol()


def test_names_and_the_one_for_validation() -> None:
    protocol = Protocol.make(metrics=["recall", "ndcg"], ks=[5, 20])
    assert protocol.names == ("recall@5", "recall@20", "ndcg@5", "ndcg@20")
    only = protocol.only("ndcg@5")
    assert only.names == ("ndcg@5",)
    assert only.select_by == "ndcg@5"
    assert only.report == protocol.report


def test_a_protocol_is_printed_whole(tiny: Dataset) -> None:
    shown = Protocol().describe(tiny)
    assert shown["repeats"] is False
    assert shown["split"] == {"recipe": "global-time", "valid": 0.1, "test": 0.1}
    assert shown["ties"] == "against"
    assert shown["candidates"] == "catalog"
    assert shown["leak"] == []
    assert Protocol.make({key: shown[key] for key in Protocol.model_fields}) == Protocol()
    open_ = Protocol(report=Phase(relevant="test", history=("train",), mask=()))
    assert open_.describe(tiny)["repeats"] is True


def test_protocols_survive_a_dataset_folder(shipped: Dataset, tmp_path: Path) -> None:
    shipped.write(tmp_path / "out")
    again = Dataset.read(tmp_path / "out")
    for name in shipped.protocols:
        assert protocol_for(again, name) == protocol_for(shipped, name)
    assert isinstance(again.events.frame, pl.DataFrame)


def pairs(dataset: Dataset, protocol: Protocol) -> set[tuple[str, str]]:
    """What is learned from, in external ids."""
    history = protocol.learned(dataset, protocol.fit)
    users, items = dataset.users.items.ids, dataset.catalog.items.ids
    return {(users[u], items[i]) for u, i in zip(history.rows.tolist(), history.items.tolist(), strict=True)}


def test_shares_of_the_events_nest_and_hold_whole_pairs(tiny: Dataset) -> None:
    everything = tiny.history("train")
    assert Protocol().learned(tiny, ["train"]).items.equal(everything.items)
    found = {share: pairs(tiny, Protocol(fit_share=share)) for share in (0.1, 0.25, 0.5, 1.0)}
    assert found[0.1] < found[0.25] < found[0.5] < found[1.0]
    for share, kept in found.items():
        assert len(kept) / len(found[1.0]) == pytest.approx(share, abs=0.05)
    half = Protocol(fit_share=0.5).learned(tiny, ["train"])
    both = {(u, i) for u, i in zip(everything.rows.tolist(), everything.items.tolist(), strict=True)}
    kept = {(u, i) for u, i in zip(half.rows.tolist(), half.items.tolist(), strict=True)}
    times = [
        sum((u, i) in kept for u, i in zip(h.rows.tolist(), h.items.tolist(), strict=True)) for h in (everything, half)
    ]
    assert times[0] == times[1] == len(half.items)
    assert kept < both
    assert half.time_us is not None


def test_a_share_does_not_depend_on_numbers(tiny: Dataset) -> None:
    turned = tiny.numbered_like(tuple(reversed(tiny.catalog.items.ids)))
    protocol = Protocol(fit_share=0.3)
    assert pairs(tiny, protocol) == pairs(turned, protocol)


def test_a_share_is_said_and_belongs_to_the_model() -> None:
    few = Protocol(fit_share=0.1)
    assert Protocol().of_model(few).fit_share == 0.1
    assert protocol_words(few.model_dump())[0] == "Methods learn from 10\u00a0% of what users met in train."
    for share in (0, 1.5):
        with pytest.raises(InvalidConfig, match="fit_share = "):
            Protocol.make(fit_share=share)


def test_a_mask_may_be_lifted_and_put_back(shipped: Dataset) -> None:
    protocol = protocol_for(shipped, "as-shipped", ks=(2,), select_by="recall@2")
    free = protocol.with_repeats()
    assert free.selection.mask == free.report.mask == ()
    assert free.title == "protocol as-shipped, repeats allowed"
    masked = free.without_repeats()
    assert (masked.selection.mask, masked.report.mask) == (free.selection.history, free.report.history)
    assert protocol.without_repeats() == protocol  # its own mask, which holds more than the history, stays
    assert set(protocol.report.mask) > set(protocol.report.history)
    assert protocol.title == "protocol as-shipped, history masked"


def test_lengths_hold_the_one_that_selects() -> None:
    protocol = small(ks=[2, 4])
    assert protocol.scoring() == protocol
    assert protocol.scoring([7, 3]).ks == (2, 3, 7)
    other = protocol.scoring([5], "ndcg@10")
    assert (other.ks, other.select_by) == ((5, 10), "ndcg@10")
    assert protocol.scoring(select_by="mrr@4").ks == (2, 4)
    for bad in ("ndcg", "nothing@5", "recall@0"):
        with pytest.raises(InvalidConfig):
            protocol.scoring(select_by=bad)
