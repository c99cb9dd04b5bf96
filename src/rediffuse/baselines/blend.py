"""Blend: one list out of the lists of several fitted methods, weighted as they do best on the selection part.

| equation | here |
|---|---|
| log-linear: score_i = sum_p w_p f_p(s_pi), f the score itself or log(max(s, 0) + eps) | `Blend.recommend`, `BlendConfig.linked` |
| reciprocal ranks: score_i = sum_p w_p / (c + rank_pi), 0 outside the list of p | `Blend.recommend` |
| w, f and eps: the best on the selection part, one coordinate after the other | `choose` |

Of a part nothing is known but its lists. The log of a softmax differs from the score by one number for the whole row,
which moves no item: so scores that are logits stand as they are.
Reference: Hinton 2002 (products of experts) for the log-linear sum; Cormack et al. 2009, "Reciprocal rank fusion
outperforms Condorcet and individual rank learning methods", for the ranks.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar, Literal, Self

import torch
from pydantic import Field, PositiveFloat, PositiveInt, field_validator, model_validator
from torch import Tensor

from rediffuse.config import FrozenConfig
from rediffuse.errors import InvalidInput, refuse_options, say
from rediffuse.grounding.topk import NEVER, top_k
from rediffuse.protocols import FitContext, FitData, Method, PartRestorer, SettingsOf, Tunable
from rediffuse.types import Assortment, Options, Query, Ranking

Link = Literal["score", "log"]
EPS = (0.001, 0.01, 0.1)
"""What is tried where a part is linked by its logarithm."""
UNITS = (0.0, 0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""Weights that are tried, in units of 1 / the spread of a part's scores within a list."""
ROUNDS = 2
"""How often every coordinate is gone through."""


class BlendConfig(FrozenConfig):
    """Settings of Blend."""

    parts: Annotated[tuple[str, ...], Field(min_length=2)] = ("item_knn", "ease")
    """The methods it is made of, each NAME or NAME:PRESET."""
    how: Literal["log_linear", "rank"] = "log_linear"
    """Whether scores are added or reciprocal ranks."""
    weights: tuple[Annotated[float, Field(ge=0)], ...] = ()
    """w of each part; empty: chosen on the selection part, alike where there is none."""
    links: tuple[Link, ...] = ()
    """log_linear: f of each part; empty: chosen on the selection part where no score is below 0, the score itself elsewhere."""
    eps: PositiveFloat | None = None
    """log_linear: added before a logarithm is taken; none: chosen on the selection part, .01 where there is none."""
    rank_offset: float = Field(default=60.0, ge=0)
    """rank: c. Larger makes the first places of a list weigh more like the others."""
    depth: PositiveInt = 500
    """How many items each part is asked for; to it an item further down is as good as its last one."""
    settings: Mapping[str, Mapping[str, Any]] = {}
    """Settings of the parts by their labels; what is not given is filled in, so that a model knows what it was made of."""

    @field_validator("parts", mode="before")
    @classmethod
    def _one_text(cls, value: object) -> object:
        """Parts may stand in one text, parted by commas."""
        return [name.strip() for name in value.split(",") if name.strip()] if isinstance(value, str) else value

    @model_validator(mode="after")
    def _fitting(self) -> Self:
        if len(set(self.parts)) < len(self.parts):
            raise ValueError(f"a part stands twice: {', '.join(self.parts)}")
        for name, values in (("weights", self.weights), ("links", self.links)):
            if values and len(values) != len(self.parts):
                raise ValueError(f"{name} holds {len(values)} values for {len(self.parts)} parts")
        if self.weights and not any(self.weights):
            raise ValueError("all weights are 0")
        strange = sorted(set(self.settings) - set(self.parts))
        if strange:
            raise ValueError(f"settings are given for {strange[0]!r}, which is not among the parts")
        return self

    def decided(self) -> Self:
        """The same with plain values for what is still open: equal weights of the scores themselves."""
        count = len(self.parts)
        links: tuple[Link, ...] = self.links or ("score",) * count
        return self.model_copy(
            update={"weights": self.weights or (1.0,) * count, "links": links, "eps": self.eps or 0.01}
        )

    @property
    def open(self) -> bool:
        """Whether a selection part has anything to choose."""
        return not self.weights or (self.how == "log_linear" and not (self.links and self.eps))

    def linked(self, part: int, ranking: Ranking) -> Tensor:
        """What a part says: f of its scores, or its reciprocal ranks, (B, K) float32; 0 where nothing stands."""
        there = ranking.items >= 0
        if self.how == "rank":
            values = 1.0 / (self.rank_offset + torch.arange(1.0, ranking.items.shape[1] + 1)).expand(there.shape)
        elif self.decided().links[part] == "log":
            values = torch.log(ranking.scores.clamp(min=0) + (self.decided().eps or 0.0))
        else:
            values = ranking.scores
        return torch.where(there, values, 0.0)


