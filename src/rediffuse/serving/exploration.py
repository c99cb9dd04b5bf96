"""Lists that are drawn, with the probability of what was drawn: what later estimates of other policies need.

    P(list) = prod_k exp(u_k / tau) / (sum of exp(u_j / tau) over the items not yet placed)     (Plackett-Luce)

drawn by ordering u / tau + Gumbel noise. A reverse process's own probability of a list cannot be computed, so the
scores are made first and the order is drawn from them.

Reference: Plackett 1975, eq. 2; Kool et al. 2019, "Stochastic beams and where to find them", section 2.3 (Gumbel top-k).
"""

import torch
from torch import Tensor

from rediffuse.random import uniform_of_pairs

LEAST_TEMPERATURE = 1e-6
"""Below it worth / tau leaves the noise no digits: neither the draw nor its probability would be right."""
_WORD = 0xFFFFFFFF


def plackett_luce(worth: Tensor, temperature: float, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Draw an order.

    Args: worth: (n,) of each item.   temperature: tau, at least LEAST_TEMPERATURE; towards 0 the order of worth, large:
        any order alike.   noise: (n,) uniform in 0 .. 1, both excluded.
    Returns: the items' places in the order drawn, (n,) int64; the probability of each given those before it, (n,) float64,
        whose product over the first k is that of the list of k.
    """
    preference = worth.to(torch.float64) / temperature
    order = (preference - (-noise.to(torch.float64).log()).log()).argsort(descending=True)
    drawn = preference[order]
    left = drawn.flip(0).logcumsumexp(0).flip(0)
    return order, (drawn - left).exp()


def uniform(seed: int, subject: int, items: Tensor) -> Tensor:
    """Noise for a subject's items, a function of the three alone.

    Args: subject: stable key.   items: (n,) int64, stable keys.   Returns: (n,) float64, inside 0 .. 1.
    """
    one = torch.full_like(items, subject)
    return uniform_of_pairs(one, items, (seed & _WORD, (seed >> 32) & _WORD)) + 2.0**-33
