"""The one table of methods, and the way from a name to a fitted model or from a folder to answers.

A third party adds a method by an entry point in the group `rediffuse.methods`: its name, and `module:Class` of a
class that keeps the `Method` protocol. A model folder can only name what stands here.
"""

import importlib
import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor

import rediffuse
from rediffuse.artifacts import ModelFolder, read_model, write_model
from rediffuse.baselines.popularity import Popularity
from rediffuse.config import FrozenConfig, RunConfig
from rediffuse.data.context import contexts_of
from rediffuse.data.dataset import Dataset
from rediffuse.data.vocabulary import Vocabulary
from rediffuse.denoisers.conditioning import HISTORY
from rediffuse.errors import ArtifactError, InvalidConfig, InvalidInput, say, unknown
from rediffuse.evaluation.consumption import Calibrated, fit_calibrator
from rediffuse.evaluation.evaluate import Task, evaluate
from rediffuse.evaluation.protocol import Protocol
from rediffuse.facade import Model
from rediffuse.grounding.diverse import Diverse
from rediffuse.grounding.fallback import WithFallback
from rediffuse.grounding.filters import attributes_of
from rediffuse.protocols import (
    CheckpointStore,
    Composed,
    Context,
    FitContext,
    FitData,
    Method,
    Progress,
    Range,
    Recommender,
    Tunable,
)
from rediffuse.random import stable_key
from rediffuse.spaces.item_vectors import item_vectors
from rediffuse.spaces.tables import TablesConfig

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
    floors: tuple[str, ...] = ()
    """What it must beat, each NAME or NAME:PRESET: `compare` shows them beside it."""


SEQUENCE_FLOORS = ("popularity", "ease", "markov", "sasrec")
"""What a model of sequences must beat."""

METHODS: Mapping[str, Entry] = {
    "popularity": Entry("rediffuse.baselines.popularity:Popularity", "control"),
    "item_knn": Entry("rediffuse.baselines.item_knn:ItemKNN", "classic"),
    "pure_svd": Entry("rediffuse.baselines.pure_svd:PureSVD", "classic"),
    "ease": Entry("rediffuse.baselines.ease:EASE", "classic"),
    "als": Entry("rediffuse.baselines.als:ALS", "classic"),
    "multvae": Entry("rediffuse.baselines.multvae:MultVAE", "classic"),
    "blend": Entry("rediffuse.baselines.blend:Blend", "classic"),
    "mf": Entry("rediffuse.baselines.mf:MF", "classic"),
    "lightgcn": Entry("rediffuse.baselines.lightgcn:LightGCN", "classic"),
    "sgl": Entry("rediffuse.baselines.sgl:SGL", "classic"),
    "markov": Entry("rediffuse.baselines.markov:Markov", "classic"),
    "sasrec": Entry("rediffuse.baselines.sasrec:SASRec", "classic", floors=("popularity", "ease", "markov")),
    "diffrec": Entry("rediffuse.models.diffrec:DiffRec", "diffusion"),
    "t-diffrec": Entry("rediffuse.models.diffrec:DiffRec", "diffusion", {"recency": "linear"}),
    "l-diffrec": Entry("rediffuse.models.l_diffrec:LDiffRec", "diffusion"),
    "lt-diffrec": Entry("rediffuse.models.l_diffrec:LDiffRec", "diffusion", {"recency": "linear"}),
    "history_mean": Entry("rediffuse.baselines.history_mean:HistoryMean", "control"),
    "ddrm": Entry("rediffuse.models.ddrm:DDRM", "diffusion", floors=("popularity", "ease", "lightgcn", "history_mean")),
    "dreamrec": Entry("rediffuse.models.dreamrec:DreamRec", "diffusion", floors=SEQUENCE_FLOORS),
    "preferdiff": Entry("rediffuse.models.preferdiff:PreferDiff", "diffusion", floors=SEQUENCE_FLOORS),
    "diffurec": Entry("rediffuse.models.diffurec:DiffuRec", "diffusion", floors=SEQUENCE_FLOORS),
}


