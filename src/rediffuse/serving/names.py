"""Names for requests, lists and events that came without one."""

import random
import secrets
from collections.abc import Callable


def names() -> Callable[[], str]:
    """Draws names that nobody has, 32 letters each; they are no secrets.

    The system is asked for the seed only: to ask it for each name would let another thread go first, which under load
    keeps the interpreter for milliseconds.
    """
    draw = random.Random(secrets.randbits(256))  # noqa: S311  # unlike all others is enough
    return lambda: f"{draw.getrandbits(128):032x}"
