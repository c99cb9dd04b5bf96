"""`recommend`: a list for a history, for a user of a dataset, or for many users as a file."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

import polars as pl
import torch
import typer

from rediffuse import registry
from rediffuse.cli.console import (
    DeviceOption,
    DiversityOption,
    DrawsOption,
    GuidanceOption,
    JsonOption,
    SeedOption,
    StartOption,
    StepsOption,
    TemperatureOption,
    ThreadsOption,
    options_of,
    run_config,
    show_table,
    tell,
    write_result,
)
from rediffuse.cli.recommend_all import Asked, recommend_all, users_of
from rediffuse.config import RunConfig
from rediffuse.data.context import user_words
from rediffuse.data.dataset import Dataset
from rediffuse.errors import InvalidInput, say, unknown
from rediffuse.facade import Answer, Model
from rediffuse.files import MANIFEST, sha256
from rediffuse.grounding.filters import ITEM, attributes_of


def recommend(
    model: Annotated[Path, typer.Argument(help="Model folder.")],
    items: Annotated[
        list[str] | None,
        typer.Option("--items", help="Item ids of a history, oldest first, separated by commas; may be repeated."),
    ] = None,
    item: Annotated[
        list[str] | None,
        typer.Option("--item", help="One item id of a history, commas and all; may be repeated, oldest first."),
    ] = None,
    data: Annotated[Path | None, typer.Option("--data", help="Dataset folder that knows the users.")] = None,
    user: Annotated[str | None, typer.Option("--user", help="User id in the dataset.")] = None,
    users: Annotated[
        str | None, typer.Option("--users", help="`all` users of the dataset, or a file with one user id a line.")
    ] = None,
    to: Annotated[Path | None, typer.Option("--to", help="With --users: write here; .parquet, .csv or .jsonl.")] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="Length of the list.")] = 10,
    context: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=WORD",
            help="What is known of the moment or the user, for a model with conditions: season=winter; may be repeated.",
        ),
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CONDITION",
            help="Only items that meet it: category=shoes, price<=50, season!=winter; may be repeated, all hold.",
        ),
    ] = None,
    one_per: Annotated[
        str | None,
        typer.Option(metavar="ATTRIBUTE", help="One item of each of its values, the best: one variant of a product."),
    ] = None,
    steps: StepsOption = None,
    draws: DrawsOption = 1,
    start: StartOption = None,
    temperature: TemperatureOption = 1.0,
    guidance_scale: GuidanceOption = None,
    diversity: DiversityOption = 0.0,
    json: JsonOption = None,
    device: DeviceOption = "auto",
    threads: ThreadsOption = 0,
    seed: SeedOption = 0,
) -> None:
    """Recommend items for a posted history, or for users of a dataset with all their events.

    With --users all lists go to one file; when the command was interrupted, the same command goes on where it was.
    What the data tells of a user, and the model was conditioned on, need not be given in --context.
    Conditions are put on the attributes that the model was saved with, or on those of --data where it is given.

    Example: `rediffuse recommend models/diffrec --items A00042,A00007 -k 5 --draws 32 --diversity 0.3`
    """
    _check_question(items, item, data, user, users, to)
    run = run_config(device, "float32", threads, seed)
    options = options_of(steps, draws, start, temperature, guidance_scale, diversity)
    told = words(context)
    dataset = None if data is None else Dataset.read(data)
    found = _knowing(registry.load(model, device=run.device), dataset)
    if users is not None and dataset is not None and to is not None:
        offered = found.offered(where or (), one_per)
        asked = Asked(found, dataset, users_of(dataset, users), k, options, run.seed, told, offered)
        _many(asked, to, {"model": sha256(model / MANIFEST)}, run, json)
        return
    history, along = _history(items, item, dataset, user, found.conditions)
    told = {**along.pop("context", {}), **told}
    answer = found.recommend(
        history, k, **along, where=where or (), one_per=one_per, context=told, options=options, seed=seed
    )
    known = len(history) - len(answer.unknown)
    within = "".join(f", {name} {word}" for name, word in told.items())
    show_answer(f"{found.method}: {len(answer.items)} of {k} asked, after {known} events{within}", answer)
    write_result(json, {"method": found.method, "history": history, "context": told, **answer.to_json()})


def show_answer(title: str, answer: Answer) -> None:
    """Print a list with what was noticed on the way."""
    if answer.unknown:
        tell(f"Unknown to the model and left out: {', '.join(answer.unknown)}")
    if answer.fallback:
        tell(f"Not the method's own answer ({answer.fallback.replace('_', ' ')}): what is popular is shown.")
    columns: dict[str, list[str]] = {
        "title": [r.title for r in answer.items],
        "item": [r.item for r in answer.items],
        "score": [f"{r.score:.4f}" for r in answer.items],
    }
    if any(r.spread is not None for r in answer.items):
        columns["spread"] = [f"{r.spread or 0:.4f}" for r in answer.items]
    if answer.probability_of == "top_k":
        columns["in the list of"] = [f"{r.probability or 0:.0%} of draws" for r in answer.items]
    if answer.probability_of == "consumption":
        columns["taken by"] = [
            "–" if r.probability is None else f"{r.probability:.1%} of such users" for r in answer.items
        ]
    show_table(title, tuple(columns), list(zip(*columns.values(), strict=True)))


def words(pairs: list[str] | None) -> dict[str, str]:
    """`name=word` texts as a mapping. Raises: InvalidInput for anything else."""
    out: dict[str, str] = {}
    for pair in pairs or ():
        name, separator, word = pair.partition("=")
        if not (separator and name.strip() and word.strip()):
            raise InvalidInput(
                say("--context takes name=word", got=pair, remedy="For example: --context season=winter")
            )
        out[name.strip()] = word.strip()
    return out


def _check_question(
    items: list[str] | None,
    item: list[str] | None,
    data: Path | None,
    user: str | None,
    users: str | None,
    to: Path | None,
) -> None:
    """Refuse what asks for several things at once, or for half of one."""
    given = {"items": items, "item": item, "data": data, "user": user, "users": users, "to": to}
    asked = {name for name, value in given.items() if value is not None}
    if asked not in ({"items"}, {"item"}, {"data", "user"}, {"data", "users", "to"}):
        raise InvalidInput(
            say(
                "Give either --items, or --data and --user",
                remedy="Or --item for ids with commas; or --data, --users and --to for a file of many lists",
            )
        )


def _knowing(model: Model, dataset: Dataset | None) -> Model:
    """The model under what the dataset knows of the items, where it knows anything."""
    if dataset is None or not (known := attributes_of(dataset.catalog)).width:
        return model
    return model.knowing(known.with_columns(pl.Series(ITEM, dataset.catalog.items.ids)))


def _many(asked: Asked, to: Path, machine: Mapping[str, object], run: RunConfig, json: Path | None) -> None:
    found, dataset = asked.model, asked.dataset
    machine = {**machine, "machine": {"device": run.device, "threads": run.threads, **registry.versions()}}
    new = sum(name not in found.items for name in dataset.catalog.items.ids)
    if new:
        tell(f"{new:,} items of the data are unknown to the model; their events are left out")
    recommend_all(asked, to, machine, tell=tell)
    tell(f"Wrote {to}: {found.method} for {len(asked.users):,} users")
    write_result(json, {"method": found.method, "file": str(to), "users": len(asked.users), "unknown_items": new})


def _history(
    items: list[str] | None,
    item: list[str] | None,
    dataset: Dataset | None,
    user: str | None,
    conditions: Iterable[str],
) -> tuple[list[str], dict[str, Any]]:
    """Item ids, oldest first; where the data knows them, their times, weights and what conditions the user meets."""
    if items is not None:
        return [name.strip() for text in items for name in text.split(",") if name.strip()], {}
    if dataset is None or user is None:
        return item or [], {}
    number = dataset.users.items.number(user)
    if number < 0:
        raise InvalidInput(unknown("user", user, dataset.users.items.ids))
    row = dataset.history().select(torch.tensor([number]))
    known = {"times_us": row.time_us, "weights": row.weight}
    along: dict[str, Any] = {name: values.tolist() for name, values in known.items() if values is not None}
    along["context"] = {name: found[number] for name, found in user_words(dataset, conditions).items() if found[number]}
    return dataset.catalog.items.decode(row.items.tolist()), along
