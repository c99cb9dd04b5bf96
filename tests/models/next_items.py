"""Small diffusions over next items, trained and not, and what they are asked."""

from typing import Any

import torch

from rediffuse.config import RunConfig
from rediffuse.models.diffurec import DiffuRec
from rediffuse.models.dreamrec import DreamRec
from rediffuse.models.next_item import NextItem, NextItemConfig
from rediffuse.models.preferdiff import PreferDiff
from rediffuse.protocols import FitContext, FitData
from rediffuse.training.loop import TrainingConfig
from rediffuse.types import Query, Ragged

ITEMS = 12
METHODS: dict[str, type[NextItem]] = {"dreamrec": DreamRec, "preferdiff": PreferDiff, "diffurec": DiffuRec}
SMALL: dict[str, Any] = {"width": 8, "encoder_heads": 2, "encoder_layers": 1, "levels": 5, "history_length": 4}
DRAWN: dict[str, Any] = {"start": "pure_noise", "sampling_noise": True}
RUN = RunConfig(device="cpu", threads=1, seed=4)
TRAINING = TrainingConfig(learning_rate=5e-3, batch_size=16, epochs=6, validate_every=2, patience=100)


def config(name: str, **changes: object) -> NextItemConfig:
    made = METHODS[name].Config.make({**SMALL, **changes})
    assert isinstance(made, NextItemConfig)
    return made


def made(name: str, **changes: object) -> NextItem:
    """An untrained model in float64."""
    settings, cls = config(name, **changes), METHODS[name]
    return cls(settings, cls.network_of(settings, ITEMS, torch.Generator().manual_seed(3)).double())


def cycles(users: int = 40, length: int = 6) -> Ragged:
    """Whoever took an item takes the one after it next."""
    return Ragged.of([[(user + step) % ITEMS for step in range(length)] for user in range(users)])


def data(**changes: object) -> FitData:
    return FitData(**{"history": cycles(), "n_items": ITEMS, "order": "sequence", **changes})  # type: ignore[arg-type]


def trained(
    name: str,
    changes: dict[str, object] | None = None,
    training: TrainingConfig = TRAINING,
    of: FitData | None = None,
    **context: object,
) -> NextItem:
    settings = config(name, **(changes or {}))
    return METHODS[name].fit(settings, training, of or data(), FitContext(RUN, **context))  # type: ignore[arg-type]


def query() -> Query:
    """Histories of several lengths, one longer than is read and one empty."""
    return Query.from_history(Ragged.of([[0, 1, 2], [7], [5, 6, 7, 8, 9, 10], [], [3, 4]]))