Ask = Callable[[Query, int, int], Sequence[Ranking]]
"""(query, depth, seed) -> the list of every part."""


class Blend:
    """score = sum of what its parts say, over all items that stand in any of their lists.

    Limits: every part answers every query; one block of queries holds (B, I) sums. While weights are chosen, the lists
    of the selection part are kept in memory: 12 bytes a user, part and place.
    """

    Config: ClassVar[type[FrozenConfig]] = BlendConfig
    Training: ClassVar[type[FrozenConfig]] = FrozenConfig
    presets: ClassVar[Mapping[str, Mapping[str, object]]] = {"rank": {"how": "rank"}}
    controls: ClassVar[Mapping[str, Sequence[str]]] = {}
    # Weights are chosen inside a fit; whatever else may vary belongs to the parts, which are tuned on their own.
    tunable: ClassVar[Mapping[str, Tunable]] = {}

    def __init__(self, config: BlendConfig, parts: Sequence[Method], ask: Ask | None = None) -> None:
        """Args: parts: fitted, in the order of `config.parts`.   ask: how they are asked; None: anew every time."""
        self.config, self.parts, self._ask = config.decided(), tuple(parts), ask or _asking(parts)

    @classmethod
    def fit(cls, config: FrozenConfig, training: FrozenConfig, data: FitData, context: FitContext) -> Self:
        """Fit every part, then choose what is open on the selection part. Raises: InvalidInput where no part can be had."""
        del training, data
        assert isinstance(config, BlendConfig)
        if context.part is None:
            raise InvalidInput(say("blend is built over other methods", remedy="Fit it with rediffuse.fit"))
        parts = [context.part(label, config.settings.get(label, {})) for label in config.parts]
        if context.validate is None:
            return cls(config, parts)
        validate, lists = context.validate, Remembered(_asking(parts))
        return cls(choose(config, lists, lambda tried: validate(cls(tried, parts, lists))), parts)

    @property
    def n_items(self) -> int:
        """Size of the catalog, I."""
        return self.parts[0].n_items

    def recommend(self, query: Query, k: int, *, options: Options = Options(), seed: int = 0) -> Ranking:
        """As `Recommender.recommend`."""
        refuse_options("blend", options.asked())
        depth, asked = min(max(k, self.config.depth), self.n_items), query
        # A rank among candidates is another one than that in the catalog, and must not turn two of them round; and which
        # variant of a product is best, the parts say together.
        grouped = Assortment.of(query.candidates).groups is not None
        if grouped or (self.config.how == "rank" and query.candidates is not None):
            depth, asked = self.n_items, replace(query, candidates=None)
        sums, listed = self._sums(self._ask(asked, depth, seed))
        return top_k(sums.masked_fill_(~listed, NEVER), k, seen=query.exclude, candidates=query.candidates)

    def _sums(self, lists: Sequence[Ranking]) -> tuple[Tensor, Tensor]:
        """What the parts say together, (B, I) float32, and which items stand in any list, (B, I) bool."""
        shape = (len(lists[0]), self.n_items + 1)  # the last column takes what pads a list
        sums, listed = torch.zeros(shape), torch.zeros(shape, dtype=torch.bool)
        for part, ranking in enumerate(lists):
            values, there = self.config.linked(part, ranking), ranking.items >= 0
            at = torch.where(there, ranking.items, self.n_items)
            floor = torch.zeros(len(ranking))
            if self.config.how == "log_linear":
                lowest = values.masked_fill(~there, math.inf).amin(1)
                floor = torch.where(lowest.isinf(), 0.0, lowest)
            whole = floor.unsqueeze(1).expand(shape).scatter(1, at, values)
            sums += self.config.weights[part] * whole
            listed.scatter_(1, at, value=True)
        return sums[:, :-1], listed[:, :-1]

    def settled(self) -> BlendConfig:
        """Its settings with all that was chosen."""
        return self.config

    def state(self) -> dict[str, Tensor]:
        """What the parts learned: the number of the part, a dot, and its own name."""
        return {f"{n}.{name}": t for n, part in enumerate(self.parts) for name, t in part.state().items()}

    @classmethod
    def complete(cls, config: FrozenConfig, settings_of: SettingsOf) -> FrozenConfig:
        """Fill in the settings of the parts."""
        assert isinstance(config, BlendConfig)
        whole = {label: settings_of(label, config.settings.get(label, {})) for label in config.parts}
        return config.model_copy(update={"settings": whole})

    @classmethod
    def restore(
        cls, config: FrozenConfig, state: Mapping[str, Tensor], device: str, part: PartRestorer | None = None
    ) -> Self:
        """Rebuild from `state`; `part` rebuilds each part. Raises: RuntimeError when their catalogs are of unlike size."""
        assert isinstance(config, BlendConfig)
        if part is None:
            raise InvalidInput(say("blend is built over other methods", remedy="Restore it with rediffuse.load"))
        parts = list[Method]()
        for n, label in enumerate(config.parts):
            own = {name.removeprefix(f"{n}."): t for name, t in state.items() if name.startswith(f"{n}.")}
            parts.append(part(label, config.settings.get(label, {}), own, device))
        if len(sizes := {one.n_items for one in parts}) > 1:
            raise RuntimeError(f"the parts rank catalogs of different sizes: {sorted(sizes)}")
        return cls(config, parts)


