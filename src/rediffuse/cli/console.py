"""What every verb shares: options, tables, progress, and errors as one sentence with exit code 2."""

import json
import shlex
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.cells import cell_len
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table

from rediffuse import protocols
from rediffuse.config import RunConfig, parse_value, read_toml
from rediffuse.data.dataset import Dataset
from rediffuse.errors import InvalidInput, say
from rediffuse.evaluation.protocol import Protocol, protocol_for
from rediffuse.evaluation.report import blocks
from rediffuse.files import write_json
from rediffuse.types import Options

# Ids and titles may hold brackets and colons: nothing printed here is markup.
console = Console(highlight=False, markup=False, emoji=False)
stderr = Console(stderr=True, highlight=False, markup=False, emoji=False)

_BEGINS_NUMBERS = "+-−–<0123456789"
_WORD = 20
"""Longer words of a table are folded."""

DataOption = Annotated[Path, typer.Option("--data", help="Dataset folder, as `rediffuse import` makes it.")]
ProtocolOption = Annotated[
    str | None,
    typer.Option("--protocol", help="Name of a protocol that came with the data, `standard`, or a TOML file."),
]
KsOption = Annotated[
    str | None,
    typer.Option(
        "--ks", help="Lengths of lists to score, such as 5,10,20, besides the one that selects; else the protocol's."
    ),
]
Repeats = Literal["mask", "allow"]
RepeatsOption = Annotated[
    Repeats | None,
    typer.Option(
        "--repeats", help="Whether what a user had is masked or may come again; else as protocol and data have it."
    ),
]
SetOption = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A setting; may be repeated.")]
JsonOption = Annotated[Path | None, typer.Option("--json", help="Write the result here as JSON.")]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")]
PrecisionOption = Annotated[
    str, typer.Option("--precision", help="float32, float64 or mixed (products in bfloat16, where the device gains).")
]
ThreadsOption = Annotated[int, typer.Option("--threads", min=0, help="Processor threads; 0: torch decides.")]
SeedOption = Annotated[int, typer.Option("--seed", min=0, help="Seeds training and stochastic answers.")]
StepsOption = Annotated[int | None, typer.Option("--steps", min=1, help="Reverse steps; no retraining needed.")]
DrawsOption = Annotated[int, typer.Option("--draws", min=1, help="Reverse chains for each answer; 32 is usual.")]
StartOption = Annotated[
    str | None,
    typer.Option(
        "--start",
        help="Where the reverse process begins: history, thinned_history, noised_history, pure_noise, origin.",
    ),
]
TemperatureOption = Annotated[float, typer.Option("--temperature", min=0, help="Factor on the noise of every draw.")]
GuidanceOption = Annotated[
    list[str] | None,
    typer.Option(
        "--guidance-scale",
        metavar="S|NAME=S",
        help="How far to lean towards the conditions, all or by name; 1: not at all.",
    ),
]
DiversityOption = Annotated[
    float, typer.Option("--diversity", min=0, max=1, help="0: the plain ranking; 1: as unlike each other as can be.")
]


def run_config(device: str, precision: str, threads: int, seed: int) -> RunConfig:
    """The machine choices of a command, resolved."""
    return RunConfig.make(device=device, precision=precision, threads=threads, seed=seed).resolve()


def settings(pairs: Iterable[str] | None) -> dict[str, Any]:
    """`key=value` texts as a mapping; the last of equal keys wins. Raises: InvalidInput for anything else."""
    out: dict[str, Any] = {}
    for pair in pairs or ():
        key, separator, text = pair.partition("=")
        if not separator or not key:
            raise InvalidInput(say("--set takes key=value", got=pair, remedy="For example: --set regularization=1000"))
        out[key.strip()] = parse_value(text.strip())
    return out


def options_of(
    steps: int | None = None,
    draws: int = 1,
    start: str | None = None,
    temperature: float = 1.0,
    guidance_scale: Sequence[str] | None = None,
    diversity: float = 0.0,
) -> Options:
    """How to ask, from the options of a command. Raises: InvalidInput for a guidance scale that is none."""
    scale = _scale(guidance_scale) if guidance_scale else 1.0
    return Options(steps, draws, start, temperature, scale, diversity)


def _scale(texts: Sequence[str]) -> float | dict[str, float]:
    """One number for all conditions, or a number by name."""
    pairs = [text.rpartition("=") for several in texts for text in several.split(",")]
    try:
        numbers = [float(number) for _, _, number in pairs]
    except ValueError:
        numbers = []
    named = {name.strip(): number for (name, _, _), number in zip(pairs, numbers, strict=False)}
    if not numbers or len(named) < len(pairs) or ("" in named and len(pairs) > 1):
        remedy = "For example: --guidance-scale 2, or --guidance-scale season=2,history=1.5"
        raise InvalidInput(say("--guidance-scale takes a number, or name=number", got=",".join(texts), remedy=remedy))
    return numbers[0] if "" in named else named