def methods() -> dict[str, Entry]:
    """All registered methods: ours, then those of installed packages."""
    foreign = {point.name: Entry(point.value) for point in entry_points(group="rediffuse.methods")}
    return {**foreign, **METHODS}


RECENCY: Mapping[str, Mapping[str, Tunable]] = {
    "linear": {"weight_min": Range(0.0, 1.0)},
    "exponential": {"half_life": Range(1.0, 200.0, log=True)},
    "days": {"half_life_days": Range(1.0, 365.0, log=True)},
}
"""What tuning may vary in recency weights."""


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

    def changed(self, settings: Mapping[str, Any]) -> "Recipe":
        """The same with some settings changed."""
        config, training = _decided(self.method, {**self.config.model_dump(), **self.training.model_dump(), **settings})
        return replace(self, config=config, training=training)

    def tunable(self) -> dict[str, Tunable]:
        """What tuning may vary: what the method names, how fast it forgets where it does, but not what makes a control one."""
        settings, fixed = vars(self.config), self.method.controls.get(self.preset or "", ())
        ages = "days" if settings.get("half_life_days") is not None else str(settings.get("recency"))
        known = {**self.method.tunable, **RECENCY.get(ages, {})}
        return {key: values for key, values in known.items() if key not in fixed}

    @property
    def settings(self) -> dict[str, Any]:
        """All of them, ready for JSON."""
        return {**self.config.model_dump(mode="json"), **self.training.model_dump(mode="json")}

    def describe(self) -> dict[str, Any]:
        """Name and settings, ready for JSON."""
        return {"name": self.name, **self.settings}

    @property
    def parts(self) -> "list[Recipe]":
        """What it is built over, where it answers with other methods or with their tables."""
        if isinstance(self.config, TablesConfig) and self.config.tables is None:
            return [recipe(*named(self.config.backbone), self.config.backbone_settings)]
        if not issubclass(self.method, Composed):
            return []
        return [recipe(*named(label), settings) for label, settings in vars(self.config)["settings"].items()]

    @property
    def summary(self) -> str:
        """What the method is: the first line of its module's docstring."""
        return (sys.modules[self.method.__module__].__doc__ or "").strip().partition("\n")[0]

    @property
    def changed_keys(self) -> list[str]:
        """The settings that differ from the defaults of the class."""
        return [key for kind in (self.config, self.training) for key in kind.model_dump(exclude_defaults=True)]

    @property
    def conditions(self) -> Sequence[str]:
        """What steers its answers, or those of its parts, where their settings name anything."""
        of_parts = (name for part in self.parts for name in part.conditions)
        return tuple(dict.fromkeys((*vars(self.config).get("condition", ()), *of_parts)))

    @property
    def seeded(self) -> bool:
        """Whether the seed of training matters."""
        return bool(type(self.training).model_fields) or any(part.seeded for part in self.parts)


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
    return Recipe(name, method, *_decided(method, merged), role_of(name, preset), preset)


def _decided(method: type[Method], values: Mapping[str, Any]) -> tuple[FrozenConfig, FrozenConfig]:
    """What a method is and how it is trained; a method that answers with others has their settings written out."""
    config, training = (
        kind.make({key: value for key, value in values.items() if key in kind.model_fields})
        for kind in (method.Config, method.Training)
    )
    return (method.complete(config, _whole) if issubclass(method, Composed) else config), training


def _whole(label: str, settings: Mapping[str, object]) -> Mapping[str, object]:
    """All settings of a part. None goes without saying where it is the default: TOML has no word for it."""
    chosen = recipe(*named(label), settings)
    plain = {**type(chosen.config).model_fields, **type(chosen.training).model_fields}
    return {key: v for key, v in chosen.settings.items() if v is not None or plain[key].default is not None}


