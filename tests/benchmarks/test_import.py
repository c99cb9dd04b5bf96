"""The benchmark of the import: a file that is the same each time, and a process that is measured."""

import importlib
import subprocess
from pathlib import Path

import polars as pl
import pytest

benchmark = importlib.import_module("benchmarks.import")


def test_the_same_seed_gives_the_same_file(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        benchmark.generate(tmp_path / name, 1000, seed)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes() != (tmp_path / "c").read_bytes()
    frame = pl.read_csv(tmp_path / "a")
    assert frame.columns == ["user_id", "item_id", "timestamp", "event_type", "price"]
    assert frame.height == 1000
    assert frame["event_type"].unique().sort().to_list() == ["cart", "purchase", "view"]


def test_time_and_memory_of_a_process_and_its_children_are_measured() -> None:
    code = "import subprocess, sys; x = bytearray(64 << 20); subprocess.run([sys.executable, '-c', {!r}], check=True)"
    found = benchmark.measure(["-c", code.format("import time; x = bytearray(64 << 20); time.sleep(0.3)")])
    assert found["seconds"] > 0.3
    assert found["cpu_s"] > 0
    assert 128 < found["peak_rss_mb"] < 300
    with pytest.raises(subprocess.CalledProcessError):
        benchmark.measure(["-c", "raise SystemExit(3)"])
