"""Fifty swaps while answers are asked for: none fails, each is that of the version it names, memory stays.

Among the candidates are altered ones, one of another format, one whose weights are not finite, and every fifth step goes
back to the version before.
"""

import asyncio
import gc
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import rediffuse
from rediffuse.artifacts import read_model, write_model
from rediffuse.errors import ArtifactError
from rediffuse.serving.batcher import Batcher
from rediffuse.serving.engine import Answered, Ask
from rediffuse.serving.versions import Versions
from tests.serving.conftest import BAD, models

__all__ = ["models"]
pytestmark = pytest.mark.slow
GOOD, SWAPS, RATE_PER_S = ("one", "two", "three"), 50, 200


def test_no_request_fails_while_models_change(models: Path) -> None:
    ids = rediffuse.load(str(models / "one"), device="cpu").items.ids
    draw = random.Random(0)
    histories = [tuple(draw.sample(ids, 8)) for _ in range(20)]
    offline = {
        name: [[(p.item, p.score) for p in answer.items] for answer in model.recommend_many(histories)]
        for name in GOOD
        for model in [rediffuse.load(str(models / name), device="cpu")]
    }
    versions = Versions(models, "cpu")
    versions.promote("one")
    seen, refused = Counter[str](), Counter[str]()

    def run(asks: Sequence[Ask]) -> Sequence[Answered | Exception]:
        with versions.current() as version:
            return version.engine.answer(asks)

    wanted = draw.sample([*GOOD * 9, *BAD, *BAD], SWAPS - SWAPS // 5 - 1)

    def swaps() -> None:
        for step, name in enumerate(["two", *wanted]):
            time.sleep(0.05)  # answers go on between swaps too
            if step % 4 == 3:
                versions.rollback()
            try:
                versions.promote(name)
            except ArtifactError:
                refused[name] += 1
            else:
                assert name in GOOD

    async def story() -> None:
        batcher = Batcher[Ask, Answered](run, largest=16)

        async def one(number: int) -> None:
            found = await batcher.ask(Ask(history=histories[number]), 5.0)
            right = offline[found.model][number]
            assert found.degraded is None
            assert [place.item_id for place in found.items] == [item for item, _ in right]
            assert [place.score for place in found.items] == pytest.approx([score for _, score in right], rel=1e-5)
            seen[found.model] += 1

        changing = asyncio.create_task(asyncio.to_thread(swaps))
        tasks = list[asyncio.Task[None]]()
        while not changing.done():
            tasks.append(asyncio.create_task(one(len(tasks) % len(histories))))
            await asyncio.sleep(1 / RATE_PER_S)
        await asyncio.gather(changing, *tasks)
        await batcher.close()
        assert len(tasks) > 3 * SWAPS

    asyncio.run(story())
    assert set(seen) == set(GOOD)
    assert set(refused) == set(BAD)


def rss_mb() -> float:
    """What this process holds now, in megabytes (Linux)."""
    line = next(row for row in Path("/proc/self/status").read_text().splitlines() if row.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def test_memory_after_twenty_swaps_is_that_after_three(models: Path, tmp_path: Path) -> None:
    """With models of 36 MB, between answers."""
    found, items = read_model(models / "one"), 3000
    ids = tuple(f"i{n}" for n in range(items))
    weight = torch.rand(items, items, generator=torch.Generator().manual_seed(0))
    weight.fill_diagonal_(0)
    large = replace(
        found,
        items=ids,
        titles=ids,
        popularity=torch.ones(items),
        tensors={"weight": weight},
        vectors=None,
        calibrator=None,
        attributes=found.attributes.clear().select([]),
        golden=(),
    )
    for name in ("first", "second"):
        write_model(tmp_path / name, large)
    del found, weight, large
    gc.collect()
    versions, after = Versions(tmp_path, "cpu"), list[float]()
    for step in range(20):
        versions.promote(("first", "second")[step % 2])
        for start in range(5):
            with versions.current() as version:
                answer = version.engine.answer([Ask(history=ids[start : start + 9])])[0]
            assert isinstance(answer, Answered)
        after.append(rss_mb())
    assert max(after[3:]) <= 1.05 * after[2], after
