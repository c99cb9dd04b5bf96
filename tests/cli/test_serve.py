"""`serve` and `keys`: the service as a user starts it, speaks to it and stops it."""

import fcntl
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rediffuse.data.dataset import Dataset
from rediffuse.serving.keys import add_key
from tests.cli.conftest import Command
from tests.users import as_nobody


@dataclass(frozen=True)
class Running:
    """A service in a process of its own."""

    process: subprocess.Popen[str]
    port: int
    log: Path

    def call(self, method: str, path: str, body: Any = None, key: str | None = None) -> tuple[int, Any]:
        """One request on a connection of its own."""
        home = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        head = {"authorization": f"Bearer {key}"} if key else {}
        if body is not None:
            head["content-type"] = "application/json"
        home.request(method, path, None if body is None else json.dumps(body), head)
        answer = home.getresponse()
        text = answer.read().decode()
        home.close()
        return answer.status, json.loads(text)

    def stop(self) -> int:
        """As a system stops a service."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)


@contextmanager
def serving(folder: Path, *args: object, **environ: str) -> Generator[Running]:
    command = [sys.executable, "-m", "rediffuse.cli.main", "serve", *map(str, args), "--port", "0"]
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen(
            command, cwd=folder, stdout=subprocess.PIPE, stderr=log, text=True, env={**os.environ, **environ}
        ) as process,
    ):
        try:
            yield _ready(process, folder / "log")
        finally:
            process.kill()


def _ready(process: subprocess.Popen[str], log: Path) -> Running:
    assert process.stdout is not None
    said = process.stdout.readline()
    found = re.search(r"http://127.0.0.1:(\d+)", said)
    assert found, said + log.read_text()
    running = Running(process, int(found[1]), log)
    until = time.monotonic() + 30
    while running.call("GET", "/health/ready")[0] != 200:
        assert time.monotonic() < until
        time.sleep(0.05)
    return running


@pytest.mark.slow
def test_serve_recommend_post_and_stop(model: Path, shop: Path, tiny: Dataset, tmp_path: Path) -> None:
    args = (model, "--data", shop, "--store", tmp_path / "events.sqlite")
    user = tiny.users.items.ids[0]
    with serving(tmp_path, *args) as service:
        status, before = service.call("POST", "/v1/recommendations", {"user": "ann", "k": 3})
        assert (status, before["fallback"]) == (200, "empty_history")
        events = [{"event_id": "e1", "user": who, "item": "A00042"} for who in ("ann",)]
        events += [{"event_id": f"e{n}", "user": odd, "item": "A00042"} for n, odd in enumerate(("a%2e/b", "../x"), 2)]
        status, told = service.call("POST", "/v1/events", events)
        assert (status, told["stored"]) == (200, 3)
        status, after = service.call("POST", "/v1/recommendations", {"user": "ann", "k": 3, "min_seq": told["seq"]})
        assert (status, after["fallback"], after["history"]) == (200, None, 1)
        assert after["items"] != before["items"]
        assert service.call("POST", "/v1/recommendations", {"user": user})[1]["history"] > 1
        for path in ("a%252e%2Fb", "..%2Fx"):
            assert service.call("DELETE", f"/v1/users/{path}")[1]["events"] == 1, path
        assert service.stop() == -signal.SIGTERM
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert {"request", "recommendation", "Application shutdown complete."} <= {line["event"] for line in lines}
    with serving(tmp_path, *args) as service:
        assert service.call("POST", "/v1/recommendations", {"user": "ann", "k": 3})[1]["items"] == after["items"]


@pytest.mark.slow
def test_serve_with_keys(command: Command, model: Path, tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    secret = command("keys", "add", "shop", "--scope", "read,write", "--keys", keys).out.splitlines()[-1]
    file = tmp_path / "serve.toml"
    file.write_text(f'keys = "{keys}"\nhost = "0.0.0.0"\nqueue = 5\n')
    store = {"REDIFFUSE_SERVE_STORE": str(tmp_path / "e.sqlite"), "REDIFFUSE_SERVE_HOST": "127.0.0.1"}
    with serving(tmp_path, model, "--config", file, **store) as service:
        assert service.call("POST", "/v1/recommendations", {})[0] == 401
        assert service.call("POST", "/v1/recommendations", {}, secret)[0] == 200
        assert service.call("GET", "/v1/models", key=secret)[0] == 403
        assert command("keys", "remove", "shop", "--keys", keys).code == 0
        time.sleep(1.1)
        assert service.call("POST", "/v1/recommendations", {}, secret)[0] == 401
    assert secret not in (tmp_path / "log").read_text()
    assert (tmp_path / "e.sqlite").is_file()


def test_what_serve_refuses(refused: Command, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cases: list[tuple[Callable[[], list[object]], str]] = [
        (lambda: [model, "--host", "0.0.0.0"], "Without keys the service listens on loopback only"),
        (lambda: [model, "--keys", tmp_path / "none.json"], "There is no key in"),
        (lambda: [tmp_path / "nothing"], "nothing"),
        (lambda: [model, "--data", tmp_path / "nothing"], "nothing"),
        (lambda: [model, "--config", tmp_path / "nothing.toml"], "There is no file"),
        (lambda: [model, "--device", "abacus"], "This device is not available"),
        (lambda: [model, "--port", "70000"], "port = 70000"),
        (lambda: [model, "--store", "redis://here", "--port", 0], "names no event store"),
    ]
    for arguments, why in cases:
        assert why in refused("serve", *arguments()).err.replace("\n", " ")
    monkeypatch.setenv("REDIFFUSE_SERVE_PROT", "1")
    assert "Nearest known variable: 'REDIFFUSE_SERVE_PORT'" in refused("serve", model).err


@pytest.mark.parametrize("late", ["locked", "taken", "away"])
def test_what_a_later_start_may_mend_has_another_exit_code(
    late: str, command: Command, model: Path, tmp_path: Path
) -> None:
    """75, so that a unit tries again; the same errors of other commands stay 2."""
    with socket.create_server(("127.0.0.1", 0)) as taken, (tmp_path / "e.sqlite.lock").open("ab") as lock:
        port = taken.getsockname()[1]
        fcntl.flock(lock, fcntl.LOCK_EX)
        arguments: dict[str, tuple[list[object], str]] = {
            "locked": (["--store", tmp_path / "e.sqlite", "--port", 0], "is open in another process"),
            "taken": (["--store", tmp_path / "other.sqlite", "--port", port], "ddress already in use"),
            "away": (["--store", f"postgresql://127.0.0.1:{port}/x?sslmode=invalid", "--port", 0], "cannot be used"),
        }
        more, why = arguments[late]
        said = command("serve", model, *more)
    assert (said.code, said.err.count("\n")) == (os.EX_TEMPFAIL, 1)
    assert why in said.err


def test_what_is_closed_to_the_service_is_a_wrong_setting(
    command: Command, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = tmp_path / "keys.json"
    add_key(keys, "shop", ["read"])
    keys.chmod(0)
    tmp_path.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    with as_nobody():
        said = command("serve", model, "--keys", "keys.json")
    assert (said.code, said.err) == (2, "Error: Permission denied. Got 'keys.json'.\n")


def test_keys_are_made_listed_and_removed(command: Command, refused: Command, tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    assert "keys add takes the name" in refused("keys", "add", "--keys", file).err
    assert "Unknown scope 'reed'" in refused("keys", "add", "shop", "--scope", "reed", "--keys", file).err
    made = command("keys", "add", "shop", "--scope", "write,read", "--keys", file)
    assert made.code == 0
    assert made.out.splitlines()[-1].startswith("rd_")
    assert "read, write" in command("keys", "list", "--keys", file).out
    assert made.out.splitlines()[-1] not in file.read_text()
    assert command("keys", "remove", "shop", "--keys", file).code == 0
    assert "There is none" in refused("keys", "remove", "shop", "--keys", file).err
