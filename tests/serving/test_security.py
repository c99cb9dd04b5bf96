"""Who is let in: keys, scopes, rates, sizes; and what an open service on loopback refuses."""

import asyncio
import errno
import json
import os
import re
import stat
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from starlette.exceptions import HTTPException

from rediffuse.errors import ArtifactError, InvalidInput, StorageError
from rediffuse.serving.keys import Key, KeyRing, add_key, read_keys, remove_key
from rediffuse.serving.security import Buckets, bounded
from tests.serving.shop import Shop, opened
from tests.users import NOBODY, as_nobody

SCOPES = {"reader": "read", "writer": "write", "boss": "admin", "shop": "read,write"}
NEEDED = {
    ("post", "/v1/recommendations"): "read",
    ("post", "/v1/events"): "write",
    ("put", "/v1/items/{item}"): "write",
    ("post", "/v1/items"): "write",
    ("delete", "/v1/users/{user}"): "admin",
    ("get", "/v1/models"): "admin",
    ("post", "/v1/models/{name}/promote"): "admin",
    ("post", "/v1/models/rollback"): "admin",
    ("get", "/metrics"): "read",
    ("post", "/v1/imports"): "admin",
    ("get", "/v1/imports/{name}"): "admin",
    ("post", "/aws/recommendations"): "read",
    ("post", "/aws/personalize-ranking"): "read",
    ("post", "/aws/events"): "write",
}


@pytest.fixture(scope="module")
def locked(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Generator[Shop]:
    with opened(models, tmp_path_factory.mktemp("locked"), scopes=SCOPES) as found:
        yield found


def bearer(secret: str) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}"}


def test_the_document_lists_every_route_with_its_errors(locked: Shop) -> None:
    document = locked.client.get("/openapi.json", headers=bearer(locked.secrets["reader"])).json()
    found = {(m, p) for p, methods in document["paths"].items() for m in methods if not p.startswith("/health/")}
    assert found == set(NEEDED)
    for method, path in found:
        operation = document["paths"][path][method]
        assert operation["security"] == [{"key": []}]
        assert {"200", "401", "403", "422", "429", "431", "503"} <= set(operation["responses"]), path
        door = operation["responses"]["431"]["content"]["application/json"]["schema"]  # before the path counts
        assert door == {"$ref": "#/components/schemas/Problem"}
        if "requestBody" in operation:
            assert {"400", "408", "413", "415"} <= set(operation["responses"]), path
    assert document["paths"]["/health/live"]["get"]["security"] == []
    named = set(re.findall(r"#/components/schemas/(\w+)", json.dumps(document)))
    assert named <= set(document["components"]["schemas"])
    assert "HTTPValidationError" not in document["components"]["schemas"]


@pytest.mark.parametrize(("route", "scope"), [*NEEDED.items(), (("get", "/openapi.json"), "read")])
def test_no_route_without_a_key_of_its_scope(locked: Shop, route: tuple[str, str], scope: str) -> None:
    """Nor with half a key, a key in another place, or another scope; the answer is the same whatever was wrong."""
    method, path = route[0], route[1].format(item="A00001", user="nobody", name="none")
    good = locked.secrets["reader"]
    heads = [{}, bearer(""), bearer("rd_x"), bearer(good[:-1]), bearer(good + "x"), {"authorization": f"Basic {good}"}]
    heads += [{"x-api-key": good}, {"cookie": f"key={good}"}, bearer(kept(locked)[0].sha256)]
    bodies: dict[str, Any] = {"json": {}} if method in ("post", "put") and path != "/v1/imports" else {}
    answers = [locked.client.request(method, path, headers=head, **bodies) for head in heads]
    assert {a.status_code for a in answers} == {401}
    assert len({a.text for a in answers}) == 1
    assert answers[0].headers["www-authenticate"] == "Bearer"
    for name, rights in SCOPES.items():
        answer = locked.client.request(method, path, headers=bearer(locked.secrets[name]), **bodies)
        assert (answer.status_code == 403) == (scope not in rights.split(",")), (name, answer.text)
        assert answer.status_code != 401


def kept(shop: Shop) -> tuple[Key, ...]:
    """What the file of keys holds."""
    return read_keys(next(m.kwargs["keys"].path for m in shop.app.user_middleware if "keys" in m.kwargs))


def test_what_nobody_knows_is_refused_before_it_is_looked_for(locked: Shop) -> None:
    for path in ("/nothing", "/docs", "/redoc", "/v1", "/health", "/healthy"):
        assert locked.client.get(path).status_code == 401
    for path in ("/health/live", "/health/ready"):
        assert locked.client.get(path).status_code == 200
    assert locked.client.get("/docs", headers=bearer(locked.secrets["boss"])).status_code == 404