def find_protocol(
    dataset: Dataset,
    text: str | None,
    *,
    ks: Sequence[int] | None = None,
    select_by: str | None = None,
    repeats: Repeats | None = None,
    **changes: Any,
) -> Protocol:
    """A protocol by name or from a TOML file, with what a command changes in it, checked against the data."""
    if text is not None and (text.endswith(".toml") or Path(text).is_file()):
        found = Protocol.make(read_toml(Path(text)), **changes)
    else:
        found = protocol_for(dataset, text, **changes)
    found = asked_for(found, ks, select_by, repeats)
    found.check(dataset)
    return found


def asked_for(protocol: Protocol, ks: Sequence[int] | None, select_by: str | None, repeats: Repeats | None) -> Protocol:
    """The protocol with lengths of lists, a selection metric and a mask from the command line; None leaves one as it is."""
    if ks is not None or select_by is not None:
        protocol = protocol.scoring(ks, select_by)
    if repeats is None:
        return protocol
    return protocol.with_repeats() if repeats == "allow" else protocol.without_repeats()


def whole_numbers(option: str, text: str | None) -> tuple[int, ...] | None:
    """Whole numbers separated by commas; None where the option is not given. Raises: InvalidInput for anything else."""
    if text is None:
        return None
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise InvalidInput(
            say(f"{option} takes whole numbers separated by commas", got=text, remedy=f"For example: {option} 1,2,3")
        ) from None


def write_result(path: Path | None, value: Mapping[str, Any]) -> None:
    """Publish a JSON result where one was asked for."""
    if path is not None:
        write_json(path, json.loads(json.dumps(value)))
        tell(f"Wrote {path}")


def tell(text: str, style: str | None = None) -> None:
    """Print a sentence in one piece, however narrow the terminal: commands in it can be copied."""
    console.print(text, style=style, soft_wrap=True)


def line(*words: object) -> str:
    """A command as it can be given to a shell: words with spaces in quotes."""
    return shlex.join(map(str, words))


def show_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table; text and heads may wrap, numbers never do.

    Where the terminal is too narrow for its longest words and its numbers, the table is wider: no cell is lost.

    Args: rows: cells as text; a column of which every cell begins like a number holds numbers.
    """
    rows = [tuple(row) for row in rows]
    table, least = Table(), 1
    for place, column in enumerate(columns):
        cells = [row[place] for row in rows]
        numbers = all(cell[:1] in _BEGINS_NUMBERS for cell in cells)
        words = [word for text in (column, *(() if numbers else cells)) for word in text.split()]
        width = max(0, *(min(cell_len(word), _WORD) for word in words), *(map(cell_len, cells) if numbers else ()))
        table.add_column(column, justify="right" if numbers else "left", overflow="fold", min_width=width)
        least += width + 3  # its padding and the line after it
    for row in rows:
        table.add_row(*row)
    table.width = least if least > console.width else None
    tell(title, "bold")
    if table.rows:
        console.print(table, crop=False)


def show_section(section: blocks.Section) -> None:
    """Print the sentences and tables of a part of a page; pictures and what is folded away are left to the page."""
    tell(f"\n{section.title}", "bold")
    for block in section.blocks:
        if isinstance(block, blocks.Text):
            tell(block.words)
        elif isinstance(block, blocks.Bullets):
            for item in block.items:
                tell(f"- {item}")
        elif isinstance(block, blocks.Table):
            roomy = len(block.head) <= 4
            show_table(
                block.caption,
                block.head,
                [[f"{c.text} ({c.small})" if c.small and roomy else c.text for c in row] for row in block.rows],
            )


@contextmanager
def training_progress(label: str) -> Generator[Callable[[protocols.Progress], None]]:
    """A bar with loss, best validation, rate and time left; yields what to call with each report."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("epoch {task.completed}/{task.total}"),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(label, total=None, note="")
        best = float("-inf")

        def report(progress: protocols.Progress) -> None:
            nonlocal best
            best = max(best, progress.validation if progress.validation is not None else best)
            note = f"loss {progress.loss:.4g}" + (f", best validation {best:.4f}" if best > float("-inf") else "")
            note += f", {progress.rate:,.0f} rows/s" + (f", {progress.examples:,} rows" if progress.partial else "")
            bar.update(task, total=progress.epochs, completed=progress.epoch, note=note)

        yield report


@contextmanager
def transfer_progress(label: str) -> Generator[Callable[[int, int | None], None]]:
    """A bar of bytes with rate and time left, shown from the first call on; yields what to call with (done, of how many)."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(label, total=None, visible=False)
        yield lambda done, total: bar.update(task, completed=done, total=total, visible=True)


@contextmanager
def waiting(label: str) -> Generator[None]:
    """What is being worked on and since when, for work whose length nobody knows."""
    columns = (TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        bar.add_task(label, total=None)
        yield
