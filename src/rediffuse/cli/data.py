"""`import`, `describe`, `split`: from foreign files to a dataset that is ready to learn from."""

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from rediffuse.cli.console import JsonOption, SetOption, line, settings, show_table, tell, write_result
from rediffuse.data.dataset import Dataset
from rediffuse.data.importers import IMPORTERS, detect
from rediffuse.data.splits import recipe_of
from rediffuse.errors import InvalidInput, refuse_options, say, unknown


def import_(
    format: Annotated[str, typer.Argument(help="auto, table, diffrec or atelier.")],  # noqa: A002
    source: Annotated[str, typer.Argument(help="File or folder; for atelier the size: tiny or small.")],
    to: Annotated[Path, typer.Option("--to", help="Dataset folder to make.")],
    columns: Annotated[
        list[str] | None,
        typer.Option("--map", metavar="OURS=THEIRS", help="table: user=customer_id, item=sku, time=..."),
    ] = None,
    order: Annotated[str | None, typer.Option(help="table: time, sequence (rows stand in order) or none.")] = None,
    time_unit: Annotated[str, typer.Option(help="table: s, ms, us or auto.")] = "auto",
    items: Annotated[Path | None, typer.Option(help="table: a file with attributes of items.")] = None,
    users: Annotated[Path | None, typer.Option(help="table: a file with attributes of users.")] = None,
    time_zone: Annotated[
        str | None,
        typer.Option(help="table: the shop's, for seasons, as in Europe/Berlin; times without one stay UTC."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="What to call the dataset.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="atelier: which world.")] = None,
    json: JsonOption = None,
) -> None:
    """Read foreign events into a dataset folder.

    Example: `rediffuse import table orders.csv --map user=customer,item=sku --to data/shop`
    """
    given: dict[str, Any] = {
        "columns": _columns(columns or []) or None,
        "order": order,
        "time_unit": None if time_unit == "auto" else time_unit,
        "items": items,
        "users": users,
        "time_zone": time_zone,
        "name": name,
        "seed": seed,
    }
    dataset = _read(format, source, {key: value for key, value in given.items() if value is not None})
    dataset.write(to)
    _show(dataset)
    write_result(json, dataset.describe())
    if dataset.split is None:
        recipe = {"time": "global-time", "sequence": "user-order"}.get(dataset.events.order)
        if recipe:
            tell(f"Next: {line('rediffuse', 'split', to, recipe, '--to', f'{to}-split')}")
    else:
        tell(f"Next: {line('rediffuse', 'train', 'diffrec', '--data', to, '--to', 'models/diffrec')}")


def describe(
    dataset: Annotated[Path, typer.Argument(help="Dataset folder.")],
    json: JsonOption = None,
) -> None:
    """Show what a dataset holds: counts, time range, order, split, content hash.

    Example: `rediffuse describe data/shop`
    """
    found = Dataset.read(dataset)
    _show(found)
    write_result(json, found.describe())


def split(
    dataset: Annotated[Path, typer.Argument(help="Dataset folder.")],
    recipe: Annotated[str, typer.Argument(help="global-time, user-order or leave-last-out.")],
    to: Annotated[Path, typer.Option("--to", help="Dataset folder to make.")],
    sets: SetOption = None,
    json: JsonOption = None,
) -> None:
    """Part the events into train, valid and test by a recipe, which is recorded.

    Example: `rediffuse split data/shop global-time --set valid=.1 --set test=.1 --to data/shop-split`
    """
    found = Dataset.read(dataset).with_split(recipe_of(recipe, settings(sets)))
    found.write(to)
    _show(found)
    write_result(json, found.describe())
    tell(f"Next: {line('rediffuse', 'compare', '--data', to, '--methods', 'popularity,ease,diffrec')}")


def _columns(texts: Sequence[str]) -> dict[str, str]:
    """`ours=theirs,..` as a mapping; names are text whatever they look like. Raises: InvalidInput for anything else."""
    out: dict[str, str] = {}
    for pair in (pair for text in texts for pair in text.split(",")):
        ours, separator, theirs = pair.partition("=")
        if not separator or not ours.strip():
            raise InvalidInput(say("--map takes ours=theirs", got=pair, remedy="For example: --map user=customer_id"))
        out[ours.strip()] = theirs.strip()
    return out


def _read(name: str, source: str, given: dict[str, Any]) -> Dataset:
    """Hand the source to its importer, with the options that importer takes."""
    chosen = detect(Path(source)) if name == "auto" else name
    if chosen not in IMPORTERS:
        raise InvalidInput(unknown("format", chosen, ["auto", *IMPORTERS]))
    importer = IMPORTERS[chosen]
    refuse_options(f"import {chosen}", given, inspect.signature(importer).parameters)
    return importer(source if chosen == "atelier" else Path(source), **given)


def _show(dataset: Dataset) -> None:
    facts = dataset.describe()
    rows = [(name, f"{facts[name]:,}") for name in ("users", "items", "events")]
    rows += [("density", f"{facts['density']:.3%}"), ("order", str(facts["order"]))]
    rows += [(name.replace("_", " "), str(facts[name])) for name in ("first_event", "last_event") if name in facts]
    rows += [(f"kind {name}", f"{count:,}") for name, count in facts["kinds"].items()]
    rows += [("duplicates left out", f"{facts['facts'].get('duplicates', 0):,}")]
    if facts["split"]:
        rows += [("split", facts["split"]["recipe"]["recipe"])]
        rows += [(f"part {name}", f"{count:,}") for name, count in facts["split"]["parts"].items()]
    rows += [("protocols", ", ".join(facts["protocols"]) or "standard"), ("content", facts["content_sha256"][:16])]
    show_table(dataset.name, ("fact", "value"), rows)
