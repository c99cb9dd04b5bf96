"""`quickstart`: the whole job, on a shop's own files or on the embedded world, in minutes."""

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from rediffuse.cli.compare import recipes
from rediffuse.cli.console import SeedOption, ThreadsOption, line, run_config, tell
from rediffuse.cli.quickstart_shop import published, quickstart_shop
from rediffuse.cli.recommend import show_answer
from rediffuse.cli.running import Comparison
from rediffuse.cli.serve import serve as start
from rediffuse.config import RunConfig
from rediffuse.data.dataset import Dataset
from rediffuse.data.importers.atelier import load
from rediffuse.data.splits import GlobalTime
from rediffuse.errors import InvalidInput, say
from rediffuse.evaluation.protocol import Protocol
from rediffuse.evaluation.report import require_report
from rediffuse.files import new_folder
from rediffuse.registry import load as load_model

METHODS = (
    "popularity",
    "ease:atelier",
    "ease:atelier-recent",
    "diffrec:atelier-no-noise",
    "diffrec:atelier",
    "t-diffrec:atelier",
    "diffrec:atelier-season-no-noise",
    "diffrec:atelier-season",
)


def quickstart(
    source: Annotated[
        Path | None,
        typer.Argument(
            metavar="[FEED]", help="A shop's own feed of products; a dataset folder or events will do alone."
        ),
    ] = None,
    events: Annotated[Path | None, typer.Argument(metavar="[EVENTS]", help="Events that are joined with it.")] = None,
    to: Annotated[Path, typer.Option("--to", help="Folder to make; one of an earlier quickstart is replaced.")] = Path(
        "quickstart"
    ),
    size: Annotated[
        str | None, typer.Option(help="Size of the embedded world, where no files are given: tiny or small.")
    ] = None,
    trials: Annotated[
        int | None,
        typer.Option(min=0, help="Own files: settings to try for each method; else as suits the size of the data."),
    ] = None,
    serve: Annotated[bool, typer.Option("--serve", help="Go on with `rediffuse serve` on the model.")] = False,
    threads: ThreadsOption = 0,
    seed: SeedOption = 1,
) -> None:
    """Train a baseline and diffusion models, compare them fairly, write a page, offer to serve: on a shop's own files,
    their formats found by themselves, or without files on the events of an embedded fashion shop.

    Interrupted on own files, the same command goes on from the models that are finished.

    Example: `rediffuse quickstart feed.tsv events.jsonl --to quickstart`
    """
    require_report(to / "report.html")
    run = run_config("auto", "float32", threads, seed)
    if source is None:
        if trials is not None:
            raise InvalidInput(say("--trials is of own files", remedy="Give a feed and events, or leave --trials out"))
        model, dataset = _embedded(to, size or "small", run)
    else:
        if size is not None:
            raise InvalidInput(say("--size is of the embedded world", remedy="Leave it out, or give no files"))
        model, dataset = quickstart_shop(source, events, to, trials, run)
    serving = (model, "--data", dataset)
    if serve:
        start(model, data=dataset, threads=threads)
        return
    tell(f"\nLook at {to / 'report.html'}. Serve {model.name}, and ask it from another terminal as it says:")
    tell(f"  {line(_program(), 'serve', *serving)}")
    tell("Next:")
    for words in _next(model, dataset) if source is None else (("describe", dataset), ("evaluate", *serving)):
        tell(f"  {line(_program(), *words)}")


def _embedded(to: Path, size: str, run: RunConfig) -> tuple[Path, Path]:
    """The whole job on the embedded world. Returns: the folders of the model to look at, and of the dataset."""
    protocol = Protocol(seeds=(run.seed,))
    with new_folder(to, kind="quickstart", replace=True) as place:
        tell(f"1/3 The shop: atelier {size}, two years of events, parted by time", "bold")
        dataset = load(size, seed=run.seed).with_split(GlobalTime())
        dataset.write(place / "dataset")
        tell(f"    {len(dataset.users):,} users, {len(dataset.catalog):,} items, {len(dataset.events):,} events")
        tell(f"2/3 Training and ranking the whole catalog for every user: {', '.join(METHODS)}", "bold")
        work = Comparison(dataset, protocol, run)
        published(place, work, work.run_all(recipes(METHODS, {})))
    tell("3/3 One customer, before and after a purchase, and in another season", "bold")
    model = to / "models" / "diffrec-atelier-season"
    known = next(history for history in work.task.query.history.to_lists() if history)
    _show_what_moves_a_list(model, dataset.catalog.items.decode(known))
    return model, to / "dataset"


def _next(model: Path, dataset: Path) -> Sequence[Sequence[object]]:
    """What else can be tried on the embedded world."""
    user = Dataset.read(dataset).users.items.ids[0]
    return (
        ("describe", dataset),
        ("recommend", model, "--data", dataset, "--user", user, "--context", "season=winter"),
        ("evaluate", model, "--data", dataset, "--guidance", "--calibration", "--report", "studies.html"),
        ("compare", "--data", dataset, "--methods", "popularity,ease:atelier,diffrec:atelier", "--ceiling"),
        ("quickstart", "YOUR_FEED.tsv", "YOUR_EVENTS.jsonl", "--to", "shop"),
    )


def _program() -> str:
    """How to call this program from where it was called: its name, or its path where the name is not found."""
    here = Path(sys.argv[0])
    return str(here) if here.name == "rediffuse" and shutil.which("rediffuse") is None else "rediffuse"


def _show_what_moves_a_list(folder: Path, history: list[str]) -> None:
    """Print a list, the same after the customer took one more item, and in two seasons: no retraining."""
    model = load_model(folder)
    before = model.recommend(history, 5)
    show_answer("Before", before)
    taken = before.items[-1]
    show_answer(f"After taking {taken.title}", model.recommend([*history, taken.item], 5))
    for season in ("summer", "winter"):
        show_answer(f"Before, asked for {season}", model.recommend(history, 5, context={"season": season}))