def role_of(name: str, preset: str | None = None) -> Role:
    """What a method is in a comparison; some presets are controls."""
    return "control" if preset in method_class(name).controls else methods()[name].role


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
    course: Sequence[Progress] = ()
    """How the training on the selection part went, epoch by epoch; empty for closed forms."""

    def write(self, folder: Path) -> None:
        """Publish as a model folder. Raises: InvalidInput when it exists already."""
        write_model(folder, self.folder)

    def noting(self, **made: Any) -> "Fitted":
        """The same with more said on how it came to be."""
        return replace(self, folder=replace(self.folder, made={**self.folder.made, **made}))


def fit(
    chosen: Recipe,
    dataset: Dataset,
    protocol: Protocol,
    run: RunConfig,
    *,
    report: Callable[[Progress], None] = lambda _: None,
    checkpoints: Callable[[str], CheckpointStore | None] = lambda _: None,
    earlier: ModelFolder | None = None,
    refit: bool = True,
) -> Fitted:
    """Train a method on the parts the protocol names, choosing epochs on its selection part; then refit if it says so.

    Args: checkpoints: "training" or "refit" -> where that part of the work keeps its state.
        earlier: a model of this method to go on from; its items must be the first of the catalog.
        refit: False leaves a refit out, as tuning does.
    Raises: InvalidInput when protocol, data and method do not fit together.
    """
    protocol.check(dataset)
    run = run.resolve()
    data = _fit_data(dataset, protocol, protocol.fit, chosen)
    initial = None if earlier is None else _initial(earlier, dataset, chosen, data.contexts)
    popularity = data.users_per_item()
    task = Task.of(dataset, protocol.selection)
    only = protocol.only(protocol.select_by)
    courses: dict[str, list[Progress]] = {}

    def validate(model: Recommender) -> float:
        return evaluate(WithFallback(model, popularity), task, only, seed=run.seed).mean(protocol.select_by)

    course: list[Progress] = []

    def note(progress: Progress) -> None:
        if not progress.partial:
            course.append(progress)
        report(progress)

    began = time.perf_counter()
    context = FitContext(run, validate, report, checkpoints("training"), initial)
    context = replace(with_parts(context, data, courses, checkpoints), report=note)  # parts have courses of their own
    method = chosen.method.fit(chosen.config, chosen.training, data, context)
    seconds = time.perf_counter() - began
    if isinstance(method, Composed):
        chosen = replace(chosen, config=method.settled())
    selection = evaluate(WithFallback(method, popularity), task, protocol, seed=run.seed)
    control = evaluate(Popularity(popularity), task, protocol, seed=run.seed) if refit else None
    calibrator = fit_calibrator(WithFallback(method, popularity), task, popularity, seed=run.seed) if refit else None
    best = max((p.epoch for p in course if p.best), default=0)
    parts = protocol.fit
    if refit and protocol.refit:
        parts, data = protocol.refit, _fit_data(dataset, protocol, protocol.refit, chosen)
        popularity = data.users_per_item()
        context = FitContext(run, None, report, checkpoints("refit"), initial)
        context = with_parts(context, data, courses, checkpoints)
        began = time.perf_counter()
        method = chosen.method.fit(chosen.config, _as_long(chosen.training, course), data, context)
        seconds += time.perf_counter() - began
    vectors = _vectors(data) if refit else None
    epochs = {"epochs": course[-1].epoch, "best_epoch": best} if course else {}
    folder = ModelFolder(
        method=chosen.name,
        config=chosen.config.model_dump(mode="json"),
        training=chosen.training.model_dump(mode="json"),
        run=run.model_dump(mode="json"),
        protocol=protocol.describe(dataset),
        metrics={name: interval.to_json() for name, interval in selection.intervals.items()},
        data={
            "name": dataset.name,
            "content_sha256": dataset.digest(),
            "fit": list(parts),
            "until_us": None if data.history.time_us is None else int(data.history.time_us.max()),
            **({} if earlier is None else {"earlier": _learned(earlier)}),
            "users": len(dataset.users),
            "events": len(dataset.events),
            "time_zone": dataset.time_zone,
            "contexts": {name: list(context.names) for name, context in data.contexts.items()},
        },
        items=dataset.catalog.items.ids,
        titles=tuple(dataset.catalog.titles()),
        popularity=popularity,
        tensors=method.state(),
        made={
            **versions(),
            "preset": chosen.preset,
            "summary": chosen.summary,
            "changed": chosen.changed_keys,
            "controls": {"popularity": {n: i.to_json() for n, i in control.intervals.items()}} if control else {},
            "fit_seconds": round(seconds, 3),
            **epochs,
            **({"course": [course_json(p) for p in course]} if course else {}),
        },
        vectors=vectors,
        calibrator=calibrator,
        attributes=attributes_of(dataset.catalog),
    )
    return Fitted(chosen, method, _answering(method, folder), seconds, folder, course)


