"""Frozen, typed settings: unknown keys are refused with the nearest known one; TOML in and out.

Three disjoint kinds live in the library: what a model is (`<Method>Config`), how it was trained
(`TrainingConfig`), how it runs (`RunConfig`).
"""

import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rediffuse.errors import InvalidConfig, say, unknown


class FrozenConfig(BaseModel):
    """Base of every setting class. Values are checked when it is made and never change after."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True, validate_default=True
    )

    @classmethod
    def make(cls, values: Mapping[str, Any] | None = None, **more: Any) -> Self:
        """Build from a mapping; every complaint becomes one sentence.

        Raises: InvalidConfig naming the key, the value and what is allowed.
        """
        merged = {**(values or {}), **more}
        try:
            return cls.model_validate(merged)
        except ValidationError as error:
            raise InvalidConfig(_sentence(cls, error)) from None

    @classmethod
    def from_toml(cls, text: str) -> Self:
        """Build from TOML text. Raises: InvalidConfig when it is none or holds a wrong key."""
        try:
            values = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise InvalidConfig(say("This is not TOML", got=str(error))) from None
        return cls.make(values)

    def to_toml(self) -> str:
        """Text that `from_toml` reads back to an equal value; keys that are None are left out."""
        return "\n".join(_toml_lines(self.model_dump(mode="json", exclude_none=True))) + "\n"


class RunConfig(FrozenConfig):
    """How a command runs; chosen once at the edge, recorded with what it made."""

    device: str = "auto"
    """`auto`, `cpu`, `cuda` or `cuda:N`; auto takes a GPU where there is one."""
    precision: Literal["float32", "float64", "mixed"] = "float32"
    """Number format of weights and activations; mixed trains with bfloat16 products and float32 weights. Schedules are always float64."""
    threads: int = Field(default=0, ge=0)
    """Processor threads; 0 leaves the choice to torch."""
    seed: int = Field(default=1, ge=0, lt=2**63)
    """Seeds training, and the draws of stochastic answers."""

    @property
    def dtype(self) -> str:
        """The number format of weights."""
        return "float64" if self.precision == "float64" else "float32"

    def resolve(self) -> Self:
        """The same with `auto` and 0 replaced by what this machine has; sets the thread count.

        Raises: InvalidConfig when the device is not there, or gains nothing from bfloat16 where mixed is asked for.
        """
        import torch

        if self.threads:
            torch.set_num_threads(self.threads)
        gpu = torch.cuda.is_available()
        device = ("cuda" if gpu else "cpu") if self.device == "auto" else self.device
        try:
            there = torch.empty(0, device=device).device.type in ("cpu", "cuda")
        except (RuntimeError, AssertionError):
            there = False
        if not there:
            raise InvalidConfig(say("This device is not available", got=self.device, allowed="auto, cpu, cuda, cuda:N"))
        if self.precision == "mixed" and not _gains_from_bfloat16(device):
            raise InvalidConfig(
                say(f"This device ({device}) has no fast bfloat16", got="mixed", remedy="Use --precision float32")
            )
        return self.model_copy(update={"device": device, "threads": torch.get_num_threads()})


def _gains_from_bfloat16(device: str) -> bool:
    """Whether products in bfloat16 are faster than in float32: on processors with instructions for them, and on GPUs."""
    import torch

    if device.startswith("cuda"):
        return torch.cuda.is_bf16_supported(including_emulation=False)
    known = torch.cpu.get_capabilities()
    return any(known.get(name) for name in ("avx512_bf16", "amx_bf16", "arm_bf16"))


def parse_value(text: str) -> Any:
    """Read a typed value: TOML (numbers, true/false, lists, quoted text) where it is, else the bare text.

    `.01` and `1.` count as numbers, as people write them.
    """
    candidates = [text]
    if text.startswith((".", "-.")):
        candidates.append(text.replace(".", "0.", 1))
    if text.endswith("."):
        candidates.append(text + "0")
    for candidate in candidates:
        try:
            return tomllib.loads(f"v = {candidate}")["v"]
        except tomllib.TOMLDecodeError:
            continue
    return text


def read_toml(path: Path) -> dict[str, Any]:
    """The content of a TOML file. Raises: InvalidConfig when it is missing or is none."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InvalidConfig(say(f"There is no file {str(path)!r}")) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidConfig(say(f"{str(path)!r} is not TOML", got=str(error))) from None


def _sentence(cls: type[BaseModel], error: ValidationError) -> str:
    first = error.errors()[0]
    key = ".".join(map(str, first["loc"]))
    if first["type"] == "extra_forbidden":
        return unknown("key", str(first["loc"][-1]), _known_keys(cls, first["loc"][:-1]))
    if first["type"] == "missing":
        return say(f"Key {key!r} of {cls.__name__} is missing", remedy=f"Give {key} a value")
    reason = first["msg"].removeprefix("Value error, ").rstrip(".")
    return f"{key} = {first['input']!r} is not possible: {reason[0].lower()}{reason[1:]}." if key else f"{reason}."


def _known_keys(cls: type[BaseModel], path: tuple[int | str, ...]) -> list[str]:
    for name in path:
        field = cls.model_fields.get(str(name))
        inner = field.annotation if field else None
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            cls = inner
    return list(cls.model_fields)


def _toml_lines(values: Mapping[str, Any], prefix: str = "") -> list[str]:
    plain = {k: v for k, v in values.items() if not isinstance(v, Mapping)}
    lines = [f"{_toml_key(key)} = {json.dumps(value, ensure_ascii=False)}" for key, value in plain.items()]
    for key, value in values.items():
        if isinstance(value, Mapping):
            name = prefix + _toml_key(key)
            lines += ["", f"[{name}]", *_toml_lines(value, f"{name}.")]
    return lines


def _toml_key(key: str) -> str:
    """Bare where TOML allows it, else quoted: a method may be called ease:linear."""
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else json.dumps(key, ensure_ascii=False)
