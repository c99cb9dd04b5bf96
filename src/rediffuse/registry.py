"""From a name to a fitted model, and from a folder to answers; the names themselves stand in `recipes.py`."""

import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

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
    Recommender,
)
from rediffuse.random import stable_key
from rediffuse.recipes import (
    METHODS,
    SEQUENCE_FLOORS,
    Entry,
    Recipe,
    method_class,
    methods,
    named,
    recipe,
    role_of,
)
from rediffuse.spaces.item_vectors import item_vectors

__all__ = [
    "METHODS",
    "SEQUENCE_FLOORS",
    "Entry",
    "Fitted",
    "Recipe",
    "check_words",
    "course_json",
    "fit",
    "fitted",
    "load",
    "method_class",
    "methods",
    "named",
    "recipe",
    "restore",
    "role_of",
    "versions",
    "with_parts",
]


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
    parts = protocol.fit
    if refit and protocol.refit:
        parts, data = protocol.refit, _fit_data(dataset, protocol, protocol.refit, chosen)
        popularity = data.users_per_item()
        context = FitContext(run, None, report, checkpoints("refit"), initial)
        context = with_parts(context, data, courses, checkpoints)
        began = time.perf_counter()
        method = chosen.method.fit(chosen.config, _as_long(chosen.training, course), data, context)
        seconds += time.perf_counter() - began
    folder = ModelFolder(
        method=chosen.name,
        config=chosen.config.model_dump(mode="json"),
        training=chosen.training.model_dump(mode="json"),
        run=run.model_dump(mode="json"),
        protocol=protocol.describe(dataset),
        metrics={name: interval.to_json() for name, interval in selection.intervals.items()},
        data=_origin(dataset, data, parts, earlier),
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
            **_ran(course),
        },
        vectors=_vectors(data) if refit else None,
        calibrator=calibrator,
        attributes=attributes_of(dataset.catalog),
    )
    answering = _answering(method, folder)
    if refit:
        folder = replace(folder, golden=_speaking(answering, folder).golden())
    return Fitted(chosen, method, answering, seconds, folder, course)


def _origin(dataset: Dataset, data: FitData, parts: Sequence[str], earlier: ModelFolder | None) -> dict[str, Any]:
    """What a model learned from, as its folder tells. Args: data: of those parts.   earlier: the model it went on from."""
    return {
        "name": dataset.name,
        "content_sha256": dataset.digest(),
        "fit": list(parts),
        "until_us": None if data.history.time_us is None else int(data.history.time_us.max()),
        **({} if earlier is None else {"earlier": _learned(earlier)}),
        **({"store": dataset.facts["store"]} if "store" in dataset.facts else {}),
        "users": len(dataset.users),
        "events": len(dataset.events),
        "time_zone": dataset.time_zone,
        "contexts": {name: list(context.names) for name, context in data.contexts.items()},
    }


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


def _best(course: Sequence[Progress]) -> int:
    """The epoch of the best validation, 0 where there was none."""
    return max((p.epoch for p in course if p.best), default=0)


def _ran(course: Sequence[Progress]) -> dict[str, Any]:
    """How a training went, as a model folder tells; nothing of closed forms."""
    if not course:
        return {}
    epochs = {"epochs": course[-1].epoch, "best_epoch": _best(course)}
    return {**epochs, "course": [course_json(p) for p in course]}


def _as_long(training: FrozenConfig, course: Sequence[Progress]) -> FrozenConfig:
    """As many epochs as were best: none where an earlier model was, all that ran where nothing told them apart."""
    if not course:
        return training
    told = any(p.validation is not None for p in course)
    return training.model_copy(update={"epochs": _best(course) if told else course[-1].epoch})


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
    return _speaking(model, found)


def _speaking(model: Recommender, folder: ModelFolder) -> Model:
    return Model(folder.method, model, Vocabulary(folder.items), folder.titles, folder)


def versions() -> dict[str, str]:
    """What made a result: versions of rediffuse, torch and Python, and the processor."""
    return {
        "rediffuse": rediffuse.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
    }
