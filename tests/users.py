"""Another user than the one who runs the tests."""

import os
from collections.abc import Generator
from contextlib import contextmanager

NOBODY = 65534


@contextmanager
def as_nobody() -> Generator[None]:
    """As one who owns nothing here; only root can become that, others stay who they are and are shut out by a mode of 0."""
    was = os.geteuid()
    if was == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(was)
