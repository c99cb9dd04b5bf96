"""The studies that `evaluate` runs: which flag is which study, what each needs of a model, and whom it is held against."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rediffuse import registry
from rediffuse.artifacts import ModelFolder, read_model
from rediffuse.baselines.popularity import Popularity
from rediffuse.cli.console import waiting
from rediffuse.data.context import context_names, contexts_of
from rediffuse.data.dataset import Dataset
from rediffuse.errors import InvalidInput, say
from rediffuse.evaluation.protocol import Protocol
from rediffuse.evaluation.studies.diversity import diversity_front
from rediffuse.evaluation.studies.guidance import guidance_sweep
from rediffuse.evaluation.studies.samplers import sampler_sweep
from rediffuse.evaluation.studies.sparsity import by_history
from rediffuse.evaluation.studies.uncertainty import uncertainty
from rediffuse.evaluation.study import Examined, Study
from rediffuse.protocols import Recommender
from rediffuse.samplers import SAMPLERS

Rivals = Sequence[tuple[str, Recommender]]


@dataclass(frozen=True)
class Bench:
    """What all studies of one command share."""

    examined: Examined
    folder: ModelFolder
    rivals: Rivals
    device: str

    def run(self, names: Sequence[str]) -> dict[str, Study]:
        """One study after the other, by name."""
        out: dict[str, Study] = {}
        for name in names:
            with waiting(f"Studying {name.replace('-', ' ')}"):
                out[name] = STUDIES[name](self)
        return out

    @property
    def popularity(self) -> Recommender:
        """The control, from what the model learned from."""
        return Popularity(self.folder.popularity)

    def by_history(self) -> Study:
        """Against the rivals and popularity."""
        return by_history(self.examined, [*self.rivals, ("popularity", self.popularity)])

    def samplers(self) -> Study:
        """The same weights under each sampler, walking the means."""
        plain = {"eta": 0.0, "sampling_noise": False}
        remade = {
            name: registry.restore(
                replace(self.folder, config={**self.folder.config, **plain, "sampler": name}), self.device
            )[1]
            for name in SAMPLERS
        }
        return sampler_sweep(self.examined, remade, self.folder.config["levels"])


STUDIES: Mapping[str, Callable[[Bench], Study]] = {
    "calibration": lambda bench: uncertainty(bench.examined, bench.popularity),
    "diversity-front": lambda bench: diversity_front(bench.examined, bench.rivals),
    "by-history": Bench.by_history,
    "guidance": lambda bench: guidance_sweep(bench.examined, bench.folder.config["condition"]),
    "samplers": Bench.samplers,
}
"""Flag of `evaluate` -> what it runs."""
WITH_RIVALS = ("diversity-front", "by-history")
"""Those that ask rivals too."""


def protocol_of(folder: ModelFolder) -> Protocol:
    """The protocol a model was trained under."""
    return Protocol.make({key: folder.protocol[key] for key in Protocol.model_fields if key in folder.protocol})


def check(names: Sequence[str], folder: ModelFolder, *, rivals: bool = False) -> None:
    """Refuse, before any work, what this model cannot be studied for, and rivals that no study asks. Raises: InvalidInput."""
    if rivals and not set(names) & set(WITH_RIVALS):
        remedy = f"Add {' or '.join(f'--{name}' for name in WITH_RIVALS)}, or leave it out"
        raise InvalidInput(say("--rival needs a study that holds models side by side", remedy=remedy))
    if "guidance" in names and not folder.config.get("condition"):
        remedy = "Train one with: rediffuse train diffrec --set condition=season"
        raise InvalidInput(
            say(f"--guidance needs a model with a condition; this {folder.method} has none", remedy=remedy)
        )
    if "samplers" in names and "sampler" not in folder.config:
        remedy = "Leave it out, or take a diffusion model"
        raise InvalidInput(
            say(f"--samplers needs a model with a reverse process; {folder.method} has none", remedy=remedy)
        )


def check_data(folder: ModelFolder, dataset: Dataset) -> None:
    """Refuse data whose words for a condition are not those of the model. Raises: InvalidInput."""
    names = [name for name in context_names(dataset) if name in folder.data.get("contexts", {})]
    contexts = contexts_of(dataset, names, dataset.history())
    registry.check_words(folder, contexts, who="the model", remedy="Evaluate on the dataset it was trained on")


def rivals_of(paths: Sequence[Path], folder: ModelFolder, dataset: Dataset, device: str) -> Rivals:
    """Other models by the names of their folders, or by whole paths where a name is taken.

    Raises: InvalidInput for one that learned from anything else, or knows other words for a condition than the data.
    """
    out: dict[str, Recommender] = {}
    for whole, path in {path.resolve(): path for path in paths}.items():
        rival = read_model(path)
        facts = [_learned(one) for one in (rival, folder)]
        if rival.items != folder.items or facts[0] != facts[1]:
            remedy = "Train both on one dataset under one protocol"
            raise InvalidInput(say("A rival has learned from other data than the model", got=str(path), remedy=remedy))
        check_data(rival, dataset)
        taken = (folder.method, "popularity", *out)
        out[str(whole) if whole.name in taken else whole.name] = registry.restore(rival, device)[1]
    return list(out.items())


def _learned(folder: ModelFolder) -> tuple[object, ...]:
    """What a model has learned from."""
    protocol = protocol_of(folder)
    return folder.data.get("content_sha256"), protocol.fit, protocol.fit_share, protocol.refit
