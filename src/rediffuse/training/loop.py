"""The only optimiser loop: a generator of epochs, so that progress, validation and stopping live in its caller."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from rediffuse.config import FrozenConfig
from rediffuse.errors import TrainingDiverged, say
from rediffuse.protocols import BatchT, CheckpointStore, Progress, Trainable
from rediffuse.training.stopping import Stopping


class TrainingConfig(FrozenConfig):
    """How a network is trained."""

    learning_rate: float = Field(default=1e-3, gt=0)
    """Step size of AdamW."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Decoupled weight decay of AdamW."""
    batch_size: PositiveInt = 400
    """Examples per step."""
    epochs: PositiveInt = 1000
    """At most so many passes over the data."""
    validate_every: PositiveInt = 5
    """Epochs between two validations."""
    patience: PositiveInt = 20
    """Epochs without a better validation after which training stops."""
    official: bool = False
    """Compare validations rounded to 4 digits, as the authors' code does; may choose another epoch."""


@dataclass(frozen=True)
class Fit:
    """How a training ended."""

    epochs: int
    best_epoch: int
    best: float


def fit(
    trainable: Trainable[BatchT],
    config: TrainingConfig,
    generator: torch.Generator,
    *,
    validate: Callable[[], float] | None = None,
    report: Callable[[Progress], None] = lambda _: None,
    checkpoint: CheckpointStore | None = None,
) -> Fit:
    """Train until patience or epochs run out; the module ends with the weights of its best validation.

    Without `validate` all epochs run and the last weights stay. With a checkpoint store the state is saved at
    every validation, and a run that finds one goes on from it as if it had never stopped.

    Raises: TrainingDiverged when a loss is not finite; such weights are never kept.
    """
    module = trainable.module
    optimizer = torch.optim.AdamW(
        module.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
    )
    state = _State(module, optimizer, generator, Stopping(config.patience, 4 if config.official else None))
    state.load(checkpoint)
    # A run interrupted after its last validation has nothing left to learn.
    over = validate is not None and state.epoch > 0 and state.stopping.over(state.epoch)
    began = time.perf_counter()
    for epoch, loss in _epochs(trainable, optimizer, generator, state.epoch, state.epoch if over else config.epochs):
        state.epoch = epoch
        value = None
        if epoch % config.validate_every == 0 or epoch == config.epochs:
            value = state.validate(validate)
            state.save(checkpoint)
        report(
            Progress(epoch, config.epochs, loss, time.perf_counter() - began, value, state.stopping.best_epoch == epoch)
        )
        if validate and value is not None and state.stopping.over(epoch):
            break
    if state.best is not None:
        module.load_state_dict(state.best)
    module.eval()
    return Fit(state.epoch, state.stopping.best_epoch, state.stopping.best)


def _epochs(
    trainable: Trainable[BatchT],
    optimizer: torch.optim.Optimizer,
    generator: torch.Generator,
    done: int,
    epochs: int,
) -> Iterator[tuple[int, float]]:
    """Yield (epoch, mean loss) after each pass."""
    for epoch in range(done + 1, epochs + 1):
        trainable.module.train()
        total, count = 0.0, 0
        for batch in trainable.batches(generator):
            values = trainable.loss(batch, generator)["loss"]
            optimizer.zero_grad(set_to_none=True)
            values.mean().backward()
            optimizer.step()
            total += float(values.detach().sum())
            count += values.numel()
            if not math.isfinite(total):
                raise TrainingDiverged(
                    say(f"The loss of epoch {epoch} is not finite", got=total, remedy="Lower learning_rate")
                )
        yield epoch, total / max(count, 1)


class _State:
    """All that a run needs to go on: weights, their best copy, optimiser, generator, epoch, stopping."""

    def __init__(
        self, module: torch.nn.Module, optimizer: torch.optim.Optimizer, generator: torch.Generator, stopping: Stopping
    ) -> None:
        self.module, self.optimizer, self.generator, self.stopping = module, optimizer, generator, stopping
        self.epoch = 0
        self.best: dict[str, Tensor] | None = None

    def validate(self, validate: Callable[[], float] | None) -> float | None:
        if validate is None:
            return None
        self.module.eval()
        value = validate()
        self.stopping = self.stopping.after(self.epoch, value)
        if self.stopping.best_epoch == self.epoch:
            self.best = {name: tensor.detach().clone() for name, tensor in self.module.state_dict().items()}
        return value

    def save(self, store: CheckpointStore | None) -> None:
        if store is None:
            return
        tensors = {f"module.{name}": tensor for name, tensor in self.module.state_dict().items()}
        tensors |= {f"best.{name}": tensor for name, tensor in (self.best or {}).items()}
        for index, entry in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{name}": tensor for name, tensor in entry.items()}
        tensors["generator"] = self.generator.get_state()
        stopping = {"best": self.stopping.best, "best_epoch": self.stopping.best_epoch} if self.best else {}
        store.save(tensors, {"epoch": self.epoch, **stopping})

    def load(self, store: CheckpointStore | None) -> None:
        found = store.load() if store else None
        if found is None:
            return
        tensors, state = found
        self.module.load_state_dict(_part(tensors, "module."))
        self.best = _part(tensors, "best.") or None
        entries: dict[int, dict[str, Tensor]] = {}
        for name, tensor in _part(tensors, "optimizer.").items():
            index, field = name.split(".")
            entries.setdefault(int(index), {})[field] = tensor
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": entries})
        self.generator.set_state(tensors["generator"])
        self.epoch = int(str(state["epoch"]))
        if self.best is not None:
            best, at = float(str(state["best"])), int(str(state["best_epoch"]))
            self.stopping = Stopping(self.stopping.patience, self.stopping.digits, best, at)


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
