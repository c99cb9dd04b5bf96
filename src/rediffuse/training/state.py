"""All that a training run needs to go on: weights, their average and best copy, optimiser, generator, cursor, stopping."""

import math
import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from rediffuse.errors import TrainingDiverged, say
from rediffuse.protocols import BatchT, CheckpointStore, Progress
from rediffuse.training.averages import Average
from rediffuse.training.stopping import Stopping


class State:
    """Changes step by step; `save` and `load` carry it through an interruption to the same bits."""

    def __init__(
        self,
        module: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        generator: torch.Generator,
        stopping: Stopping,
        average: float,
    ) -> None:
        """Args: average: decay of the running average of the weights, 0 for none."""
        self.module, self.optimizer, self.generator, self.stopping = module, optimizer, generator, stopping
        self.average = Average(module, average) if average else None
        self.best: dict[str, Tensor] | None = None
        self.epoch, self.cursor = 0, 0
        """Complete epochs, and steps made in the running one."""
        self.order = generator.get_state()
        """The generator as it was when the running epoch began."""
        self.total, self.examples = 0.0, 0
        self.course: list[Progress] = []
        self._before, self._began = 0.0, time.perf_counter()
        self._made = 0

    @property
    def started(self) -> bool:
        """Whether a step was made or a validation read."""
        return self.epoch > 0 or self.cursor > 0 or self.best is not None

    @property
    def over(self) -> bool:
        """Whether patience has run out; never inside an epoch, nor before the first."""
        return self.cursor == 0 and self.epoch > 0 and self.stopping.over(self.epoch)

    @property
    def seconds(self) -> float:
        """Spent on this run by all processes that worked on it."""
        return self._before + time.perf_counter() - self._began

    def batches(self, epoch: Callable[[torch.Generator], Iterator[BatchT]]) -> Iterator[BatchT]:
        """The steps of the running epoch that are still to be made."""
        if self.cursor == 0:
            self.order = self.generator.get_state()
            yield from epoch(self.generator)
            return
        now = self.generator.get_state()
        self.generator.set_state(self.order)
        rest = epoch(self.generator)
        for _ in range(self.cursor):
            next(rest)
        self.generator.set_state(now)
        yield from rest

    def after_step(self, total: float, examples: int) -> None:
        """Count a step. Args: total: sum of the losses of its examples."""
        self.cursor += 1
        self.total += total
        self.examples += examples
        self._made += examples
        if self.average is not None:
            self.average.update()

    def after_epoch(self) -> None:
        """The running epoch is complete."""
        self.epoch, self.cursor = self.epoch + 1, 0

    def progress(self, epochs: int) -> Progress:
        """A sign of life from inside an epoch."""
        return Progress(self.epoch, epochs, self._mean(), self.seconds, examples=self.examples, rate=self._rate())

    def note(self, epochs: int, value: float | None) -> Progress:
        """Enter a complete epoch into the course of the run; a validation that is undefined is none."""
        value = None if value is None or math.isnan(value) else value
        best = self.best is not None and self.stopping.best_epoch == self.epoch
        entry = Progress(self.epoch, epochs, self._mean(), self.seconds, value, best, rate=self._rate())
        self.course.append(entry)
        self.total, self.examples = 0.0, 0
        return entry

    def validate(self, validate: Callable[[], float]) -> float:
        """Read the selection metric and keep a copy of the weights if they are the best so far."""
        self.module.eval()
        if self.average is None:
            return self._validated(validate)
        with self.average.swapped_in():
            return self._validated(validate)

    def finish(self) -> None:
        """Leave the module with what is to be kept: the best weights, else the averages, else the last."""
        if self.best is not None:
            self.module.load_state_dict(self.best)
        elif self.average is not None:
            self.module.load_state_dict(self.average.weights, strict=False)
        self._check()
        self.module.eval()

    def save(self, store: CheckpointStore) -> None:
        """Hand everything to the store. Raises: TrainingDiverged when a weight is not finite."""
        self._check()
        tensors = {f"module.{name}": tensor for name, tensor in self.module.state_dict().items()}
        tensors |= {f"best.{name}": tensor for name, tensor in (self.best or {}).items()}
        for index, entry in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{name}": tensor for name, tensor in entry.items()}
        if self.average is not None:
            tensors |= {f"average.{name}": tensor for name, tensor in self.average.weights.items()}
        tensors |= {"generator": self.generator.get_state(), "order": self.order}
        kept = {"best": self.stopping.best, "best_epoch": self.stopping.best_epoch} if self.best else {}
        cursor = {"epoch": self.epoch, "cursor": self.cursor, "total": self.total, "examples": self.examples}
        averaged = {} if self.average is None else {"averaged_steps": self.average.steps}
        course = [[p.epoch, p.epochs, p.loss, p.seconds, p.validation, p.best] for p in self.course]
        store.save(tensors, {**cursor, **kept, **averaged, "seconds": self.seconds, "course": course})

    def load(self, store: CheckpointStore | None) -> list[Progress]:
        """Take up what an earlier process left, if anything. Returns: the course it had run."""
        found = store.load() if store else None
        if found is None:
            return []
        tensors, state = found
        self.module.load_state_dict(_part(tensors, "module."))
        self.best = _part(tensors, "best.") or None
        entries: dict[int, dict[str, Tensor]] = {}
        for name, tensor in _part(tensors, "optimizer.").items():
            index, field = name.split(".")
            entries.setdefault(int(index), {})[field] = tensor
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": entries})
        if self.average is not None:
            for name, tensor in _part(tensors, "average.").items():
                self.average.weights[name].copy_(tensor)
            self.average.steps = state["averaged_steps"]
        self.generator.set_state(tensors["generator"])
        self.order = tensors["order"]
        self.epoch, self.cursor = state["epoch"], state["cursor"]
        self.total, self.examples = state["total"], state["examples"]
        self._before = state["seconds"]
        if self.best is not None:
            self.stopping = Stopping(self.stopping.patience, self.stopping.digits, state["best"], state["best_epoch"])
        self.course = [Progress(*entry) for entry in state["course"]]
        return list(self.course)

    def _validated(self, validate: Callable[[], float]) -> float:
        value = validate()
        stopping = self.stopping.after(self.epoch, value)
        if stopping is not self.stopping:
            self.stopping = stopping
            self.best = {name: tensor.detach().clone() for name, tensor in self.module.state_dict().items()}
        return value

    def _check(self) -> None:
        for name, tensor in self.module.state_dict().items():
            if not bool(torch.isfinite(tensor).all()):
                at = f"epoch {self.epoch + 1}, batch {self.cursor}" if self.cursor else f"epoch {self.epoch}"
                raise TrainingDiverged(say(f"Weight {name!r} is not finite after {at}", remedy="Lower learning_rate"))

    def _mean(self) -> float:
        return self.total / max(self.examples, 1)

    def _rate(self) -> float:
        return self._made / max(time.perf_counter() - self._began, 1e-9)


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
