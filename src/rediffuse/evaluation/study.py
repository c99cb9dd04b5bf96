"""One question put to one trained model: what a study is given, and what it finds."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from rediffuse.data.dataset import Dataset
from rediffuse.evaluation.beyond_accuracy import Background
from rediffuse.evaluation.evaluate import Task
from rediffuse.evaluation.protocol import Protocol
from rediffuse.evaluation.report.blocks import Section
from rediffuse.protocols import Recommender
from rediffuse.types import Options


@dataclass(frozen=True)
class Examined:
    """A trained model and the data it is seen on."""

    name: str
    """What to call it."""
    model: Recommender
    """Answers with its fallback."""
    dataset: Dataset
    protocol: Protocol
    options: Options = Options()
    """How it is asked, unless a study varies just that."""
    seed: int = 0

    @cached_property
    def task(self) -> Task:
        """The part that figures are read on."""
        return Task.of(self.dataset, self.protocol.report)

    @cached_property
    def selection(self) -> Task:
        """The part that settings are chosen on."""
        return Task.of(self.dataset, self.protocol.selection)

    @cached_property
    def background(self) -> Background:
        """What lists are seen against."""
        return Background.of(self.dataset, self.protocol, self.task)


@dataclass(frozen=True)
class Study:
    """What was found: to be read by people, and by programs."""

    section: Section
    """A part of a page: the finding in words first, then pictures and tables."""
    values: Mapping[str, Any]
    """Every figure with its interval, ready for JSON."""
