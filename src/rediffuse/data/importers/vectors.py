"""Tables of vectors made elsewhere, each row with the stable key of whose it is.

    FILE.safetensors         items (n, D), users (m, D), user_keys (m,) int64; its metadata `item_ids`: the ids of the items
    FOLDER                   items.npy, users.npy; items.txt and users.txt beside them: an id a line
    FILE.pt, .pth, .tar ..   a torch checkpoint (`torch_checkpoint.py`)

Users may be missing. Without ids a row belongs to whoever has its number as external id, as in the files of DiffRec and
DDRM. The first form is what `write_vectors` makes. No file is ever unpickled here.
"""

import json
import tokenize
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from rediffuse.data.importers.torch_checkpoint import read_checkpoint
from rediffuse.errors import InvalidInput, say
from rediffuse.files import new_file
from rediffuse.protocols import Tables
from rediffuse.random import stable_key

CHECKPOINTS = (".pt", ".pth", ".tar", ".ckpt", ".bin")


@dataclass(frozen=True)
class Vectors:
    """What a file holds. Raises: InvalidInput for a table that is no finite matrix, or rows and keys that do not fit."""

    items: Tensor
    """(n, D) float32."""
    item_keys: Tensor
    """(n,) int64, `stable_key` of the external id of each row."""
    users: Tensor | None = None
    """(m, D) float32."""
    user_keys: Tensor | None = None
    """(m,) int64."""

    def __post_init__(self) -> None:
        """Check tables and keys."""
        for name, table, keys in (("items", self.items, self.item_keys), ("users", self.users, self.user_keys)):
            if table is None:
                continue
            if table.dim() != 2 or not table.numel():
                raise InvalidInput(say(f"The table of {name} must have shape (rows, width)", got=tuple(table.shape)))
            if not bool(torch.isfinite(table).all()):
                raise InvalidInput(say(f"The table of {name} holds a number that is not finite in float32"))
            if keys is None or keys.shape != table.shape[:1] or keys.dtype != torch.int64:
                raise InvalidInput(say(f"The table of {name} has {len(table)} rows, and not an id for each"))
            if len(keys.unique()) < len(keys):
                raise InvalidInput(say(f"An id stands twice in the table of {name}"))
        if self.users is not None and self.users.shape[1] != self.items.shape[1]:
            wide = (self.items.shape[1], self.users.shape[1])
            raise InvalidInput(say("The tables of items and users differ in width", got=wide))

    def of_items(self, keys: Tensor) -> Tensor:
        """The rows of a catalog, (I, D). Args: keys: (I,) int64, of the external ids of its items, in its order.

        Raises: InvalidInput when an item has no row.
        """
        order = self.item_keys.argsort()
        ranked = self.item_keys[order]
        place = torch.searchsorted(ranked, keys).clamp(max=len(ranked) - 1)
        missing = int((ranked[place] != keys).sum())
        if missing:
            remedy = "Give the table the ids of this catalog, or a row for each of its items"
            raise InvalidInput(say(f"{missing} of {len(keys)} items have no row in the table", remedy=remedy))
        return self.items[order[place]]


def read_vectors(source: Path) -> Vectors:
    """Read any of the forms above.

    Raises: InvalidInput, in one sentence, for whatever is none of them, damaged, or more than plain numbers.
    """
    if source.is_dir():
        return _folder(source)
    if not source.is_file():
        raise InvalidInput(say(f"There is no file or folder {str(source)!r}"))
    if source.suffix == ".safetensors":
        return _safetensors(source)
    if source.suffix in CHECKPOINTS:
        items, users = read_checkpoint(source)
        return _numbered(items, users)
    allowed = ("a folder of .npy files", ".safetensors", *CHECKPOINTS)
    raise InvalidInput(say(f"{source.name!r} is no known kind of table", got=source.suffix, allowed=allowed))


