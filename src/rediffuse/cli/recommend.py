"""`recommend`: a list for a history, for a user of a dataset, or for many users as a file."""

from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from rediffuse import registry
from rediffuse.cli.console import (
    DeviceOption,
    JsonOption,
    SeedOption,
    StepsOption,
    ThreadsOption,
    run_config,
    show_table,
    tell,
    write_result,
)
from rediffuse.cli.recommend_all import Asked, recommend_all, users_of
from rediffuse.config import RunConfig
from rediffuse.data.dataset import Dataset
from rediffuse.errors import InvalidInput, say, unknown
from rediffuse.facade import Answer
from rediffuse.files import MANIFEST, sha256
from rediffuse.types import Options


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
    steps: StepsOption = None,
    json: JsonOption = None,
    device: DeviceOption = "auto",
    threads: ThreadsOption = 0,
    seed: SeedOption = 0,
) -> None:
    """Recommend items for a posted history, or for users of a dataset with all their events.

    With --users all lists go to one file; when the command was interrupted, the same command goes on where it was.

    Example: `rediffuse recommend models/diffrec --items A00042,A00007 -k 5`
    """
    _check_question(items, item, data, user, users, to)
    run = run_config(device, "float32", threads, seed)
    options = Options(steps=steps)
    if users is not None and data is not None and to is not None:
        _many(model, Dataset.read(data), users, to, k, options, run, json)
        return
    history, along = _history(items, item, data, user)
    found = registry.load(model, device=run.device)
    answer = found.recommend(history, k, **along, options=options, seed=seed)
    known = len(history) - len(answer.unknown)
    show_answer(f"{found.method}: {len(answer.items)} of {k} asked, after {known} events", answer)
    write_result(json, {"method": found.method, "history": history, **answer.to_json()})


def show_answer(title: str, answer: Answer) -> None:
    """Print a list with what was noticed on the way."""
    if answer.unknown:
        tell(f"Unknown to the model and left out: {', '.join(answer.unknown)}")
    if answer.fallback:
        tell(f"Not the method's own answer ({answer.fallback.replace('_', ' ')}): what is popular is shown.")
    rows = [(r.title, r.item, f"{r.score:.4f}") for r in answer.items]
    show_table(title, ("title", "item", "score"), rows)


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


def _many(
    model: Path, dataset: Dataset, users: str, to: Path, k: int, options: Options, run: RunConfig, json: Path | None
) -> None:
    found = registry.load(model, device=run.device)
    asked = Asked(found, dataset, users_of(dataset, users), k, options, run.seed)
    machine = {
        "model": sha256(model / MANIFEST),
        "machine": {"device": run.device, "threads": run.threads, **registry.versions()},
    }
    new = sum(name not in found.items for name in dataset.catalog.items.ids)
    if new:
        tell(f"{new:,} items of the data are unknown to the model; their events are left out")
    recommend_all(asked, to, machine, tell=tell)
    tell(f"Wrote {to}: {found.method} for {len(asked.users):,} users")
    write_result(json, {"method": found.method, "file": str(to), "users": len(asked.users), "unknown_items": new})


def _history(
    items: list[str] | None, item: list[str] | None, data: Path | None, user: str | None
) -> tuple[list[str], dict[str, Any]]:
    """Item ids, oldest first, and their times where the data knows them."""
    if items is not None:
        return [name.strip() for text in items for name in text.split(",") if name.strip()], {}
    if data is None or user is None:
        return item or [], {}
    dataset = Dataset.read(data)
    number = dataset.users.items.number(user)
    if number < 0:
        raise InvalidInput(unknown("user", user, dataset.users.items.ids))
    row = dataset.history().select(torch.tensor([number]))
    known = {"times_us": row.time_us, "weights": row.weight}
    return dataset.catalog.items.decode(row.items.tolist()), {
        name: values.tolist() for name, values in known.items() if values is not None
    }
