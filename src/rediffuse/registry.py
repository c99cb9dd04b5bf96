"""The one table of methods, and the way from a name to a fitted model or from a folder to answers.

A third party adds a method by an entry point in the group `rediffuse.methods`: its name, and `module:Class` of a
class that keeps the `Method` protocol. A model folder can only name what stands here.
"""

import importlib
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Literal, cast

import torch

import rediffuse
from rediffuse.artifacts import ModelFolder, read_model, write_model
from rediffuse.config import FrozenConfig, RunConfig
from rediffuse.data.dataset import Dataset
from rediffuse.data.vocabulary import Vocabulary
from rediffuse.errors import ArtifactError, InvalidConfig, say, unknown
from rediffuse.evaluation.evaluate import Task, evaluate
from rediffuse.evaluation.protocol import Protocol
from rediffuse.facade import Model
from rediffuse.grounding.fallback import WithFallback
from rediffuse.protocols import CheckpointStore, FitContext, FitData, Method, Progress, Recommender

Role = Literal["control", "classic", "diffusion", "method"]


@dataclass(frozen=True)
class Entry:
    """One line of the table."""

    target: str
    """module:Class."""
    role: Role = "method"
    """What it is in a comparison."""
    defaults: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Settings under which this name knows the class."""


METHODS: Mapping[str, Entry] = {
    "popularity": Entry("rediffuse.baselines.popularity:Popularity", "control"),
    "item_knn": Entry("rediffuse.baselines.item_knn:ItemKNN", "classic"),
    "pure_svd": Entry("rediffuse.baselines.pure_svd:PureSVD", "classic"),
    "ease": Entry("rediffuse.baselines.ease:EASE", "classic"),
    "diffrec": Entry("rediffuse.models.diffrec:DiffRec", "diffusion"),
    "t-diffrec": Entry("rediffuse.models.diffrec:DiffRec", "diffusion", {"recency": "linear"}),
}


def methods() -> dict[str, Entry]:
    """All registered methods: ours, then those of installed packages."""
    foreign = {point.name: Entry(point.value) for point in entry_points(group="rediffuse.methods")}
    return {**foreign, **METHODS}


@dataclass(frozen=True)
class Recipe:
    """A method with every setting decided."""

    name: str
    method: type[Method]
    config: FrozenConfig
    training: FrozenConfig
    role: Role
    preset: str | None = None

    @property
    def label(self) -> str:
        """Name or name:preset."""
        return f"{self.name}:{self.preset}" if self.preset else self.name

    @property
    def seeded(self) -> bool:
        """Whether the seed of training matters."""
        return bool(type(self.training).model_fields)


def method_class(name: str) -> type[Method]:
    """Import the class behind a name. Raises: InvalidConfig for an unknown one."""
    known = methods()
    if name not in known:
        raise InvalidConfig(unknown("method", name, known))
    module, _, attribute = known[name].target.partition(":")
    return cast("type[Method]", vars(importlib.import_module(module))[attribute])


def recipe(name: str, preset: str | None = None, settings: Mapping[str, Any] | None = None) -> Recipe:
    """Decide every setting: defaults of the name, then the preset, then `settings`.

    Raises: InvalidConfig when a name, preset or key is unknown (the nearest is named) or a value is impossible.
    """
    method = method_class(name)
    if preset is not None and preset not in method.presets:
        raise InvalidConfig(unknown("preset", preset, method.presets))
    chosen = method.presets[preset] if preset else {}
    merged = {**methods()[name].defaults, **chosen, **(settings or {})}
    known = [*method.Config.model_fields, *method.Training.model_fields]
    for key in merged:
        if key not in known:
            raise InvalidConfig(unknown("key", key, known))
    config, training = (
        kind.make({key: value for key, value in merged.items() if key in kind.model_fields})
        for kind in (method.Config, method.Training)
    )
    role: Role = "control" if preset in method.controls else methods()[name].role
    return Recipe(name, method, config, training, role, preset)


@dataclass(frozen=True)
class Fitted:
    """A trained method, with what it took."""

    recipe: Recipe
    method: Method
    model: Recommender
    """The method, with its fallback."""
    seconds: float
    folder: ModelFolder
    """Ready to be written."""

    def write(self, folder: Path) -> None:
        """Publish as a model folder. Raises: InvalidInput when it exists already."""
        write_model(folder, self.folder)


def fit(
    chosen: Recipe,
    dataset: Dataset,
    protocol: Protocol,
    run: RunConfig,
    *,
    report: Callable[[Progress], None] = lambda _: None,
    checkpoint: CheckpointStore | None = None,
) -> Fitted:
    """Train a method on the parts the protocol names, choosing epochs on its selection part.

    Raises: InvalidInput when protocol, data and method do not fit together.
    """
    protocol.check(dataset)
    run = run.resolve()
    history = dataset.history(*protocol.fit)
    data = FitData(history, len(dataset.catalog), dataset.events.order)
    popularity = data.users_per_item()
    task = Task.of(dataset, protocol.selection)
    only = protocol.only(protocol.select_by)

    def validate(model: Recommender) -> float:
        return evaluate(WithFallback(model, popularity), task, only, seed=run.seed).mean(protocol.select_by)

    course: dict[str, int] = {}

    def note(progress: Progress) -> None:
        course["epochs"] = progress.epoch
        if progress.best:
            course["best_epoch"] = progress.epoch
        report(progress)

    began = time.perf_counter()
    method = chosen.method.fit(chosen.config, chosen.training, data, FitContext(run, validate, note, checkpoint))
    seconds = time.perf_counter() - began
    model = WithFallback(method, popularity)
    selection = evaluate(model, task, protocol, seed=run.seed)
    folder = ModelFolder(
        method=chosen.name,
        config=chosen.config.model_dump(mode="json"),
        training=chosen.training.model_dump(mode="json"),
        run=run.model_dump(mode="json"),
        protocol=protocol.describe(dataset),
        metrics={name: interval.to_json() for name, interval in selection.intervals.items()},
        data={"name": dataset.name, "content_sha256": dataset.digest(), "fit": list(protocol.fit)},
        items=dataset.catalog.items.ids,
        titles=tuple(dataset.catalog.titles()),
        popularity=popularity,
        tensors=method.state(),
        made={**versions(), "preset": chosen.preset, "fit_seconds": round(seconds, 3), **course},
    )
    return Fitted(chosen, method, model, seconds, folder)


def restore(folder: ModelFolder, device: str = "auto") -> tuple[Method, Recommender]:
    """Rebuild the method of a folder, bare and with its fallback.

    Raises: ArtifactError when the method is unknown here, or weights do not fit its settings or the vocabulary.
    """
    if folder.method not in methods():
        raise ArtifactError(unknown("method", folder.method, methods()))
    cls = method_class(folder.method)
    try:
        method = cls.restore(cls.Config.make(folder.config), folder.tensors, RunConfig(device=device).resolve().device)
    except (KeyError, RuntimeError, InvalidConfig) as error:
        raise ArtifactError(
            say(f"The weights or settings of this {folder.method} do not fit", got=str(error), remedy="Train it anew")
        ) from None
    if method.n_items != len(folder.items):
        raise ArtifactError(
            say(
                f"The model ranks {method.n_items} items, its vocabulary has {len(folder.items)}",
                remedy="Train it anew",
            )
        )
    return method, WithFallback(method, folder.popularity)


def load(folder: str | Path, *, device: str = "auto") -> Model:
    """A model folder -> a model that speaks external ids. Raises: ArtifactError when anything in it is wrong."""
    found = read_model(Path(folder))
    _, model = restore(found, device)
    return Model(found.method, model, Vocabulary(found.items), found.titles, found)


def versions() -> dict[str, str]:
    """What made a result: versions of rediffuse, torch and Python, and the processor."""
    return {
        "rediffuse": rediffuse.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
    }
