"""What can go wrong, in a few kinds; each message says what, which value, what is allowed, what to do.

Every kind is a `RediffuseError`, so one `except` at an edge (command line, service) covers them all.
"""

import difflib
from collections.abc import Iterable

_SHOWN, _LOOKED_AT = 30, 20_000


class RediffuseError(Exception):
    """The root: a user can mend its cause, the message says how."""


class InvalidInput(RediffuseError, ValueError):  # noqa: N818  # named for what the caller sees
    """A value, a file or a table is not what it should be."""


class InvalidConfig(RediffuseError, ValueError):  # noqa: N818
    """A setting is unknown or out of range."""


class UnsupportedOption(RediffuseError, ValueError):  # noqa: N818
    """The method cannot do what was asked; nothing is silently ignored."""


class ArtifactError(RediffuseError):
    """A model or dataset folder is incomplete, altered or of another kind."""


class StorageError(RediffuseError, OSError):
    """A file could not be written or read: the disk is full, broken or closed to us."""


class MissingExtra(RediffuseError, ImportError):  # noqa: N818
    """An optional library is not installed."""


class TrainingDiverged(RediffuseError, ArithmeticError):  # noqa: N818
    """A loss or a weight is not finite."""


def say(what: str, *, got: object = None, allowed: object = None, remedy: str = "") -> str:
    """Word a message: what was wrong. Got ... . Allowed: ... . What to do.

    Args: got: the offending value, shown as it is.   allowed: a sentence part or the values that are.
    """
    parts = [what.rstrip(".") + "."]
    if got is not None:
        parts.append(f"Got {got!r}.")
    if allowed is not None:
        shown = ", ".join(map(str, allowed)) if isinstance(allowed, list | tuple | set | frozenset) else allowed
        parts.append(f"Allowed: {shown}.")
    if remedy:
        parts.append(remedy.rstrip(".") + ".")
    return " ".join(parts)


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that looks most like `name`; None when nothing does, or where there are too many to look at."""
    known = list(known)
    if len(known) > _LOOKED_AT:
        return None
    found = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return found[0] if found else None


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """Word the message for a name that does not exist, with the nearest one that does."""
    names = sorted(known)
    close = nearest(name, names)
    shown = ", ".join(names[:_SHOWN]) + (", .." if len(names) > _SHOWN else "")
    hint = f"Nearest known {kind}: {close!r}." if close else f"Known: {shown}." if names else "There is none."
    return f"Unknown {kind} {name!r}. {hint}"


def refuse_options(method: str, asked: Iterable[str], able: Iterable[str] = ()) -> None:
    """Complain about the first option that is asked for and that the method cannot honour.

    Raises: UnsupportedOption.
    """
    honoured = sorted(able)
    for name in asked:
        if name not in honoured:
            can = f"It takes: {', '.join(honoured)}" if honoured else "It takes no options"
            raise UnsupportedOption(say(f"{method} cannot use {name!r}", remedy=f"{can}; leave {name} out"))
