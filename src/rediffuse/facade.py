"""A model that speaks the shop's own ids."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from rediffuse.artifacts import ModelFolder
from rediffuse.data.vocabulary import Vocabulary
from rediffuse.errors import InvalidInput, say
from rediffuse.protocols import Recommender
from rediffuse.types import Fallback, Options, Query, Ragged, offsets


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
        weights: Sequence[float] | None = None,
        options: Options = Options(),
        seed: int = 0,
    ) -> Answer:
        """The k best items after a history.

        Args: history: item ids, oldest first; unknown ones are reported and left out.
            exclude: ids that must not be returned; None: those of the history, nothing where the model was made for
                data that allows repeats.
            candidates: the only ids that may be returned; None: the whole catalog.
            times_us: when each event of the history was, UTC microseconds; needed where ages in days count.
            weights: what each event counts, where they do not count alike.
        Returns: at most k items, fewer when fewer may be returned.
        Raises: UnsupportedOption when the method cannot honour an option.
        """
        return self.recommend_many(
            [history],
            k,
            exclude=None if exclude is None else [exclude],
            candidates=None if candidates is None else [candidates],
            times_us=None if times_us is None else [times_us],
            weights=None if weights is None else [weights],
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
        weights: Sequence[Sequence[float]] | None = None,
        options: Options = Options(),
        seed: int = 0,
    ) -> list[Answer]:
        """As `recommend`, for many subjects at once; each answer is the one it would get alone."""
        if not histories:
            return []
        history = self._numbers(histories, times_us, weights)
        query = self.query(history) if exclude is None else Query.from_history(history, exclude=self._numbers(exclude))
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

    def query(self, history: Ragged) -> Query:
        """The question after histories in the model's numbers: nothing of them again, unless its data allows repeats."""
        repeats = self.folder.protocol.get("repeats")
        return Query.from_history(history, exclude=Ragged.empty(len(history)) if repeats else None)

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

    def _answer(self, numbers: list[int], scores: list[float], unknown: list[str], reason: int) -> Answer:
        places = [(n, s) for n, s in zip(numbers, scores, strict=True) if n >= 0]
        fallback = None if reason == Fallback.NONE else Fallback(reason).name.lower()
        items = tuple(Recommended(self.items.ids[n], self.titles[n], s) for n, s in places)
        return Answer(items, tuple(unknown), fallback)
