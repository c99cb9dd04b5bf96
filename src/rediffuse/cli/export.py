"""`export`: the vectors of a model as a file that other programs, and other methods here, can read."""

from pathlib import Path
from typing import Annotated

import typer

from rediffuse import registry
from rediffuse.artifacts import read_model
from rediffuse.cli.console import tell
from rediffuse.data.importers.vectors import write_vectors
from rediffuse.errors import InvalidInput, say
from rediffuse.protocols import Embeds

SUFFIX = ".safetensors"


def export(
    model: Annotated[Path, typer.Argument(help="Folder of a model whose scores are inner products, such as lightgcn.")],
    to: Annotated[Path, typer.Option("--to", help=f"File to make, NAME{SUFFIX}.")],
) -> None:
    """Write a model's vectors of items and users: items by their ids, users by a hash of theirs.

    Example: `rediffuse export models/lightgcn --to out/tables.safetensors`
    """
    if to.suffix != SUFFIX:
        raise InvalidInput(say("The file of vectors has an unknown suffix", got=to.suffix, allowed=SUFFIX))
    if to.exists():
        raise InvalidInput(say(f"{str(to)!r} exists already", remedy="Choose another place or remove it first"))
    folder = read_model(model)
    method, _ = registry.restore(folder, "cpu")
    if not isinstance(method, Embeds):
        remedy = "Take one whose scores are inner products, such as lightgcn, mf or als"
        raise InvalidInput(say(f"A {folder.method} has no tables of vectors", remedy=remedy))
    tables = method.embeddings()
    write_vectors(to, folder.items, tables)
    users = "no users" if tables.users is None else f"{len(tables.users):,} users"
    tell(f"Wrote {to}: {len(tables.items):,} items and {users}, {tables.items.shape[1]} numbers each")
