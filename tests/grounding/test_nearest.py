"""Largest inner products, exact and by an index, under conditions."""

import sys

import pytest
import torch

from rediffuse.errors import ArtifactError, InvalidInput, MissingExtra
from rediffuse.grounding import nearest
from rediffuse.grounding.nearest import Index, InnerProduct
from rediffuse.grounding.topk import top_k
from rediffuse.types import Assortment, Ragged

ITEMS, D, B = 4_000, 8, 60


def some(n: int, seed: int) -> torch.Tensor:
    """Vectors around forty centres."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(40, D, generator=torch.Generator().manual_seed(9))
    return centres[torch.randint(40, (n,), generator=generator)] + 0.3 * torch.randn(n, D, generator=generator)


@pytest.fixture(scope="module")
def table() -> InnerProduct:
    return InnerProduct(some(ITEMS, 1), 0.1 * torch.randn(ITEMS, generator=torch.Generator().manual_seed(2)))


@pytest.fixture(scope="module")
def points() -> torch.Tensor:
    return some(B, 3)


@pytest.fixture(scope="module")
def index(table: InnerProduct) -> Index:
    return Index.built(table, some(100, 4), k=20, clusters=50, probes=15)


def test_the_exact_answer_is_that_of_the_whole_matrix(
    table: InnerProduct, points: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nearest, "BATCH", 7)
    monkeypatch.setattr(nearest, "CELLS", 7 * 900)
    assert table.bias is not None
    scores = points @ table.table.t() + table.bias
    seen = Ragged.of([row[:5].tolist() for row in scores.argsort(1, descending=True)])
    lists = Ragged.of([list(range(row, ITEMS, 3)) for row in range(B)])
    groups = torch.arange(ITEMS) // 4
    for candidates in (None, lists, Assortment(torch.arange(ITEMS) % 2 == 0, lists, groups)):
        found = table(points, 30, seen=seen, candidates=candidates)
        wanted = top_k(scores.clone(), 30, seen=seen, candidates=candidates)
        assert torch.equal(found.items, wanted.items)
        assert torch.allclose(found.scores, wanted.scores, rtol=1e-5, atol=1e-6)
    plain = InnerProduct(table.table)
    assert torch.equal(plain(points[:1], 3).items, (points[:1] @ table.table.t()).topk(3).indices)
    assert plain(points[:0], 3).items.shape == (0, 3)


def overlap(found: torch.Tensor, exact: torch.Tensor) -> float:
    """Mean share of one list that stands in the other."""
    rows = zip(found.tolist(), exact.tolist(), strict=True)
    return sum(len(set(one) & set(other)) / len(other) for one, other in rows) / len(exact)


def test_an_index_finds_what_it_says(table: InnerProduct, points: torch.Tensor) -> None:
    exact = table(points, 20)
    recalls = list[float]()
    for probes in (1, 2, 6):
        index = Index.built(table, points, k=20, clusters=50, probes=probes, floor=0.1)
        found = index.search(points, 20)
        assert not found.exact.all()
        assert index.recall == pytest.approx(overlap(found.ranking.items, exact.items))
        assert torch.equal(index(points, 20).items, found.ranking.items)
        same = found.ranking.items[:, 0] == exact.items[:, 0]
        assert torch.allclose(found.ranking.scores[same, 0], exact.scores[same, 0], rtol=1e-4, atol=1e-4)
        recalls.append(index.recall)
    assert recalls == sorted(recalls)
    assert recalls[0] < 0.95 < recalls[2]


def test_conditions_hold_inside_the_index(index: Index, table: InnerProduct, points: torch.Tensor) -> None:
    best = table(points, 40).items
    seen = Ragged.of([row.tolist() for row in best[:, :40]])
    mask = torch.arange(ITEMS) % 3 > 0
    offered = Assortment(mask)
    for candidates in (None, offered):
        found = index.search(points, 20, seen=seen, candidates=candidates)
        exact = table(points, 20, seen=seen, candidates=candidates)
        assert not found.exact.any()
        assert bool((found.ranking.items >= 0).all()), "full lists, although all of the best are gone"
        assert not (found.ranking.items.unsqueeze(2) == best.unsqueeze(1)).any()
        assert overlap(found.ranking.items, exact.items) > 0.9
    masked = index(points, 20, candidates=offered).items
    assert bool(mask[masked].all())


def test_little_is_offered_so_all_of_it_is_read(index: Index, table: InnerProduct, points: torch.Tensor) -> None:
    """15 of 50 clusters are read: up to .3 of the catalog the exact answer costs no more."""
    for candidates in (
        Assortment(torch.arange(ITEMS) % 4 == 0),
        Ragged.of([[1, 2]] * B),
        Assortment(torch.arange(ITEMS) < 0),
    ):
        found = index.search(points, 5, candidates=candidates)
        assert found.exact.all()
        assert torch.equal(found.ranking.items, table(points, 5, candidates=candidates).items)
    assert index.search(points[:0], 5).ranking.items.shape == (0, 5)


def test_who_gets_too_few_from_the_clusters_is_searched_for_exactly(
    index: Index, table: InnerProduct, points: torch.Tensor
) -> None:
    """All that lies near the first subject was seen, all but two; nothing of the others."""
    near = points[0] @ table.table.t()
    seen = Ragged.of([near.argsort(descending=True)[: ITEMS - 2].tolist(), []])
    found = index.search(points[:2], 2, seen=seen)
    assert found.exact.tolist() == [True, False]
    assert sorted(found.ranking.items[0].tolist()) == sorted(near.argsort(descending=True)[ITEMS - 2 :].tolist())
    longer = index.search(points[:2], ITEMS, seen=seen)
    assert longer.exact.all()
    assert (longer.ranking.items >= 0).sum(1).tolist() == [2, ITEMS]


def test_a_list_holds_one_variant_of_each_product(index: Index, table: InnerProduct, points: torch.Tensor) -> None:
    groups = torch.arange(ITEMS) % 500
    offered = Assortment(torch.arange(ITEMS) % 10 > 0, groups=groups)
    found, exact = index.search(points, 20, candidates=offered), table(points, 20, candidates=offered)
    assert not found.exact.all()
    for row in found.ranking.items:
        assert len(set(groups[row].tolist())) == 20
    assert overlap(found.ranking.items, exact.items) > 0.9
    few = Assortment(groups=torch.arange(ITEMS) % 3)
    short = index.search(points, 5, candidates=few)
    assert short.exact.all()
    assert torch.equal(short.ranking.items, table(points, 5, candidates=few).items)


def test_an_index_that_finds_too_little_is_refused(table: InnerProduct) -> None:
    wanted = (
        r"The index finds (\d\d\.\d)% of the exact top 20\. Allowed: 95\.0% or more\. Raise probes, which are 1 of 50"
    )
    with pytest.raises(InvalidInput, match=wanted):
        Index.built(table, some(100, 4), k=20, clusters=50, probes=1)
    assert Index.built(table, some(100, 4), k=20, clusters=50, probes=1, floor=0.1).recall < 0.95
    assert Index.built(table, some(9, 4), k=20, clusters=5, probes=99).recall == 1


def test_what_cannot_be_is_refused(table: InnerProduct, points: torch.Tensor) -> None:
    with pytest.raises(InvalidInput, match=rf"clusters out of range\. Got 0\. Allowed: 1\.\.{ITEMS}"):
        Index.built(table, points, clusters=0)
    with pytest.raises(InvalidInput, match=r"clusters out of range"):
        Index.built(table, points, clusters=ITEMS + 1)
    with pytest.raises(InvalidInput, match=r"probes out of range\. Got 0\. Allowed: 1 or more"):
        Index.built(table, points, probes=0)
    with pytest.raises(InvalidInput, match="No point is held out"):
        Index.built(table, points[:0])
    with pytest.raises(InvalidInput, match="k must be at least 1"):
        Index.built(table, points, k=0)
    with pytest.raises(InvalidInput, match="a row for each item"):
        InnerProduct(torch.zeros(3))
    with pytest.raises(InvalidInput, match=r"a number for each item\. Got \(2,\)\. Allowed: \(3,\)"):
        InnerProduct(torch.zeros(3, 2), torch.zeros(2))
    with pytest.raises(InvalidInput, match="not finite"):
        InnerProduct(torch.full((3, 2), float("nan")))


def test_an_index_comes_back_from_its_bytes(index: Index, table: InnerProduct, points: torch.Tensor) -> None:
    data = index.to_bytes()
    again = Index.from_bytes(table, data)
    assert (again.probes, again.recall, again.k) == (15, index.recall, 20)
    assert torch.equal(again(points, 20).items, index(points, 20).items)
    altered = bytearray(data)
    altered[-7] ^= 1
    with pytest.raises(ArtifactError, match="altered, or of another table"):
        Index.from_bytes(table, bytes(altered))
    with pytest.raises(ArtifactError, match="altered, or of another table"):
        Index.from_bytes(InnerProduct(table.table), data)
    with pytest.raises(ArtifactError, match="This is no index"):
        Index.from_bytes(table, data[:100])


def test_a_missing_library_names_the_extra(table: InnerProduct, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(MissingExtra, match=r'needs faiss.* Run: pip install "rediffuse\[ann\]", or search exactly'):
        Index.built(table, some(9, 4))
    assert table(some(1, 3), 3).items.shape == (1, 3)
