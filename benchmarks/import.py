"""Rows a second and memory of `rediffuse import table` at the size of a large shop, against a bare parse.

    python -m benchmarks.import [--rows 20000000] [--seed 1] [--json FILE]

A CSV file of events (about a million users, 100,000 items, text ids, no order) is generated in a temporary folder. The
command runs in a process of its own until its dataset folder is sorted, hashed, synced and published; so does
`polars.read_csv` of the same file, which parses and keeps it and checks nothing. Memory is what all processes of a
side hold together, read from /proc (Linux) every 20 ms. The file lies in the page cache for both.
"""

# ruff: noqa: N999  # named for the verb it measures
import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from benchmarks.reverse_chain import machine
from rediffuse.files import write_json

THREADS = 2
USERS, ITEMS = 1_000_000, 100_000
FIRST_S, SPAN_S = 1_640_995_200, 2 * 365 * 86_400
KINDS, SHARES = ("view", "cart", "purchase"), (0.8, 0.12, 0.08)
CHUNK = 500_000
LEAST_ROWS_PER_S, MOST_MB = 500_000, 4_096
_PAGE = os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    """Generate, measure both sides, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        source = Path(place) / "events.csv"
        generate(source, arguments.rows, arguments.seed)
        parse = ["-c", f"import polars as pl; pl.read_csv({str(source)!r})"]
        verb = ["-m", "rediffuse.cli.main", "import", "table", str(source), "--to", str(Path(place) / "shop")]
        sides = {"bare parse": measure(parse), "ours": measure(verb)}
        size_mb = source.stat().st_size / 2**20
    for side in sides.values():
        side["rows_per_s"] = arguments.rows / side["seconds"]
    ratio = sides["ours"]["seconds"] / sides["bare parse"]["seconds"]
    print(f"{arguments.rows:,} rows, {size_mb:,.0f} MiB of CSV")
    print(f"{'':>10} {'s':>7} {'cpu s':>7} {'rows/s':>10} {'peak MiB':>9}")
    for name, side in sides.items():
        times = f"{side['seconds']:>7.1f} {side['cpu_s']:>7.1f}"
        print(f"{name:>10} {times} {side['rows_per_s']:>10,.0f} {side['peak_rss_mb']:>9,.0f}")
    print(f"ours / bare parse: {ratio:.1f}; wanted: {LEAST_ROWS_PER_S:,} rows/s in {MOST_MB:,} MiB")
    if arguments.json:
        facts = {"machine": machine(THREADS), "rows": arguments.rows, "seed": arguments.seed, "csv_mb": size_mb}
        target = {"rows_per_s": LEAST_ROWS_PER_S, "peak_rss_mb": MOST_MB}
        write_json(arguments.json, {**facts, **sides, "ratio": ratio, "target": target})


def generate(path: Path, rows: int, seed: int) -> None:
    """Write events some rows at a time; the same seed gives the same file. Few users and items have most events."""
    rng = np.random.default_rng(seed)
    with path.open("wb") as file:
        file.write(b"user_id,item_id,timestamp,event_type,price\n")
        for start in range(0, rows, CHUNK):
            count = min(CHUNK, rows - start)
            user = (rng.random(count) ** 1.5 * USERS).astype(np.int64) * 7_919 % 10_000_019
            item = (rng.random(count) ** 3 * ITEMS).astype(np.int64) * 613 % 1_000_003
            columns = {
                "user": "u" + pl.Series(user).cast(pl.String).str.zfill(8),
                "item": "sku-" + pl.Series(item).cast(pl.String).str.zfill(7),
                "time": FIRST_S + rng.integers(0, SPAN_S, count),
                "kind": pl.Series(KINDS).gather(rng.choice(len(KINDS), count, p=SHARES)),
                "value": rng.integers(100, 20_000, count) / 100,
            }
            pl.DataFrame(columns).write_csv(file, include_header=False)


def measure(arguments: list[str]) -> dict[str, Any]:
    """Run Python with the arguments. Returns: seconds from start to end, of processors, and the most MiB held."""
    environment = {**os.environ, "POLARS_MAX_THREADS": str(THREADS), "OMP_NUM_THREADS": str(THREADS)}
    began, cpu = time.perf_counter(), _cpu()
    process = subprocess.Popen([sys.executable, *arguments], env=environment, stdout=subprocess.DEVNULL)
    peak = 0
    while process.poll() is None:
        peak = max(peak, _resident(process.pid))
        time.sleep(0.02)
    seconds = time.perf_counter() - began
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, arguments)
    return {"seconds": seconds, "cpu_s": _cpu() - cpu, "peak_rss_mb": peak / 2**20}


def _cpu() -> float:
    """Processor seconds of all children that have ended: they tell a busy machine from slow work."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _resident(pid: int) -> int:
    """Bytes that a process and its descendants hold; 0 for one that has just ended."""
    folder = Path(f"/proc/{pid}")
    try:
        own = int((folder / "statm").read_text(encoding="ascii").split()[1]) * _PAGE
        children = [child for task in (folder / "task").iterdir() for child in (task / "children").read_text().split()]
    except OSError:
        return 0
    return own + sum(_resident(int(child)) for child in children)


if __name__ == "__main__":
    main()
