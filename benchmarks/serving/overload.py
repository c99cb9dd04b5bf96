"""Ten times as many questions as can be answered, from clients that do not wait for each other.

    python -m benchmarks.serving.overload [--items 20000] [--seconds 20] [--times 10] [--draws 1] [--json FILE]

Capacity is what 16 connections get that always ask again. Then questions come at random moments at a multiple of it, the
driver on the same cores. Targets: only 200, 429 and 503; the 99th percentile of the 200s within the deadline, of refusals
within 100 ms; at least 80 % of the capacity answered; memory at most 10 % above that before; after it all as before.
"""

import argparse
import os
import tempfile
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from benchmarks.serving.driving import EVENTS, RECOMMEND, Course, Site, closed, opened, run, serving
from benchmarks.serving.engine import ITEMS, write
from benchmarks.serving.load import asked, histories
from rediffuse.files import write_json

CONNECTIONS, DEADLINE_MS, REFUSED = 16, 500.0, (429, 503)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--items", type=int, default=ITEMS)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--times", type=float, default=10.0)
    parser.add_argument("--draws", type=int, default=1, help="of a question: what it costs")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        model = Path(place) / "made"
        write(model, arguments.items)
        with serving(model, Path(place), REDIFFUSE_SERVE_DEADLINE_MS=str(DEADLINE_MS)) as site:
            run(closed(site.port, EVENTS, histories(arguments.items), connections=1))
            facts = {"items": arguments.items, "times": arguments.times, "draws": arguments.draws}
            facts |= flooded(site, arguments.seconds, arguments.times, arguments.draws)
    for name, value in facts.items():
        print(f"{name}: {value}")
    if arguments.json is not None:
        write_json(arguments.json, facts)


def flooded(site: Site, seconds: float, times: float, draws: int = 1) -> dict[str, Any]:
    """Before, during and after."""

    def full(seconds: float) -> Course:
        return run(
            closed(
                site.port,
                RECOMMEND,
                (asked(number, draws) for number in count()),
                connections=CONNECTIONS,
                seconds=seconds,
            )
        )

    make = partial(asked, draws=draws)
    full(2.0)  # the batcher learns how long batches take
    before = full(seconds / 2)
    capacity, rss_mb, used = before.answered_per_s, site.rss_mb, site.cpu_s
    story = opened(site.port, RECOMMEND, make, per_s=times * capacity, seconds=seconds, connections=CONNECTIONS)
    flood = run(story)
    cores, most_mb = (site.cpu_s - used) / flood.lasted_s, site.rss_mb
    after = run(opened(site.port, RECOMMEND, make, per_s=0.5 * capacity, seconds=5.0, connections=8))
    return {
        "capacity_per_s": round(capacity, 1),
        "sent_per_s": round(flood.statuses.total() / flood.lasted_s, 1),
        "flood": flood.told(),
        "goodput": round(flood.answered_per_s / capacity, 3),
        "p99_refused_ms": round(flood.percentile_ms(99, *REFUSED), 2),
        "rss_mb": {"before": round(rss_mb, 1), "during": round(most_mb, 1), "growth": round(most_mb / rss_mb - 1, 4)},
        "cores": round(cores, 2),
        "after": after.told(),
        "load": os.getloadavg()[0],
    }


if __name__ == "__main__":
    main()
