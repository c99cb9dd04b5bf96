"""Let every write of one job fail in turn, and say what was found: `python every_write.py import|checkpoint|model HOW`.

Runs under the layer of faults.c. Prints a line of JSON: how many operations the job makes, and what went wrong.
"""

import contextlib
import ctypes
import io
import json
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch

from rediffuse import registry
from rediffuse.cli import main
from rediffuse.config import RunConfig
from rediffuse.data.dataset import Dataset
from rediffuse.data.importers.atelier import load
from rediffuse.data.splits import GlobalTime
from rediffuse.errors import RediffuseError, StorageError
from rediffuse.evaluation.protocol import Protocol
from rediffuse.training.checkpoint import FolderCheckpoint

LAYER = ctypes.CDLL(None)
LAYER.faults_count.restype = ctypes.c_long
LAYER.faults_seen.restype = ctypes.c_char_p


class Job:
    """What is written, and how it is read again."""

    def __init__(self, write: Callable[[Path], None], read: Callable[[Path], object], *, replaces: bool) -> None:
        self.write, self.read, self.replaces = write, read, replaces


def import_job(work: Path) -> Job:
    """`rediffuse import table` of a small file."""
    source = work / "events.csv"
    rows = (f"u{n % 7},i{n % 11},{1_700_000_000 + n},view,{n}.5" for n in range(500))
    source.write_text("\n".join(["user,item,time,kind,value", *rows]))

    def write(target: Path) -> None:
        sys.argv = ["rediffuse", "import", "table", str(source), "--to", str(target)]
        said = io.StringIO()
        with contextlib.redirect_stderr(said):
            try:
                main.run()
            except SystemExit as left:
                if left.code == 2 and said.getvalue().startswith("Error: "):
                    raise StorageError(said.getvalue()) from None
                if left.code:
                    raise

    return Job(write, lambda target: Dataset.read(target).digest(), replaces=False)


def checkpoint_job(work: Path) -> Job:
    """A state that replaces another."""
    del work

    def write(target: Path) -> None:
        store = FolderCheckpoint(target, "mark")
        epoch = 1 if target.exists() else 0
        store.save({"weight": torch.full((3000,), float(epoch))}, {"epoch": epoch})

    def read(target: Path) -> object:
        found = FolderCheckpoint(target, "mark").load()
        assert found is not None
        tensors, state = found
        assert bool((tensors["weight"] == state["epoch"]).all())
        return None  # either state is good, as long as it is whole

    return Job(write, read, replaces=True)


def model_job(work: Path) -> Job:
    """A trained model."""
    del work
    dataset = load("tiny", seed=1).with_split(GlobalTime())
    chosen = registry.recipe("diffrec", settings={"hidden": [8], "epochs": 1})
    fitted = registry.fit(chosen, dataset, Protocol(), RunConfig(device="cpu"))
    ask = dataset.catalog.items.ids[:3]
    return Job(fitted.write, lambda target: registry.load(target).recommend(ask).to_json(), replaces=False)


def arm(folder: Path, how: str, n: int) -> None:
    """Let the n-th operation below a folder fail; 0: none."""
    LAYER.faults_arm(str(folder).encode(), how.encode(), ctypes.c_long(n))


def examine(job: Job, how: str, work: Path) -> dict[str, object]:
    """Go through all operations of the job. Returns: their number and the complaints."""
    wrong: list[str] = []
    with contextlib.redirect_stdout(io.StringIO()):
        whole = work / "whole" / "thing"
        whole.parent.mkdir()
        job.write(whole)
        expected, n = job.read(whole), 0
        while True:
            n += 1
            place = work / "try"
            place.mkdir()
            target = place / "thing"
            if job.replaces:
                job.write(target)
            arm(place, how, n)
            error: BaseException | None = None
            try:
                job.write(target)
            except BaseException as caught:  # noqa: BLE001  # what must not come is what we look for
                error = caught
            done = LAYER.faults_count() < n
            at = f"{how} at {n}, {LAYER.faults_seen().decode()}"
            arm(work / "nowhere", "eio", 0)
            if error is not None and not isinstance(error, RediffuseError):
                wrong.append(f"{at}: {type(error).__name__}: {error}")
            if error is None and not target.exists():
                wrong.append(f"{at}: no error and nothing there")
            if how == "short" and error is not None:
                wrong.append(f"{at}: a short write is no error, yet: {error}")
            wrong += [f"{at}: left {path.name}" for path in place.iterdir() if path.name != "thing"]
            if target.exists() and job.read(target) != expected:
                wrong.append(f"{at}: what is there is not what was written")
            if not target.exists() or job.replaces:
                job.write(target)  # once there is room again, the same command works
                if job.read(target) != expected:
                    wrong.append(f"{at}: written again, it is something else")
            shutil.rmtree(place)
            if done:
                return {"operations": n - 1, "wrong": wrong}


if __name__ == "__main__":
    job_name, fault = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        made = {"import": import_job, "checkpoint": checkpoint_job, "model": model_job}[job_name](Path(folder))
        print(json.dumps(examine(made, fault, Path(folder))))
