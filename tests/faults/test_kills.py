"""SIGKILL in the middle of a training: the same command goes on to the same bytes, and nothing else is left.

Ten kills fall at random moments, ten at file operations: between a write, a flush and a rename of a checkpoint, of
the model folder, or of what is cleared away.
"""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rediffuse.files import sha256

pytestmark = pytest.mark.slow
KILLS = 10
SETS = ("hidden=[64]", "epochs=6", "patience=1000", "validate_every=2", "batch_size=20", "average=0.9")
RUN = ("--threads", "1", "--checkpoint-s", "0")
WEIGHTS = "weights.safetensors"


def training(env: dict[str, str], shop: Path, to: Path, **faults: object) -> subprocess.Popen[bytes]:
    """Start the command; a state is kept after every step."""
    sets = [word for pair in SETS for word in ("--set", pair)]
    command = [sys.executable, "-m", "rediffuse.cli.main", "train", "diffrec", "--data", str(shop), "--to", str(to)]
    armed = {f"FAULTS_{name}": str(value) for name, value in faults.items()}
    return subprocess.Popen(
        [*command, *RUN, *sets], env={**env, **armed}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny world."""
    from rediffuse.data.importers.atelier import load
    from rediffuse.data.splits import GlobalTime

    folder = tmp_path_factory.mktemp("kills") / "shop"
    load("tiny", seed=1).with_split(GlobalTime()).write(folder)
    return folder


@pytest.fixture(scope="module")
def whole(faults: dict[str, str], shop: Path) -> tuple[str, int, float]:
    """The hash of an uninterrupted run, its file operations and its seconds."""
    place, log, began = shop.parent / "whole", shop.parent / "operations", time.perf_counter()
    assert training(faults, shop, place / "model", BELOW=place, AT=0, LOG=log).wait() == 0
    return sha256(place / "model" / WEIGHTS), int(log.read_text()), time.perf_counter() - began


def finished(env: dict[str, str], shop: Path, place: Path) -> str:
    """Give the command again, look at what is there, return the hash."""
    published = (place / "model").exists()
    # A kill after publishing: the command says that the model is there, and clears away what is left of the training.
    assert training(env, shop, place / "model").wait() == (2 if published else 0)
    return sha256(place / "model" / WEIGHTS)


@pytest.mark.parametrize("kill", range(KILLS))
def test_killed_at_a_random_moment(
    faults: dict[str, str], shop: Path, tmp_path: Path, whole: tuple[str, int, float], kill: int
) -> None:
    expected, _, seconds = whole
    running = training(faults, shop, tmp_path / "model")
    state = tmp_path / ".model.training"
    while running.poll() is None and not state.exists():
        time.sleep(0.002)
    time.sleep(random.Random(kill).uniform(0, seconds / 3))
    running.send_signal(signal.SIGKILL)
    running.wait()
    assert finished(faults, shop, tmp_path) == expected
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("kill", range(KILLS))
def test_killed_inside_saving(
    faults: dict[str, str], shop: Path, tmp_path: Path, whole: tuple[str, int, float], kill: int
) -> None:
    expected, operations, _ = whole
    at = random.Random(100 + kill).randint(operations * kill // KILLS + 1, operations * (kill + 1) // KILLS)
    running = training(faults, shop, tmp_path / "model", BELOW=tmp_path, AT=at, HOW="kill")
    assert running.wait() == -signal.SIGKILL
    assert finished(faults, shop, tmp_path) == expected
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
