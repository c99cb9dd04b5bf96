"""The largest inner products of a table: exact in blocks, or by an index that was measured when it was built.

    score_i = <point, table_i> + bias_i = <[point, 1], [table_i, bias_i]>

Exact search is right up to about a million items: it reads the table once for a whole batch of points. The index parts
the table into clusters and reads those nearest to a point. How much it finds depends on the table, so it is counted on
points that it was not built from, and an index that finds too little is refused.

Reference: Johnson, Douze & Jegou 2017 (faiss), IndexIVFFlat; Jegou, Douze & Schmid 2011 (inverted lists).
"""

import hashlib
import json
import math
from dataclasses import dataclass
from typing import Any, Self, cast

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from rediffuse.errors import ArtifactError, InvalidInput, MissingExtra, say
from rediffuse.grounding.topk import NEVER, TopK, best, check_length, padded
from rediffuse.types import Assortment, Candidates, Ragged, Ranking

BATCH, CELLS = 256, 1 << 25
"""Points that are searched with at a time, and scores that are held at a time."""
DEEPER = 4
"""How many times k are looked at where a product shows one variant."""


@dataclass(frozen=True)
class InnerProduct:
    """A `Grounding`: the exact answer. Raises: InvalidInput when shapes do not fit or a number is not finite."""

    table: Tensor
    """(I, D)."""
    bias: Tensor | None = None
    """(I,)."""

    def __post_init__(self) -> None:
        """Check what every search relies on."""
        if self.table.dim() != 2 or not len(self.table):
            raise InvalidInput(say("A table must have a row for each item", got=tuple(self.table.shape)))
        if self.bias is not None and self.bias.shape != self.table.shape[:1]:
            allowed = f"({len(self.table)},)"
            raise InvalidInput(
                say("A bias must have a number for each item", got=tuple(self.bias.shape), allowed=allowed)
            )
        if not all(bool(torch.isfinite(part).all()) for part in (self.table, self.bias) if part is not None):
            raise InvalidInput(say("The table holds a number that is not finite"))

    def score(self, points: Tensor, items: Tensor | None = None) -> Tensor:
        """(B, I), or (B, n) for some items. Args: points: (B, D).   items: (n,)."""
        table, bias = self.table, self.bias
        if items is not None:
            table, bias = table.index_select(0, items), None if bias is None else bias[items]
        return points @ table.t() if bias is None else torch.addmm(bias, points, table.t())

    def __call__(
        self, points: Tensor, k: int, *, seen: Ragged | None = None, candidates: Candidates | None = None
    ) -> Ranking:
        """As `TopK`. Limits: holds CELLS scores and the rows of their block, however many points there are."""
        offered = Assortment.of(candidates)

        def some(rows: Tensor) -> Ranking:
            top = TopK(self.score, len(self.table), CELLS // max(len(rows), 1))
            had = None if seen is None else seen.select(rows)
            return top(points[rows], k, seen=had, candidates=offered.select(rows))

        return Ranking.joined([some(rows) for rows in torch.arange(len(points), device=points.device).split(BATCH)])


@dataclass(frozen=True)
class Searched:
    """An answer, and how it was found."""

    ranking: Ranking
    exact: Tensor
    """(B,) bool, where the whole of what is offered was read."""


@dataclass(frozen=True)
class Index:
    """A `Grounding` that reads a share of the table; `Index.built` makes one. Everything is in main memory."""

    table: InnerProduct
    lists: Any
    """A faiss IndexIVFFlat over the rows, bias included."""
    probes: int
    """Clusters that are read for a point."""
    recall: float
    """Mean share of the exact top k that was found when it was built, for points it was not built from."""
    k: int
    """Of `recall`."""

    @classmethod
    def built(
        cls,
        table: InnerProduct,
        points: Tensor,
        *,
        k: int = 100,
        clusters: int | None = None,
        probes: int = 64,
        floor: float = 0.95,
        seed: int = 0,
    ) -> Self:
        """Cluster the rows, and count what is found of the exact answer.

        Args: points: (B, D), held out: what will be asked, such as users of the selection part; a few hundred do.
            clusters: None: sqrt(I).   probes: cut to the clusters.   floor: the least recall.   seed: of the clustering.
        Raises: InvalidInput when recall at k is below the floor, or a number is out of range; MissingExtra without faiss.
        Limits: a second copy of the table; 3 s of 2 cores for a million rows of 64.
        """
        check_length(k)
        faiss, rows = _faiss(), _rows(table)
        clusters = round(math.sqrt(len(rows))) if clusters is None else clusters
        for name, value, most in (("clusters", clusters, len(rows)), ("probes", probes, None)):
            if value < 1 or (most is not None and value > most):
                allowed = "1 or more" if most is None else f"1..{most}"
                raise InvalidInput(say(f"{name} out of range", got=value, allowed=allowed))
        if not len(points):
            raise InvalidInput(say("No point is held out to measure the index with", remedy="Give a few hundred"))
        made = faiss.IndexIVFFlat(faiss.IndexFlatIP(rows.shape[1]), rows.shape[1], clusters, faiss.METRIC_INNER_PRODUCT)
        made.cp.spherical, made.cp.seed, made.cp.niter = True, seed, 8
        made.cp.min_points_per_centroid, made.cp.max_points_per_centroid = 1, 64
        made.train(rows)
        made.add(rows)
        probes = min(probes, clusters)
        found, exact = cls(table, made, probes, math.nan, k)(points, k), table(points, k)
        recall = _overlap(found, exact)
        if not recall >= floor:
            raise InvalidInput(
                say(
                    f"The index finds {recall:.1%} of the exact top {k}",
                    allowed=f"{floor:.1%} or more",
                    remedy=f"Raise probes, which are {probes} of {clusters} clusters, or search exactly",
                )
            )
        return cls(table, made, probes, recall, k)

    def __call__(
        self, points: Tensor, k: int, *, seen: Ragged | None = None, candidates: Candidates | None = None
    ) -> Ranking:
        """As `search`, without how."""
        return self.search(points, k, seen=seen, candidates=candidates).ranking

    def search(
        self, points: Tensor, k: int, *, seen: Ragged | None = None, candidates: Candidates | None = None
    ) -> Searched:
        """The k best that the nearest clusters hold of what may be returned; the rest of them is passed over unread.

        The whole offer is read instead where that costs no more, which is where its share of the catalog is not above the
        share of the clusters that are read; where each subject has a list; and for a subject to whom the clusters give
        fewer than k items, or than k products.

        Args: points: (B, D).   seen, candidates: as in `TopK`.
        Raises: as `TopK`.
        Limits: with `seen`, subjects are searched one after the other. Recall was measured without conditions.
        """
        check_length(k)
        offered, n_items = Assortment.of(candidates), len(self.table.table)
        offered.check(n_items)
        share = 1.0 if offered.items is None else int(offered.items.count_nonzero()) / n_items
        if offered.lists is not None or share * self.lists.nlist <= self.probes or not len(points):
            everyone = torch.ones(len(points), dtype=torch.bool)
            return Searched(self.table(points, k, seen=seen, candidates=candidates), everyone)
        depth = min(k if offered.groups is None else DEEPER * k, n_items)
        values, index = self._read(points, depth, offered.items, seen)
        found = padded(*best(values, index.clamp(min=0), min(k, depth), offered.groups), k)
        short = (found.items < 0).any(1)
        rows = short.nonzero().squeeze(1)
        if len(rows):
            some = None if seen is None else seen.select(rows)
            exact = self.table(points[rows], k, seen=some, candidates=offered.select(rows))
            found.items[rows], found.scores[rows] = exact.items, exact.scores
        return Searched(found, short)

    def _read(self, points: Tensor, depth: int, items: Tensor | None, seen: Ragged | None) -> tuple[Tensor, Tensor]:
        """Scores and items of the nearest clusters, (B, depth); -inf and -1 where there are no more."""
        asked = points.detach().cpu().to(torch.float32)
        if self.table.bias is not None:
            asked = torch.cat((asked, asked.new_ones(len(asked), 1)), dim=1)
        faiss, allowed = _faiss(), None
        if items is not None:
            allowed = faiss.IDSelectorBitmap(np.packbits(items.cpu().numpy(), bitorder="little"))

        def searched(some: Tensor, selector: Any) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
            limits = {} if selector is None else {"sel": selector}
            params = faiss.SearchParametersIVF(nprobe=self.probes, **limits)
            return self.lists.search(np.ascontiguousarray(some.numpy()), depth, params=params)

        if seen is None or not seen.items.numel():
            parts = [searched(asked, allowed)]
        else:
            parts = list[tuple[NDArray[np.float32], NDArray[np.int64]]]()
            for row, had in zip(asked.split(1), seen.to_lists(), strict=True):
                fresh = faiss.IDSelectorNot(faiss.IDSelectorBatch(np.array(had, dtype=np.int64)))
                parts.append(searched(row, fresh if allowed is None else faiss.IDSelectorAnd(allowed, fresh)))
        values, index = (torch.from_numpy(np.concatenate(column)) for column in zip(*parts, strict=True))
        return values.masked_fill(index < 0, NEVER), index

    def to_bytes(self) -> bytes:
        """The clusters and what was measured, as safetensors; `from_bytes` needs the table again."""
        made = _faiss().serialize_index(self.lists)
        facts = {"probes": self.probes, "recall": self.recall, "k": self.k}
        facts |= {"index": _sha256(made), "table": _sha256(_rows(self.table))}
        told = np.frombuffer(json.dumps(facts).encode(), dtype=np.uint8).copy()
        return save({"facts": torch.from_numpy(told), "index": torch.from_numpy(made)})

    @classmethod
    def from_bytes(cls, table: InnerProduct, data: bytes) -> Self:
        """What `to_bytes` wrote. Raises: ArtifactError when it is altered, or of another table; MissingExtra."""
        try:
            parts = load(data)
            facts = json.loads(parts["facts"].numpy().tobytes())
            made, wanted = parts["index"].numpy(), (facts["index"], facts["table"])
            probes, recall, k = int(facts["probes"]), float(facts["recall"]), int(facts["k"])
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise ArtifactError(say("This is no index", got=str(error), remedy="Build it anew")) from None
        if (_sha256(made), _sha256(_rows(table))) != wanted:
            raise ArtifactError(say("The index is altered, or of another table", remedy="Build it anew"))
        return cls(table, _faiss().deserialize_index(made), probes, recall, k)


def _overlap(found: Ranking, exact: Ranking) -> float:
    """Mean share of the exact lists that was found."""
    hit = (found.items.unsqueeze(2) == exact.items.unsqueeze(1)).any(1) & (exact.items >= 0)
    return float(hit.sum() / (exact.items >= 0).sum())


def _rows(table: InnerProduct) -> NDArray[np.float32]:
    """The table with the bias as one more coordinate, (I, D) or (I, D + 1)."""
    rows = table.table if table.bias is None else torch.cat((table.table, table.bias.unsqueeze(1)), dim=1)
    return np.ascontiguousarray(rows.detach().cpu().to(torch.float32).numpy())


def _sha256(values: NDArray[Any]) -> str:
    return hashlib.sha256(values.data).hexdigest()


def _faiss() -> Any:
    """The library, with as many threads as torch has. Raises: MissingExtra."""
    try:
        import faiss
    except ImportError:
        raise MissingExtra(
            say(
                "An index needs faiss, which is not installed",
                remedy='Run: pip install "rediffuse[ann]", or search exactly',
            )
        ) from None
    found = cast("Any", faiss)
    found.omp_set_num_threads(torch.get_num_threads())
    return found
