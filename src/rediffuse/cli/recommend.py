"""`recommend`: a list for a history, or for a user of a dataset."""

from pathlib import Path
from typing import Annotated

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
from rediffuse.data.dataset import Dataset
from rediffuse.errors import InvalidInput, say, unknown
from rediffuse.facade import Answer
from rediffuse.types import Options


def recommend(
    model: Annotated[Path, typer.Argument(help="Model folder.")],
    items: Annotated[
        list[str] | None,
        typer.Option("--items", help="Item ids of a history, oldest first, separated by commas; may be repeated."),
    ] = None,
    data: Annotated[Path | None, typer.Option("--data", help="Dataset folder that knows the user.")] = None,
    user: Annotated[str | None, typer.Option("--user", help="User id in the dataset.")] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="Length of the list.")] = 10,
    steps: StepsOption = None,
    json: JsonOption = None,
    device: DeviceOption = "auto",
    threads: ThreadsOption = 0,
    seed: SeedOption = 0,
) -> None:
    """Recommend items for a posted history, or for a user of a dataset with all their events.

    Example: `rediffuse recommend models/diffrec --items A00042,A00007 -k 5`
    """
    history, times_us = _history(items, data, user)
    found = registry.load(model, device=run_config(device, "float32", threads, seed).device)
    answer = found.recommend(history, k, times_us=times_us, options=Options(steps=steps), seed=seed)
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


def _history(items: list[str] | None, data: Path | None, user: str | None) -> tuple[list[str], list[int] | None]:
    """Item ids, oldest first, and their times where the data knows them."""
    if items is not None and data is None and user is None:
        return [name.strip() for text in items for name in text.split(",") if name.strip()], None
    if items is not None or data is None or user is None:
        raise InvalidInput(
            say("Give either --items, or --data and --user", remedy="For example: --items A00042,A00007")
        )
    dataset = Dataset.read(data)
    number = dataset.users.items.number(user)
    if number < 0:
        raise InvalidInput(unknown("user", user, dataset.users.items.ids))
    row = dataset.history().select(torch.tensor([number]))
    times_us = None if row.time_us is None else row.time_us.tolist()
    return dataset.catalog.items.decode(row.items.tolist()), times_us