def with_parts(
    context: FitContext,
    data: FitData,
    courses: dict[str, list[Progress]] | None = None,
    checkpoints: Callable[[str], CheckpointStore | None] = lambda _: None,
) -> FitContext:
    """The same for a method that is built over others: it may have any of the registry fitted on the same data.

    Args: courses: how the trainings of parts went on the selection part, which a refit follows; entered here otherwise.
    """
    known = {} if courses is None else courses

    def part(label: str, settings: Mapping[str, object]) -> Method:
        chosen = recipe(*named(label), settings)
        stage = "refit" if context.validate is None and label in known else "training"
        training = _as_long(chosen.training, known[label]) if stage == "refit" else chosen.training
        course = known.setdefault(label, []) if stage == "training" else []

        def note(progress: Progress) -> None:
            if not progress.partial:
                course.append(progress)
            context.report(progress)

        own = replace(context, report=note, checkpoint=checkpoints(f"{stage}-{label}"), initial=None)
        return chosen.method.fit(chosen.config, training, data, with_parts(own, data, known, checkpoints))

    return replace(context, part=part)


def named(label: str) -> tuple[str, str | None]:
    """NAME or NAME:PRESET, parted."""
    name, _, preset = label.partition(":")
    return name, preset or None


def course_json(progress: Progress) -> dict[str, Any]:
    """One epoch of a training, ready for JSON: what the log and the model folder hold."""
    names = ("epoch", "loss", "validation", "seconds", "best")
    return {name: getattr(progress, name) for name in names}


def _fit_data(dataset: Dataset, protocol: Protocol, parts: Sequence[str], chosen: Recipe) -> FitData:
    """What a method learns from: the events of some parts, with what its settings name as conditions."""
    history = protocol.learned(dataset, parts)
    contexts = contexts_of(dataset, [name for name in chosen.conditions if name != HISTORY], history)
    users, items = (
        torch.tensor([stable_key(name) for name in known.ids], dtype=torch.int64)
        for known in (dataset.users.items, dataset.catalog.items)
    )
    return FitData(history, len(dataset.catalog), dataset.events.order, contexts, users, items)


def _as_long(training: FrozenConfig, course: Sequence[Progress]) -> FrozenConfig:
    """As many epochs as were best: none where an earlier model was, all that ran where nothing told them apart."""
    if not course:
        return training
    told = any(p.validation is not None for p in course)
    best = max((p.epoch for p in course if p.best), default=0)
    return training.model_copy(update={"epochs": best if told else course[-1].epoch})


def _learned(earlier: ModelFolder) -> list[dict[str, Any]]:
    """What a model and those before it learned from: content hash and time of the last event."""
    own = {key: earlier.data.get(key) for key in ("content_sha256", "until_us")}
    return [*earlier.data.get("earlier", []), own]


