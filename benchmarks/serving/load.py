"""Answers, events and single posts a second over HTTP, from a service in a process of its own; the driver shares its cores.

    python -m benchmarks.serving.load [--items 20000] [--seconds 10] [--json FILE]

A DiffRec of the default size over a made-up catalog (`engine.py`). Answers are computed from histories of 30 events that
the service holds, each read when asked: nothing is cached. Targets on 2 cores: ready within 10 s; 200 answers/s with a
99th percentile of 75 ms; 50,000 events/s in batches; 1,000 posts of one event/s with one of 50 ms over 32 connections.
"""

import argparse
import json
import os
import random
import tempfile
from collections.abc import Coroutine, Iterable, Iterator
from itertools import count, islice
from pathlib import Path
from typing import Any

from benchmarks.serving.driving import EVENTS, RECOMMEND, Course, Site, closed, opened, question, run, serving
from benchmarks.serving.engine import HISTORY, ITEMS, write
from rediffuse.files import write_json

USERS, BATCH, WRITERS, SINGLES, MOST_PER_S = 500, 1000, 4, 32, 150_000
RATES = (200, 250, 300)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--items", type=int, default=ITEMS)
    parser.add_argument("--seconds", type=float, default=10.0)
    arguments = parser.parse_args()
    facts: dict[str, Any] = {"items": arguments.items, "load_before": os.getloadavg()[0]}
    with tempfile.TemporaryDirectory() as place:
        model = Path(place) / "made"
        write(model, arguments.items)
        with serving(model, Path(place)) as site:
            facts["ready_s"] = round(site.ready_s, 2)
            print(f"{arguments.items:,} items, load before {facts['load_before']:.1f}; ready in {site.ready_s:.2f} s")
            facts |= measured(site, arguments.items, arguments.seconds)
            facts["rss_mb"] = round(site.rss_mb, 1)
    if arguments.json is not None:
        write_json(arguments.json, facts)


def measured(site: Site, items: int, seconds: float) -> dict[str, Any]:
    """All figures of a service that is ready."""
    facts, draw = dict[str, Any](), random.Random(1)

    def measure(what: str, story: Coroutine[Any, Any, Course]) -> dict[str, Any]:
        used = site.cpu_s
        course = run(story)
        told = course.told() | {"cores": round((site.cpu_s - used) / course.lasted_s, 2), "load": os.getloadavg()[0]}
        print(
            f"{what}: {told['answered_per_s']:,} answered/s, p50 {told['p50_ms']} ms, p99 {told['p99_ms']} ms,"
            f" {told['statuses']}, {told['cores']} cores used, load {told['load']:.1f}"
        )
        return told

    run(closed(site.port, EVENTS, histories(items), connections=1))
    for rate in RATES:
        story = opened(site.port, RECOMMEND, asked, per_s=rate, seconds=seconds, connections=16)
        facts[f"answers_at_{rate}"] = measure(f"{rate} questions/s", story)
    story = closed(site.port, RECOMMEND, map(asked, count()), connections=16, seconds=seconds)
    facts["answers_closed"] = measure("questions over 16 connections", story)
    # Bodies are made before the time runs: a driver that writes JSON would be measured with the service.
    many = list(batches(event(draw, items, f"b{n % 5000}", f"b{n}") for n in range(int(MOST_PER_S * seconds))))
    story = closed(site.port, EVENTS, many, connections=WRITERS, seconds=seconds)
    facts["batches"] = measure(f"batches of {BATCH:,} events over {WRITERS} connections", story)
    facts["batches"]["events_per_s"] = round(BATCH * facts["batches"]["answered_per_s"])
    print(f"    {facts['batches']['events_per_s']:,} events/s")
    single = (question(**event(draw, items, f"s{n % 5000}", f"s{n}")) for n in count())
    story = closed(site.port, EVENTS, single, connections=SINGLES, seconds=seconds)
    facts["singles"] = measure(f"single events over {SINGLES} connections", story)
    return facts


def asked(number: int, draws: int = 1) -> bytes:
    """A question of a user whose events are stored."""
    return question(user=f"u{number % USERS}", k=10, draws=draws)


def histories(items: int) -> Iterator[bytes]:
    """Batches that give every user one."""
    draw = random.Random(0)
    return batches(event(draw, items, f"u{n % USERS}", f"h{n}") for n in range(USERS * HISTORY))


def event(draw: random.Random, items: int, user: str, name: str) -> dict[str, object]:
    """One of an item drawn from the catalog."""
    return {"event_id": name, "user": user, "item": f"i{draw.randrange(items):06}", "kind": "view"}


def batches(events: Iterable[dict[str, object]]) -> Iterator[bytes]:
    """Bodies with BATCH events each."""
    rest = iter(events)
    while some := list(islice(rest, BATCH)):
        yield json.dumps(some).encode()


if __name__ == "__main__":
    main()