def write_vectors(target: Path, item_ids: Sequence[str], tables: Tables) -> None:
    """Publish tables as one file of safetensors. Args: item_ids: of the rows of `tables.items`. Raises: StorageError."""
    tensors = {"items": tables.items, "users": tables.users, "user_keys": tables.keys}
    if tables.users is None or tables.keys is None:
        del tensors["users"], tensors["user_keys"]
    # Copies: two tables may be parts of one, which the format refuses.
    kept = {name: t.detach().cpu().clone().contiguous() for name, t in tensors.items() if t is not None}
    with new_file(target) as temporary:
        save_file(kept, temporary, metadata={"item_ids": json.dumps(list(item_ids), ensure_ascii=False)})


def _numbered(
    items: Tensor, users: Tensor | None, item_ids: Sequence[str] | None = None, user_ids: Sequence[str] | None = None
) -> Vectors:
    """Tables whose rows are named, or else numbered."""
    item_keys = _keys(item_ids, len(items))
    return Vectors(items, item_keys, users, None if users is None else _keys(user_ids, len(users)))


def _keys(ids: Sequence[str] | None, rows: int) -> Tensor:
    return torch.tensor([stable_key(name) for name in ids or map(str, range(rows))], dtype=torch.int64)


def _folder(source: Path) -> Vectors:
    if not (source / "items.npy").is_file():
        raise InvalidInput(say(f"{str(source)!r} holds no items.npy"))
    tables = {name: _npy(path) if (path := source / f"{name}.npy").is_file() else None for name in ("items", "users")}
    ids = {name: _lines(path) if (path := source / f"{name}.txt").is_file() else None for name in tables}
    assert tables["items"] is not None
    return _numbered(tables["items"], tables["users"], ids["items"], ids["users"])


def _npy(path: Path) -> Tensor:
    """A float matrix; what its head promises is held against the size of the file before anything is read."""
    try:
        rows = np.lib.format.open_memmap(path, mode="r")
    except (ValueError, TypeError, EOFError, OSError, MemoryError, OverflowError, tokenize.TokenError) as error:
        problem = "holds pickled objects, which are never loaded" if "object" in str(error) else "cannot be read as npy"
        raise InvalidInput(say(f"{path.name} {problem}", remedy="Save a float array of shape (rows, width)")) from None
    if rows.ndim != 2 or not np.issubdtype(rows.dtype, np.floating):
        raise InvalidInput(say(f"{path.name} must be floats of shape (rows, width)", got=f"{rows.dtype} {rows.shape}"))
    with np.errstate(over="ignore"):  # what is too large for float32 is refused as not finite
        return torch.from_numpy(np.array(rows, dtype=np.float32))


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").removesuffix("\n").split("\n")
    except UnicodeDecodeError:
        raise InvalidInput(say(f"{path.name} is not UTF-8 text", remedy="Give one id a line")) from None


def _safetensors(path: Path) -> Vectors:
    try:
        with safe_open(path, framework="pt") as file:
            names, told = set(file.keys()), dict(file.metadata() or {})
            if "items" not in names or names - {"items", "users", "user_keys"}:
                raise InvalidInput(
                    say(f"{path.name} must hold items, and may hold users and user_keys", got=sorted(names)[:10])
                )
            tensors: Mapping[str, Tensor] = {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError) as error:
        raise InvalidInput(say(f"{path.name} cannot be read as safetensors", got=str(error))) from None
    if any(not tensors[name].is_floating_point() for name in names - {"user_keys"}):
        raise InvalidInput(say(f"{path.name} must hold its vectors as floats"))
    vectors = {name: tensors[name].to(torch.float32) for name in names - {"user_keys"}}
    ids = None if "item_ids" not in told else _ids(path, told["item_ids"])
    found = _numbered(vectors["items"], vectors.get("users"), ids)
    keys = tensors.get("user_keys", found.user_keys)
    return Vectors(found.items, found.item_keys, found.users, None if found.users is None else keys)


def _ids(path: Path, text: str) -> list[str]:
    try:
        ids = json.loads(text)
    except (ValueError, RecursionError):
        ids = None
    if not isinstance(ids, list) or not all(isinstance(name, str) for name in ids):
        raise InvalidInput(say(f"The item_ids of {path.name} are no list of texts"))
    return ids
