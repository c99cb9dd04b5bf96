"""Answers a second of the engine, and how long they take through the batcher, from live histories without cached lists.

    python -m benchmarks.serving.engine [--items 20000] [--threads 1] [--seconds 10] [--json FILE]

A DiffRec of the default size over a made-up catalog, its weights as they are drawn (they cost what learned ones do);
histories of 30 items, no two alike; lists of 10. Closed: batches of 1 to 64, one after the other. Open: asks that come at
random moments at a fixed rate, answered by one worker thread, the driver in the same process.
"""

import argparse
import asyncio
import os
import random
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import polars as pl
import torch

from rediffuse.artifacts import ModelFolder, write_model
from rediffuse.cli.memory import peak_rss_mb
from rediffuse.errors import RediffuseError
from rediffuse.files import write_json
from rediffuse.models.diffrec import DiffRec, DiffRecConfig, network_of
from rediffuse.serving.batcher import Batcher
from rediffuse.serving.engine import Answered, Ask, Engine
from rediffuse.serving.versions import Versions

ITEMS, HISTORY, K, DEADLINE_S = 20_000, 30, 10, 0.5
BATCHES, RATES = (1, 8, 32, 64), (100, 200, 300)
CATEGORY = "category=c1|c2"


@dataclass(frozen=True)
class Closed:
    """Batches one after the other."""

    batch: int
    where: bool
    """Whether a condition on the items limits the lists."""
    answers_per_s: float


@dataclass(frozen=True)
class Open:
    """Asks that come whether or not the former are answered."""

    rate_per_s: float
    answered_per_s: float
    p50_ms: float
    p99_ms: float
    refused: int


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--items", type=int, default=ITEMS)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=10.0)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "made"
        write(folder, arguments.items)
        began = time.perf_counter()
        versions = Versions(folder.parent, "cpu")
        engine = versions.promote(folder.name).engine
        ready_s = time.perf_counter() - began
    print(f"{arguments.items:,} items, {arguments.threads} threads, load before {load:.1f}; ready in {ready_s:.2f} s")
    closed = [measured(engine, n, arguments.seconds / 8, where=where) for where in (False, True) for n in BATCHES]
    for row in closed:
        print(f"batches of {row.batch:2}{', limited' if row.where else '':9}: {row.answers_per_s:7.0f} answers/s")
    opened = [asyncio.run(arriving(engine, rate, arguments.seconds)) for rate in RATES]
    for row in opened:
        print(
            f"{row.rate_per_s:4.0f} asks/s: {row.answered_per_s:4.0f} answered, p50 {row.p50_ms:.1f} ms, "
            f"p99 {row.p99_ms:.1f} ms, {row.refused} refused"
        )
    if arguments.json is not None:
        rows = {"closed": [asdict(row) for row in closed], "open": [asdict(row) for row in opened]}
        facts = {"items": arguments.items, "threads": arguments.threads, "load_before": load, "ready_s": ready_s}
        write_json(arguments.json, {**facts, **rows, "peak_rss_mb": peak_rss_mb()})


def write(folder: Path, items: int, seed: int = 0) -> None:
    """A model folder that nothing was learned for. Args: seed: another one answers otherwise."""
    config = DiffRecConfig()
    generator = torch.Generator().manual_seed(seed)
    model = DiffRec(config, network_of(config, items, {}, None, generator))
    ids = tuple(f"i{n:06}" for n in range(items))
    write_model(
        folder,
        ModelFolder(
            method="diffrec",
            config=config.model_dump(mode="json"),
            training={},
            run={},
            protocol={},
            metrics={},
            data={"name": "made up"},
            items=ids,
            titles=ids,
            popularity=torch.rand(items, generator=generator),
            tensors=model.state(),
            attributes=pl.DataFrame({"category": [f"c{n % 10}" for n in range(items)]}),
        ),
    )


def asks(items: int, count: int, *, where: bool = False, seed: int = 0) -> list[Ask]:
    """Questions with histories of their own."""
    draw = random.Random(seed)
    conditions = (CATEGORY,) if where else ()
    histories = [tuple(f"i{draw.randrange(items):06}" for _ in range(HISTORY)) for _ in range(count)]
    return [Ask(history=history, k=K, where=conditions) for history in histories]


def measured(engine: Engine, batch: int, seconds: float, *, where: bool) -> Closed:
    """Answers a second in batches of a size, after one that does not count."""
    questions = asks(len(engine.model.items), batch * 8, where=where)
    engine.answer(questions[:batch])
    began, done = time.perf_counter(), 0
    while (took := time.perf_counter() - began) < seconds:
        at = done % len(questions)
        found = engine.answer(questions[at : at + batch])
        assert all(isinstance(one, Answered) and len(one.items) == K for one in found)
        done += batch
    return Closed(batch, where, done / took)


async def arriving(engine: Engine, rate_per_s: float, seconds: float) -> Open:
    """Latencies of asks whose distances are exponential."""

    def run(some: Sequence[Ask]) -> Sequence[Answered | Exception]:
        return engine.answer(some)

    batcher = Batcher[Ask, Answered](run, largest=32, wait_ms=2)
    draw = random.Random(1)
    questions = asks(len(engine.model.items), max(int(rate_per_s * seconds), 1), seed=2)
    times, refused = list[float](), list[RediffuseError]()

    async def one(ask: Ask, due: float) -> None:
        try:
            await batcher.ask(ask, DEADLINE_S)
            times.append(time.perf_counter() - due)
        except RediffuseError as error:
            refused.append(error)

    began = due = time.perf_counter()
    tasks = list[asyncio.Task[None]]()
    for ask in questions:
        due += draw.expovariate(rate_per_s)
        await asyncio.sleep(max(due - time.perf_counter(), 0))
        # Counted from when it should have come: a driver that is late must not hide it.
        tasks.append(asyncio.create_task(one(ask, due)))
    await asyncio.gather(*tasks)
    took = time.perf_counter() - began
    await batcher.close()
    tenths = statistics.quantiles(times, n=100) if len(times) > 1 else times * 99
    return Open(rate_per_s, len(times) / took, 1e3 * tenths[49], 1e3 * tenths[98], len(refused))


if __name__ == "__main__":
    main()
