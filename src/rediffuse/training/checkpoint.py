"""The newest state of a training run on disk, so that the same command goes on after an interruption."""

import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from rediffuse.errors import InvalidInput, say
from rediffuse.files import new_folder, read_json, recover, verify, write_json


@dataclass(frozen=True)
class FolderCheckpoint:
    """A `CheckpointStore` in one folder, replaced atomically at every save."""

    folder: Path
    fingerprint: str
    """Of data, settings and machine choices: a state of another run is never continued."""
    facts: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """To be read by people: method, device, precision, threads, versions."""
    every_s: float = 30.0
    """At least so many seconds lie between two states that are kept inside an epoch."""
    _saved: list[float] = field(default_factory=lambda: [time.monotonic()], init=False, compare=False)

    def due(self) -> bool:
        """As `CheckpointStore.due`."""
        return time.monotonic() - self._saved[-1] >= self.every_s

    def save(self, tensors: Mapping[str, Tensor], state: Mapping[str, object]) -> None:
        """Replace what was kept before."""
        with new_folder(self.folder, kind="checkpoint", replace=True) as place:
            save_file(
                {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()},
                place / "state.safetensors",
            )
            write_json(place / "state.json", {"fingerprint": self.fingerprint, "run": dict(self.facts), **state})
        self._saved[:] = [time.monotonic()]

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """What was kept, None when there is nothing.

        Raises: ArtifactError when it is damaged; InvalidInput when it belongs to another run.
        """
        recover(self.folder)
        if not self.folder.is_dir():
            return None
        verify(self.folder)
        state = read_json(self.folder / "state.json")
        state.pop("run")
        if state.pop("fingerprint") != self.fingerprint:
            raise InvalidInput(
                say(
                    f"{str(self.folder)!r} keeps an interrupted training with other data or settings",
                    remedy="Give that command again to finish it, or remove the folder",
                )
            )
        return load_file(self.folder / "state.safetensors"), state

    def remove(self) -> None:
        """Forget the run, once its model is published."""
        shutil.rmtree(self.folder, ignore_errors=True)
