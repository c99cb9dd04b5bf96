"""What `packaging` holds is sound, and `docs/deploy.md` tells what works."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from rediffuse import registry
from rediffuse.config import RunConfig
from rediffuse.data.dataset import Dataset
from rediffuse.evaluation.protocol import Protocol
from rediffuse.serving.settings import PREFIX, Settings
from tests.docs.pages import ACTIVATE, ROOT, Page, blocks

PACKAGING = ROOT / "packaging"
DEPLOY = ROOT / "docs" / "deploy.md"
POSTGRES = os.environ.get("REDIFFUSE_TEST_POSTGRES", "")
WHERE_IT_RUNS = "/var/lib/rediffuse"


def instructions() -> list[tuple[str, str]]:
    """(instruction, what it says) of each line of the Dockerfile, continued lines joined."""
    text = (PACKAGING / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line.split(maxsplit=1) for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(name, " ".join(rest.split())) for name, rest in lines]


def compose() -> dict[str, Any]:
    return yaml.safe_load((PACKAGING / "compose.yaml").read_text())


def variables(path: Path) -> dict[str, str]:
    """What a file of an environment sets."""
    lines = [line for line in path.read_text().splitlines() if line.strip() and not line.startswith("#")]
    return dict(line.split("=", maxsplit=1) for line in lines)


def test_compose_keeps_the_schema_of_compose() -> None:
    program = Path(sys.executable).with_name("check-jsonschema")
    command = [program, "--builtin-schema", "vendor.compose-spec"]
    assert subprocess.run([*command, PACKAGING / "compose.yaml"], capture_output=True, check=False).returncode == 0


def test_the_schema_is_asked(tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text((PACKAGING / "compose.yaml").read_text().replace("restart:", "restarts:"))
    program = Path(sys.executable).with_name("check-jsonschema")
    command = [program, "--builtin-schema", "vendor.compose-spec", tmp_path / "compose.yaml"]
    assert b"restarts" in subprocess.run(command, capture_output=True, check=False).stdout


def test_compose_names_only_what_is_there() -> None:
    made = compose()
    for service in made["services"].values():
        assert service["restart"] == "unless-stopped"
        assert re.search(r":v?\d+\.\d+", service["image"]), "an image has a version"
        for mount in service["volumes"]:
            source = mount.split(":")[0]
            made_later = source == "./models"
            assert source in made["volumes"] or made_later or (PACKAGING / source).is_file(), mount
        for secret in service.get("secrets", ()):
            assert secret in made["secrets"]
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    for later in (".env", "models/", "prometheus.key"):
        assert f"/packaging/{later}" in ignored
    wanted = set(re.findall(r"\$\{(\w+)", (PACKAGING / "compose.yaml").read_text()))
    assert wanted == set(variables(PACKAGING / "env.example"))
    build = made["services"]["service"]["build"]
    assert (PACKAGING / build["context"] / build["dockerfile"]).resolve() == PACKAGING / "Dockerfile"


def test_prometheus_asks_the_service_with_its_key() -> None:
    (job,) = yaml.safe_load((PACKAGING / "prometheus.yml").read_text())["scrape_configs"]
    made = compose()
    (target,) = job["static_configs"][0]["targets"]
    name, port = target.split(":")
    assert name in made["services"]
    assert ("EXPOSE", port) in instructions()
    secret = Path(job["authorization"]["credentials_file"])
    assert secret.parent == Path("/run/secrets")
    assert secret.name in made["services"]["prometheus"]["secrets"]


def test_the_image_copies_what_is_there_and_says_what_works() -> None:
    said = instructions()
    allowed = [line[1:] for line in (PACKAGING / "Dockerfile.dockerignore").read_text().splitlines() if line[0] == "!"]
    for name, rest in said:
        if name == "COPY" and not rest.startswith("--from"):
            *sources, _ = rest.split()
            for source in sources:
                assert (ROOT / source).exists(), source
                assert source in allowed, f"{source} does not reach the builder"
    assert all((ROOT / name).exists() for name in allowed)
    for name, rest in said:
        programs = [step.split()[0] for step in rest.split(" && ")] if name == "RUN" else []
        assert all(program.startswith("/opt/") or shutil.which(program) for program in programs), programs
    told = dict(said)
    assert told["USER"] == "rediffuse"
    assert told["HEALTHCHECK"].endswith('timeout=4)"]')
    assert "/health/ready" in told["HEALTHCHECK"]
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    (named,) = {extra for name, rest in said if name == "RUN" for extra in re.findall(r"\.\[([\w,]+)\]", rest)}
    assert set(named.split(",")) <= set(extras)
    assert "torch==" in (ROOT / "requirements.lock").read_text()
    verb, _, *flags = (word.strip('", ') for word in told["CMD"].strip("[]").split(","))
    assert (verb, flags[0]) == ("serve", "--config")
    assert f"COPY packaging/serve.toml {flags[1]}" in {" ".join(pair) for pair in said}


@pytest.mark.parametrize("beyond", [False, True], ids=["unit", "image"])
def test_the_example_settings_load(beyond: bool) -> None:
    environ = variables(PACKAGING / "rediffuse.env")
    if beyond:  # as the image sets it
        environ[f"{PREFIX}HOST"] = "0.0.0.0"
        assert f"{PREFIX}HOST=0.0.0.0" in dict(instructions())["ENV"]
    found = Settings.read({}, PACKAGING / "serve.toml", environ)
    found.check_exposure()
    assert found.keys is not None
    assert found.keys.is_relative_to(WHERE_IT_RUNS)
    assert Path(found.store).is_relative_to(WHERE_IT_RUNS)


def test_the_unit_is_sound_and_shut(tmp_path: Path) -> None:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("no systemd-analyze: install Debian's systemd")
    text = (PACKAGING / "rediffuse.service").read_text()
    (started,) = re.findall(r"^ExecStart=(\S+)", text, flags=re.MULTILINE)
    unit = tmp_path / "rediffuse.service"
    unit.write_text(text.replace(started, sys.executable))
    verified = subprocess.run([program, "verify", unit], capture_output=True, text=True, check=False)
    assert (verified.returncode, verified.stderr) == (0, "")
    looked = [program, "security", "--offline=true", "--threshold=20", unit]
    assert subprocess.run(looked, capture_output=True, check=False).returncode == 0, "more than 2.0 of 10 is exposed"
    stop_s = Settings.read({}, PACKAGING / "serve.toml", {}).stop_s
    assert int(re.findall(r"TimeoutStopSec=(\d+)", text)[0]) > stop_s
    assert "RestartPreventExitStatus=2\n" in text
    assert "KillMode=mixed\n" in text, "an import is read by a process of its own, which the service stops"


def test_the_page_names_files_that_are_there() -> None:
    for _, text in blocks(DEPLOY):
        for name in re.findall(r"(?<![\w/])packaging/[\w.]+", text):
            assert (ROOT / name).is_file(), name
    prose = DEPLOY.read_text()
    for name in re.findall(r"`(packaging/[\w.]+)`", prose):
        assert (ROOT / name).is_file() or f"/{name}" in (ROOT / ".gitignore").read_text(), name


def test_what_cannot_be_installed_is_said_and_the_command_runs(tmp_path: Path) -> None:
    """On a machine without Chromium, by a user who may not install it."""
    for name in ("bash", "env", "ls", "sort", "tail"):
        (tmp_path / name).symlink_to(str(shutil.which(name)))
    (tmp_path / "id").write_text("#!/bin/sh\necho 1000\n".replace("/bin/sh", str(shutil.which("sh"))))
    (tmp_path / "id").chmod(0o755)
    environ = {"PATH": str(tmp_path), "REDIFFUSE_TEST_POSTGRES": "postgresql://there"}
    command = [ROOT / ".ci" / "with_services", "bash", "-c", "echo $REDIFFUSE_TEST_POSTGRES; exit 7"]
    ended = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (7, "postgresql://there\n")
    assert "WARNING: chromium is missing" in ended.stderr


@pytest.mark.slow
def test_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Page(DEPLOY, monkeypatch).run()
    said = script(page_says("sh"), tmp_path, {})
    assert '"second"' in said
    assert '"history":1' in (tmp_path / "restored.json").read_text(), "the event is there after the restore"
    families = {family.name for family in text_string_to_metric_families((tmp_path / "metrics.txt").read_text())}
    named = set(re.findall(r"`(rediffuse_\w+?)(?:_total)?`", DEPLOY.read_text()))
    assert named <= families
    secret = (tmp_path / "shop.key").read_text().strip()
    assert secret not in (tmp_path / "serve.log").read_text()


@pytest.mark.slow
@pytest.mark.skipif(not POSTGRES, reason="no PostgreSQL: name a server in REDIFFUSE_TEST_POSTGRES")
def test_the_page_runs_with_postgres(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Page(DEPLOY, monkeypatch).run()
    (tmp_path / "models" / "current").symlink_to("first")
    Page(DEPLOY, monkeypatch).command("rediffuse keys add shop --scope read,write")
    at = urlsplit(POSTGRES)
    host = parse_qs(at.query).get("host", [at.hostname or "localhost"])[0]
    server = {"PGHOST": host, "PGUSER": at.username or "", "PGPORT": str(at.port or 5432)}
    script(page_says("sh postgres"), tmp_path, server, {"db.example.com/rediffuse": f"/rediffuse?host={host}"})
    try:
        assert (tmp_path / "events.dump").read_bytes().startswith(b"PGDMP")
    finally:
        for command in (("dropdb", "rediffuse"), ("dropuser", "rediffuse")):
            subprocess.run(command, env={**os.environ, **server}, check=True)


@pytest.mark.slow
def test_the_readme_serves_and_shows_what_an_event_does(tmp_path: Path, tiny: Dataset) -> None:
    made = tmp_path / "quickstart"
    tiny.write(made / "dataset")
    chosen = registry.recipe("diffrec", "atelier", {"epochs": 2})
    model = registry.fit(chosen, tiny, Protocol(), RunConfig(device="cpu", threads=1))
    model.write(made / "models" / "diffrec-atelier-season")
    serve, ask = [text for said, text in blocks(ROOT / "README.md") if said == "sh"]
    wait = "curl --silent --fail --retry 60 --retry-delay 1 --retry-connrefused localhost:8000/health/ready"
    said = script(f"{serve.strip()} > serve.out 2>&1 &\n{wait}\n{ask}", tmp_path, {})
    _, before, event, after = json_documents(said)
    assert (before["history"], before["fallback"]) == (0, "empty_history")
    assert event["stored"] == 1
    assert (after["history"], after["fallback"]) == (1, None)
    assert [place["item"] for place in after["items"]] != [place["item"] for place in before["items"]]


def json_documents(text: str) -> list[Any]:
    """One after the other."""
    out: list[Any] = []
    while text := text.strip():
        found, end = json.JSONDecoder().raw_decode(text)
        out.append(found)
        text = text[end:]
    return out


def page_says(language: str) -> str:
    """The blocks of the page, one after the other, in a shell that its first block has told of `.venv`."""
    return "\n".join([ACTIVATE, *(text for said, text in blocks(DEPLOY) if said == language)])


def script(text: str, folder: Path, environ: Mapping[str, str], changes: Mapping[str, str] = {}) -> str:
    """Run words of a page in one shell, on a free port. Returns: what they said."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    text = text.replace("8000", port)
    for ours, theirs in changes.items():
        text = text.replace(ours, theirs)
    programs = folder / ".venv" / "bin"
    programs.mkdir(parents=True)
    for name, words in (("python", ""), ("rediffuse", "-m rediffuse.cli.main")):
        (programs / name).write_text(f'#!/bin/sh\nexec {sys.executable} {words} "$@"\n')
        (programs / name).chmod(0o755)
    (programs / "activate").write_text(f'PATH="{programs}:$PATH"\n')
    ended = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", f"trap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n{text}"],
        cwd=folder,
        env={**os.environ, **environ, f"{PREFIX}PORT": port},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout
