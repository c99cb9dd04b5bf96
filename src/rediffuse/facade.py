"""A model that speaks the shop's own ids."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from rediffuse.artifacts import ModelFolder
from rediffuse.data.vocabulary import Vocabulary
from rediffuse.errors import InvalidInput, say
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
        times_us: Sequence[int] | None = None,
        options: Options = Options(),
        seed: int = 0,
    ) -> Answer:
        """The k best items after a history.

        Args: history: item ids, oldest first; unknown ones are reported and left out.
            exclude: ids that must not be returned; None: those of the history.
            candidates: the only ids that may be returned; None: the whole catalog.
            times_us: when each event of the history was, UTC microseconds; needed where ages in days count.
        Returns: at most k items, fewer when fewer may be returned.
        Raises: UnsupportedOption when the method cannot honour an option.
        """
        return self.recommend_many(
            [history],
            k,
            exclude=None if exclude is None else [exclude],
            candidates=None if candidates is None else [candidates],
            times_us=None if times_us is None else [times_us],
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
        times_us: Sequence[Sequence[int]] | None = None,
        options: Options = Options(),
        seed: int = 0,
    ) -> list[Answer]:
        """As `recommend`, for many subjects at once; each answer is the one it would get alone."""
        if not histories:
            return []
        history = self._numbers(histories, times_us)
        query = Query.from_history(history, exclude=None if exclude is None else self._numbers(exclude))
        if candidates is not None:
            query = replace(query, candidates=self._numbers(candidates))
        ranking = self.recommender.recommend(query, k, options=options, seed=seed)
        reasons = torch.zeros(len(query), dtype=torch.int64) if ranking.fallback is None else ranking.fallback
        return [
            self._answer(numbers, scores, [i for i in history if i not in self.items], reason)
            for numbers, scores, history, reason in zip(
                ranking.items.tolist(), ranking.scores.tolist(), histories, reasons.tolist(), strict=True
            )
        ]

    def _numbers(self, lists: Sequence[Sequence[str]], times_us: Sequence[Sequence[int]] | None = None) -> Ragged:
        """Lists of ids as numbers, unknown ones left out. Raises: InvalidInput when times and ids differ in number."""
        rows = [self.items.encode(names) for names in lists]
        out = Ragged.of([row[row >= 0].tolist() for row in rows])
        if times_us is None:
            return out
        if [len(times) for times in times_us] != [len(row) for row in rows]:
            raise InvalidInput(say("times_us must hold one time for each event of a history"))
        known = [
            t for row, times in zip(rows, times_us, strict=True) for n, t in zip(row, times, strict=True) if n >= 0
        ]
        return replace(out, time_us=torch.tensor(known, dtype=torch.int64))

    def _answer(self, numbers: list[int], scores: list[float], unknown: list[str], reason: int) -> Answer:
        places = [(n, s) for n, s in zip(numbers, scores, strict=True) if n >= 0]
        fallback = None if reason == Fallback.NONE else Fallback(reason).name.lower()
        items = tuple(Recommended(self.items.ids[n], self.titles[n], s) for n, s in places)
        return Answer(items, tuple(unknown), fallback)