def _asking(parts: Sequence[Method]) -> Ask:
    """Every part, asked for its best items that may be returned."""
    return lambda query, depth, seed: [part.recommend(query, depth, seed=seed) for part in parts]


@dataclass
class Remembered:
    """Parts that answer the same question once: validation asks the same blocks of subjects again and again."""

    ask: Ask
    known: dict[tuple[bytes, int, int], Sequence[Ranking]] = field(
        default_factory=dict[tuple[bytes, int, int], Sequence[Ranking]]
    )
    """By the keys of the subjects, depth and seed."""

    def __call__(self, query: Query, depth: int, seed: int) -> Sequence[Ranking]:
        """As `Ask`."""
        mark = (query.key.numpy().tobytes(), depth, seed)
        if mark not in self.known:
            self.known[mark] = self.ask(query, depth, seed)
        return self.known[mark]

    def lists_of(self, part: int) -> Iterator[Ranking]:
        """All that one part has answered."""
        return (lists[part] for lists in self.known.values())

    def spread(self, part: int, config: BlendConfig) -> float:
        """How far apart a part puts the items of a list: the mean standard deviation; 1 where it tells none apart."""
        spreads = list[Tensor]()
        for ranking in self.lists_of(part):
            there = (ranking.items >= 0).float()
            count, values = there.sum(1).clamp(min=1), config.linked(part, ranking)
            mean = values.sum(1) / count
            spreads.append(((values - mean.unsqueeze(1)).square() * there).sum(1).div(count).sqrt())
        found = float(torch.cat(spreads).mean()) if spreads else 0.0
        return found if math.isfinite(found) and found > 0 else 1.0


def choose(config: BlendConfig, lists: Remembered, value: Callable[[BlendConfig], float]) -> BlendConfig:
    """What is open in the settings, chosen one coordinate after the other: the link of a part, then its weight.

    A weight is tried in units of 1 / the spread of the part's scores, so that scores of any scale are met.
    Args: lists: fills itself as `value` is asked.   value: the selection metric, higher is better.
    Returns: the settings with all decided; the first of equals.
    """
    best = config.decided()
    if not config.open:
        return best
    units, reached = (1.0,) * len(config.parts), value(best)
    seen = {best.model_dump_json(): reached}
    for part in list(range(len(config.parts))) * ROUNDS:
        for moves in (_links, _weights):
            for moved, links, eps in moves(config, best, units, part, lists):
                tried = _settled(config.model_copy(update={"links": links, "eps": eps}), moved, lists)
                mark = tried.model_dump_json()
                if mark not in seen:
                    seen[mark] = value(tried)
                if seen[mark] > reached:
                    best, units, reached = tried, moved, seen[mark]
    return best


Move = tuple[tuple[float, ...], tuple[Link, ...], float | None]
"""Units, links and eps to try."""


def _settled(config: BlendConfig, units: tuple[float, ...], lists: Remembered) -> BlendConfig:
    """The settings with weights of so many units, unless weights were given."""
    # Reciprocal ranks are on one scale already.
    scales = [1.0 if config.how == "rank" else 1.0 / lists.spread(part, config) for part in range(len(units))]
    weights = config.weights or tuple(unit * scale for unit, scale in zip(units, scales, strict=True))
    return config.model_copy(update={"weights": weights})


def _links(
    config: BlendConfig, now: BlendConfig, units: tuple[float, ...], part: int, lists: Remembered
) -> Iterator[Move]:
    """The links of one part that are open, the other parts as they are now; a logarithm only where no score is below 0."""
    if config.how == "rank":
        return
    can: Sequence[Link] = config.links[part : part + 1] or ("score", "log")
    if not config.links and any(bool((r.scores[r.items >= 0] < 0).any()) for r in lists.lists_of(part)):
        can = ("score",)
    for link in can:
        for eps in (now.eps,) if link == "score" or config.eps is not None else EPS:
            yield units, (*now.links[:part], link, *now.links[part + 1 :]), eps


def _weights(
    config: BlendConfig, now: BlendConfig, units: tuple[float, ...], part: int, lists: Remembered
) -> Iterator[Move]:
    """The weights of one part, where weights are open; one part at least must weigh."""
    del lists
    for unit in () if config.weights else UNITS:
        moved = (*units[:part], unit, *units[part + 1 :])
        if any(moved):
            yield moved, now.links, now.eps
