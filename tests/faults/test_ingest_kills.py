"""SIGKILL during ingest: every acknowledged event is there, once, and nothing that was not sent.

Half of the kills fall at random moments, half at an operation on a file, between the writes and syncs of a group's
commit or of a check-point. Twenty fall on one store, which goes on.
"""

import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from rediffuse.serving.store.sqlite import SQLiteStore
from tests.faults.ingest import event


def killed(path: Path, seed: int, dice: random.Random) -> set[str]:
    """Ingest until killed. Returns: what was acknowledged."""
    inside = seed % 2
    # opening a store takes a few operations, a commit some ten
    command = [
        sys.executable,
        Path(__file__).with_name("ingest.py"),
        path,
        str(seed),
        str(inside * dice.randint(1, 900)),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        if not inside:
            running.stdout.readline()
            timer = threading.Timer(dice.uniform(0.0, 0.25), running.kill)
            timer.start()
        lines = running.stdout.read().split("\n")
        assert running.wait(timeout=60) == -signal.SIGKILL
    return set(lines[:-1]) - {"open"}  # the last line, if cut off, was not read as acknowledged


@pytest.mark.parametrize("kills", [pytest.param(20, id="20"), pytest.param(200, marks=pytest.mark.slow, id="200")])
def test_no_kill_loses_or_doubles(tmp_path: Path, kills: int) -> None:
    dice = random.Random(kills)
    acknowledged: set[str] = set()
    total, slowest = 0, 0.0
    for seed in range(kills):
        path = tmp_path / f"events{seed // 20}.db"
        if seed % 20 == 0:
            acknowledged.clear()
        acknowledged |= (new := killed(path, seed, dice))
        total += len(new)
        began = time.perf_counter()
        store = SQLiteStore(path)
        slowest = max(slowest, time.perf_counter() - began)
        there = [told.event_id for _, told in store.since(0, 10**7)]
        assert acknowledged <= set(there), "lost"
        assert len(there) == len(set(there)) == store.state().events, "doubled"
        assert {name.split("-")[0] for name in there} <= {str(one) for one in range(seed + 1)}, "never sent"
        again = dice.sample(sorted(acknowledged), min(50, len(acknowledged)))
        assert not any(store.append([event(name) for name in again]).accepted)
        store.close()
    assert total > 20 * kills
    assert slowest < 5.0
