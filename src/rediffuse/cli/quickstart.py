"""`quickstart`: the whole job on the embedded world, in minutes."""

from pathlib import Path
from typing import Annotated

import typer

from rediffuse.cli.compare import make_report, recipes, show
from rediffuse.cli.console import SeedOption, ThreadsOption, line, run_config, tell
from rediffuse.cli.recommend import show_answer
from rediffuse.cli.running import Comparison
from rediffuse.data.importers.atelier import load
from rediffuse.data.splits import GlobalTime
from rediffuse.evaluation.protocol import Protocol
from rediffuse.evaluation.report import require_report, write_report
from rediffuse.files import new_folder, write_json
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
    to: Annotated[Path, typer.Option("--to", help="Folder to make; one of an earlier quickstart is replaced.")] = Path(
        "quickstart"
    ),
    size: Annotated[str, typer.Option(help="Size of the embedded world: tiny or small.")] = "small",
    threads: ThreadsOption = 0,
    seed: SeedOption = 1,
) -> None:
    """Make a fashion shop's events, train DiffRec and its rivals on them, compare them fairly, write a page.

    Example: `rediffuse quickstart --to quickstart`
    """
    require_report(to / "report.html")
    run = run_config("auto", "float32", threads, seed)
    protocol = Protocol(seeds=(seed,))
    with new_folder(to, kind="quickstart", replace=True) as place:
        tell(f"1/3 The shop: atelier {size}, two years of events, parted by time", "bold")
        dataset = load(size, seed=seed).with_split(GlobalTime())
        dataset.write(place / "dataset")
        tell(f"    {len(dataset.users):,} users, {len(dataset.catalog):,} items, {len(dataset.events):,} events")
        tell(f"2/3 Training and ranking the whole catalog for every user: {', '.join(METHODS)}", "bold")
        work = Comparison(dataset, protocol, run)
        runs = work.run_all(recipes(METHODS, {}))
        for one in runs:
            one.fitted.write(place / "models" / one.fitted.recipe.label.replace(":", "-"))
        report = make_report(work, runs)
        show(report)
        write_json(place / "results.json", report.to_json())
        write_report(place / "report.html", report)
    tell("3/3 One customer, before and after a purchase, and in another season", "bold")
    dataset_folder, model = to / "dataset", to / "models" / "diffrec-atelier-season"
    known = next(history for history in work.task.query.history.to_lists() if history)
    _show_what_moves_a_list(model, dataset.catalog.items.decode(known))
    tell(f"\nLook at {to / 'report.html'}. Next:")
    for words in (
        ("describe", dataset_folder),
        (
            "recommend",
            model,
            "--data",
            dataset_folder,
            "--user",
            dataset.users.items.ids[0],
            "--context",
            "season=winter",
        ),
        ("evaluate", model, "--data", dataset_folder, "--guidance", "--calibration", "--report", "studies.html"),
        ("compare", "--data", dataset_folder, "--methods", "popularity,ease:atelier,diffrec:atelier", "--ceiling"),
        ("import", "table", "YOUR_EVENTS.csv", "--to", "data/shop"),
    ):
        tell(f"  {line('rediffuse', *words)}")


def _show_what_moves_a_list(folder: Path, history: list[str]) -> None:
    """Print a list, the same after the customer took one more item, and in two seasons: no retraining."""
    model = load_model(folder)
    before = model.recommend(history, 5)
    show_answer("Before", before)
    taken = before.items[-1]
    show_answer(f"After taking {taken.title}", model.recommend([*history, taken.item], 5))
    for season in ("summer", "winter"):
        show_answer(f"Before, asked for {season}", model.recommend(history, 5, context={"season": season}))
