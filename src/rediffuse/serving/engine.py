"""Answers from a loaded model: asks in the shop's ids in, lists out. Knows neither HTTP nor the method by name."""

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch

from rediffuse.baselines.popularity import Popularity
from rediffuse.errors import InvalidInput, RediffuseError, say
from rediffuse.facade import Answer, Model, Recommended
from rediffuse.grounding.rerank import relevance
from rediffuse.random import stable_key
from rediffuse.serving.exploration import LEAST_TEMPERATURE, plackett_luce, uniform
from rediffuse.serving.ladder import Rung
from rediffuse.types import Options

_log = logging.getLogger(__name__)
POOL = 100
"""Best items that an exploring list is drawn from, at least."""
REASONS = 2
"""Items of the history that a place names, at most."""


class Unanswerable(RediffuseError):  # noqa: N818  # named for what the caller sees
    """Even the last rung failed."""


@dataclass(frozen=True)
class Exploration:
    """How a list is drawn instead of ranked. Raises: InvalidInput for a temperature below the least."""

    temperature: float = 0.2
    """tau of `exploration.py::plackett_luce`, where the best of the POOL is worth 1 and the last 0."""
    seed: int = 0
    """Another one draws another list; the same draws the same."""

    def __post_init__(self) -> None:
        """Check the temperature."""
        if not LEAST_TEMPERATURE <= self.temperature < math.inf:
            allowed = f"{LEAST_TEMPERATURE:g} and more"
            raise InvalidInput(
                say("The temperature of exploration must be above 0", got=self.temperature, allowed=allowed)
            )


@dataclass(frozen=True)
class Ask:
    """One question. Raises: InvalidInput when times do not go with the history, or k is below 1."""

    user: str | None = None
    """Id of a known user: methods that hold something of users find them by it, and their draws hang on it."""
    history: tuple[str, ...] | None = None
    """Item ids, oldest first."""
    times_us: tuple[int, ...] | None = None
    """When each event of the history was, UTC microseconds."""
    item: str | None = None
    """The item that is looked at: the last event of the history, and never in its own list."""
    k: int = 10
    where: tuple[str, ...] = ()
    """Conditions on attributes (`grounding/filters.py`)."""
    one_per: str | None = None
    exclude: tuple[str, ...] | None = None
    """None: the history, nothing of it where the model was made for data that allows repeats."""
    candidates: tuple[str, ...] | None = None
    context: Mapping[str, str] = field(default_factory=dict[str, str])
    options: Options = Options()
    seed: int = 0
    explore: Exploration | None = None
    """None: the best items in their order."""
    reasons: bool = False
    """Whether places tell which of the history's items they are like."""

    def __post_init__(self) -> None:
        """Check what would fail a whole batch."""
        if self.k < 1:
            raise InvalidInput(say("k must be at least 1", got=self.k, remedy="Use k=10 for an ordinary list"))
        if self.times_us is not None and len(self.times_us) != len(self.history or ()):
            raise InvalidInput(say("times_us must hold one value for each event of the history"))

    @property
    def told(self) -> tuple[str, ...]:
        """All that is known of the subject, oldest first."""
        return (*(self.history or ()), *(() if self.item is None else (self.item,)))

    @property
    def times(self) -> tuple[int, ...] | None:
        """Times of `told`; the item that is looked at is as late as the newest event."""
        if self.item is None or not self.times_us:
            return self.times_us if self.history else None
        return (*self.times_us, max(self.times_us))

    @property
    def wide(self) -> int:
        """How many items are asked of the method."""
        return self.k if self.explore is None else max(self.k, POOL)

    def together(self) -> tuple[object, ...]:
        """Asks that agree in this can be answered in one call."""
        options = tuple(
            tuple(sorted(value.items())) if isinstance(value, Mapping) else value
            for value in vars(self.options).values()
        )
        given = tuple(part is None for part in (self.times, self.candidates))
        plain = self.exclude is None and self.item is None
        context = tuple(sorted(self.context.items()))
        return self.wide, self.where, self.one_per, context, options, self.seed, given, plain


