"""Which levels to train on, and how an error at a level weighs."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from rediffuse.errors import InvalidConfig, unknown
from rediffuse.noise.predictions import gain
from rediffuse.noise.process import snr
from rediffuse.protocols import Schedule


class UniformLevels(nn.Module):
    """Every level equally often."""

    def __init__(self, T: int) -> None:
        """Args: T: the noisiest level."""
        super().__init__()
        self.T = T

    def draw(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Levels for n examples and the factor p by which their loss is divided.

        Returns: t (n,) int64 in 1..T, p (n,) float64, here 1.
        """
        t = torch.randint(1, self.T + 1, (n,), generator=generator, device=generator.device)
        return t, torch.ones(n, dtype=torch.float64, device=t.device)

    def record(self, t: Tensor, loss: Tensor) -> None:
        """Take note of what the loss was. Args: t: (n,).   loss: (n,) before division by p."""


class ImportanceLevels(UniformLevels):
    """Levels in proportion to the root mean square of their last ten losses.

        q_t ~ sqrt(mean_k loss[t, k]^2);   q <- .999 q + .001 / T;   p_t = q_t T, so that E[loss / p] is the uniform mean

    Uniform until every level has ten entries. Its buffers are part of a checkpoint.
    Reference: Nichol & Dhariwal 2021, section 3.3; Wang et al. 2023 (DiffRec), eq. 14.
    """

    losses: Tensor
    counts: Tensor

    def __init__(self, T: int, *, kept: int = 10, floor: float = 1e-3) -> None:
        """Args: kept: losses remembered per level.   floor: share of the uniform distribution mixed in."""
        super().__init__(T)
        self.floor = floor
        self.register_buffer("losses", torch.zeros(T, kept, dtype=torch.float64))
        self.register_buffer("counts", torch.zeros(T, dtype=torch.int64))

    def draw(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """As `UniformLevels.draw`, by importance once warm."""
        if bool((self.counts < self.losses.shape[1]).any()):
            return super().draw(n, generator)
        q = self.losses.square().mean(1).sqrt()
        q = (1 - self.floor) * q / q.sum() + self.floor / self.T
        index = torch.multinomial(q, n, replacement=True, generator=generator)
        return index + 1, q[index] * self.T

    @torch.no_grad()
    def record(self, t: Tensor, loss: Tensor) -> None:
        """Push each loss into its level's queue, first in first out in batch order, without a loop over examples."""
        kept = self.losses.shape[1]
        order = torch.argsort(t, stable=True)
        level, value = t[order] - 1, loss.detach()[order].to(torch.float64)
        new = torch.bincount(level, minlength=self.T)
        first = new.cumsum(0) - new
        back = (new - 1)[level] - (torch.arange(level.numel(), device=level.device) - first[level])
        recent = back < kept
        # Queues are right-aligned: shift by the number of newcomers, then write them at the end.
        source = torch.arange(kept, device=level.device) + new.clamp(max=kept).unsqueeze(1)
        padded = torch.cat((self.losses, self.losses.new_zeros(self.T, kept)), dim=1)
        self.losses.copy_(padded.gather(1, source))
        self.losses[level[recent], kept - 1 - back[recent]] = value[recent]
        self.counts.add_(new).clamp_(max=kept)


LEVELS: Mapping[str, Callable[[int], UniformLevels]] = {"uniform": UniformLevels, "importance": ImportanceLevels}


def loss_weights(schedule: Schedule, kind: str, *, prediction: str = "x0", gamma: float = 5.0) -> Tensor:
    """Weight of the squared error of what the network predicts, at each level.

        elbo:     SNR(t-1) - SNR(t), and 1 at t = 1     (Wang et al. 2023, eq. 11-12; its factor 1/2 is dropped as in the code)
        min_snr:  min(SNR(t), gamma)                     (Hang et al. 2023)
        none:     1

    elbo and min_snr weigh the error of x_0; an error of eps or v is (dx_0/d prediction)^2 of it. Without noise every
    weight is 1.
    Returns: (T+1,) float64; entry 0 is not used.
    Raises: InvalidConfig for another kind.
    """
    ratio = snr(schedule)
    if kind not in LOSS_WEIGHTS:
        raise InvalidConfig(unknown("loss weight", kind, LOSS_WEIGHTS))
    weight = torch.ones_like(ratio)
    if not bool(torch.isfinite(ratio[1:]).all()) or kind == "none":
        return weight
    if kind == "elbo":
        weight[2:] = ratio[1:-1] - ratio[2:]
    else:
        weight[1:] = ratio[1:].clamp(max=gamma)
    return weight * gain(prediction, schedule) ** 2


LOSS_WEIGHTS = ("elbo", "min_snr", "none")
