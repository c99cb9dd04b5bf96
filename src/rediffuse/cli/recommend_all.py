"""Lists for many users of a dataset as one file: in parts, so that an interrupted command goes on where it was.

Beside FILE stands, until it is whole, the hidden folder .FILE.parts:

    plan.json           all that decides an answer: model, data, users, k, options, seed, machine, versions
    000000.parquet ..   the answers of PART users each
    000000.sha256 ..    their checksums; a part without one, or with another, is made again
"""

import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import polars as pl
import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text
from torch import Tensor

from rediffuse.cli.console import console
from rediffuse.data.context import user_words
from rediffuse.data.dataset import Dataset
from rediffuse.errors import InvalidInput, say, unknown
from rediffuse.facade import Model
from rediffuse.files import new_file, read_json, sha256, write_json, write_text
from rediffuse.grounding.steady import BLOCK, ask
from rediffuse.types import Assortment, Candidates, Fallback, Options, Ranking

PART = 16 * BLOCK
"""Users of a part."""
SUFFIXES = (".parquet", ".csv", ".jsonl")
FALLBACKS = pl.Series([None, *(code.name.lower() for code in Fallback if code)], dtype=pl.String)
"""In words, by code."""


@dataclass(frozen=True)
class Asked:
    """A question put to many users: the k best items after all the events of each, none of which is shown again."""

    model: Model
    dataset: Dataset
    users: Tensor
    """(U,) int64, numbers in the dataset."""
    k: int
    options: Options = Options()
    seed: int = 0
    context: Mapping[str, str] = field(default_factory=dict[str, str])
    """What is known of the moment, alike for all; what the data tells of each user is added."""
    offered: Candidates | None = None
    """What may be returned, in the model's numbers; None: the whole catalog."""

    def plan(self, machine: Mapping[str, object]) -> dict[str, Any]:
        """All that decides an answer, as JSON has it. Args: machine: model folder, device, threads and versions."""
        names = "\n".join(self.dataset.users.items.decode(self.users.tolist()))
        return {
            "data": self.dataset.digest(),
            "users": hashlib.sha256(names.encode()).hexdigest(),
            "k": self.k,
            "options": {name: str(value) for name, value in self.options.asked().items()},
            "seed": self.seed,
            "context": dict(self.context),
            "conditions": self._limits(),
            **machine,
        }

    def _limits(self) -> str | None:
        """A hash of what is offered to all, whatever the conditions were called."""
        if self.offered is None:
            return None
        offered = Assortment.of(self.offered)
        tables = [b"" if table is None else table.numpy().tobytes() for table in (offered.items, offered.groups)]
        return hashlib.sha256(b"|".join(tables)).hexdigest()

    def parts(self) -> Sequence[Tensor]:
        """The users of each part."""
        return self.users.split(PART)

    def answers(self) -> Callable[[Tensor], pl.DataFrame]:
        """What gives the rows of some users: user, rank (from 1), item, score, spread where there were draws, fallback.

        Where probabilities are told, `probability` and what it is of; null where nothing is known.
        """
        history = self.dataset.history()
        # Ids are what data and model share: an item they number differently is translated, an unknown one left out.
        number = torch.from_numpy(self.model.items.encode(self.dataset.catalog.items.ids))
        of_users = {name: found for name, found in self._of_users().items() if name not in self.context}
        user_ids, item_ids = (pl.Series(v.ids, dtype=pl.String) for v in (self.dataset.users.items, self.model.items))

        def of(users: Tensor) -> pl.DataFrame:
            return pl.concat([block(rows) for rows in users.split(BLOCK)])

        def block(users: Tensor) -> pl.DataFrame:
            events = history.select(users)
            known = replace(events, items=number[events.items])
            query = self.model.query(known.keep(known.items >= 0))
            context = {name: codes[users] for name, codes in of_users.items()}
            query = replace(query, context={**context, **self.model.context(self.context, len(users))})
            query = replace(query, candidates=self.offered)
            found = ask(
                self.model.recommender, query, torch.arange(len(users)), self.k, options=self.options, seed=self.seed
            )
            return _frame(users, found, user_ids, item_ids)

        return of

    def _of_users(self) -> dict[str, Tensor]:
        """What the data tells of every user that the model is conditioned on, (U,) codes of the model, -1 unknown."""
        words = self.model.conditions
        return {
            name: torch.tensor([words[name].index(w) if w in words[name] else -1 for w in found])
            for name, found in user_words(self.dataset, words).items()
        }


def users_of(dataset: Dataset, text: str) -> Tensor:
    """The numbers of `all` users, or of those whose ids stand in a file, one a line; (U,) int64.

    Raises: InvalidInput for an id that the data does not have, one that stands twice, or when there is none.
    """
    ids = dataset.users.items.ids
    if text == "all":
        return torch.arange(len(ids))
    try:
        lines = Path(text).read_text(encoding="utf-8-sig").split("\n")  # an id may hold other ends of lines
    except UnicodeDecodeError:
        raise InvalidInput(say(f"{text!r} is not UTF-8 text", remedy="Save it as UTF-8")) from None
    names = [name for line in lines if (name := line.removesuffix("\r"))]
    numbers = torch.from_numpy(dataset.users.items.encode(names))
    if not names:
        raise InvalidInput(say(f"{text!r} names no user", remedy="Give one user id a line, or --users all"))
    if bool((numbers < 0).any()):
        raise InvalidInput(unknown("user", names[int((numbers < 0).nonzero()[0])], ids))
    found, times = numbers.unique(return_counts=True)
    if bool((times > 1).any()):
        raise InvalidInput(say(f"A user stands twice in {text!r}", got=ids[int(found[times > 1][0])]))
    return numbers