@dataclass(frozen=True)
class Reason:
    """Why an item is there, as far as it can be told."""

    kind: Literal["like", "popular"]
    item_id: str | None = None
    """The item of the history that it is like."""
    similarity: float | None = None
    """Cosine of the two items in what the data told of them; it describes, it is no cause."""


@dataclass(frozen=True)
class Place:
    """One place of a list."""

    item_id: str
    rank: int
    """1 is the first."""
    title: str
    score: float
    p: float | None = None
    """What `Answered.p_of` says."""
    spread: float | None = None
    """Standard deviation of the score over draws; None where there were none."""
    propensity: float = 1.0
    """Probability of this item at this place given those before it, under `Answered.policy`."""
    reasons: tuple[Reason, ...] = ()


@dataclass(frozen=True)
class Answered:
    """A list with all that is known of how it came about."""

    items: tuple[Place, ...]
    model: str
    version: str
    sha256: str
    """Of the manifest of the model's folder."""
    unknown: tuple[str, ...] = ()
    """Ids of the ask that the model has never seen; they were left out."""
    fallback: str | None = None
    """Why the list is not the method's own: "empty_history"."""
    degraded: str | None = None
    """The rung of `ladder.py` that answered, None where all that was asked did."""
    because: str | None = None
    """Why it was degraded: "overload" or "failure"."""
    p_of: str | None = None
    policy: Literal["deterministic", "plackett_luce"] = "deterministic"
    """How places were filled; a deterministic list has propensity 1 everywhere, and tells nothing of other policies."""

    @property
    def propensities(self) -> tuple[float, ...]:
        """Of all places."""
        return tuple(place.propensity for place in self.items)


