"""Which levels the spacings visit."""

import pytest
import torch

from rediffuse.errors import InvalidConfig
from rediffuse.samplers import SPACINGS, evenly


def test_spacings() -> None:
    """The table of Lin et al. 2024, here for T = 1000 and ten steps, and small cases by hand."""
    expected = {
        "leading": [901, 801, 701, 601, 501, 401, 301, 201, 101, 1, 0],
        "linspace": [1000, 889, 778, 667, 556, 445, 334, 223, 112, 1, 0],
        "trailing": [1000, 900, 800, 700, 600, 500, 400, 300, 200, 100, 0],
    }
    assert {name: evenly(1000, 10, name).tolist() for name in SPACINGS} == {name: expected[name] for name in SPACINGS}
    assert {name: evenly(5, 3, name).tolist() for name in SPACINGS} == {
        "trailing": [5, 3, 2, 0],
        "linspace": [5, 3, 1, 0],
        "leading": [3, 2, 1, 0],
    }
    assert torch.equal(evenly(1000, 30), evenly(1000, 30, "trailing"))


@pytest.mark.parametrize("spacing", SPACINGS)
def test_levels_of_every_spacing_fall_to_0(spacing: str) -> None:
    for levels in range(1, 41):
        assert torch.equal(evenly(levels, None, spacing), torch.arange(levels, -1, -1))
        for steps in range(1, levels + 1):
            walk = evenly(levels, steps, spacing)
            assert walk.dtype == torch.int64
            assert len(walk) == steps + 1
            assert (walk.diff() < 0).all()
            assert walk[-1] == 0
            assert walk[0] == (levels if spacing != "leading" else 1 + (steps - 1) * (levels // steps))


def test_an_unknown_spacing_is_refused() -> None:
    with pytest.raises(InvalidConfig, match=r"Unknown spacing 'trail'\. Nearest known spacing: 'trailing'"):
        evenly(5, 2, "trail")
