"""SIGKILL in the middle of a training: the same command goes on to the same bytes."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rediffuse.files import sha256

pytestmark = pytest.mark.slow
SETS = ("hidden=[64]", "epochs=300", "patience=1000", "validate_every=1", "batch_size=20")


def training(shop: Path, to: Path) -> subprocess.Popen[bytes]:
    sets = [word for pair in SETS for word in ("--set", pair)]
    command = [sys.executable, "-m", "rediffuse.cli.main", "train", "diffrec", "--data", str(shop), "--to", str(to)]
    return subprocess.Popen([*command, "--threads", "1", *sets], stdout=subprocess.DEVNULL)


def newest(checkpoint: Path) -> int:
    """Changes with every checkpoint; 0 while there is none, or while one is being put in its place."""
    try:
        return (checkpoint / "manifest.json").stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def test_a_training_killed_again_and_again_ends_in_the_same_bytes(shop: Path, tmp_path: Path) -> None:
    assert training(shop, tmp_path / "whole").wait() == 0
    target, checkpoint = tmp_path / "killed", tmp_path / ".killed.training"
    moments, kills = random.Random(0), 0
    for _ in range(4):
        running, before = training(shop, target), newest(checkpoint)
        while running.poll() is None and newest(checkpoint) in (0, before):
            time.sleep(0.002)
        # It has got one checkpoint further; the moment falls into training, validation or saving.
        time.sleep(moments.uniform(0, 0.3))
        if running.poll() is None:
            running.send_signal(signal.SIGKILL)
            kills += 1
        running.wait()
    assert kills >= 2
    assert training(shop, target).wait() == 0
    assert sha256(target / "weights.safetensors") == sha256(tmp_path / "whole" / "weights.safetensors")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["killed", "whole"]
