"""Settings frozen in a file: chosen once on a selection part, used as they are by whatever must beat them.

{dataset: {method: {settings, selection: {metric: value}, trials, commit, content_sha256, protocol}}}
"""

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import rediffuse
from rediffuse import registry
from rediffuse.cli.running import Run
from rediffuse.data.dataset import Dataset
from rediffuse.errors import InvalidInput, say
from rediffuse.evaluation.protocol import Protocol
from rediffuse.evaluation.tuning import best
from rediffuse.files import read_json, write_json

DECIDING = ("fit", "fit_share", "selection")
"""Keys of a protocol that settings are chosen by, besides the selection metric."""


def read_frozen(path: Path, dataset: Dataset, protocol: Protocol) -> dict[str, dict[str, Any]]:
    """What is frozen for a dataset: label of a method -> its settings.

    Raises: InvalidInput when nothing is, or when it was chosen on other data, another split or another selection part:
        then it may know what is asked here.   ArtifactError when the file is missing or none.
    """
    found = read_json(path).get(dataset.name, {})
    if not found:
        raise InvalidInput(say(f"{str(path)!r} holds nothing for {dataset.name!r}", remedy=_ANEW))
    now = protocol.model_dump(mode="json")
    out = dict[str, dict[str, Any]]()
    for label, entry in found.items():
        try:
            then, content, out[label] = entry["protocol"], entry["content_sha256"], dict(entry["settings"])
            other = [key for key in DECIDING if then[key] != now[key]]
        except (KeyError, TypeError, ValueError):
            raise InvalidInput(say(f"The entry of {label} in {str(path)!r} is incomplete", remedy=_ANEW)) from None
        if content != dataset.digest():
            raise InvalidInput(say(f"{label} is frozen for other data or another split", got=content, remedy=_ANEW))
        if other:
            what = f"{label} is frozen under another protocol: {other[0]} differs"
            raise InvalidInput(say(what, got=then[other[0]], allowed=str(now[other[0]]), remedy=_ANEW))
    return out


def freeze(path: Path, dataset: Dataset, protocol: Protocol, runs: Sequence[Run]) -> list[str]:
    """Write the settings that were chosen in these runs; what the file holds of others stays. Returns: their labels."""
    known = read_json(path) if path.is_file() else {}
    chosen = {one.result.method: _entry(one, dataset, protocol) for one in runs if one.result.trials}
    write_json(path, {**known, dataset.name: {**known.get(dataset.name, {}), **chosen}})
    return [*chosen]


def with_frozen_parts(chosen: registry.Recipe, frozen: Mapping[str, Mapping[str, Any]]) -> registry.Recipe:
    """A method that answers with others, those under their frozen settings; any other method as it is."""
    parts = {part.label: {**part.settings, **frozen[part.label]} for part in chosen.parts if part.label in frozen}
    return chosen.changed({"settings": {**vars(chosen.config)["settings"], **parts}}) if parts else chosen


def commit() -> str:
    """The commit of the working tree this code runs from, `-dirty` after it where something is changed; else unknown."""
    git = shutil.which("git")
    if git is None:
        return "unknown"
    where = str(Path(rediffuse.__file__).parent)
    words = [git, "-C", where, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    ended = subprocess.run(words, capture_output=True, text=True, check=False)  # noqa: S603  # fixed words, no shell
    return ended.stdout.strip() if ended.returncode == 0 and ended.stdout.strip() else "unknown"


def _entry(one: Run, dataset: Dataset, protocol: Protocol) -> dict[str, Any]:
    trials = list(one.result.trials)
    return {
        "settings": one.fitted.recipe.settings,
        "selection": {protocol.select_by: best(trials).value},
        "trials": len(trials),
        "commit": commit(),
        "content_sha256": dataset.digest(),
        "protocol": protocol.describe(dataset),
    }


_ANEW = "Choose them on this data: --trials N --freeze FILE"
