"""Where frozen tables come from: a backbone or a file; means of histories."""

from pathlib import Path

import numpy as np
import pytest
import torch

from rediffuse.config import RunConfig
from rediffuse.errors import InvalidConfig, InvalidInput
from rediffuse.protocols import FitContext, FitData
from rediffuse.random import stable_key
from rediffuse.spaces.embeddings import Embeddings
from rediffuse.spaces.tables import TablesConfig, frozen_tables, mean_of, tables_in, tensors_of
from rediffuse.types import Query, Ragged, SparseRows

ITEMS, USERS = torch.arange(12.0).view(4, 3), torch.arange(6.0).view(2, 3) - 7
RUN = RunConfig(device="cpu")


class Backbone:
    """What a context may hand over."""

    def __init__(self, tables: Embeddings | None) -> None:
        self.asked: list[tuple[str, object]] = []
        if tables is not None:
            self.embeddings = lambda: tables

    def part(self, label: str, settings: object) -> "Backbone":
        self.asked.append((label, settings))
        return self


def keys(*names: str) -> torch.Tensor:
    return torch.tensor([stable_key(name) for name in names])


def data(*names: str) -> FitData:
    return FitData(Ragged.of([[0, 1]]), 4, "none", item_keys=keys(*names) if names else None)


def context(backbone: Backbone) -> FitContext:
    return FitContext(RUN, part=backbone.part)  # type: ignore[arg-type]


def test_a_backbone_is_fitted_with_its_settings_and_copied() -> None:
    both = torch.cat((ITEMS, USERS))
    backbone = Backbone(Embeddings(both[:4], both[4:], torch.tensor([3, 9])))
    config = TablesConfig.make(backbone="mf:small", backbone_settings={"layers": 2})
    found = frozen_tables(config, data(), context(backbone))
    assert backbone.asked == [("mf:small", {"layers": 2})]
    assert found.users is not None
    both.zero_()
    assert torch.equal(found.items, ITEMS)
    assert torch.equal(found.users, USERS)
    assert config == TablesConfig.from_toml(config.to_toml())


def test_a_backbone_without_tables_or_a_registry_is_refused() -> None:
    with pytest.raises(InvalidConfig, match="backbone = 'ease' has no tables of vectors"):
        frozen_tables(TablesConfig(backbone="ease"), data(), context(Backbone(None)))
    with pytest.raises(InvalidConfig, match="backbone = 'mf' cannot be fitted here"):
        frozen_tables(TablesConfig(backbone="mf"), data(), FitContext(RUN))


def test_a_file_is_read_in_the_order_of_the_catalog(tmp_path: Path) -> None:
    np.save(tmp_path / "items.npy", ITEMS.numpy())
    np.save(tmp_path / "users.npy", USERS.numpy())
    config = TablesConfig(tables=str(tmp_path))
    found = frozen_tables(config, data("3", "1", "0", "2"), FitContext(RUN))
    assert torch.equal(found.items, ITEMS[[3, 1, 0, 2]])
    assert found.keys is not None
    assert sorted(found.keys.tolist()) == sorted(keys("0", "1").tolist())
    assert torch.equal(frozen_tables(config, data(), FitContext(RUN)).items, ITEMS)
    with pytest.raises(InvalidInput, match="1 of 2 items have no row in the table"):
        frozen_tables(config, data("3", "x"), FitContext(RUN))
    few = FitData(Ragged.of([[0]]), 9, "none")
    with pytest.raises(InvalidInput, match=r"has not a row for each item\. Got 4\. Allowed: 9"):
        frozen_tables(config, few, FitContext(RUN))


def test_tables_are_rebuilt_from_a_state_or_refused() -> None:
    tables = Embeddings(ITEMS, USERS, torch.tensor([3, 9]))
    state = tensors_of(tables)
    again = tables_in(state, "cpu")
    assert torch.equal(again.items, ITEMS)
    assert again.users is not None
    for name in state:
        with pytest.raises((KeyError, RuntimeError)):
            tables_in({key: value for key, value in state.items() if key != name}, "cpu")
    with pytest.raises(RuntimeError, match="2 wide, they were 3"):
        tables_in({**tensors_of(Embeddings(ITEMS)), "tables.items": ITEMS[:, :2]}, "cpu")


def test_the_mean_is_weighted_and_nothing_without_a_history() -> None:
    rows = SparseRows(torch.tensor([0, 2, 2]), torch.tensor([0, 2]), torch.tensor([1.0, 3.0]), 4)
    torch.testing.assert_close(mean_of(rows, ITEMS), torch.stack(((ITEMS[0] + 3 * ITEMS[2]) / 4, torch.zeros(3))))


@pytest.mark.parametrize("spreading", ["mean", "normalised_sum"])
def test_a_file_is_spread_over_the_graph_of_the_data(tmp_path: Path, spreading: str) -> None:
    generator = torch.Generator().manual_seed(0)
    items, users = (torch.randn(n, 3, generator=generator) for n in (4, 2))
    folder = tmp_path / "tables"
    folder.mkdir()
    np.save(folder / "items.npy", items.numpy())
    np.save(folder / "users.npy", users.numpy())
    # Users stand in another order in the data, and one of them has no row in the file.
    history = Ragged.of([[0, 1, 1], [2], [1, 3]])
    known = FitData(history, 4, "none", keys=keys("1", "9", "0"), item_keys=keys("0", "1", "2", "3"))
    config = TablesConfig.make(tables=str(folder), hops=2, spreading=spreading)
    found = frozen_tables(config, known, FitContext(RUN))
    first = torch.cat((users[1:2], torch.zeros(1, 3), users[0:1], items))
    edges = torch.zeros(7, 7)
    for user, met in enumerate([[0, 1], [2], [1, 3]]):
        for item in met:
            edges[user, 3 + item] = edges[3 + item, user] = 1
    hat = edges / (edges.sum(0).clamp(min=1).sqrt() * edges.sum(1, keepdim=True).clamp(min=1).sqrt())
    if spreading == "mean":
        wanted = (first + hat @ first + hat @ hat @ first) / 3
    else:
        one = torch.nn.functional.normalize(hat @ first)
        wanted = first + one + torch.nn.functional.normalize(hat @ one)
    torch.testing.assert_close(found.items, wanted[3:])
    asked = Query.from_history(Ragged.of([[0]] * 3))
    vectors, there = found.of_users(Query(asked.user, asked.history, keys("1", "9", "0")))
    assert bool(there.all())
    torch.testing.assert_close(vectors, wanted[:3])


def test_hops_need_a_file_with_users(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match="hops = 1 goes with tables of a file"):
        TablesConfig.make(hops=1)
    np.save(tmp_path / "items.npy", ITEMS.numpy())
    with pytest.raises(InvalidInput, match="hops needs a table of users"):
        frozen_tables(TablesConfig.make(tables=str(tmp_path), hops=1), data("0", "1", "2", "3"), FitContext(RUN))
