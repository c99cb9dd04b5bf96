"""A process of its own reads what shops export: the same answer, one sentence when it dies, nothing half-read."""

import os
import re
import subprocess
import sys
import time
import zlib
from pathlib import Path
from typing import Any

import pytest
from polars.testing import assert_frame_equal

from rediffuse.data import importers
from rediffuse.data.importers import child, detect
from rediffuse.data.rules import EventRules
from rediffuse.errors import InvalidConfig, InvalidInput
from tests.data.importers.fuzz import fuzz
from tests.data.importers.shops import FILES, TSV, lines, put, track

SAMPLES = {name: (form, content.encode()) for name, (form, content) in FILES.items()}


def refused(message: str) -> Any:
    return pytest.raises(InvalidInput, match=re.escape(message))


@pytest.mark.parametrize("name", FILES)
def test_every_export_is_known_by_its_beginning(tmp_path: Path, name: str) -> None:
    assert detect(put(tmp_path, name)) == FILES[name][0]


def test_a_child_gives_what_the_importer_gives(tmp_path: Path) -> None:
    events, feed = put(tmp_path, "events.jsonl"), put(tmp_path, "feed.xml")
    rules = EventRules(kinds={"purchase": 2.0, "view": 0.5}, returns=())
    data = child.read(events, feed=feed, rules=rules, level="item_id", name="shop")
    expected = importers.read(events, feed=feed, rules=rules, level="item_id", name="shop")
    assert data.digest() == expected.digest()
    assert (data.name, dict(data.facts)) == ("shop", dict(expected.facts))
    assert_frame_equal(child.products(feed), importers.products(feed))


def test_a_refusal_comes_in_the_words_of_the_importer(tmp_path: Path) -> None:
    with refused("Column 'price' holds no price with its currency in row 1. Got '49.90'."):
        child.products(put(tmp_path, "feed.tsv", TSV.replace("49.90 EUR", "49.90")))
    with pytest.raises(InvalidConfig, match="weighs"):
        child.read(put(tmp_path, "events.jsonl"), rules={"weighs": 1})


def test_limits_end_a_child_in_one_sentence(tmp_path: Path) -> None:
    path = put(tmp_path, "events.jsonl")
    with refused("'events.jsonl' could not be read within 0.2 s. Part it into smaller files."):
        child.read(path, timeout_s=0.2)
    # a text that unpacks to a thousand times its size, with next to no memory to spare
    bomb = zlib.compressobj(9, wbits=31)
    packed = bomb.compress(b'{"event_name": "' + b"a" * (60 << 20)) + bomb.flush()
    with refused("'bomb.jsonl.gz'"):
        child.read(put(tmp_path, "bomb.jsonl.gz", packed), "ga4", spare_mb=24)


def test_what_kills_a_child_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put(tmp_path, "events.jsonl")
    for code, shown in (
        ("os.abort()", "SIGABRT"),
        ("sys.exit('out of luck')", "out of luck"),
        ("os._exit(9)", "exit code 9"),
    ):
        monkeypatch.setattr(child, "_COMMAND", (sys.executable, "-c", f"import os, sys; {code}"))
        with refused(f"'events.jsonl' ended the process that read it. Got '{shown}'."):
            child.read(path)


def test_who_stops_a_child_does_not_blame_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put(tmp_path, "events.jsonl")
    code = "import os, signal; os.kill(os.getpid(), signal.SIGTERM)"
    monkeypatch.setattr(child, "_COMMAND", (sys.executable, "-c", code))
    with pytest.raises(child.Stopped, match="SIGTERM"):
        child.read(path)


def is_alive(process: Path) -> bool:
    try:
        return "\nState:\tZ" not in (process / "status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_child_ends_with_its_parent(tmp_path: Path) -> None:
    """A service that is killed leaves nobody who reads on."""
    large, shown = tmp_path / "calls.jsonl", tmp_path / "pid"
    large.write_text(lines(track("Product Viewed", 1, visitor=None, user="ann", sku="A00001")) * 300_000)
    code = (
        "import pathlib, sys; from rediffuse.data.importers import child; large, shown = map(pathlib.Path, sys.argv[1:]);"
        "child.either(large, work=shown.parent, started=lambda process: shown.write_text(f'{process.pid} '))"
    )
    end = time.monotonic() + 60
    with subprocess.Popen((sys.executable, "-c", code, large, shown)) as parent:
        try:
            while not (shown.exists() and shown.read_text().endswith(" ")):
                assert time.monotonic() < end
                time.sleep(0.01)
            process = Path("/proc") / shown.read_text().strip()
            while not re.search(r"Max core file size +0 +0", (process / "limits").read_text()):  # not at its work yet
                assert time.monotonic() < end
                time.sleep(0.01)
        finally:
            parent.kill()
    while is_alive(process):
        assert time.monotonic() < end
        time.sleep(0.01)
    assert not [*tmp_path.rglob("told.json")]


def test_damaged_files_are_read_or_refused(tmp_path: Path) -> None:
    counts = fuzz(tmp_path, SAMPLES, seed=1, budget_s=8, most=300)
    assert set(counts) == {"refused", "events", "products"}
    assert counts["refused"] >= 20


@pytest.mark.slow
@pytest.mark.parametrize("form", sorted({form for form, _ in SAMPLES.values()}))
def test_damaged_files_are_read_or_refused_for_long(tmp_path: Path, form: str) -> None:
    """Two minutes for each format; REDIFFUSE_FUZZ_S=900 for more."""
    budget_s = float(os.environ.get("REDIFFUSE_FUZZ_S", "120"))
    samples = {name: sample for name, sample in SAMPLES.items() if sample[0] == form}
    counts = fuzz(tmp_path, samples, seed=int.from_bytes(form.encode()), budget_s=budget_s, most=10**9)
    assert counts["refused"] > 20
