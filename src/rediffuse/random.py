"""Draws that are a function of (seed, key of the query, draw, level) and of nothing else.

Philox 4x32-10, a counter-based generator, in torch integer operations: one vectorised call for a batch,
the same numbers for a query alone and among others, on any device, for any number of workers.

Reference: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3", section 3.3 (Philox).
"""

import hashlib
import math
from dataclasses import dataclass

import torch
from torch import Tensor

_WORD = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_LIMIT = 1 << 16


def philox(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[int, int]) -> tuple[Tensor, ...]:
    """Ten rounds of Philox 4x32.

    Args: counter: four int64 tensors of one shape, each holding 32-bit words.   key: two 32-bit words.
    Returns: four int64 tensors of 32-bit words, of the same shape.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        # The signed 64-bit product wraps, but its bits are those of the unsigned one.
        p0, p1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = ((p1 >> 32) & _WORD) ^ c1 ^ k0, p1 & _WORD, ((p0 >> 32) & _WORD) ^ c3 ^ k1, p0 & _WORD
        k0, k1 = (k0 + _WEYL[0]) & _WORD, (k1 + _WEYL[1]) & _WORD
    return c0, c1, c2, c3


@dataclass(frozen=True)
class PhiloxNoise:
    """A `Noise`: standard normal draws for a batch of queries.

    Element j of query b at level t is word j of the stream (seed; key[b], draw, t): neither the other
    queries nor the batch size enter.
    """

    seed: int
    """0 .. 2^64 - 1."""
    key: Tensor
    """(B,) int64, the stable key of each query."""
    draw: int | Tensor = 0
    """Which of several answers for the same query, 0 .. 65,535; for all alike, or (B,) int64."""

    def __call__(self, t: int, like: Tensor) -> Tensor:
        """Standard normal values for level t.

        Args: t: level, 0 .. 65,535.   like: (B, *D), gives shape, device and number format.
        Returns: (B, *D).
        """
        draw = torch.as_tensor(self.draw, dtype=torch.int64, device=like.device)
        if not (0 <= t < _LIMIT and bool(((draw >= 0) & (draw < _LIMIT)).all())):
            raise ValueError(f"level and draw must lie in 0..{_LIMIT - 1}; got {t} and {self.draw}")
        batch, width = like.shape[0], math.prod(like.shape[1:])
        blocks = torch.arange((width + 3) // 4, device=like.device).expand(batch, -1)
        key = self.key.to(like.device).unsqueeze(1).expand_as(blocks)
        stream = ((t << 16) | draw.reshape(-1, 1)).expand_as(blocks)
        words = philox(
            (blocks, stream, key & _WORD, (key >> 32) & _WORD), (self.seed & _WORD, (self.seed >> 32) & _WORD)
        )
        uniform = (torch.stack(words, dim=-1).to(torch.float64) + 0.5) * 2.0**-32
        # Box-Muller: two uniforms to two normals.
        radius = torch.sqrt(-2.0 * torch.log(uniform[..., 0::2]))
        angle = 2.0 * math.pi * uniform[..., 1::2]
        normal = torch.stack((radius * torch.cos(angle), radius * torch.sin(angle)), dim=-1)
        return normal.flatten(1)[:, :width].reshape(like.shape).to(like.dtype)


def uniform_of_pairs(one: Tensor, other: Tensor, key: tuple[int, int]) -> Tensor:
    """A number in 0 .. 1 for each pair, a function of the pair and the key alone.

    Args: one, other: (n,) int64, stable keys.   key: two 32-bit words.
    Returns: (n,) float64.
    """
    pair = (one & _WORD, (one >> 32) & _WORD, other & _WORD, (other >> 32) & _WORD)
    return philox(pair, key)[0] / 2.0**32


def stable_key(text: str) -> int:
    """A signed 64-bit number that depends on the text alone: the key of an external user id."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little", signed=True)
