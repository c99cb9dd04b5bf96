"""Classifier-free guidance: a denoiser -> a denoiser that leans towards its conditions.

    one scale for all     f = f(none) + s (f(all) - f(none))
    a scale for each      f = f(none) + sum_k s_k (f(c_1 .. c_k) - f(c_1 .. c_(k-1)))      nested, in the order of the model

Scale 1 is no guidance, 0 leaves the condition out. Written as sum_k w_k f(c_1 .. c_k) with w_k = s_k - s_(k+1),
s_0 = 1 and s_(K+1) = 0: the weights add up to 1, a branch of weight 0 is not computed, and the others run in one forward
pass. Where a head is affine, guiding what stands before it is guiding its answer.

Reference: Ho & Salimans 2022, eq. 6 (their w is s - 1); Brooks et al. 2023 (InstructPix2Pix), eq. 3 for two conditions;
Kynkaanniemi et al. 2024 for the interval of levels.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

from torch import Tensor

from rediffuse.errors import InvalidInput, say, unknown
from rediffuse.protocols import Denoiser
from rediffuse.types import Condition


def guided(
    denoise: Denoiser,
    names: Sequence[str],
    scale: float | Mapping[str, float],
    *,
    levels: tuple[int, int] | None = None,
) -> Denoiser:
    """Guide a denoiser by the conditions it knows.

    Args: names: of the conditions, in the order in which they nest.   scale: for all together, or by name; those not
            named have 1.   levels: the lowest and the highest level at which guidance acts; None: all.
    Returns: `denoise` itself where every scale is 1.
    Raises: InvalidInput for an unknown name or a scale that is not finite.
    Limits: a batch stands at one level; as many rows at once as it has branches, K + 1 at most.
    """
    weights = branch_weights(names, scale)
    if list(weights) == [()]:
        return denoise

    def lean(x_t: Tensor, t: Tensor, cond: Condition | None = None) -> Tensor:
        if cond is None or not len(t) or (levels and not levels[0] <= int(t[0]) <= levels[1]):
            return denoise(x_t, t, cond)
        count = len(weights)
        branches = Condition.joined([cond.without(absent) for absent in weights])
        answers = denoise(x_t.repeat(count, *[1] * (x_t.dim() - 1)), t.repeat(count), branches).chunk(count)
        terms = [weight * answer for answer, weight in zip(answers, weights.values(), strict=True)]
        return sum(terms[1:], start=terms[0])

    return lean


def branch_weights(names: Sequence[str], scale: float | Mapping[str, float]) -> dict[tuple[str, ...], float]:
    """Absent conditions -> weight of the branch without them; branches of weight 0 are left out.

    Raises: InvalidInput as `guided`.
    """
    by_name = scale if isinstance(scale, Mapping) else dict.fromkeys(names, scale)
    for name, value in by_name.items():
        if name not in names:
            raise InvalidInput(unknown("condition", name, names))
        if not math.isfinite(value):
            raise InvalidInput(say("guidance_scale must be a finite number", got=value, remedy="1 is no guidance"))
    weights = [a - b for a, b in pairwise([1.0, *(float(by_name.get(name, 1)) for name in names), 0.0])]
    return {tuple(names[place:]): weight for place, weight in enumerate(weights) if weight}
