"""The one table of methods, and what a name says: its class, its presets, its settings.

A third party adds a method by an entry point in the group `rediffuse.methods`: its name, and `module:Class` of a
class that keeps the `Method` protocol. A model folder can only name what stands here.
"""

import importlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import entry_points
from typing import Any, Literal, cast

from rediffuse.config import FrozenConfig
from rediffuse.errors import InvalidConfig, unknown
from rediffuse.protocols import Composed, Method, Range, Tunable
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
        if isinstance(self.config, TablesConfig) and self.config.fitted_first:
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


def named(label: str) -> tuple[str, str | None]:
    """NAME or NAME:PRESET, parted."""
    name, _, preset = label.partition(":")
    return name, preset or None


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
