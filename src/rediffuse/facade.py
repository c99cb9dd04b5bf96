"""A model that speaks the shop's own ids."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from rediffuse.artifacts import ModelFolder
from rediffuse.data.vocabulary import Vocabulary
from rediffuse.protocols import Recommender
from rediffuse.types import Fallback, Options, Query, Ragged


@dataclass(frozen=True)
class Recommended:
    """One place of a list."""

    item: str
    title: str
    score: float


@dataclass(frozen=True)
class Answer:
    """A list for one subject, best first."""

    items: tuple[Recommended, ...]
    unknown: tuple[str, ...] = ()
    """Ids of the history that the model has never seen; they were left out."""
    fallback: str | None = None
    """Why the list is not the method's own: "empty_history", else None."""

    def to_json(self) -> dict[str, object]:
        """Plain values."""
        items = [{"item": r.item, "title": r.title, "score": r.score} for r in self.items]
        return {"items": items, "unknown": list(self.unknown), "fallback": self.fallback}


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
        options: Options = Options(),
        seed: int = 0,
    ) -> Answer:
        """The k best items after a history.

        Args: history: item ids, oldest first; unknown ones are reported and left out.
            exclude: ids that must not be returned; None: those of the history.
            candidates: the only ids that may be returned; None: the whole catalog.
        Returns: at most k items, fewer when fewer may be returned.
        Raises: UnsupportedOption when the method cannot honour an option.
        """
        return self.recommend_many(
            [history],
            k,
            exclude=None if exclude is None else [exclude],
            candidates=None if candidates is None else [candidates],
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
        options: Options = Options(),
        seed: int = 0,
    ) -> list[Answer]:
        """As `recommend`, for many subjects at once; each answer is the one it would get alone."""
        if not histories:
            return []
        query = Query.from_history(
            self._numbers(histories), exclude=None if exclude is None else self._numbers(exclude)
        )
        if candidates is not None:
            query = Query(
                query.user, query.history, query.key, exclude=query.exclude, candidates=self._numbers(candidates)
            )
        ranking = self.recommender.recommend(query, k, options=options, seed=seed)
        reasons = torch.zeros(len(query), dtype=torch.int64) if ranking.fallback is None else ranking.fallback
        return [
            self._answer(numbers, scores, [i for i in history if i not in self.items], reason)
            for numbers, scores, history, reason in zip(
                ranking.items.tolist(), ranking.scores.tolist(), histories, reasons.tolist(), strict=True
            )
        ]

    def _numbers(self, lists: Sequence[Sequence[str]]) -> Ragged:
        rows = [self.items.encode(names) for names in lists]
        return Ragged.of([np.asarray(row[row >= 0]).tolist() for row in rows])

    def _answer(self, numbers: list[int], scores: list[float], unknown: list[str], reason: int) -> Answer:
        places = [(n, s) for n, s in zip(numbers, scores, strict=True) if n >= 0]
        fallback = None if reason == Fallback.NONE else Fallback(reason).name.lower()
        items = tuple(Recommended(self.items.ids[n], self.titles[n], s) for n, s in places)
        return Answer(items, tuple(unknown), fallback)
