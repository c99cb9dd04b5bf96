"""`quickstart FEED EVENTS`: the whole job on a shop's own files, sized to them."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rediffuse.cli.compare import make_report, recipes, show
from rediffuse.cli.console import line, tell
from rediffuse.cli.data import now_us, read_source, show_facts
from rediffuse.cli.running import Comparison, Run
from rediffuse.config import RunConfig
from rediffuse.data.dataset import Dataset
from rediffuse.data.importers import format_of, holds_products
from rediffuse.data.splits import PARTS, GlobalTime, LeaveLastOut, UserOrder
from rediffuse.errors import InvalidInput, say
from rediffuse.evaluation.protocol import Protocol, protocol_for
from rediffuse.evaluation.report import Report, headline, write_report
from rediffuse.files import new_folder, write_json

METHODS = ("popularity", "ease", "ease:exponential", "diffrec", "t-diffrec")
"""What is compared: a control, classics and diffusion models, with and without the age of events."""
MOST_ITEMS = 10_000
"""Beyond, neighbours take the place of EASE, whose cost grows with the third power of the items."""
_MOST_EPOCHS, _LEAST_EPOCHS = 200, 20
_CELLS = 2e8
"""Users times items that one training goes through in all its epochs: a minute of one processor."""
_TRIALS = ((1e6, 8), (5e7, 3))
"""(Users times items, settings to try for each method up to there); beyond, the given ones stay."""


def quickstart_shop(
    source: Path, events: Path | None, to: Path, trials: int | None, run: RunConfig
) -> tuple[Path, Path]:
    """Read, look, split, train, compare, write.

    Args: source: a feed, or with events = None whatever holds events: an export or a dataset folder.
        to: folder to make.   trials: settings to try for each method; None: as many as suit the size of the data.
    Returns: the folders of the model that leads, and of the dataset.
    Raises: InvalidInput about the files, or where they hold too little to hold some back for a comparison.
    """
    keep = to.absolute().with_name(f".{to.name}.work")
    with new_folder(to, kind="quickstart", replace=True) as place:
        tell(f"1/3 Reading {_told(source, events)}", "bold")
        dataset = parted(_read(source, events))
        show_facts(dataset.write(place / "dataset", now_us()))
        protocol = protocol_of(dataset, run.seed)
        settings, most = sized(dataset)
        trials = most if trials is None else trials
        chosen = recipes(methods_of(dataset), settings)
        how = f"{trials} settings tried for each" if trials else "settings as they are given"
        tell(f"2/3 Training {', '.join(one.label for one in chosen)}; {how}", "bold")
        work = Comparison(dataset, protocol, run, trials, keep)
        try:
            runs = work.run_all(chosen)
        except KeyboardInterrupt:
            tell("Interrupted. The same command goes on from what is finished.")
            raise
        report = published(place, work, runs)
    shutil.rmtree(keep, ignore_errors=True)
    tell("3/3 What it says", "bold")
    for sentence in headline(report).sentences:
        tell(f"    {sentence}")
    tell(f"    Learned from all but the last events, which it was read on; {to / 'report.html'} has the rest.")
    leader = max(runs, key=lambda one: one.scores.mean(protocol.select_by))
    return to / "models" / name_of(leader), to / "dataset"


def published(place: Path, work: Comparison, runs: Sequence[Run]) -> Report:
    """Write the models, the page and the figures of a comparison, and print its table."""
    for one in runs:
        one.fitted.write(place / "models" / name_of(one))
    report = make_report(work, runs)
    show(report)
    write_json(place / "results.json", report.to_json())
    write_report(place / "report.html", report)
    return report


def name_of(run: Run) -> str:
    """The folder of a model: its label, as a name that the service takes."""
    return run.fitted.recipe.label.replace(":", "-")


def parted(dataset: Dataset) -> Dataset:
    """Its own split, else by time, else by each user's order, as far as there are events for it.

    Raises: InvalidInput where no order is known, or no split leaves something to learn from and to be asked for.
    """
    if dataset.split is not None:
        return dataset
    if dataset.events.order == "none":
        remedy = f"Name the column of times: {_IMPORT} --map time=COLUMN; then: {_AGAIN}"
        raise InvalidInput(say("The order of these events is not known", remedy=remedy))
    by_time = (GlobalTime(),) if dataset.events.order == "time" else ()
    for recipe in (*by_time, UserOrder(), LeaveLastOut()):
        try:
            return dataset.with_split(recipe)
        except InvalidInput:
            continue  # too few events for this one
    remedy = "Give some weeks of events, of users who came more than twice"
    raise InvalidInput(
        say("There are too few events to hold some back for a comparison", got=len(dataset.events), remedy=remedy)
    )


def methods_of(dataset: Dataset) -> list[str]:
    """What suits the size of the catalog."""
    if len(dataset.catalog) <= MOST_ITEMS:
        return [*METHODS]
    return [*dict.fromkeys("item_knn" if name.startswith("ease") else name for name in METHODS)]


def protocol_of(dataset: Dataset, seed: int) -> Protocol:
    """The usual question, with shorter lists where the catalog is short; models for use learn from all but the last part."""
    most = min(20, max(len(dataset.catalog) // 2, 1))
    changes: dict[str, Any] = {"ks": sorted({max(most // 2, 1), most}), "select_by": f"recall@{most}", "seeds": (seed,)}
    if dataset.split is not None and dataset.split.parts == PARTS and not dataset.protocols:
        changes["refit"] = PARTS[:2]
    found = protocol_for(dataset, **changes)
    found.check(dataset)
    return found


def sized(dataset: Dataset) -> tuple[Mapping[str, Any], int]:
    """Settings of the networks, and how many settings to try for each method: minutes, not hours, on two processors."""
    users, items = len(dataset.users), len(dataset.catalog)
    epochs = int(min(max(_CELLS / (users * items), _LEAST_EPOCHS), _MOST_EPOCHS))
    trials = next((count for most, count in _TRIALS if users * items <= most), 0)
    networks = {
        "hidden": (300, 100, 300) if items >= 1000 else (100,),
        "levels": 5,
        "noise_scale": 0.1,
        "noise_min": 0.001,
        "noise_max": 0.01,
        "batch_size": min(400, max(20, users // 10)),
        "epochs": epochs,
    }
    return networks, trials


_IMPORT = "rediffuse import auto FEED EVENTS --to data/shop"
_AGAIN = "rediffuse quickstart data/shop"


def _read(source: Path, events: Path | None) -> Dataset:
    if events is None and (source / "dataset.json").is_file():
        return Dataset.read(source)
    if events is None and holds_products(source):
        remedy = f"Give the log of events as well: {line('rediffuse', 'quickstart', source, 'EVENTS')}"
        raise InvalidInput(say(f"{source.name!r} is a feed of products, which holds no events", remedy=remedy))
    return read_source("auto", str(source), events, {}, {})


def _told(source: Path, events: Path | None) -> str:
    """What is read, by its format."""
    if events is not None:
        return f"{source} ({format_of(source)}) and {events} ({format_of(events)})"
    return str(source) if (source / "dataset.json").is_file() else f"{source} ({format_of(source)})"