def _initial(
    earlier: ModelFolder, dataset: Dataset, chosen: Recipe, contexts: Mapping[str, Context]
) -> Mapping[str, Tensor]:
    """What an earlier model learned, once it is clear that it fits. Raises: InvalidInput when it does not."""
    if dataset.catalog.items.ids[: len(earlier.items)] != earlier.items:
        raise InvalidInput(
            say(
                "The items of the earlier model are not the first of this catalog, in its order",
                remedy="Let `train --from` number them, or use Dataset.numbered_like",
            )
        )
    # A network knows its conditions by their places.
    conditions = list(vars(chosen.config).get("condition", ()))
    if conditions != (known := list(earlier.config.get("condition", ()))):
        raise InvalidInput(
            say(
                "The conditions are not those of the earlier model, in its order",
                got=conditions,
                allowed=known,
                remedy="Leave them as they were, or train from scratch",
            )
        )
    check_words(earlier, contexts, who="the earlier model", remedy="Train from scratch")
    return earlier.tensors


def check_words(folder: ModelFolder, contexts: Mapping[str, Context], *, who: str, remedy: str) -> None:
    """Refuse conditions whose words are not those of a model, which knows them by their places.

    Args: contexts: of some data; a condition of which it tells nothing is no harm.   who, remedy: for the message.
    Raises: InvalidInput.
    """
    for name, words in folder.data.get("contexts", {}).items():
        if name in contexts and list(contexts[name].names) != words:
            raise InvalidInput(
                say(
                    f"The values of the condition {name!r} are not those that {who} knows",
                    got=list(contexts[name].names),
                    allowed=words,
                    remedy=remedy,
                )
            )


def restore(folder: ModelFolder, device: str = "auto") -> tuple[Method, Recommender]:
    """Rebuild the method of a folder, bare and with its fallback.

    Raises: ArtifactError when the method is unknown here, or weights do not fit its settings or the vocabulary.
    """
    if folder.method not in methods():
        raise ArtifactError(unknown("method", folder.method, methods()))
    config = method_class(folder.method).Config
    try:
        on = RunConfig(device=device).resolve().device
        method = _rebuilt(folder.method, config.make(folder.config), folder.tensors, on)
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
    return method, _answering(method, folder)


def _rebuilt(name: str, config: FrozenConfig, state: Mapping[str, Tensor], device: str) -> Method:
    """A method from its settings and tensors, with its parts where it answers with others."""
    cls = method_class(name)
    if not issubclass(cls, Composed):
        return cls.restore(config, state, device)

    def part(label: str, settings: Mapping[str, object], state: Mapping[str, Tensor], device: str) -> Method:
        own, _ = named(label)
        return _rebuilt(own, recipe(own, None, settings).config, state, device)

    return cast("type[Composed]", cls).restore(config, state, device, part)


def _answering(method: Method, folder: ModelFolder) -> Recommender:
    """The method with its fallback, with what its places are worth where that is known, and with unlike items likewise."""
    model: Recommender = WithFallback(method, folder.popularity)
    if folder.calibrator is not None:
        model = Calibrated(model, folder.calibrator, folder.popularity)
    return model if folder.vectors is None else Diverse(model, folder.vectors)


def _vectors(data: FitData) -> Tensor | None:
    """What items are alike; None where the data is too small to tell."""
    if min(int((data.history.lengths > 0).sum()), data.n_items) < 2:
        return None
    return item_vectors(data.history, data.n_items)


def fitted(chosen: Recipe, folder: ModelFolder, device: str = "auto") -> Fitted:
    """What `fit` had returned before the folder was written."""
    method, model = restore(folder, device)
    course = [
        Progress(p["epoch"], p["epoch"], p["loss"], p["seconds"], p["validation"], p["best"])
        for p in folder.made.get("course", [])
    ]
    return Fitted(chosen, method, model, folder.made["fit_seconds"], folder, course)


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
