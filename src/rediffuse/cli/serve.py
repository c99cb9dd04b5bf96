"""`serve`: a model as a service, events in and recommendations out."""

import gc
import resource
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from rediffuse.cli.console import ThreadsOption, run_config, tell
from rediffuse.data.dataset import Dataset
from rediffuse.errors import InvalidConfig, MissingExtra, say

_FILES = 256
"""Files that may be open besides connections."""
_TURN_S = 0.0005
"""Time a thread keeps the interpreter while another wants it: a tenth of the usual, for who answers must not wait for who
computes."""


def serve(
    model: Annotated[Path, typer.Argument(help="Model folder; those beside it can be promoted while it runs.")],
    data: Annotated[
        Path | None, typer.Option("--data", help="Dataset folder whose users are known from the start.")
    ] = None,
    store: Annotated[
        str | None, typer.Option("--store", help="Where events are kept: a file, or postgresql://USER@HOST/NAME.")
    ] = None,
    host: Annotated[str | None, typer.Option("--host", help="Address to listen on; 127.0.0.1.")] = None,
    port: Annotated[int | None, typer.Option("--port", help="Port to listen on; 8000. 0: a free one.")] = None,
    keys: Annotated[
        Path | None, typer.Option("--keys", help="File of `rediffuse keys`; without one only loopback is served.")
    ] = None,
    config: Annotated[Path | None, typer.Option("--config", help="TOML file of settings.")] = None,
    device: Annotated[str | None, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")] = None,
    threads: ThreadsOption = 0,
) -> None:
    """Answer over HTTP: POST /v1/recommendations, POST /v1/events; what it can do stands in /openapi.json.

    Settings come from the options, then from variables such as REDIFFUSE_SERVE_PORT, then from the file of --config.
    An event is on disk before it is acknowledged, and counts in the next list. SIGTERM ends it gracefully.

    Example: `rediffuse serve models/diffrec --data data/shop --store events.sqlite --port 8000`
    """
    try:
        import uvicorn

        from rediffuse.serving.app import create_app
        from rediffuse.serving.gate import Gate
        from rediffuse.serving.keys import KeyRing, read_keys
        from rediffuse.serving.past import Past, nothing
        from rediffuse.serving.protocol import BACKLOG, served
        from rediffuse.serving.service import Clock, Service
        from rediffuse.serving.settings import Settings
        from rediffuse.serving.store import open_store
        from rediffuse.serving.telemetry import log_json
        from rediffuse.serving.versions import Versions
    except ImportError as error:
        message = say(f"Serving needs {error.name}, which is not installed", remedy='pip install "rediffuse[serve]"')
        raise MissingExtra(message) from None
    given = {"host": host, "port": port, "store": store, "keys": keys, "device": device}
    settings = Settings.read(given, config)
    settings.check_exposure()
    if settings.keys is not None and not read_keys(settings.keys):
        raise InvalidConfig(
            say(
                f"There is no key in {str(settings.keys)!r}",
                remedy="Make one: rediffuse keys add NAME --scope read,write",
            )
        )
    run = run_config(settings.device, "float32", threads, 0)
    past = nothing if data is None else Past(Dataset.read(data))
    path = model.resolve()
    gate = None if settings.gate_metric is None else Gate(settings.gate_metric, settings.gate_share)
    versions, clock = Versions(path.parent, run.device, gate=gate), Clock()
    versions.load(path)
    versions.promote(path.name)
    ring = None if settings.keys is None else KeyRing(settings.keys, clock.seconds)
    _allow_files(settings.connections + _FILES)
    with _listening(settings.host, settings.port, BACKLOG) as door:
        kept = open_store(settings.store)
        app = create_app(Service(kept, versions, settings, past=past, clock=clock), ring)
        server = uvicorn.Server(served(app, settings))
        address = f"http://{f'[{settings.host}]' if ':' in settings.host else settings.host}:{door.getsockname()[1]}"
        tell(f"Serving {path.name} on {address}, events in {_named(settings.store)}; Ctrl-C stops it")
        tell(f"""Try: curl {address}/v1/recommendations --json '{{"user": "u-1", "k": 5}}'""")
        tell(f"Pages: {address}/shop and {address}/ops")
        log_json()
        sys.setswitchinterval(_TURN_S)
        gc.collect()
        gc.freeze()  # what is there now stays: a collection that walked through all of it would hold answers up
        with suppress(KeyboardInterrupt):
            server.run(sockets=[door])


def _allow_files(wanted: int) -> None:
    """Let connections not take the files that the store needs, as far as the system allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _listening(host: str, port: int, backlog: int) -> socket.socket:
    """A bound socket. Raises: OSError where the address is taken or not ours."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=backlog)


def _named(store: str) -> str:
    """Where events are kept, without what an address tells of its user."""
    return store.rpartition("@")[2] if "://" in store else store
