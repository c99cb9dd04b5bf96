"""The tables of a torch checkpoint, read by a process that may do little else.

    parent   starts the child, waits at most TIMEOUT_S, reads the plain tensors that it wrote
    child    limits its memory, time and what it may write, loads plain tensors only, and looks for a pair of names

A checkpoint is a pickle, which can be made to run code. `weights_only` refuses that, the child's limits bound what a file
can cost, and nothing of it is ever unpickled in the parent.
"""

import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from rediffuse.data.importers.child import limit
from rediffuse.errors import InvalidInput, say

SPELLINGS = (
    ("embedding_item.weight", "embedding_user.weight"),  # LightGCN
    ("item_emb.weight", "user_emb.weight"),  # MF
    ("items_feature.weight", "users_feature.weight"),  # SGL
)
"""Names of the two tables in the checkpoints of DDRM, items first."""
TIMEOUT_S = 120
LARGEST = 8 << 30
"""Bytes of a checkpoint, at most."""
SPARE = 1 << 30
"""Bytes that the child may use besides four times the file."""
REFUSED = 3
"""Exit code of a child that says why."""


def read_checkpoint(source: Path, *, timeout_s: float = TIMEOUT_S) -> tuple[Tensor, Tensor | None]:
    """The tables of items (n, D) and users (m, D), float32, where it has users.

    Raises: InvalidInput, in one sentence, when the file is too large, holds anything but plain tensors, names no tables
        of the known spellings, or cannot be read within the limits.
    """
    size = source.stat().st_size
    if size > LARGEST:
        raise InvalidInput(say(f"{source.name!r} is too large", got=f"{size:,} bytes", allowed=f"up to {LARGEST:,}"))
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "tables.safetensors"
        command = [sys.executable, "-I", "-m", __name__, str(source.absolute()), str(target)]
        try:
            ended = subprocess.run(  # noqa: S603  # our own interpreter and module, no shell
                command, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout_s, check=False
            )
        except subprocess.TimeoutExpired:
            raise InvalidInput(say(f"{source.name!r} could not be read within {timeout_s} s")) from None
        if ended.returncode == REFUSED:
            raise InvalidInput(ended.stdout.decode(errors="replace"))
        if ended.returncode or not target.is_file():
            problem = f"{source.name!r} is damaged, or needs more memory or time than a file of its size may"
            raise InvalidInput(say(problem, remedy="Save the two tables as a dict of float tensors"))
        tables = load_file(target)
    return tables["items"], tables.get("users")


def tables_in(source: Path) -> dict[str, Tensor]:
    """What the child finds: items and, where there are any, users, float32.

    Raises: InvalidInput.
    """
    if zipfile.is_zipfile(source):
        with zipfile.ZipFile(source) as archive:
            members = archive.infolist()
        # torch stores what it saves as it is: whatever unpacks to more than the file was not saved by it.
        if sum(member.file_size for member in members) > source.stat().st_size:
            raise InvalidInput(say(f"{source.name!r} unpacks to more than its own size, as no checkpoint does"))
    try:
        state = torch.load(source, map_location="cpu", weights_only=True)
    except UnpicklingError:
        remedy = "Nothing of it was run; save the two tables as a dict of tensors"
        raise InvalidInput(say(f"{source.name!r} holds more than plain tensors", remedy=remedy)) from None
    names = list(state) if isinstance(state, Mapping) else []
    for items, users in SPELLINGS:
        if items in names:
            known = {"items": items, "users": users} if users in names else {"items": items}
            return {name: _table(source, key, state[key]) for name, key in known.items()}
    allowed = ", or ".join(" and ".join(pair) for pair in SPELLINGS)
    got = [str(name)[:80] for name in names[:10]]
    raise InvalidInput(say(f"{source.name!r} has no tables by a known name", got=got, allowed=allowed))


def _table(source: Path, name: str, value: object) -> Tensor:
    """One table, once it is clear that it is what the file holds and no more."""
    if not isinstance(value, Tensor) or value.layout != torch.strided or not value.is_floating_point():
        raise InvalidInput(say(f"{name!r} in {source.name!r} is no table of floats"))
    if value.dim() != 2 or value.is_meta or value.untyped_storage().nbytes() < value.numel() * value.element_size():
        shape = tuple(value.shape)
        raise InvalidInput(say(f"{name!r} in {source.name!r} is no whole table of shape (rows, width)", got=shape))
    return value.detach().to(torch.float32).clone(memory_format=torch.contiguous_format)


def _child(source: Path, target: Path) -> None:
    torch.set_num_threads(1)
    size = source.stat().st_size
    limit(4 * size + SPARE, TIMEOUT_S, 2 * size + (1 << 20))
    try:
        save_file(tables_in(source), target)
    except InvalidInput as error:
        sys.stdout.write(str(error))
        sys.exit(REFUSED)


if __name__ == "__main__":
    _child(Path(sys.argv[1]), Path(sys.argv[2]))
