"""The newest state of a training run on disk, so that the same command goes on after an interruption."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

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

    def save(self, tensors: Mapping[str, Tensor], state: Mapping[str, object]) -> None:
        """Replace what was kept before."""
        with new_folder(self.folder, kind="checkpoint", replace=True) as place:
            save_file(
                {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()},
                place / "state.safetensors",
            )
            write_json(place / "state.json", {"fingerprint": self.fingerprint, **state})

    def load(self) -> tuple[dict[str, Tensor], dict[str, object]] | None:
        """What was kept, None when there is nothing.

        Raises: ArtifactError when it is damaged; InvalidInput when it belongs to another run.
        """
        recover(self.folder)
        if not self.folder.is_dir():
            return None
        verify(self.folder)
        state = read_json(self.folder / "state.json")
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
