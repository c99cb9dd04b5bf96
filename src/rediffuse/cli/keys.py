"""`keys`: who may speak to the service, and what they may do."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from rediffuse.cli.console import show_table, tell
from rediffuse.errors import InvalidInput, say
from rediffuse.serving.keys import add_key, read_keys, remove_key


def keys(
    action: Annotated[Literal["add", "remove", "list"], typer.Argument(help="add, remove or list.")],
    name: Annotated[str | None, typer.Argument(help="Of the key: whose it is.")] = None,
    scope: Annotated[
        str | None,
        typer.Option(
            "--scope",
            help="read (recommendations, metrics), write (events, items), admin (models, erasure); separated by commas.",
        ),
    ] = None,
    file: Annotated[Path, typer.Option("--keys", help="File of keys.")] = Path("keys.json"),
) -> None:
    """Make or take back keys of the service. A key is shown once; the file holds a hash of it, and not the key.

    A running service knows of a change within a second.

    Example: `rediffuse keys add shop --scope read,write --keys keys.json`
    """
    if action == "list":
        rows = [(key.name, ", ".join(sorted(key.rights))) for key in read_keys(file)]
        show_table(f"Keys in {file}", ("name", "scope"), rows)
        return
    if name is None:
        raise InvalidInput(say(f"keys {action} takes the name of a key", remedy=f"For example: keys {action} shop"))
    if action == "remove":
        remove_key(file, name)
        tell(f"Removed {name} from {file}")
        return
    secret = add_key(file, name, [word.strip() for word in (scope or "read").split(",")])
    tell(f"Added {name} to {file}. Its key, which is shown only now:")
    tell(secret)
