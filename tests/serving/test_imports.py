"""A shop's own files taken in over HTTP: all of a file or nothing, told in a report."""

import json
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from rediffuse.data.importers import child
from rediffuse.errors import InvalidInput, StorageError
from rediffuse.files import held
from rediffuse.serving.imports import MOST_TRIES, WAITING
from tests.data.importers.shops import SEGMENT, TSV, lines, track
from tests.docs.pages import ROOT, blocks
from tests.serving.shop import Shop, built, listening, opened

FILE = {"content-type": "application/octet-stream"}


@pytest.fixture
def shop(models: Path, tmp_path: Path) -> Generator[Shop]:
    with opened(models, tmp_path) as found:
        yield found
        assert not list((tmp_path / "imports").glob("*"))


def sent(shop: Shop, content: str | bytes | Iterator[bytes], **asked: Any) -> Any:
    return shop.client.post("/v1/imports", params=asked, content=content, headers=FILE)


def taken(shop: Shop, content: str | bytes, **asked: Any) -> dict[str, Any]:
    answer = sent(shop, content, wait_s=60, **asked)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_log_of_events_is_kept_once_and_counts_in_the_next_list(shop: Shop) -> None:
    rows = lines(*(track("Product Viewed", n, visitor=None, user="ann", sku=f"A0000{n}") for n in (1, 2, 3)))
    said = taken(shop, rows + lines(track("Products Searched", 9, query="hat")))
    assert (said["state"], said["holds"], said["form"]) == ("done", "events", "segment")
    assert (said["rows"], said["kept"], said["known"], said["unknown_items"]) == (4, 3, 0, 0)
    assert said["left_out"] == {"event Products Searched": 1}
    held = shop.service.store.history("ann", 9)
    assert [(e.event_id, e.item, e.kind) for e in held] == [(f"m{n}", f"A0000{n}", "view") for n in (1, 2, 3)]
    asked = shop.ask(user="ann", min_seq=said["seq"])
    assert (asked["history"], asked["stale"]) == (3, False)
    again = taken(shop, rows)
    assert (again["kept"], again["known"]) == (3, 3)
    assert shop.service.store.history("ann", 9) == held
    assert shop.client.get(f"/v1/imports/{said['id']}").json() == said


def test_visitors_orders_and_refunds_are_kept_as_they_are(shop: Shop) -> None:
    said = taken(shop, SEGMENT, level="item_id")
    assert said["left_out"]["event Products Searched"] == 1
    ann = shop.service.store.history("ann", 20)
    assert {e.kind for e in ann} == {"view", "cart", "purchase", "refund"}
    assert {e.session for e in ann if e.kind == "purchase"} == {"o1"}
    assert [e.kind for e in shop.service.store.history("p:v2", 20)] == ["view", "rating"]
    assert said["unknown_items"] == said["kept"]


def test_a_feed_tells_of_items_and_of_which_product_variants_are(shop: Shop) -> None:
    feed = TSV.replace("SHIRT", "A00001").replace("H1\tHat", "A00002\tHat").replace("Preorder", "out of stock")
    said = taken(shop, feed)
    assert (said["holds"], said["form"], said["kept"], said["unknown_items"]) == ("products", "merchant", 4, 0)
    told = {item.item_id: item for _, item in shop.service.store.items_since(0)}
    assert set(told) == {"A00001", "A00002", "007", "7"}
    assert told["007"].group == told["7"].group == "A00001"
    assert told["A00001"].attributes["price"] == 49.9
    assert told["A00001"].attributes["color"] == ("blue", "red")
    assert not told["A00002"].available
    assert "A00002" not in shop.items(k=500)
    cheap = shop.items(k=500, where=["price<=50"])
    assert "A00001" in cheap
    orders = lines(track("Product Viewed", 1, visitor=None, user="bea", sku="007"))
    assert taken(shop, orders)["unknown_items"] == 0
    assert [e.item for e in shop.service.store.history("bea", 9)] == ["A00001"]


