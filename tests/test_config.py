"""Settings: what is refused, how it is said, and the way to TOML and back."""

from pathlib import Path
from typing import Literal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, ValidationError, model_validator

from rediffuse.config import FrozenConfig, RunConfig, parse_value, read_toml
from rediffuse.errors import InvalidConfig, say


class Inner(FrozenConfig):
    """A part."""

    share: float = Field(default=0.5, ge=0, le=1)
    """A share."""
    names: tuple[str, ...] = ()
    """Some names."""


class Outer(FrozenConfig):
    """A whole."""

    rate: float
    """How fast."""
    noisy: bool = False
    """A switch."""
    kind: Literal["plain", "rich"] = "plain"
    """A choice."""
    steps: int | None = None
    """A number or none."""
    inner: Inner = Inner()
    """A part."""

    @model_validator(mode="after")
    def _fits(self) -> "Outer":
        if self.rate == 13:
            raise ValueError(say("Rate brings bad luck", got=self.rate, remedy="Take another"))
        return self


def message(**values: object) -> str:
    with pytest.raises(InvalidConfig) as caught:
        Outer.make({"rate": 1.0}, **values)
    return str(caught.value)


def test_unknown_keys_name_the_nearest() -> None:
    assert message(noise=1) == "Unknown key 'noise'. Nearest known key: 'noisy'."
    assert message(inner={"shar": 1}) == "Unknown key 'shar'. Nearest known key: 'share'."
    assert message(qqqq=1) == "Unknown key 'qqqq'. Known: inner, kind, noisy, rate, steps."


def test_a_complaint_is_one_sentence() -> None:
    assert message(rate="fast").startswith("rate = 'fast' is not possible: input should be a valid number")
    assert message(inner={"share": 2}) == "inner.share = 2 is not possible: input should be less than or equal to 1."
    assert message(kind="poor") == "kind = 'poor' is not possible: input should be 'plain' or 'rich'."
    assert message(rate=13) == "Rate brings bad luck. Got 13.0. Take another."
    with pytest.raises(InvalidConfig, match=r"^Key 'rate' of Outer is missing\. Give rate a value\.$"):
        Outer.make()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_numbers_are_finite(value: float) -> None:
    assert "is not possible: input should be a finite number." in message(rate=value)


def test_a_value_never_changes() -> None:
    config = Outer.make(rate=1)
    with pytest.raises(ValidationError, match="frozen"):
        config.rate = 2  # type: ignore[misc]
    with pytest.raises(InvalidConfig, match=r"inner\.share"):
        Outer.make(rate=1, inner={"share": -1})


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0", False), ("false", False), ("False", False), ("no", False), ("1", True), ("true", True), ("yes", True)],
)
def test_a_switch_means_what_was_typed(text: str, expected: bool) -> None:
    assert Outer.make(rate=1, noisy=parse_value(text)).noisy is expected


@pytest.mark.parametrize("text", ["2", "0.5", "nope", "[]", "'", ""])
def test_a_switch_that_is_neither_is_refused(text: str) -> None:
    with pytest.raises(InvalidConfig, match=r"noisy = .* is not possible"):
        Outer.make(rate=1, noisy=parse_value(text))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("3", 3),
        ("1e-3", 0.001),
        (".01", 0.01),
        ("-.5", -0.5),
        ("1.", 1.0),
        ("-2.", -2.0),
        ("true", True),
        ("[600, 200]", [600, 200]),
        ('"3"', "3"),
        ("linear", "linear"),
        ("a.b", "a.b"),
        ("..", ".."),
        ("", ""),
    ],
)
def test_a_typed_value_is_toml_where_it_is(text: str, expected: object) -> None:
    found = parse_value(text)
    assert found == expected
    assert type(found) is type(expected)


def test_toml_holds_every_kind_of_value() -> None:
    config = Outer.make(rate=1e-5, noisy=True, kind="rich", inner={"share": 0.25, "names": ["ä", 'say "x"\n', "\\"]})
    text = config.to_toml()
    assert Outer.from_toml(text) == config
    assert "steps" not in text
    assert "[inner]" in text


@given(
    st.floats(allow_nan=False, allow_infinity=False).filter(lambda x: x != 13),
    st.booleans(),
    st.integers(-(2**62), 2**62) | st.none(),
    st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x7f"))),
)
def test_round_trip(rate: float, noisy: bool, steps: int | None, names: list[str]) -> None:
    config = Outer(rate=rate, noisy=noisy, steps=steps, inner=Inner(names=tuple(names)))
    assert Outer.from_toml(config.to_toml()) == config


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    with pytest.raises(InvalidConfig, match="There is no file"):
        read_toml(path)
    path.write_text("rate = 3\n")
    assert read_toml(path) == {"rate": 3}
    path.write_text("rate = = 3")
    with pytest.raises(InvalidConfig, match=r"a\.toml' is not TOML\. Got"):
        read_toml(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidConfig, match="is not TOML"):
        read_toml(path)
    with pytest.raises(InvalidConfig, match="This is not TOML"):
        Outer.from_toml("rate")


def test_run_settings_are_decided_by_the_machine() -> None:
    before = torch.get_num_threads()
    try:
        run = RunConfig(threads=1).resolve()
        assert run.device == ("cuda" if torch.cuda.is_available() else "cpu")
        assert run.threads == torch.get_num_threads() == 1
        assert run.resolve() == run
        assert RunConfig(device="cpu").resolve().threads == 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("device", ["tpu9", "cuda:99", "cpu:x", ""])
def test_a_device_that_is_not_there_is_refused(device: str) -> None:
    with pytest.raises(
        InvalidConfig, match=r"This device is not available\. Got .*\. Allowed: auto, cpu, cuda, cuda:N"
    ):
        RunConfig(device=device).resolve()


@pytest.mark.parametrize("values", [{"seed": -1}, {"seed": 2**63}, {"threads": -1}, {"precision": "float16"}])
def test_run_settings_have_limits(values: dict[str, object]) -> None:
    with pytest.raises(InvalidConfig, match=f"{next(iter(values))} = .* is not possible"):
        RunConfig.make(values)


def test_every_setting_says_what_it_is() -> None:
    assert all(field.description for field in RunConfig.model_fields.values())
