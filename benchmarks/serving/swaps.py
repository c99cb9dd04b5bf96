"""Models change while questions come in: no request fails, each answer is that of the model it names, memory stays.

    python -m benchmarks.serving.swaps [--items 20000] [--swaps 50] [--rate 110] [--json FILE]

Three models take turns in a service in a process of its own; every fifth step goes back to the one before, and every
tenth a folder is offered that is altered, of another format, or holds a number that is not finite, which must be refused.
Answers are compared with those of the same folders loaded here, place by place, to 1e-5 of the largest score.
"""

import argparse
import asyncio
import json
import os
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import rediffuse
from benchmarks.serving.damage import flipped, not_finite, other_schema
from benchmarks.serving.driving import RECOMMEND, Site, connected, opened, question, run, serving
from benchmarks.serving.engine import HISTORY, ITEMS, K, write
from rediffuse.files import write_json

GOOD, BAD = ("one", "two", "three"), {"flipped": flipped, "other-schema": other_schema, "not-finite": not_finite}
HISTORIES, CLOSE, PAUSE_S, SETTLED = 40, 1e-5, 0.2, 3
Lists = Mapping[str, Sequence[Sequence[tuple[str, float]]]]
"""Model -> number of a history -> its items with their scores."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--items", type=int, default=ITEMS)
    parser.add_argument("--swaps", type=int, default=50)
    parser.add_argument("--rate", type=float, default=110.0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        models = Path(place) / "models"
        for seed, name in enumerate(GOOD):
            write(models / name, arguments.items, seed)
        for name, change in BAD.items():
            shutil.copytree(models / "one", models / name)
            change(models / name)
        histories = drawn(arguments.items)
        right = offline(models, histories)
        with serving(models / "one", Path(place)) as site:
            facts = {"items": arguments.items} | run(story(site, histories, right, arguments.swaps, arguments.rate))
    for name, value in facts.items():
        print(f"{name}: {value}")
    if arguments.json is not None:
        write_json(arguments.json, facts)


def drawn(items: int) -> list[list[str]]:
    """Histories of HISTORY items each."""
    draw = random.Random(0)
    return [[f"i{draw.randrange(items):06}" for _ in range(HISTORY)] for _ in range(HISTORIES)]


def offline(models: Path, histories: Sequence[Sequence[str]]) -> Lists:
    """What each good model answers after each history, asked one by one."""
    loaded = {name: rediffuse.load(str(models / name), device="cpu") for name in GOOD}
    return {
        name: [[(p.item, p.score) for p in model.recommend(history, K).items] for history in histories]
        for name, model in loaded.items()
    }


async def story(
    site: Site, histories: Sequence[Sequence[str]], right: Lists, swaps: int, rate_per_s: float
) -> dict[str, Any]:
    """Questions and swaps at once."""
    bodies = [question(history=history, k=K) for history in histories]
    answered, wrong = Counter[str](), list[str]()

    def look(number: int, status: int, body: bytes) -> None:
        if status != 200:
            return
        told = json.loads(body)
        name, found = told["model"]["name"], [(place["item"], place["score"]) for place in told["items"]]
        answered[name] += 1
        if told["degraded"] is None and not alike(found, right[name][number % HISTORIES]):
            wrong.append(name)

    changing = asyncio.create_task(changes(site, swaps))
    course = await opened(
        site.port,
        RECOMMEND,
        lambda number: bodies[number % HISTORIES],
        per_s=rate_per_s,
        connections=16,
        look=look,
        until=changing.done,
    )
    changed = await changing
    settled, last = changed["rss_mb"][SETTLED - 1], changed["rss_mb"][-1]
    return {
        **changed,
        "questions": course.told(),
        "failed": course.statuses.total() - course.statuses[200],
        "unlike_offline": len(wrong),
        "answered_by": dict(answered),
        "growth": round(last / settled - 1, 4),
        "load": os.getloadavg()[0],
    }


async def changes(site: Site, swaps: int) -> dict[str, Any]:
    """Promote, go back, and offer what must be refused. Raises: AssertionError when the service says otherwise."""
    refused, rollbacks, rss_mb, before = 0, 0, list[float](), "one"
    async with connected(site.port) as client:
        for step in range(1, swaps + 1):
            if step % 10 == 0:
                bad = list(BAD)[step // 10 % len(BAD)]
                status, body = await client.call("POST", f"/v1/models/{bad}/promote")
                assert status == 409, (bad, body)
                refused += 1
            back = step % 5 == 0
            name = next(one for one in GOOD[step % 3 :] + GOOD if one != before)
            path = "/v1/models/rollback" if back else f"/v1/models/{name}/promote"
            status, body = await client.call("POST", path)
            assert status == 200, (path, body)
            now = [model["name"] for model in json.loads(body)["models"] if model["state"] == "current"]
            rollbacks += back
            before = now[0]
            rss_mb.append(round(site.rss_mb, 1))
            await asyncio.sleep(PAUSE_S)
    return {"swaps": swaps, "rollbacks": rollbacks, "refused": refused, "rss_mb": rss_mb}


def alike(found: Sequence[tuple[str, float]], right: Sequence[tuple[str, float]]) -> bool:
    """Whether two lists agree place by place; items whose scores are that close may have changed places."""
    close = CLOSE * max((abs(score) for _, score in right), default=0.0)
    scores = dict(right)
    return len(found) == len(right) and all(
        abs(score - other) <= close and (item == theirs or abs(scores.get(item, other) - other) <= close)
        for (item, score), (theirs, other) in zip(found, right, strict=True)
    )


if __name__ == "__main__":
    main()
