"""How the service runs: from the command line, the environment and a file, in this order of precedence."""

import ipaddress
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import Field, PositiveFloat, PositiveInt, field_validator

from rediffuse.config import FrozenConfig, read_toml
from rediffuse.errors import InvalidConfig, say, unknown

PREFIX = "REDIFFUSE_SERVE_"


class Settings(FrozenConfig):
    """Choices of a running service; none of them changes what a model answers."""

    host: str = "127.0.0.1"
    """Address to listen on. Beyond loopback only where keys are asked for."""
    port: int = Field(default=8000, ge=0, le=65_535)
    """Port to listen on; 0: a free one."""
    proxies: str = "127.0.0.1"
    """Addresses and networks whose X-Forwarded-Proto and X-Forwarded-For are believed, parted by commas; empty: nobody's."""
    connections: PositiveInt = 2000
    """Connections that may be open at once; one more is answered with 503 and closed."""
    head_bytes: PositiveInt = 64 * 2**10
    """Largest request line with its headers."""
    head_timeout_s: PositiveFloat = 10.0
    """Time a client has to send them, from when it connects or goes on."""
    store: str = "events.sqlite"
    """Where events are kept: the path of a file, or postgresql://USER@HOST/NAME."""
    keys: Path | None = None
    """File of API keys, as `rediffuse keys` makes it; None: nobody is asked for one, and only loopback is served."""
    device: str = "auto"
    """`auto`, `cpu`, `cuda` or `cuda:N`."""
    largest_batch: PositiveInt = 64
    """Questions answered at once."""
    batch_wait_ms: float = Field(default=2.0, ge=0)
    """How long the first question of a batch waits for others."""
    queue: PositiveInt = 512
    """Questions that may wait; more are refused at the door."""
    workers: PositiveInt = 1
    """Batches computed at once."""
    deadline_ms: PositiveFloat = 500.0
    """Time an answer may take, unless the question names less."""
    history: PositiveInt = 500
    """Newest events of a user that are read for an answer."""
    requests_per_s: PositiveFloat = 2000.0
    """Requests of one key; what goes beyond is refused with the time to wait."""
    burst: PositiveInt = 4000
    """Requests of one key that may come at once after a pause."""
    body_bytes: PositiveInt = 4 * 2**20
    """Largest body of a request."""
    stream_bytes: PositiveInt = 64 * 2**20
    """Largest stream of events, one JSON object a line."""
    imports: Path = Path("imports")
    """Folder in which files that are imported over HTTP wait to be read; nothing stays there."""
    import_bytes: PositiveInt = 256 * 2**20
    """Largest file that is imported over HTTP."""
    import_s: PositiveFloat = 600.0
    """Time that reading one may take."""
    body_timeout_s: PositiveFloat = 10.0
    """Time a client has to send a body that is no stream."""
    gate_metric: str | None = None
    """Metric that a model must have reached to follow another, as its folder records it; None: nothing is asked."""
    gate_share: float = Field(default=0.95, ge=0)
    """Share of what the model that answers reached; popularity must be reached whole."""
    stop_s: PositiveInt = 20
    """Time that requests in flight have to end after the service was told to stop."""

    @field_validator("proxies")
    @classmethod
    def _addresses(cls, text: str) -> str:
        for part in text.split(",") if text.strip() else ():
            try:
                ipaddress.ip_network(part.strip())
            except ValueError as error:
                allowed = "addresses and networks, such as 127.0.0.1,10.0.0.0/8"
                raise ValueError(say(f"{error}", allowed=allowed)) from None
        return text

    @classmethod
    def read(cls, given: Mapping[str, Any], file: Path | None = None, environ: Mapping[str, str] = os.environ) -> Self:
        """What was given, over REDIFFUSE_SERVE_PORT and the like, over a TOML file, over the defaults.

        Args: given: by name; None is not given.
        Raises: InvalidConfig for an unknown name, in any of them, or an impossible value.
        """
        told = {name[len(PREFIX) :].lower(): text for name, text in environ.items() if name.startswith(PREFIX)}
        for name in told:
            if name not in cls.model_fields:
                known = [PREFIX + field.upper() for field in cls.model_fields]
                raise InvalidConfig(unknown("variable", PREFIX + name.upper(), known))
        chosen = {name: value for name, value in given.items() if value is not None}
        return cls.make({**(read_toml(file) if file else {}), **told, **chosen})

    def check_exposure(self) -> None:
        """Refuse to be reached from elsewhere without asking for keys. Raises: InvalidConfig."""
        if self.keys is None and not is_loopback(self.host):
            raise InvalidConfig(
                say(
                    "Without keys the service listens on loopback only",
                    got=self.host,
                    allowed=["127.0.0.1", "::1", "localhost"],
                    remedy="Make a key with `rediffuse keys add NAME --scope read,write` and pass --keys keys.json",
                )
            )


def is_loopback(host: str) -> bool:
    """Whether an address or name can only be reached from this machine."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"