def test_a_table_needs_its_columns_named(shop: Shop) -> None:
    table = "who,what,when\nann,A00001,2024-01-31T10:00:00Z\nann,A00002,2024-01-31T11:00:00Z\n"
    said = taken(shop, table, map=["user=who", "item=what", "time=when"])
    assert (said["form"], said["kept"]) == ("table", 2)
    assert taken(shop, table, map=["user=who", "item=what", "time=when"])["known"] == 2
    assert sent(shop, table, map="who").status_code == 422
    timeless = sent(shop, "user,item\nann,A00001\n")
    assert (timeless.status_code, "no times" in timeless.text) == (422, True)


@pytest.mark.parametrize(
    ("content", "asked", "why"),
    [
        (TSV.replace("49.90 EUR", "49.90"), {}, "holds no price with its currency in row 1"),
        (b"\x1f\x8b broken", {}, "cut off or no gzip"),
        (SEGMENT, {"time_unit": "s"}, "cannot use 'time_unit'"),
        (SEGMENT, {"bad_row": "0"}, "Unknown key 'bad_row'. Nearest known key: 'bad_rows'."),
        (SEGMENT, {"form": "segment"}, "Unknown key 'form'. Nearest known key: 'format'."),
        (SEGMENT, {"query": "x"}, "Unknown key 'query'. Known: bad_rows, event_type, format, level, map, "),
        (SEGMENT, {"bad_rows": "7"}, "bad_rows = '7' is not possible"),
    ],
)
def test_nothing_of_a_file_that_cannot_stand_is_kept(shop: Shop, content: Any, asked: dict[str, str], why: str) -> None:
    before = shop.service.store.state().seq
    answer = sent(shop, content, **asked)
    assert answer.status_code == 422
    assert re.search(why, answer.json()["error"]["message"])
    assert shop.service.store.state().seq == before
    assert not shop.service.store.items_since(0)


def test_a_small_share_of_bad_rows_is_left_out_and_told(shop: Shop) -> None:
    views = [track("Product Viewed", n % 60, visitor=None, user=f"u{n}", sku="A00001") for n in range(200)]
    good = [{**row, "messageId": f"m{n}"} for n, row in enumerate(views)]
    rows = [*good]
    rows[50] = {**rows[50], "timestamp": "soon"}
    said = taken(shop, lines(*rows) + '{"type": "tra')
    assert (said["rows"], said["kept"]) == (201, 199)
    assert said["left_out"] == {"row that cannot stand": 2}
    assert any("'soon'" in sentence for sentence in said["first"])
    strict = sent(shop, lines(*rows), bad_rows=0)
    assert strict.status_code == 422
    rows[51] = {**rows[51], "timestamp": "later"}
    rows[52] = {**rows[52], "timestamp": "never"}
    many = sent(shop, lines(*rows))
    assert "3 of 200 rows of 'upload' cannot stand. Allowed: a share of 0.01." in many.json()["error"]["message"]
    long = lines(*({**row, "userId": "x" * 300} if n == 7 else row for n, row in enumerate(good)))
    assert taken(shop, long)["left_out"] == {"user must be 1 to 256 printable characters": 1}


