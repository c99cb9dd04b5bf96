"""Damaged files: bytes are changed, cut, doubled and swapped, and a reader must answer or refuse, nothing else."""

import random
import time
from collections.abc import Callable
from pathlib import Path

from rediffuse.data.importers import detect, holds_products, products, read
from rediffuse.errors import RediffuseError

_TELLING = (
    b'"',
    b",",
    b"\t",
    b"\n",
    b"\r",
    b"\0",
    b"{",
    b"}",
    b"[",
    b"<",
    b"&",
    b"\xff",
    b"\xef\xbb\xbf",
    b"9" * 40,
    b"null",
    b"NaN",
)


def damaged(data: bytes, draw: random.Random) -> bytes:
    """A few changes of single bytes, pieces and ends."""
    out = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 5, 20))):
        at, to = sorted(draw.randrange(len(out) + 1) for _ in range(2))
        to = min(to, at + draw.choice((1, 4, 64, 1024)))
        match draw.randrange(6):
            case 0:
                out[at:to] = b""
            case 1:
                out[at:at] = draw.choice(_TELLING)
            case 2:
                out[at:at] = out[at:to]
            case 3:
                out[at : at + 1] = bytes([draw.randrange(256)])
            case 4:
                out[at : at + 1] = draw.choice(_TELLING)
            case _:
                out = out[: max(at, 1)] if draw.random() < 0.2 else out
        out = out or bytearray(b"x")
    return bytes(out)


def answer(path: Path, name: str) -> str:
    """What becomes of a file: events, products or refused. Anything but a RediffuseError goes through."""
    try:
        detect(path)
        if name in ("merchant", "shopify", "retail_v2", "personalize") and holds_products(path, name):
            products(path, name)
            return "products"
        read(path, name)
    except RediffuseError as error:
        return "refused" if str(error).endswith(".") else f"no sentence: {error}"
    return "events"


def fuzz(
    folder: Path,
    samples: dict[str, tuple[str, bytes]],
    *,
    seed: int,
    budget_s: float,
    most: int,
    look: Callable[..., str] = answer,
) -> dict[str, int]:
    """Read damaged copies of files until the time or the number is spent.

    Args: samples: file name -> format, content.   look: reads one.
    Returns: how often each answer was given; a file that makes a reader stumble stays in the folder.
    """
    draw = random.Random(seed)
    counts: dict[str, int] = {}
    end = time.monotonic() + budget_s
    for _ in range(most):
        name = draw.choice(sorted(samples))
        form, content = samples[name]
        path = folder / name
        path.write_bytes(damaged(content, draw))
        found = look(path, form)
        counts[found] = counts.get(found, 0) + 1
        if time.monotonic() > end:
            break
    return counts