def recommend_all(
    asked: Asked, target: Path, machine: Mapping[str, object], *, tell: Callable[[str], None] = lambda _: None
) -> None:
    """Write the answers to `target`, whole or not at all; what an interrupted call finished is taken over.

    Args: target: its suffix chooses parquet, CSV or JSON lines.   tell: called with what should be known.
    Raises: InvalidInput when the target exists, or another command has begun it or is at work on it.
    Limits: memory is that of the data, the model and one part.
    """
    if target.suffix not in SUFFIXES:
        raise InvalidInput(say("The file of answers has an unknown suffix", got=target.suffix, allowed=SUFFIXES))
    target = target.absolute()
    folder, plan = target.with_name(f".{target.name}.parts"), asked.plan(machine)
    if target.exists():
        if folder.is_dir() and _plan(folder) == plan:  # ended between the last rename and the clearing up
            shutil.rmtree(folder)
            tell(f"{target} was whole already")
            return
        raise InvalidInput(say(f"{str(target)!r} exists already", remedy="Choose another place or remove it first"))
    with _owned(folder):
        if target.exists():  # another command ended while this one waited for its turn
            raise InvalidInput(say(f"{str(target)!r} exists already", remedy="Choose another place or remove it first"))
        _begin(folder, plan)
        paths = [folder / f"{number:06}.parquet" for number in range(len(asked.parts()))]
        try:
            _fill(paths, asked, tell)
        except BaseException:
            if not any(map(_whole, paths)):
                shutil.rmtree(folder)
            raise
        _join(paths, target)
        shutil.rmtree(folder)


def _fill(paths: Sequence[Path], asked: Asked, tell: Callable[[str], None]) -> None:
    """Make the parts that are not whole yet."""
    missing = [(path, users) for path, users in zip(paths, asked.parts(), strict=True) if not _whole(path)]
    done = len(asked.users) - sum(len(users) for _, users in missing)
    if done:
        tell(f"Going on after {done:,} of {len(asked.users):,} users")
    answers = asked.answers()
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("Recommending", total=len(asked.users), completed=done)
        for path, users in missing:
            path.with_suffix(".sha256").unlink(missing_ok=True)
            with new_file(path) as temporary:
                answers(users).write_parquet(temporary)
            write_text(path.with_suffix(".sha256"), sha256(path))
            bar.advance(task, len(users))


def _join(paths: Sequence[Path], target: Path) -> None:
    """Publish the parts as one file, a part at a time."""
    with new_file(target) as temporary:
        if target.suffix == ".parquet":
            import pyarrow.parquet as pq

            with pq.ParquetWriter(temporary, pq.read_schema(paths[0])) as writer:
                for path in paths:
                    writer.write_table(pq.read_table(path))
            return
        with temporary.open("wb") as file:
            for path in paths:
                frame = pl.read_parquet(path, glob=False)
                if target.suffix == ".csv":
                    frame.write_csv(file, include_header=path == paths[0])
                else:
                    frame.write_ndjson(file)


def _frame(users: Tensor, found: Ranking, user_ids: pl.Series, item_ids: pl.Series) -> pl.DataFrame:
    row, place = (found.items >= 0).nonzero(as_tuple=True)
    told = {"spread": found.spread, "probability": found.probability}
    tables = {name: pl.Series(t[row, place].numpy()).fill_nan(None) for name, t in told.items() if t is not None}
    if "probability" in tables:
        names = pl.Series([None, found.probability_of], dtype=pl.String)
        tables["probability_of"] = names.gather(tables["probability"].is_not_null().cast(pl.UInt32))
    return pl.DataFrame(
        {
            "user": user_ids.gather(users[row].numpy()),
            "rank": pl.Series(place.numpy() + 1, dtype=pl.Int32),
            "item": item_ids.gather(found.items[row, place].numpy()),
            "score": pl.Series(found.scores[row, place].numpy(), dtype=pl.Float32),
            **tables,
            "fallback": FALLBACKS.gather(found.reasons[row].numpy()),
        }
    )


def _begin(folder: Path, plan: Mapping[str, Any]) -> None:
    """Note the plan, or refuse to mix with another one's parts."""
    begun = _plan(folder)
    if begun is None:
        write_json(folder / "plan.json", plan)
    elif begun != plan:
        key = next(key for key in (*plan, *begun) if plan.get(key) != begun.get(key))
        raise InvalidInput(
            say(
                f"{str(folder)!r} holds parts of another command, whose {key} differs",
                got=plan.get(key),
                allowed=begun.get(key),
                remedy="Finish that command, or remove this folder",
            )
        )


def _plan(folder: Path) -> dict[str, Any] | None:
    return read_json(folder / "plan.json") if (folder / "plan.json").is_file() else None


def _whole(path: Path) -> bool:
    """Whether a part is there, exactly as it was made."""
    noted = path.with_suffix(".sha256")
    return path.is_file() and noted.is_file() and noted.read_text(encoding="ascii", errors="replace") == sha256(path)


@contextmanager
def _owned(folder: Path) -> Generator[None]:
    """Make the folder and keep other commands out; the system drops the lock with its owner."""
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise InvalidInput(say(f"Another command is at work in {str(folder)!r}", remedy="Wait for its end")) from None
    finally:
        os.close(handle)


class _Rate(ProgressColumn):
    """Users per second."""

    def render(self, task: Task) -> Text:
        """As text; empty before the first part."""
        return Text(f"{task.speed:,.0f}/s" if task.speed else "")