@pytest.mark.parametrize(
    ("whose", "what", "error"),
    [("store", "submit", StorageError("The disk is full.")), ("child", "either", child.Stopped("Somebody left."))],
)
def test_what_is_not_the_files_fault_is_waited_for(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, whose: str, what: str, error: Exception
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(shop.service.store if whose == "store" else child, what, broken)
        answer = sent(shop, SEGMENT, wait_s=0)
        assert answer.status_code == 202
        place, end = answer.headers["location"], time.monotonic() + 60
        while (said := shop.client.get(place).json())["message"] is None and time.monotonic() < end:
            time.sleep(0.01)
        assert (said["state"], said["message"]) == ("waiting", str(error))
    said = told(shop, said["id"])
    assert (said["state"], said["message"]) == ("done", None)
    assert said["kept"] == shop.service.store.state().events > 0


def test_a_disk_that_holds_no_upload_is_no_fault_of_the_file(shop: Shop, tmp_path: Path) -> None:
    (tmp_path / "imports").write_text("in the way")
    assert sent(shop, SEGMENT).status_code == 503
    (tmp_path / "imports").unlink()


def test_a_service_that_stops_ends_who_reads_and_keeps_what_is_read(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = tmp_path / "reads"
    code = f"import os, time; open({str(reads)!r}, 'w').write(f'{{os.getpid()}} {{os.getsid(0)}} '); time.sleep(600)"
    monkeypatch.setattr(child, "_COMMAND", (sys.executable, "-c", code))
    with opened(models, tmp_path) as shop:
        name, end = sent(shop, SEGMENT, wait_s=0).json()["id"], time.monotonic() + 60
        while not (reads.exists() and reads.read_text().endswith(" ")) and time.monotonic() < end:
            time.sleep(0.01)
    pid, session = map(int, reads.read_text().split())
    assert session == pid  # what stops a group of processes stops the service alone
    while Path(f"/proc/{pid}/exe").exists():
        assert time.monotonic() < end
        time.sleep(0.01)
    assert {path.name for path in (tmp_path / "imports" / name).iterdir()} >= {"upload", "reading.json"}


def test_one_that_takes_long_is_told_of_later(shop: Shop) -> None:
    answer = sent(shop, SEGMENT, wait_s=0)
    assert answer.status_code == 202
    place = answer.headers["location"]
    end = time.monotonic() + 60
    while (said := shop.client.get(place).json())["state"] in ("waiting", "running") and time.monotonic() < end:
        time.sleep(0.05)
    assert said["state"] == "done"
    assert shop.client.get(f"/v1/imports/{'0' * 32}").status_code == 404
    assert shop.client.get("/v1/imports/..%2f..%2fetc").status_code in (404, 422)


@pytest.mark.parametrize(("content", "state"), [(SEGMENT, "done"), ("neither", "failed")])
def test_what_is_told_as_ended_is_not_read_again(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str, state: str
) -> None:
    cleared, go, remove = threading.Event(), threading.Event(), shutil.rmtree

    def late(place: str | Path, **how: Any) -> None:
        if Path(place).parent == tmp_path / "imports":
            cleared.set()
            go.wait(60)
        remove(place, **how)

    monkeypatch.setattr(shutil, "rmtree", late)
    name = sent(shop, content, wait_s=0).json()["id"]
    assert cleared.wait(60)
    before = shop.client.get(f"/v1/imports/{name}").json()["state"]
    go.set()
    assert (before, told(shop, name)["state"]) == ("running", state)


def test_more_than_a_few_wait_at_the_door(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    go = threading.Event()

    def slow(*_: object, **__: object) -> None:
        go.wait()
        raise InvalidInput("Read at last.")

    monkeypatch.setattr(child, "either", slow)
    answers = [sent(shop, "x", wait_s=0) for _ in range(WAITING + 2)]
    states = [shop.client.get(answer.headers["location"]).json()["state"] for answer in answers[:-1]]
    go.set()
    assert [answer.status_code for answer in answers] == [202] * (WAITING + 1) + [429]
    assert answers[-1].headers["retry-after"] == "10"
    assert states == ["running", *["waiting"] * WAITING]
    for answer in answers[:-1]:
        while (said := shop.client.get(answer.headers["location"]).json())["state"] != "failed":
            time.sleep(0.01)
        assert said["message"] == "Read at last."


def told(shop: Shop, name: str) -> dict[str, Any]:
    """The report of an import, once it has ended."""
    end = time.monotonic() + 60
    while (said := shop.client.get(f"/v1/imports/{name}").json())["state"] in ("waiting", "running"):
        assert time.monotonic() < end, said
        time.sleep(0.02)
    return said


def staged(folder: Path, name: str, tries: int = 0) -> Path:
    """What a service has left that ended before it read a file."""
    place = folder / name
    place.mkdir(parents=True)
    (place / "upload").write_text(SEGMENT)
    options = {"form": "segment", "level": "item_id", "options": {}, "bad_rows": 0.01}
    (place / "reading.json").write_text(json.dumps(options))
    (place / "tries").write_text("." * tries)
    return place


def test_what_was_staged_when_the_service_ended_is_taken_in_by_the_next(models: Path, tmp_path: Path) -> None:
    folder = tmp_path / "imports"
    whole, fatal, odd = (staged(folder, digit * 32, tries) for digit, tries in (("a", 1), ("b", MOST_TRIES), ("c", 0)))
    (odd / "reading.json").write_text('{"shape": "round"}')
    cut, others = folder / ("d" * 32), folder / "notes"
    for place in (cut, others):
        place.mkdir()
        (place / "upload").touch()
    lived = staged(folder, "e" * 32)
    with held(lived, lambda: None), opened(models, tmp_path) as shop:
        said = told(shop, whole.name)
        assert (said["state"], said["form"]) == ("done", "segment")
        assert said["kept"] == len(shop.service.store.since(0, 99)) > 0
        assert "The service ended whenever it read this" in told(shop, fatal.name)["message"]
        assert told(shop, odd.name)["state"] == "failed"
        assert {place.name for place in folder.iterdir()} == {others.name, lived.name}
        assert shop.client.get(f"/v1/imports/{lived.name}").status_code == 404


def test_one_that_a_stop_breaks_off_is_taken_up_again(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go, either = threading.Event(), threading.Event(), child.either

    def slow(*asked: Any, **options: Any) -> Any:
        begun.set()
        go.wait()
        return either(*asked, **options)

    with opened(models, tmp_path) as shop, monkeypatch.context() as patched:
        patched.setattr(child, "either", slow)
        first, second = (sent(shop, SEGMENT, wait_s=0).json()["id"] for _ in range(2))
        assert begun.wait(60)
        threading.Timer(0.2, go.set).start()
    left = {place.name: {path.name for path in place.iterdir()} for place in (tmp_path / "imports").iterdir()}
    assert all(files >= {"upload", "reading.json"} and "tries" not in files for files in left.values())
    assert set(left) == {first, second}
    with opened(models, tmp_path) as shop:
        kept = [told(shop, name) for name in (first, second)]
        assert [said["state"] for said in kept] == ["done", "done"]
        assert sorted(said["known"] for said in kept) == [0, kept[0]["kept"]]
        assert not [*(tmp_path / "imports").iterdir()]


def test_the_commands_of_the_page_work(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shop = built(models, tmp_path, scopes={"boss": "admin"})
    (tmp_path / "feed.tsv").write_text(TSV)
    (tmp_path / "calls.jsonl").write_text(SEGMENT)
    (commands,) = [text for info, text in blocks(ROOT / "docs/shops.md") if info == "sh service"]
    monkeypatch.setenv("REDIFFUSE_KEY", shop.secrets["boss"])
    with listening(shop) as address:
        script = commands.replace("http://127.0.0.1:8000", address)
        ran = subprocess.run(["/bin/sh", "-e"], input=script, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.count('"state":"done"') == 2


def test_a_file_that_is_too_large_or_of_another_type_is_not_read(models: Path, tmp_path: Path) -> None:
    with opened(models, tmp_path, import_bytes=1000) as shop:
        assert sent(shop, b"x" * 1001).status_code == 413
        assert sent(shop, iter([b"x" * 600, b"x" * 600])).status_code == 413
        assert shop.client.post("/v1/imports", json={}).status_code == 415
        assert not list((tmp_path / "imports").glob("*"))