@dataclass(frozen=True)
class Engine:
    """Answers with one model and, where it must, with something cheaper."""

    model: Model
    name: str
    version: str
    sha256: str
    classic: Model | None = None
    """A quick model for rung `classic`; None: there is no such rung."""

    def answer(self, asks: Sequence[Ask], rung: Rung = Rung.WHOLE) -> list[Answered | RediffuseError]:
        """One answer for each ask, the one that it would get alone; or what is wrong with the ask.

        Args: rung: the highest that may be used; a lower one is taken where that fails.
        """
        groups = dict[tuple[object, ...], list[int]]()
        for place, ask in enumerate(asks):
            groups.setdefault(ask.together(), []).append(place)
        out = dict[int, Answered | RediffuseError]()
        for places in groups.values():
            out.update(zip(places, self._group([asks[place] for place in places], rung), strict=True))
        return [out[place] for place in range(len(asks))]

    def _group(self, asks: Sequence[Ask], highest: Rung) -> Sequence[Answered | RediffuseError]:
        """Asks that can be answered in one call."""
        failed = False
        for rung, model, options in self._rungs(asks[0].options, highest):
            try:
                answers = self._call(model, asks, options, plain=rung >= Rung.CLASSIC)
            except RediffuseError as error:
                return [error] * len(asks)
            except Exception:  # noqa: BLE001  # a cheaper rung answers, and the log has it
                if len(asks) > 1:  # one ask must not cost its batch mates their lists
                    return [answer for ask in asks for answer in self._group([ask], highest)]
                _log.exception("answering failed at rung %s", rung.label)
                failed = True
                continue
            why = None if rung == Rung.WHOLE else "failure" if failed else "overload"
            return [self._answered(*pair, rung, why) for pair in zip(asks, answers, strict=True)]
        return [Unanswerable(say("No list could be made", remedy="Ask again; the log tells why"))] * len(asks)

    def _rungs(self, options: Options, highest: Rung) -> Iterator[tuple[Rung, Model, Options]]:
        """What can be answered with, best first; the first that differs from the whole counts as lower."""
        single = replace(options, draws=1)
        if highest == Rung.WHOLE or (highest == Rung.ONE_DRAW and single == options):
            yield Rung.WHOLE, self.model, options
        if highest <= Rung.ONE_DRAW and single != options:
            yield Rung.ONE_DRAW, self.model, single
        if highest <= Rung.CLASSIC and self.classic is not None:
            yield Rung.CLASSIC, self.classic, Options()
        yield Rung.POPULAR, replace(self.model, recommender=Popularity(self.model.folder.popularity)), Options()

    def _call(self, model: Model, asks: Sequence[Ask], options: Options, *, plain: bool) -> list[Answer]:
        """The model's lists. Raises: ArithmeticError when a score is not finite."""
        first = asks[0]
        answers = model.recommend_many(
            [ask.told for ask in asks],
            first.wide,
            exclude=None if first.exclude is None and first.item is None else [self._excluded(ask) for ask in asks],
            candidates=None if first.candidates is None else [ask.candidates or () for ask in asks],
            where=first.where,
            one_per=first.one_per,
            times_us=None if first.times is None else [ask.times or () for ask in asks],
            context=None if plain else first.context,
            options=options,
            seed=first.seed,
            users=[ask.user for ask in asks],
        )
        if not all(math.isfinite(place.score) for answer in answers for place in answer.items):
            raise ArithmeticError("a score is not finite")
        return answers

    def _excluded(self, ask: Ask) -> tuple[str, ...]:
        """What an ask with exclusions or an item must not be answered with."""
        own = () if ask.item is None else (ask.item,)
        if ask.exclude is not None:
            return (*ask.exclude, *own)
        return own if self.model.folder.protocol.get("repeats") else ask.told

    def _answered(self, ask: Ask, answer: Answer, rung: Rung, why: str | None) -> Answered:
        found, propensities = _drawn(ask, answer.items)
        chosen = found[: ask.k]
        # How often draws have an item in a list as long as the pool says nothing of lists of k.
        told = answer.probability_of if ask.wide == ask.k or answer.probability_of != "top_k" else None
        popular = answer.fallback is not None or rung == Rung.POPULAR
        reasons = self._reasons(ask, chosen, popular=popular) if ask.reasons else [()] * len(chosen)
        places = tuple(
            Place(r.item, rank, r.title, r.score, r.probability if told else None, r.spread, propensity, because)
            for rank, (r, propensity, because) in enumerate(zip(chosen, propensities, reasons, strict=False), 1)
        )
        named = (*ask.told, *(ask.exclude or ()), *(ask.candidates or ()))
        return Answered(
            places,
            self.name,
            self.version,
            self.sha256,
            tuple(dict.fromkeys(item for item in named if item not in self.model.items)),
            answer.fallback,
            None if rung == Rung.WHOLE else rung.label,
            why,
            told,
            "deterministic" if ask.explore is None else "plackett_luce",
        )

    def _reasons(self, ask: Ask, chosen: Sequence[Recommended], *, popular: bool) -> list[tuple[Reason, ...]]:
        """For each place the items of the history that are most like it; none where nothing is known of items."""
        if popular:
            return [(Reason("popular"),)] * len(chosen)
        vectors, items = self.model.folder.vectors, self.model.items
        known = [item for item in dict.fromkeys(ask.told) if item in items]
        if vectors is None or not known or not chosen:
            return [()] * len(chosen)
        ours, theirs = (torch.from_numpy(items.encode(ids)) for ids in ([r.item for r in chosen], known))
        alike, at = (vectors[ours.clamp(min=0)] @ vectors[theirs].T).topk(min(REASONS, len(known)), dim=1)
        return [
            tuple(Reason("like", known[n], value) for value, n in zip(values, numbers, strict=True) if value > 0)
            for values, numbers in zip(alike.tolist(), at.tolist(), strict=True)
        ]


def _drawn(ask: Ask, items: Sequence[Recommended]) -> tuple[Sequence[Recommended], Sequence[float]]:
    """The places in the order that is shown, with their propensities."""
    if ask.explore is None or not items:
        return items, [1.0] * len(items)
    subject = stable_key("\n".join(ask.told) if ask.user is None else ask.user)
    keys = torch.tensor([stable_key(place.item) for place in items], dtype=torch.int64)
    worth = relevance(torch.tensor([[place.score for place in items]])).squeeze(0)
    order, propensity = plackett_luce(worth, ask.explore.temperature, uniform(ask.explore.seed, subject, keys))
    return [items[place] for place in order.tolist()], propensity.tolist()
