"""A service on a small model and a store in a folder, with a clock that stands still until it is moved."""

import socket
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI
from fastapi.testclient import TestClient

from rediffuse.serving.app import create_app
from rediffuse.serving.keys import KeyRing, add_key
from rediffuse.serving.past import Known, nothing
from rediffuse.serving.protocol import served
from rediffuse.serving.service import Clock, Service
from rediffuse.serving.settings import Settings
from rediffuse.serving.store import open_store
from rediffuse.serving.versions import Versions

NOW_US = 1_760_000_000_000_000
HOME = "http://127.0.0.1:8000"


@dataclass
class Hands:
    """Of the clock."""

    seconds: float = 0.0


@dataclass(frozen=True)
class Shop:
    """What a test speaks to."""

    client: TestClient
    service: Service
    app: FastAPI
    secrets: dict[str, str] = field(default_factory=dict[str, str])
    hands: Hands = field(default_factory=Hands)

    def ask(self, **question: Any) -> dict[str, Any]:
        """A list."""
        answer = self.client.post("/v1/recommendations", json=question)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def items(self, **question: Any) -> list[str]:
        """Of a list."""
        return [place["item"] for place in self.ask(**question)["items"]]

    def post(self, *events: dict[str, Any]) -> dict[str, Any]:
        """Events, all of which are kept."""
        answer = self.client.post("/v1/events", json=list(events))
        assert answer.status_code == 200, answer.text
        return answer.json()


def built(
    models: Path,
    folder: Path,
    *,
    scopes: dict[str, str] | None = None,
    past: Callable[[str], list[Known]] = nothing,
    **settings: Any,
) -> Shop:
    """A shop before its doors open. Args: scopes: name of a key -> its scopes; None: nobody is asked for one."""
    hands = Hands()
    clock = Clock(now_us=lambda: NOW_US, seconds=lambda: hands.seconds)
    versions = Versions(models, "cpu")
    versions.promote("one")
    secrets, ring = dict[str, str](), None
    if scopes is not None:
        path = folder / "keys.json"
        secrets = {name: add_key(path, name, wanted.split(",")) for name, wanted in scopes.items()}
        ring = KeyRing(path, clock.seconds)
    chosen = Settings.make({"deadline_ms": 20_000.0, "imports": folder / "imports", **settings})
    service = Service(open_store(str(folder / "events.sqlite")), versions, chosen, past=past, clock=clock)
    app = create_app(service, ring)
    client = TestClient(app, base_url=HOME, raise_server_exceptions=False)
    return Shop(client, service, app, secrets, hands)


@contextmanager
def listening(shop: Shop) -> Generator[str]:
    """The address of a shop that can be reached over a socket. Args: shop: as `built`; its client cannot be used beside."""
    server = uvicorn.Server(served(shop.app, shop.service.settings))
    door = socket.create_server(("127.0.0.1", 0))  # who comes before the server is ready waits for it
    thread = threading.Thread(target=server.run, kwargs={"sockets": [door]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{door.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


@contextmanager
def opened(models: Path, folder: Path, **more: Any) -> Generator[Shop]:
    """A shop with its doors open. Args: more: as `built` takes them."""
    shop = built(models, folder, **more)
    with shop.client:
        yield shop
