"""A model that speaks the shop's own ids."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import polars as pl
import torch

from rediffuse.artifacts import ModelFolder
from rediffuse.data.catalog import Catalog
from rediffuse.data.context import value_of
from rediffuse.data.vocabulary import Vocabulary
from rediffuse.errors import InvalidInput, say, unknown
from rediffuse.grounding.filters import ITEM, Where, assortment
from rediffuse.protocols import Recommender
from rediffuse.random import stable_key
from rediffuse.types import Candidates, Fallback, Options, Query, Ragged, Ranking, offsets

GOLDEN_HISTORY = 20
"""Items of the longest history of golden questions."""


@dataclass(frozen=True)
class Recommended:
    """One place of a list."""

    item: str
    title: str
    score: float
    spread: float | None = None
    """Standard deviation of the score over draws; None where there were none."""
    probability: float | None = None
    """What `Answer.probability_of` says; None where nothing is known."""

    def to_json(self) -> dict[str, object]:
        """Plain values; what is not known is left out."""
        return {name: value for name, value in vars(self).items() if value is not None}


@dataclass(frozen=True)
class Answer:
    """A list for one subject, best first."""

    items: tuple[Recommended, ...]
    unknown: tuple[str, ...] = ()
    """Ids of the history that the model has never seen; they were left out."""
    fallback: str | None = None
    """Why the list is not the method's own: "empty_history", else None."""
    probability_of: str | None = None
    """Of what the places have a probability.

    "consumption": that this person takes the item within a time as long as the selection part, if anything new at all
    (`evaluation/consumption.py`); "top_k": share of the draws that have the item among their own k; None: of nothing.
    """

    def to_json(self) -> dict[str, object]:
        """Plain values."""
        return {**vars(self), "items": [r.to_json() for r in self.items], "unknown": list(self.unknown)}