def test_a_key_is_kept_as_its_hash_and_can_be_taken_back(tmp_path: Path) -> None:
    path, now = tmp_path / "keys.json", [0.0]
    secret = add_key(path, "shop", ["read", "write"])
    assert len(secret) >= 43
    assert secret not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    ring = KeyRing(path, lambda: now[0])
    found = ring.find(secret)
    assert found is not None
    assert (found.name, found.rights) == ("shop", {"read", "write"})
    other = add_key(path, "ops", ["admin"])
    assert ring.find(other) is None
    now[0] = 1.0
    assert ring.find(other) is not None
    assert ring.find(secret) is not None
    remove_key(path, "shop")
    now[0] = 2.0
    assert ring.find(secret) is None
    assert ring.find(other) is not None
    path.write_text("{}")
    now[0] = 3.0
    assert ring.find(other) is None
    path.unlink()
    now[0] = 4.0
    assert ring.find(other) is None
    assert ring.find("") is None


def test_a_file_of_keys_stays_with_whom_it_belongs_to(tmp_path: Path) -> None:
    """Root adds a key to the file of the service's user, who must still be able to read it."""
    path = tmp_path / "keys.json"
    add_key(path, "shop", ["read"])
    path.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(path, NOBODY, NOBODY)
    before = path.stat()
    add_key(path, "other", ["read"])
    remove_key(path, "shop")
    after = path.stat()
    assert [key.name for key in read_keys(path)] == ["other"]
    assert (after.st_uid, after.st_gid, after.st_mode) == (before.st_uid, before.st_gid, before.st_mode)


def test_a_file_of_keys_that_cannot_be_given_back_stays_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "keys.json"
    secret = add_key(path, "shop", ["read"])
    true, before = Path.stat, path.read_bytes()

    def of_another(self: Path, **how: bool) -> os.stat_result:
        found = list(true(self, **how))
        return os.stat_result([*found[:4], found[4] + (self == path), *found[5:]])

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(Path, "stat", of_another)
    monkeypatch.setattr(os, "chown", refuse)
    with pytest.raises(StorageError, match="Operation not permitted"):
        remove_key(path, "shop")
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["keys.json"]
    assert KeyRing(path, lambda: 0.0).find(secret) is not None


