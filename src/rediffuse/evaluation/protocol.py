"""How a figure was made, as a value printed with it."""

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal, Self

import torch
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor

from rediffuse.config import FrozenConfig
from rediffuse.data.dataset import Dataset
from rediffuse.errors import InvalidConfig, InvalidInput, say, unknown
from rediffuse.evaluation.accuracy import METRICS
from rediffuse.random import stable_key, uniform_of_pairs
from rediffuse.types import Ragged

_SHARE = (0x73686172, 0x65)
"""The stream of draws that decides what belongs to a share of the events."""


class Phase(FrozenConfig):
    """One question to every user: given these parts, which items of that part come next?"""

    relevant: str
    """The part whose items are to be found."""
    history: tuple[str, ...]
    """The parts a method sees of the user."""
    mask: tuple[str, ...]
    """The parts whose items are not recommended again; empty: repeats are allowed."""


class Protocol(FrozenConfig):
    """Full ranking of the whole catalog, ties against us, metrics per user."""

    name: str = "standard"
    """What to call it."""
    fit: tuple[str, ...] = Field(default=("train",), min_length=1)
    """The parts a method learns from."""
    fit_share: float = Field(default=1.0, gt=0, le=1)
    """Share of what users met in those parts that is learned from: whole histories are given all the same."""
    refit: tuple[str, ...] = ()
    """The parts it learns from anew for the report, once settings and epochs are chosen; empty: there is no refit."""
    selection: Phase = Phase(relevant="valid", history=("train",), mask=("train",))
    """Where hyper-parameters and epochs are chosen."""
    report: Phase = Phase(relevant="test", history=("train", "valid"), mask=("train", "valid"))
    """Where figures are read."""
    metrics: tuple[str, ...] = ("recall", "ndcg", "precision", "mrr", "hit", "map")
    """Names of metrics."""
    ks: tuple[PositiveInt, ...] = Field(default=(10, 20), min_length=1)
    """List lengths."""
    select_by: str = "recall@20"
    """The selection metric."""
    candidates: Literal["catalog"] = "catalog"
    """What is ranked: always every item."""
    ties: Literal["against"] = "against"
    """A relevant item stands behind all items of the same score."""
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**63)], ...] = Field(default=(1,), min_length=1)
    """Fixed before the run."""
    allow_leak: bool = False
    """Permit parts later than the relevant one as history or to learn from; the result is then labelled a leak."""

    @model_validator(mode="after")
    def _known_names(self) -> Self:
        for name in self.metrics:
            if name not in METRICS:
                raise ValueError(unknown("metric", name, METRICS))
        if self.select_by not in self.names:
            raise ValueError(unknown("metric", self.select_by, self.names))
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"a seed stands twice: {', '.join(map(str, self.seeds))}")
        return self

    @property
    def title(self) -> str:
        """What to call it beside a figure: its name, and whether lists may hold what a user had."""
        return f"protocol {self.name}, {'history masked' if self.report.mask else 'repeats allowed'}"

    @property
    def names(self) -> tuple[str, ...]:
        """Every metric at every K: recall@10, .."""
        return tuple(f"{metric}@{k}" for metric in self.metrics for k in self.ks)

    def only(self, name: str) -> Self:
        """The same with one metric at one K: what validation while training needs."""
        metric, _, k = name.partition("@")
        return self.model_copy(update={"metrics": (metric,), "ks": (int(k),), "select_by": name})

    def scoring(self, ks: Sequence[int] | None = None, select_by: str | None = None) -> Self:
        """The same with other lengths of lists and another selection metric; the length that selects is among them.

        Raises: InvalidConfig for an unknown metric or an impossible length.
        """
        chosen = select_by or self.select_by
        own = chosen.partition("@")[2]
        lengths = {*(self.ks if ks is None else ks), *((int(own),) if own.isdecimal() else ())}
        return type(self).make(self.model_dump(), ks=tuple(sorted(lengths)), select_by=chosen)

    def leaks(self, dataset: Dataset) -> list[str]:
        """Parts that are given though they lie after what is asked, in words; empty when all is well."""
        split = dataset.split
        if split is None:
            return []
        found: list[str] = []
        if self.selection.relevant == self.report.relevant:
            found.append(f"report: settings are chosen on {self.report.relevant!r} itself")
        for title, phase in (("selection", self.selection), ("report", self.report)):
            later = split.place(phase.relevant)
            learned = ("refit", self.refit) if phase is self.report and self.refit else ("fit", self.fit)
            for use, parts in (("history", phase.history), learned):
                found += [
                    f"{title}: {use} holds {part!r}, which is not earlier than {phase.relevant!r}"
                    for part in parts
                    if split.place(part) >= later
                ]
        return found

    def with_repeats(self) -> Self:
        """The same where an item may be recommended again to somebody who had it: nothing is masked."""
        return self._masking(lambda _: ())

    def without_repeats(self) -> Self:
        """The same where nobody is recommended what they had: what is given as history is masked where nothing else is."""
        return self._masking(lambda phase: phase.mask or phase.history)

    def _masking(self, mask: Callable[[Phase], tuple[str, ...]]) -> Self:
        phases = {"selection": self.selection, "report": self.report}
        return self.model_copy(
            update={name: phase.model_copy(update={"mask": mask(phase)}) for name, phase in phases.items()}
        )

    def of_model(self, trained: "Protocol") -> Self:
        """The same question put to a model trained under another protocol: what it learned from and was chosen on are facts."""
        facts = {name: getattr(trained, name) for name in ("fit", "fit_share", "refit", "selection")}
        return self.model_copy(update=facts)

    def learned(self, dataset: Dataset, parts: Sequence[str]) -> Ragged:
        """The events of some parts that a method learns from, a row per user, oldest first.

        Which item of which user belongs to a share is a function of their external ids: a larger share holds a smaller
        one, and an item that a user met several times is kept or left whole.
        """
        history = dataset.history(*parts)
        return history if self.fit_share == 1 else history.keep(_uniform(history, dataset) < self.fit_share)

    def check(self, dataset: Dataset) -> None:
        """Refuse what would make a figure wrong.

        Raises: InvalidInput when the data has no split, a part is unknown, a K exceeds the catalog, or the future
            is given as history without leave.
        """
        if dataset.split is None:
            raise InvalidInput(
                say(
                    f"Dataset {dataset.name!r} is not split yet",
                    remedy="Run: rediffuse split DATASET RECIPE --to DATASET",
                )
            )
        for phase in (self.selection, self.report):
            for part in (phase.relevant, *phase.history, *phase.mask, *self.fit, *self.refit):
                dataset.split.place(part)
        if max(self.ks) > len(dataset.catalog):
            raise InvalidInput(
                say(
                    "K of a metric exceeds the catalog",
                    got=max(self.ks),
                    allowed=f"1..{len(dataset.catalog)}",
                    remedy="Set smaller ks, and select_by, in a protocol file: --protocol FILE.toml",
                )
            )
        found = self.leaks(dataset)
        if found and not self.allow_leak:
            raise InvalidInput(
                say(
                    f"Protocol {self.name!r} gives the future away: {found[0]}",
                    remedy="Set allow_leak = true to see what it is worth",
                )
            )

    def describe(self, dataset: Dataset) -> dict[str, Any]:
        """The whole value, with the split it was used on."""
        out = self.model_dump(mode="json")
        out["repeats"] = not self.report.mask
        out["split"] = dataset.split.recipe.model_dump(mode="json") if dataset.split else None
        out["leak"] = self.leaks(dataset)
        return out


def _uniform(history: Ragged, dataset: Dataset) -> Tensor:
    """A number in 0 .. 1 for each event, (n,) float64, by the ids of its user and item."""

    def keys(ids: Sequence[str], at: Tensor) -> Tensor:
        return torch.tensor([stable_key(name) for name in ids], dtype=torch.int64)[at]

    users, items = keys(dataset.users.items.ids, history.rows), keys(dataset.catalog.items.ids, history.items)
    return uniform_of_pairs(users, items, _SHARE)


def protocol_for(dataset: Dataset, name: str | None = None, **changes: Any) -> Protocol:
    """The protocol of that name which came with the data, the first when none is named, else the standard one.

    Where the data allows repeats, nothing is masked.

    Args: changes: values for other keys (`ks`, `seeds`, ..).
    Raises: InvalidConfig for an unknown name.
    """
    shipped = dataset.protocols
    if name is None:
        found = Protocol.make(next(iter(shipped.values()), {}), **changes)
    elif name in shipped:
        found = Protocol.make(shipped[name], **changes)
    elif name == "standard":
        found = Protocol.make(changes)
    else:
        raise InvalidConfig(unknown("protocol", name, [*shipped, "standard"]))
    return found.with_repeats() if dataset.repeats == "allow" else found
