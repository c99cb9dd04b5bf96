"""Draws that depend on nothing but their names."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from rediffuse.random import PhiloxNoise, philox, stable_key, uniform_of_pairs

WORDS = st.integers(0, 2**32 - 1)


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_known_answers_of_the_authors(counter, key, expected) -> None:
    """From kat_vectors of the authors' Random123."""
    words = philox(tuple(torch.tensor(c) for c in counter), key)
    assert tuple(int(w) for w in words) == expected


def python_philox(counter: tuple[int, ...], key: tuple[int, int]) -> tuple[int, ...]:
    c, (k0, k1) = list(counter), key
    for _ in range(10):
        p0, p1 = c[0] * 0xD2511F53, c[2] * 0xCD9E8D57
        c = [(p1 >> 32) ^ c[1] ^ k0, p1 % 2**32, (p0 >> 32) ^ c[3] ^ k1, p0 % 2**32]
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    return tuple(c)


@given(st.tuples(WORDS, WORDS, WORDS, WORDS), st.tuples(WORDS, WORDS))
def test_signed_arithmetic_gives_the_unsigned_words(counter, key) -> None:
    words = philox(tuple(torch.tensor([c]) for c in counter), key)
    assert tuple(int(w) for w in words) == python_philox(counter, key)


def test_a_draw_does_not_depend_on_its_mates() -> None:
    key = torch.tensor([5, -9, 2**62, 0, 5])
    noise = PhiloxNoise(7, key)
    batch = noise(3, torch.empty(5, 6, 3))
    for row in range(5):
        alone = PhiloxNoise(7, key[row : row + 1])(3, torch.empty(1, 6, 3))
        assert torch.equal(alone[0], batch[row])
    assert torch.equal(batch[0], batch[4])
    assert torch.equal(PhiloxNoise(7, key.flip(0))(3, torch.empty(5, 6, 3)), batch.flip(0))


@given(st.integers(1, 9), st.integers(1, 30))
def test_a_narrower_draw_is_the_beginning_of_a_wider_one(narrow: int, more: int) -> None:
    noise = PhiloxNoise(1, torch.tensor([3, 4]))
    wide = noise(2, torch.empty(2, narrow + more))
    assert torch.equal(noise(2, torch.empty(2, narrow)), wide[:, :narrow])


def test_every_name_matters() -> None:
    like, key = torch.empty(1, 8), torch.tensor([3])
    streams = [
        PhiloxNoise(1, key)(1, like),
        PhiloxNoise(2, key)(1, like),
        PhiloxNoise(1 + 2**32, key)(1, like),
        PhiloxNoise(1, key + 1)(1, like),
        PhiloxNoise(1, key + 2**32)(1, like),
        PhiloxNoise(1, -key)(1, like),
        PhiloxNoise(1, key, draw=1)(1, like),
        PhiloxNoise(1, key)(2, like),
        PhiloxNoise(1, key)(0, like),
        PhiloxNoise(1, key)(65_535, like),
        PhiloxNoise(1, key, draw=65_535)(0, like),
    ]
    values = torch.cat(streams)
    assert len(torch.unique(values)) == values.numel()


def test_draws_are_standard_normal() -> None:
    noise = PhiloxNoise(5, torch.arange(1000))
    z = noise(1, torch.empty(1000, 101, dtype=torch.float64))
    assert stats.kstest(z.ravel().numpy(), "norm").pvalue > 1e-3
    assert float(z.mean()) == pytest.approx(0, abs=5 / z.numel() ** 0.5)
    pairs = torch.corrcoef(torch.stack((z[:, 0::2][:, :50].ravel(), z[:, 1::2][:, :50].ravel())))[0, 1]
    assert abs(float(pairs)) < 5 / 50_000**0.5
    levels = torch.corrcoef(torch.stack((z.ravel(), noise(2, z).ravel())))[0, 1]
    assert abs(float(levels)) < 5 / z.numel() ** 0.5


def test_number_formats_share_a_stream() -> None:
    noise = PhiloxNoise(5, torch.arange(3))
    single, double = (noise(1, torch.empty(3, 7, dtype=dtype)) for dtype in (torch.float32, torch.float64))
    assert single.dtype == torch.float32
    assert torch.equal(single, double.float())
    assert torch.isfinite(double).all()


def test_many_draws_at_once_are_those_asked_one_by_one() -> None:
    key, draw = torch.tensor([7, 7, 7, -2, -2, -2]), torch.tensor([0, 1, 65_535] * 2)
    whole = PhiloxNoise(3, key, draw)(4, torch.empty(6, 2, 5))
    for row in range(6):
        alone = PhiloxNoise(3, key[row : row + 1], int(draw[row]))(4, torch.empty(1, 2, 5))
        assert torch.equal(whole[row], alone[0])
    assert len(torch.unique(whole)) == whole.numel()


def test_nobody_draws_nothing() -> None:
    nobody = torch.zeros(0, dtype=torch.int64)
    for draw in (0, nobody):
        assert PhiloxNoise(1, nobody, draw)(1, torch.empty(0, 6)).shape == (0, 6)
    assert PhiloxNoise(1, torch.tensor([1]))(1, torch.empty(1, 0)).shape == (1, 0)


def test_a_draw_out_of_range_among_others_is_refused() -> None:
    with pytest.raises(ValueError, match=r"must lie in 0\.\.65535"):
        PhiloxNoise(1, torch.tensor([1, 2]), torch.tensor([0, 65_536]))(1, torch.empty(2, 1))


@pytest.mark.parametrize(("level", "draw"), [(-1, 0), (65_536, 0), (0, -1), (0, 65_536)])
def test_levels_and_draws_that_would_collide_are_refused(level: int, draw: int) -> None:
    with pytest.raises(ValueError, match=r"must lie in 0\.\.65535"):
        PhiloxNoise(1, torch.tensor([1]), draw)(level, torch.empty(1, 1))


def test_a_key_depends_on_the_text_alone() -> None:
    # Written down once: it seeds the draws of stored queries, so it must never change.
    assert stable_key("user-1") == -8_583_321_985_082_544_998
    assert stable_key("") == -5_426_141_060_434_712_860
    keys = {stable_key(str(n)) for n in range(1000)}
    assert len(keys) == 1000
    assert all(-(2**63) <= key < 2**63 for key in keys)
    assert math.isclose(sum(key < 0 for key in keys), 500, abs_tol=80)


def test_a_pair_has_its_number_whoever_stands_beside_it() -> None:
    one, other = (torch.tensor([stable_key(f"{side}{at}") for at in range(4000)]) for side in "ab")
    number = uniform_of_pairs(one, other, (1, 2))
    turned = torch.arange(3999, -1, -1)
    assert torch.equal(uniform_of_pairs(one[turned], other[turned], (1, 2)), number[turned])
    for changed in (uniform_of_pairs(other, one, (1, 2)), uniform_of_pairs(one, other, (2, 1))):
        assert not bool((changed == number).any())
    assert stats.kstest(number.numpy(), "uniform").pvalue > 1e-3