def test_keys_that_cannot_be_read_go_on_and_the_log_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Until the file can be read, says something else or is gone."""
    monkeypatch.chdir(tmp_path)
    tmp_path.chmod(0o755)
    path, now = Path("keys.json"), [0.0]
    secret, other = add_key(path, "shop", ["read"]), add_key(path, "other", ["read"])
    ring, never = KeyRing(path, lambda: now[0]), KeyRing(path, lambda: now[0])

    def found() -> list[bool]:
        now[0] += 1
        with as_nobody():
            return [ring.find(one) is not None for one in (secret, other)]

    path.chmod(0o644)
    assert found() == [True, True]
    for times in (1, 2):
        path.chmod(0)
        assert found() == [True, True]
        assert found() == [True, True]
        assert len(caplog.records) == times
        path.chmod(0o644)
        assert found() == [True, True]
    (record,) = {record.getMessage() for record in caplog.records}
    assert record.startswith("The keys in 'keys.json' cannot be read; those known last go on")
    assert secret not in record
    path.chmod(0)
    with as_nobody():
        assert never.find(secret) is None, "nothing was known before"
    remove_key(path, "shop")
    assert found() == [True, True], "what was taken out is not known to whom the file is closed"
    path.chmod(0o644)
    assert found() == [False, True]
    path.chmod(0)
    path.unlink()
    assert found() == [False, False]


@pytest.mark.parametrize(
    ("name", "scopes", "why"),
    [
        ("Shop", ["read"], "short and plain"),
        ("../x", ["read"], "short and plain"),
        ("new", [], "needs a scope"),
        ("new", ["reed"], "Nearest known scope: 'read'"),
        ("old", ["read"], "There is a key 'old'"),
    ],
)
def test_a_wrong_key_is_not_made(name: str, scopes: list[str], why: str, tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    add_key(path, "old", ["admin"])
    before = path.read_bytes()
    with pytest.raises(InvalidInput, match=why):
        add_key(path, name, scopes)
    assert path.read_bytes() == before
    with pytest.raises(InvalidInput, match="Nearest known key: 'old'"):
        remove_key(path, "olt")


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        '{"format_version": 2, "keys": []}',
        '{"format_version": 1, "keys": [{"name": "x"}]}',
        '{"format_version": 1, "keys": [{"name": "x", "sha256": "0", "scopes": ["all"]}]}',
        "[]",
        "nonsense",
    ],
)
def test_what_is_no_file_of_keys(text: str, tmp_path: Path) -> None:
    (tmp_path / "keys.json").write_text(text)
    with pytest.raises((InvalidInput, ArtifactError)):
        read_keys(tmp_path / "keys.json")


def test_a_bucket_fills_at_its_rate() -> None:
    now = [0.0]
    buckets = Buckets(rate=10, burst=3, clock=lambda: now[0])
    assert [buckets.take("a") for _ in range(4)] == [0, 0, 0, pytest.approx(0.1)]
    assert buckets.take("b") == 0
    now[0] = 0.05
    assert buckets.take("a") == pytest.approx(0.05)
    now[0] = 0.1
    assert [buckets.take("a"), buckets.take("a")] == [0, pytest.approx(0.1)]
    now[0] = 100.0
    assert [buckets.take("a") > 0 for _ in range(4)] == [False, False, False, True]


def test_each_key_has_its_rate(models: Path, tmp_path: Path) -> None:
    with opened(models, tmp_path, scopes=SCOPES, requests_per_s=0.5, burst=5) as shop:

        def ask(name: str) -> int:
            return shop.client.get("/metrics", headers=bearer(shop.secrets[name])).status_code

        assert [ask("reader") for _ in range(6)] == [200] * 5 + [429]
        refused = shop.client.get("/metrics", headers=bearer(shop.secrets["reader"]))
        assert (refused.headers["retry-after"], refused.json()["error"]["kind"]) == ("2", "too_many")
        assert ask("shop") == 200
        assert shop.client.get("/health/live").status_code == 200
        shop.hands.seconds = 2.0
        assert [ask("reader"), ask("reader")] == [200, 429]


def test_bodies_have_a_size(models: Path, tmp_path: Path) -> None:
    with opened(models, tmp_path, body_bytes=1000, stream_bytes=3000) as shop:

        def post(route: str, content: object, kind: str = "application/json") -> int:
            return shop.client.post(route, content=content, headers={"content-type": kind}).status_code

        long = json.dumps({"history": ["A00001"] * 200}).encode()
        assert post("/v1/recommendations", long) == 413
        assert post("/v1/recommendations", iter([long[:600], long[600:]])) == 413
        assert post("/v1/recommendations", b'{"k": 1}' + b" " * 900) == 200
        lines = b'{"item": "A00001", "user": "ann"}\n'
        assert post("/v1/events", lines * 60, "application/x-ndjson") == 200
        assert post("/v1/events", lines * 100, "application/x-ndjson") == 413
        assert post("/v1/recommendations", lines * 60, "application/x-ndjson") in (413, 415)
        many = json.dumps([{}] * 400).encode()
        assert post("/v1/events", many) == 413


def test_a_list_of_events_has_a_length(models: Path, tmp_path: Path) -> None:
    with opened(models, tmp_path) as shop:
        answer = shop.client.post("/v1/events", json=[{}] * 10_001)
        assert (answer.status_code, answer.json()["error"]["kind"]) == (422, "invalid")


def test_who_sends_too_slowly_is_let_go() -> None:
    async def run() -> list[object]:
        messages = iter([{"type": "http.request", "body": b"a", "more_body": True}])

        async def receive() -> dict[str, object]:
            for message in messages:
                return message
            await asyncio.sleep(60)
            raise AssertionError

        reading = bounded(receive, 10, 0.05)
        first = await reading()
        with pytest.raises(HTTPException) as late:
            await reading()
        return [first["body"], late.value.status_code]

    assert asyncio.run(run()) == [b"a", 408]


def test_an_open_service_answers_no_other_site(models: Path, tmp_path: Path) -> None:
    with opened(models, tmp_path) as shop:

        def rollback(**heads: str) -> int:
            return shop.client.post("/v1/models/two/promote", headers=heads).status_code

        assert rollback(host="evil.example") == 403
        assert rollback(host="127.0.0.1.evil.example:8000") == 403
        assert rollback(origin="http://evil.example") == 403
        assert rollback(origin="null") == 403
        assert shop.ask()["model"]["name"] == "one"
        assert rollback(host="localhost:8000", origin="http://localhost:8000") == 200
        assert rollback(host="[::1]:8000") == 200
