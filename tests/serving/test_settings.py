"""Where settings come from, and what is refused."""

import re
from pathlib import Path

import pytest

from rediffuse.errors import InvalidConfig
from rediffuse.serving.protocol import MOST_HEADERS
from rediffuse.serving.settings import Settings, is_loopback
from tests.docs.pages import ROOT


def test_what_is_given_is_over_the_environment_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "serve.toml"
    file.write_text('port = 1\nqueue = 7\nhost = "::1"\n')
    environ = {"REDIFFUSE_SERVE_PORT": "2", "REDIFFUSE_SERVE_DEADLINE_MS": "80", "REDIFFUSE_OTHER": "3"}
    found = Settings.read({"port": 4, "host": None}, file, environ)
    assert (found.port, found.queue, found.host, found.deadline_ms) == (4, 7, "::1", 80)
    assert Settings.read({}, file, environ).port == 2
    assert Settings.read({}, file, {}).port == 1
    assert Settings.read({}, None, {}).port == 8000
    for proxies in ("", "10.0.0.1", "::1, 10.0.0.0/8"):
        assert Settings.read({}, None, {"REDIFFUSE_SERVE_PROXIES": proxies}).proxies == proxies


@pytest.mark.parametrize(
    ("given", "environ", "text", "why"),
    [
        ({"prot": 1}, {}, "", "Unknown key 'prot'. Nearest known key: 'port'."),
        ({}, {"REDIFFUSE_SERVE_PROT": "1"}, "", "Nearest known variable: 'REDIFFUSE_SERVE_PORT'."),
        ({}, {"REDIFFUSE_SERVE_PORT": "many"}, "", "port = 'many' is not possible"),
        ({}, {}, "queue = 0", "queue = 0 is not possible"),
        ({}, {}, "queue = ", "is not TOML"),
        ({}, {"REDIFFUSE_SERVE_PROXIES": "10.0.0.1,proxy"}, "", "proxies = '10.0.0.1,proxy' is not possible: 'proxy'"),
        ({}, {}, 'proxies = "10.0.0.1/8"', "has host bits set. Allowed: addresses and networks"),
        ({}, {}, 'proxies = "*"', "proxies = '\\*' is not possible"),
    ],
)
def test_a_wrong_setting_is_refused(given, environ, text, why, tmp_path: Path) -> None:
    (tmp_path / "serve.toml").write_text(text)
    with pytest.raises(InvalidConfig, match=why):
        Settings.read(given, tmp_path / "serve.toml", environ)


def test_the_pages_tell_the_bounds_that_hold() -> None:
    told = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    usual = Settings()
    for fact in (
        f"{usual.head_bytes // 2**10} KiB and {MOST_HEADERS} headers",
        f"{usual.head_timeout_s:g} s to come whole",
        f"{usual.connections:,} connections",
        f"`proxies` alone: {usual.proxies}",
    ):
        assert fact in " ".join(told.split())
    (told,) = re.findall(r"`REDIFFUSE_SERVE_(\w+)=(.*)`", (ROOT / "docs/pages.md").read_text(encoding="utf-8"))
    assert Settings.read({}, None, {f"REDIFFUSE_SERVE_{told[0]}": told[1]}).proxies == told[1]


@pytest.mark.parametrize(
    ("host", "ours"),
    [("127.0.0.1", True), ("127.8.9.1", True), ("::1", True), ("[::1]", True), ("localhost", True), ("LOCALHOST", True)]
    + [(h, False) for h in ("0.0.0.0", "::", "192.168.1.4", "shop.example", "", "localhost.evil", "127.0.0.1.evil")],
)
def test_only_loopback_is_served_without_keys(host: str, ours: bool, tmp_path: Path) -> None:
    assert is_loopback(host) == ours
    Settings(host=host, keys=tmp_path / "keys.json").check_exposure()
    if ours:
        Settings(host=host).check_exposure()
    else:
        with pytest.raises(InvalidConfig, match="listens on loopback only"):
            Settings(host=host).check_exposure()
