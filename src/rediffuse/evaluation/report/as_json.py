"""A tree of frozen dataclasses as plain JSON values, and back; the fields give keys, order and types.

An undefined number is NaN here and null there.
"""

import dataclasses
import math
import types
from collections.abc import Mapping, Sequence
from typing import Any, Union, get_args, get_origin, get_type_hints

from rediffuse.errors import InvalidInput, say, unknown


def to_plain(value: Any) -> Any:
    """Dataclasses and mappings -> dict, sequences -> list, what is not finite -> None."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def from_plain(kind: Any, value: Any, where: str) -> Any:
    """The value of a type from its plain form; sequences come back as tuples.

    Args: where: what is being read, for messages.
    Raises: InvalidInput when it is another type, or a key is missing or unknown.
    """
    origin, args = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if origin in (Union, types.UnionType):
        return None if value is None else from_plain(args[0], value, where)
    if kind is float and value is None:
        return math.nan
    if dataclasses.is_dataclass(kind):
        return _fields(kind, _needs(value, Mapping, where), where)
    if origin is tuple:
        pair = _needs(value, list, where)
        if len(pair) != len(args):
            raise InvalidInput(say(f"{where} must hold {len(args)} values", got=len(pair)))
        return tuple(from_plain(inner, part, where) for inner, part in zip(args, pair, strict=True))
    if origin is Sequence:
        return tuple(from_plain(args[0], part, f"{where}[{n}]") for n, part in enumerate(_needs(value, list, where)))
    if origin is Mapping:
        return {key: from_plain(args[1], part, f"{where}.{key}") for key, part in _needs(value, Mapping, where).items()}
    return _needs(value, int | float if kind is float else kind, where)


def _fields(kind: Any, given: Mapping[str, Any], where: str) -> Any:
    hints, fields = get_type_hints(kind), dataclasses.fields(kind)
    names = [field.name for field in fields]
    for key in given:
        if key not in names:
            raise InvalidInput(unknown(f"key of {where}", key, names))
    for field in fields:
        bare = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if bare and field.name not in given:
            raise InvalidInput(say(f"{where} lacks {field.name!r}", remedy="Make the JSON anew with: --json FILE"))
    return kind(**{key: from_plain(hints[key], value, f"{where}.{key}") for key, value in given.items()})


def _needs(value: Any, kind: Any, where: str) -> Any:
    wrong = not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool)
    if wrong:
        raise InvalidInput(say(f"{where} must be {getattr(kind, '__name__', 'a number')}", got=value))
    return value
