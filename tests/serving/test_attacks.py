"""What is sent to harm: altered model folders, code in place of weights, addresses to fetch, bodies that swell."""

import gzip
import os
import pickle
import random
import shutil
import socket
import time
from collections.abc import Generator
from pathlib import Path

import pytest

from benchmarks.serving.damage import WEIGHTS, seal
from rediffuse.artifacts import read_model
from rediffuse.errors import ArtifactError
from rediffuse.files import MANIFEST
from rediffuse.serving.versions import Versions
from tests.serving.shop import Shop, opened

JSON = "application/json"
MOST_S, MOST_MB = 1.0, 64
ADDRESSES = [
    "http://169.254.169.254/latest/meta-data/",
    "http://127.0.0.1:22/",
    "http://0x7f.1/",
    "http://2130706433/",
    "http://[::ffff:127.0.0.1]/",
    "file:///etc/passwd",
    "gopher://127.0.0.1:6379/_FLUSHALL",
    "\\\\host\\share",
]


@pytest.fixture(scope="module")
def shop(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Generator[Shop]:
    with opened(models, tmp_path_factory.mktemp("attacked")) as found:
        yield found


def damaged(folder: Path, draw: random.Random) -> None:
    """Change a model folder in a way that a disk, a line or a person might."""
    names = sorted(path.name for path in folder.iterdir() if path.name != MANIFEST)
    path = folder / draw.choice(names)
    content = bytearray(path.read_bytes())
    match draw.randrange(4):
        case 0:
            content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        case 1:
            content = content[: draw.randrange(len(content))]
        case 2:
            at = draw.randrange(min(len(content), 64))  # lengths and magic stand at the beginning
            content[at : at + 8] = draw.randbytes(8) if content[at : at + 8] else b"12345678"
        case _:
            other = folder / draw.choice([name for name in names if name != path.name])
            theirs = other.read_bytes()
            other.write_bytes(content)
            content = bytearray(theirs)
    path.write_bytes(content)


@pytest.mark.parametrize(
    "times", [pytest.param(100, id="100"), pytest.param(10_000, id="10000", marks=pytest.mark.slow)]
)
def test_no_altered_folder_is_read(models: Path, tmp_path: Path, times: int) -> None:
    draw, place = random.Random(times), tmp_path / "one"
    shutil.copytree(models / "one", place)
    whole = {path: path.read_bytes() for path in place.iterdir()}
    for _ in range(times):
        damaged(place, draw)
        if any(path.read_bytes() != content for path, content in whole.items()):
            with pytest.raises(ArtifactError):
                read_model(place)
        for path, content in whole.items():
            path.write_bytes(content)
    assert read_model(place).method == "ease"


@pytest.mark.parametrize("name", [WEIGHTS, "vocabulary.parquet", "model.json"])
def test_code_in_place_of_data_is_not_run(models: Path, tmp_path: Path, name: str) -> None:
    class Gadget:
        def __reduce__(self) -> tuple[object, ...]:
            return os.mkdir, (str(tmp_path / "owned"),)

    shutil.copytree(models / "one", tmp_path / "one")
    shutil.copytree(models / "one", tmp_path / "evil")
    (tmp_path / "evil" / name).write_bytes(pickle.dumps(Gadget()))
    seal(tmp_path / "evil")
    versions = Versions(tmp_path, "cpu")
    versions.promote("one")
    with pytest.raises(ArtifactError):
        versions.promote("evil")
    assert not (tmp_path / "owned").exists()
    with versions.current() as version:
        assert version.name == "one"


def test_addresses_are_text_and_never_visited(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    visited = list[object]()
    monkeypatch.setattr(socket.socket, "connect", lambda _, address: visited.append(address))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *asked, **_: visited.append(asked))
    for n, address in enumerate(ADDRESSES):
        told = {"item": f"A{n:05}", "attributes": {"image_link": address, "link": [address]}}
        assert shop.client.post("/v1/items", json={"items": [told]}).status_code == 200
        event = {"event_id": address, "item": address, "user": address, "context": {"referrer": address}}
        assert shop.client.post("/v1/events", json=event).status_code == 200
        answer = shop.client.post("/v1/recommendations", json={"history": [address], "where": [f"link={address}"]})
        assert answer.status_code in (200, 409), answer.text
    assert visited == []


def rss_mb() -> float:
    """What this process holds (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


@pytest.mark.parametrize("route", ["/v1/recommendations", "/v1/events", "/v1/items"])
@pytest.mark.parametrize(
    ("body", "headers", "statuses"),
    [
        pytest.param(b"[" * 1_000_000, {}, (400,), id="deep lists"),
        pytest.param(b'{"a":' * 500_000, {}, (400,), id="deep objects"),
        pytest.param(b'{"k": ' + b"9" * 1_000_000 + b"}", {}, (400, 422), id="long number"),
        pytest.param(b'{"history": [' + b'"A00001",' * 400_000 + b'"A00001"]}', {}, (422,), id="long history"),
        pytest.param(b'{"history": [' + b'"A00001",' * 1_000_000 + b'"A00001"]}', {}, (413,), id="longer history"),
        pytest.param(b'{"' + b"x" * 3_000_000 + b'": 1}', {}, (422,), id="long key"),
        pytest.param(b"\xff" * 1_000_000, {}, (400,), id="no text"),
        pytest.param(gzip.compress(b"a" * 2**28), {"content-encoding": "gzip"}, (415,), id="packed"),
        pytest.param(b"--x\r\n" * 1000, {"content-type": "multipart/form-data; boundary=x"}, (415,), id="parts"),
        pytest.param(
            b"--" * 99, {"content-type": "multipart/form-data; boundary=" + "y" * 9000}, (415,), id="boundary"
        ),
    ],
)
def test_bodies_that_swell_are_refused_at_once(
    shop: Shop, route: str, body: bytes, headers: dict[str, str], statuses: tuple[int, ...]
) -> None:
    before, began = rss_mb(), time.process_time()
    answer = shop.client.post(route, content=body, headers={"content-type": JSON, **headers})
    assert time.process_time() - began < MOST_S
    assert answer.status_code in statuses, answer.text[:200]
    assert len(answer.content) < 10_000
    assert rss_mb() - before < MOST_MB
    assert shop.client.get("/health/ready").status_code == 200
