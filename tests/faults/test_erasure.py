"""A person is erased from a service that runs: nobody is served them any more, and no file holds a byte of their id."""

import asyncio
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import rediffuse
from benchmarks.serving.driving import EVENTS, RECOMMEND, connected, serving
from tests.serving.conftest import models

__all__ = ["models"]
pytestmark = pytest.mark.slow
WHO, COOKIE = "zoe-4b2e91", "cookie-97ac30"
UNSERVED_S, GONE_S = 1.0, 60.0


def holds(folder: Path) -> set[str]:
    """Files with a byte of the ids."""
    found = ((path.name, path.read_bytes()) for path in folder.iterdir() if path.is_file())
    return {name for name, content in found if any(one.encode() in content for one in (WHO, COOKIE))}


def test_an_erased_person_is_gone_from_service_and_files(models: Path, tmp_path: Path) -> None:
    items = rediffuse.load(str(models / "one"), device="cpu").items.ids[:40]

    async def story(port: int) -> None:
        async with connected(port) as client:

            async def call(path: str, **body: Any) -> Mapping[str, Any]:
                status, answer = await client.call("POST", path, json.dumps(body).encode())
                assert status == 200, answer
                return json.loads(answer)

            for n, item in enumerate(items):
                await call(EVENTS, item=item, user=f"u{n % 7}", event_id=f"o{n}")
                await call(EVENTS, item=item, anonymous=COOKIE, event_id=f"a{n}")
                await call(EVENTS, item=item, user=WHO, event_id=f"z{n}")
            await call(EVENTS, item=items[0], user=WHO, anonymous=COOKIE, event_id="login")
            before = await call(RECOMMEND, user=WHO, k=5)
            assert (await call(RECOMMEND, anonymous=COOKIE, k=5))["history"] == before["history"] == 81
            assert "events.sqlite" in {name.removesuffix("-wal") for name in holds(tmp_path)}
            began = time.perf_counter()
            status, receipt = await client.call("DELETE", f"/v1/users/{WHO}")
            assert (status, json.loads(receipt)["events"]) == (200, 81)
            for subject in ({"user": WHO}, {"anonymous": COOKIE}):
                after = await call(RECOMMEND, **subject, k=5)
                assert (after["history"], after["fallback"]) == (0, "empty_history")
            assert time.perf_counter() - began < UNSERVED_S + 0.5  # the receipt itself may take a part of it
            assert (await call(RECOMMEND, user="u1", k=5))["history"] > 0
        while holds(tmp_path):
            assert time.perf_counter() - began < GONE_S, holds(tmp_path)
            await asyncio.sleep(0.1)

    with serving(models / "one", tmp_path) as site:
        asyncio.run(story(site.port))
    assert not holds(tmp_path)