@dataclass(frozen=True)
class Model:
    """What `rediffuse.load` returns."""

    method: str
    """Its registered name."""
    recommender: Recommender
    """Speaks dense numbers."""
    items: Vocabulary
    titles: tuple[str, ...]
    folder: ModelFolder
    """Settings, protocol and metrics it was saved with."""

    def recommend(
        self,
        history: Sequence[str],
        k: int = 10,
        *,
        exclude: Sequence[str] | None = None,
        candidates: Sequence[str] | None = None,
        where: Sequence[str | Where] = (),
        one_per: str | None = None,
        times_us: Sequence[int] | None = None,
        weights: Sequence[float] | None = None,
        context: Mapping[str, str] | None = None,
        options: Options = Options(),
        seed: int = 0,
    ) -> Answer:
        """The k best items after a history.

        Args: history: item ids, oldest first; unknown ones are reported and left out.
            exclude: ids that must not be returned; None: those of the history, nothing where the model was made for
                data that allows repeats.
            candidates: the only ids that may be returned; None: the whole catalog.
            where: conditions on attributes of the items, which hold together: ["category=shoes|boots", "price<=50"]
                (`grounding/filters.py`); an item of which an attribute is not known meets no condition on it.
            one_per: an attribute of which the list holds each value once, by the best item: one variant of a product.
            times_us: when each event of the history was, UTC microseconds; needed where ages in days count.
            weights: what each event counts, where they do not count alike.
            context: what is known of the moment or the user, by the names of the model's conditions: {"season": "winter"}.
        Returns: at most k items, fewer when fewer may be returned.
        Raises: UnsupportedOption when the method cannot honour an option; InvalidInput for a condition on what the model
            does not know of its items.
        """
        return self.recommend_many(
            [history],
            k,
            exclude=None if exclude is None else [exclude],
            candidates=None if candidates is None else [candidates],
            where=where,
            one_per=one_per,
            times_us=None if times_us is None else [times_us],
            weights=None if weights is None else [weights],
            context=context,
            options=options,
            seed=seed,
        )[0]

    def recommend_many(
        self,
        histories: Sequence[Sequence[str]],
        k: int = 10,
        *,
        exclude: Sequence[Sequence[str]] | None = None,
        candidates: Sequence[Sequence[str]] | None = None,
        where: Sequence[str | Where] = (),
        one_per: str | None = None,
        times_us: Sequence[Sequence[int]] | None = None,
        weights: Sequence[Sequence[float]] | None = None,
        context: Mapping[str, str] | None = None,
        options: Options = Options(),
        seed: int = 0,
        users: Sequence[str | None] | None = None,
    ) -> list[Answer]:
        """As `recommend`, for many subjects at once; each answer is the one it would get alone.

        Args: users: ids, None where nobody is named: methods that hold something of users know them by it, and draws
            hang on it instead of on the history.
        """
        if not histories:
            return []
        history = self._numbers(histories, times_us, weights)
        query = self.query(history) if exclude is None else Query.from_history(history, exclude=self._numbers(exclude))
        lists = None if candidates is None else self._numbers(candidates)
        query = replace(query, candidates=self.offered(where, one_per, lists))
        if context:
            query = replace(query, context=self.context(context, len(query)))
        for row, user in enumerate(users or ()):
            if user is not None:
                query.key[row] = stable_key(user)
        ranking = self.recommender.recommend(query, k, options=options, seed=seed)
        return [
            self._answer(ranking.select(torch.tensor([row])), [i for i in history if i not in self.items])
            for row, history in enumerate(histories)
        ]

    def golden(self) -> list[dict[str, Any]]:
        """A few questions with their answers, by which the model can be known again; none where a score is not finite."""
        ids, until = self.items.ids, self.folder.data.get("until_us") or 0
        out = list[dict[str, Any]]()
        for history in (ids[:1], ids[:: max(len(ids) // GOLDEN_HISTORY, 1)][:GOLDEN_HISTORY]):
            times = [until - second * 1_000_000 for second in reversed(range(len(history)))]
            found = self.recommend(history, times_us=times).items
            if not all(math.isfinite(place.score) for place in found):
                return []
            answer = {"items": [place.item for place in found], "scores": [place.score for place in found]}
            out.append({"history": list(history), "times_us": times, **answer})
        return out

    def query(self, history: Ragged) -> Query:
        """The question after histories in the model's numbers: nothing of them again, unless its data allows repeats."""
        repeats = self.folder.protocol.get("repeats")
        return Query.from_history(history, exclude=Ragged.empty(len(history)) if repeats else None)

    def offered(
        self, where: Sequence[str | Where] = (), one_per: str | None = None, lists: Ragged | None = None
    ) -> Candidates | None:
        """What may be returned under conditions, in the model's numbers; without any the lists alone.

        Raises: InvalidInput, as `assortment`.
        """
        limited = bool(where) or one_per is not None
        return assortment(Catalog(self.items, self.folder.attributes), where, one_per, lists) if limited else lists

    def knowing(self, attributes: pl.DataFrame) -> "Model":
        """The same model under other attributes of its items: today's prices and stock.

        Args: attributes: a column `item` of ids, others whatever is known; of items that are not there nothing is.
        Raises: InvalidInput when an id stands twice, or there is no column of ids.
        """
        if ITEM not in attributes.columns:
            raise InvalidInput(say("Attributes need a column of ids", got=attributes.columns, allowed=[ITEM]))
        table = Catalog.of(self.items, attributes.with_columns(pl.col(ITEM).cast(pl.String))).attributes
        return replace(self, folder=replace(self.folder, attributes=table))

    @property
    def conditions(self) -> Mapping[str, Sequence[str]]:
        """What may be told in a context: name -> its words, none for the season."""
        return self.folder.data.get("contexts", {})

    def context(self, told: Mapping[str, str], subjects: int) -> dict[str, torch.Tensor]:
        """What a context means, alike for so many subjects.

        Raises: InvalidInput for a name that is no condition of the model, or a word it does not know.
        """
        zone, out = self.folder.data.get("time_zone", "UTC"), dict[str, torch.Tensor]()
        for name, word in told.items():
            if name not in self.conditions:
                raise InvalidInput(unknown("condition", name, self.conditions))
            out[name] = torch.tensor(value_of(name, word, self.conditions[name], zone)).expand(subjects).clone()
        return out

    def _numbers(
        self,
        lists: Sequence[Sequence[str]],
        times_us: Sequence[Sequence[int]] | None = None,
        weights: Sequence[Sequence[float]] | None = None,
    ) -> Ragged:
        """Lists of ids as numbers, unknown ones left out. Raises: InvalidInput when times or weights are not as many."""
        rows = [self.items.encode(names) for names in lists]
        known = [torch.from_numpy(row >= 0) for row in rows]
        flat = torch.cat([torch.from_numpy(row) for row in rows])
        lengths = torch.tensor([len(row) for row in rows], dtype=torch.int64)

        def along(name: str, values: Sequence[Sequence[float]] | None, dtype: torch.dtype) -> torch.Tensor | None:
            if values is None:
                return None
            if [len(some) for some in values] != lengths.tolist():
                raise InvalidInput(say(f"{name} must hold one value for each event of a history"))
            return torch.tensor([value for some in values for value in some], dtype=dtype)

        time_us, weight = along("times_us", times_us, torch.int64), along("weights", weights, torch.float32)
        return Ragged(offsets(lengths), flat, time_us, weight=weight).keep(torch.cat(known))

    def _answer(self, ranking: Ranking, unknown: list[str]) -> Answer:
        """Args: ranking: of one subject."""
        tables = [ranking.items, ranking.scores, ranking.spread, ranking.probability]
        columns = [[None] * ranking.items.shape[1] if table is None else table[0].tolist() for table in tables]
        items = tuple(
            Recommended(self.items.ids[n], self.titles[n], score, _told(spread), _told(probability))
            for n, score, spread, probability in zip(*columns, strict=True)
            if n >= 0
        )
        reason = Fallback(int(ranking.reasons[0]))
        told = any(place.probability is not None for place in items)
        of = ranking.probability_of if told else None
        return Answer(items, tuple(unknown), reason.name.lower() if reason else None, of)


def _told(value: float | None) -> float | None:
    """What a fallback does not know is not a number; JSON has no word for that."""
    return None if value is None or math.isnan(value) else value
