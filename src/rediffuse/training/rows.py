"""What every network that learns rows shares: the rows of the users, their order in an epoch, the run's generators."""

from collections.abc import Iterator, Sized

import torch
from torch import Tensor

from rediffuse.config import RunConfig
from rediffuse.data.weighting import RecencyConfig, weigh
from rediffuse.protocols import FitData
from rediffuse.random import stable_key
from rediffuse.types import SparseRows


def known_rows(data: FitData, recency: RecencyConfig, run: RunConfig) -> SparseRows:
    """The rows of the users who have events, (U', I), on the run's device and in its number format.

    Raises: InvalidInput when recency is asked of data without order.
    """
    recency.check_order(data.order)
    known = data.history.select(data.history.lengths.nonzero().squeeze(1))
    return weigh(known, recency, data.n_items).to(run.device, getattr(torch, run.dtype))


def shuffled(rows: Sized, batch_size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """The numbers of all rows once, in a new order, (B,) int64 at a time."""
    order = torch.randperm(len(rows), generator=generator, device=generator.device)
    yield from order.split(batch_size)


def generators(run: RunConfig) -> tuple[torch.Generator, torch.Generator]:
    """The generator of first weights, on the processor so that they are the same on every device, and that of training."""
    first = torch.Generator().manual_seed(run.seed)
    return first, torch.Generator(run.device).manual_seed(stable_key(f"training {run.seed}"))
