"""Guidance: the formula as it is written, no branch that is not needed, and none where nothing is asked."""

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from rediffuse.denoisers import MLPDenoiser
from rediffuse.denoisers.collapsed import collapse
from rediffuse.denoisers.conditioning import Conditioner
from rediffuse.errors import InvalidInput
from rediffuse.samplers.guidance import branch_weights, guided
from rediffuse.types import Condition

NAMES = ("a", "b", "c")
GENERATOR = torch.Generator().manual_seed(0)
X, T = torch.randn(4, 5, generator=GENERATOR, dtype=torch.float64), torch.full((4,), 3)
PARTS = {name: torch.randn(4, 5, generator=GENERATOR, dtype=torch.float64) for name in NAMES}
COND = Condition(PARTS, {name: torch.tensor([True, True, True, False]) for name in NAMES})


class Counted:
    """f(x, c) = tanh(x + sum of the conditions that are there), noting how many rows it was asked."""

    def __init__(self) -> None:
        self.rows: list[int] = []

    def __call__(self, x: Tensor, t: Tensor, cond: Condition | None = None) -> Tensor:
        assert len(t) == len(x)
        self.rows.append(len(x))
        told = () if cond is None else cond.values.items()
        return torch.tanh(x + sum((torch.where(cond.present[n].unsqueeze(1), v, 0) for n, v in told), start=0 * x))  # type: ignore[union-attr]


def answer(*there: str) -> Tensor:
    """F with these conditions alone."""
    return Counted()(X, T, COND.without([name for name in NAMES if name not in there]))


def asked(scale: object, **more: object) -> tuple[Tensor, list[int]]:
    denoise = Counted()
    found = guided(denoise, NAMES, scale, **more)(X, T, COND)  # type: ignore[arg-type]
    return found, denoise.rows


def test_one_scale_leans_from_nothing_to_all_together() -> None:
    found, rows = asked(2.5)
    none = answer()
    torch.testing.assert_close(found, none + 2.5 * (answer(*NAMES) - none), rtol=0, atol=1e-14)
    assert rows == [8]
    torch.testing.assert_close(found[3], X[3].tanh())  # whose conditions are all absent is not moved


def test_several_scales_nest_in_the_order_of_the_names() -> None:
    scale = {"c": 0.5, "a": 3.0, "b": -1.25}
    expected = answer()
    for place, (less, more) in enumerate(pairwise([answer(), answer("a"), answer("a", "b"), answer(*NAMES)])):
        expected = expected + scale[NAMES[place]] * (more - less)
    found, rows = asked(scale)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-14)
    assert rows == [16]


def test_equal_scales_are_one_scale() -> None:
    assert branch_weights(NAMES, dict.fromkeys(NAMES, 1.7)) == branch_weights(NAMES, 1.7)
    assert torch.equal(asked(dict.fromkeys(NAMES, 1.7))[0], asked(1.7)[0])


@pytest.mark.parametrize("scale", [1.0, 1, {}, {"b": 1.0}, dict.fromkeys(NAMES, 1)])
def test_scale_1_is_the_denoiser_itself(scale: object) -> None:
    denoise = Counted()
    assert guided(denoise, NAMES, scale) is denoise  # type: ignore[arg-type]
    found, rows = asked(scale)
    assert torch.equal(found, answer(*NAMES))
    assert rows == [4]


def test_scale_0_leaves_conditions_out_in_one_pass() -> None:
    found, rows = asked(0.0)
    assert torch.equal(found, answer())
    assert rows == [4]


def test_a_nested_0_leaves_the_guidance_of_the_first_exactly_and_skips_the_branch() -> None:
    found, rows = asked({"a": 2.0, "b": 0.0, "c": 0.0})
    assert rows == [8]
    alone = guided(Counted(), ("a",), 2.0)(X, T, COND.without(["b", "c"]))
    assert torch.equal(found, alone)


def test_a_fraction_lies_between() -> None:
    found, _ = asked(0.25)
    torch.testing.assert_close(found, 0.75 * answer() + 0.25 * answer(*NAMES))


@pytest.mark.parametrize(("level", "acts"), [(1, False), (2, True), (3, True), (4, False)])
def test_guidance_acts_on_its_levels_alone(level: int, acts: bool) -> None:
    denoise = Counted()
    lean = guided(denoise, NAMES, 3.0, levels=(2, 3))
    found = lean(X, torch.full((4,), level), COND)
    assert denoise.rows == [8 if acts else 4]
    assert torch.equal(found, answer(*NAMES)) is not acts


def test_without_conditions_or_subjects_there_is_nothing_to_lean_on() -> None:
    denoise = Counted()
    lean = guided(denoise, NAMES, 3.0, levels=(1, 5))
    assert torch.equal(lean(X, T), X.tanh())
    assert lean(X[:0], T[:0], COND.select(torch.arange(0))).shape == (0, 5)
    assert denoise.rows == [4, 0]


@pytest.mark.parametrize("scale", [{"aa": 1.0}, {"b": math.nan}, math.inf])
def test_unknown_names_and_impossible_scales_are_refused(scale: object) -> None:
    with pytest.raises(InvalidInput, match=r"Nearest known condition: 'a'|must be a finite number"):
        guided(Counted(), NAMES, scale)  # type: ignore[arg-type]


@pytest.mark.parametrize("scale", [0.0, 0.5, 3.0, {"region": 2.0, "season": 0.0}, {"season": -1.0}])
def test_guidance_commutes_with_collapse(scale: object) -> None:
    """Guiding W x_0 in hidden space, or what stands before the head, is guiding the answer over the catalog."""
    names = ("region", "season")
    generator = torch.Generator().manual_seed(2)
    conditioner = Conditioner({"region": 3, "season": 0}, 7, generator=generator)
    denoiser = MLPDenoiser(30, (9, 8), conditioner=conditioner, generator=generator).double()
    with torch.no_grad():
        for weight in denoiser.parameters():
            weight.mul_(3)
    chain = collapse(denoiser)
    x = torch.randn(4, 30, dtype=torch.float64, generator=generator)
    values = {"region": torch.tensor([0, 1, 2, -1]), "season": torch.tensor([0.1, 0.4, 0.9, 0.2])}
    cond = Condition(values, {name: value >= 0 for name, value in values.items()})
    with torch.no_grad():
        dense = guided(denoiser, names, scale)(x, T, cond)  # type: ignore[arg-type]
        u = chain.lift(x)
        inner = guided(chain.inner, names, scale)(u, T, cond)  # type: ignore[arg-type]
        points = guided(chain.points, names, scale)(u, T, cond)  # type: ignore[arg-type]
        torch.testing.assert_close(inner, denoiser.lift(dense), rtol=0, atol=1e-10)
        torch.testing.assert_close(chain.score(points), dense, rtol=0, atol=1e-10)
        assert not torch.allclose(dense, denoiser(x, T, cond))
