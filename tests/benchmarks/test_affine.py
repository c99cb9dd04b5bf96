"""The benchmark of the affine map: what it times answers alike."""

import pytest

from benchmarks import affine


@pytest.mark.parametrize("draws", [False, True])
def test_both_sides_answer_alike(draws: bool) -> None:
    row = affine.measure(5, 2, draws=draws)
    assert (row.levels, row.batch, row.kind) == (5, 2, "draws" if draws else "means")
    assert row.error < 1e-12
    assert row.ratio == pytest.approx(row.chain_us / row.map_us)
    assert row.making_s > 0
