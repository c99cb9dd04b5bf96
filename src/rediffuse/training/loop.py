"""The only optimiser loop: a generator of steps, so that progress, checkpoints, validation and stopping live around it."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from rediffuse.config import FrozenConfig
from rediffuse.errors import InvalidInput, TrainingDiverged, say
from rediffuse.protocols import BatchT, CheckpointStore, FitContext, Progress, Recommender, Trainable
from rediffuse.training.state import State
from rediffuse.training.stopping import Stopping

PULSE_S = 0.5
"""Seconds between two signs of life inside an epoch."""


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
    average: float = Field(default=0.0, ge=0, lt=1)
    """Decay of a running average of the weights, which is then what is validated and kept; 0 keeps the weights themselves."""
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
    mixed: bool = False,
    continued: bool = False,
    rates: Mapping[str, float] | None = None,
) -> Fit:
    """Train until patience or epochs run out; the module ends with the weights of its best validation.

    Without `validate` all epochs run and the last weights stay. With a checkpoint store the state is saved at every
    validation and whenever the store says it is time; a run that finds one goes on from it, in the middle of an
    epoch if need be, to the same bits as if it had never stopped (same build, device, threads).

    Args: mixed: forward passes in bfloat16 where that is safe, weights in float32.
        continued: the weights were learned before; they are validated first and stay if nothing better is found.
        rates: name of a part of the module -> factor on its learning rate.
    Raises: TrainingDiverged when a loss or a weight is not finite; such weights are never kept.
    """
    module = trainable.module
    optimizer = torch.optim.AdamW(
        _paced(module, config.learning_rate, rates or {}),
        lr=config.learning_rate,
        weight_decay=config.weight_decay,
        fused=True,
    )
    stopping = Stopping(config.patience, 4 if config.official else None)
    state = State(module, optimizer, generator, stopping, config.average)
    for past in state.load(checkpoint):
        report(past)
    if continued and validate is not None and not state.started:
        state.validate(validate)
    steps = _steps(trainable, state, mixed=mixed)
    pulse = time.perf_counter()
    while state.epoch < config.epochs and not (validate is not None and state.over):
        if next(steps):  # a step inside an epoch
            if checkpoint is not None and checkpoint.due():
                state.save(checkpoint)
            if time.perf_counter() - pulse >= PULSE_S:
                pulse = time.perf_counter()
                report(state.progress(config.epochs))
            continue
        value = None
        if state.epoch % config.validate_every == 0 or state.epoch == config.epochs:
            value = state.validate(validate) if validate is not None else None
        entry = state.note(config.epochs, value)
        if checkpoint is not None and (state.epoch % config.validate_every == 0 or state.epoch == config.epochs):
            state.save(checkpoint)
        report(entry)
    state.finish()
    return Fit(state.epoch, state.stopping.best_epoch, state.stopping.best)


def learn(
    trainable: Trainable[BatchT],
    config: TrainingConfig,
    generator: torch.Generator,
    context: FitContext,
    model: Callable[[], Recommender],
    rates: Mapping[str, float] | None = None,
) -> Fit:
    """`fit` as a method's context says. Args: model: what would answer with the weights as they are.   rates: as `fit`'s."""
    validate = context.validate
    return fit(
        trainable,
        config,
        generator,
        validate=None if validate is None else lambda: validate(model()),
        report=context.report,
        checkpoint=context.checkpoint,
        mixed=context.run.precision == "mixed",
        continued=context.initial is not None,
        rates=rates,
    )


def take_over(module: torch.nn.Module, initial: Mapping[str, Tensor]) -> None:
    """Go on from weights learned earlier: the items of that time come first, newer ones keep their first weights.

    Args: initial: `Method.state` of the earlier model, by the names of the module.
    Raises: InvalidInput when the networks differ by more than the number of items.
    """
    mine = module.state_dict()
    fits = mine.keys() == initial.keys() and all(
        mine[name].shape[1:] == t.shape[1:] and mine[name].shape[:1] >= t.shape[:1] for name, t in initial.items()
    )
    if not fits:
        raise InvalidInput(
            say("The earlier model has other widths or layers", remedy="Train from scratch, or with its settings")
        )
    for name, tensor in initial.items():
        if tensor.dim():
            mine[name][: len(tensor)] = tensor
        else:
            mine[name].copy_(tensor)


def _paced(module: torch.nn.Module, rate: float, rates: Mapping[str, float]) -> list[dict[str, Any]]:
    """The parameters, in one group for each learning rate."""
    groups: dict[float, list[Tensor]] = {}
    for name, parameter in module.named_parameters():
        groups.setdefault(rates.get(name.partition(".")[0], 1.0), []).append(parameter)
    return [{"params": parameters, "lr": rate * factor} for factor, parameters in groups.items()]


def _steps(trainable: Trainable[BatchT], state: State, *, mixed: bool) -> Iterator[bool]:
    """Make one optimiser step after the other; yields True after each, False when an epoch is complete."""
    device = next(trainable.module.parameters()).device.type
    while True:
        trainable.module.train()
        for batch in state.batches(trainable.batches):
            with torch.autocast(device, torch.bfloat16) if mixed else nullcontext():
                values = trainable.loss(batch, state.generator)
            loss = values["loss"]
            total = float(loss.detach().to(torch.float64).sum())
            if not math.isfinite(total):
                raise TrainingDiverged(_diverged(state, values))
            state.optimizer.zero_grad(set_to_none=True)
            loss.mean().backward()
            state.optimizer.step()
            state.after_step(total, loss.numel())
            yield True
        state.after_epoch()
        yield False


def _diverged(state: State, values: Mapping[str, Tensor]) -> str:
    """Name epoch, batch and, where there are any, the levels of the examples that went wrong."""
    broken = ~torch.isfinite(values["loss"].detach())
    where = f"epoch {state.epoch + 1}, batch {state.cursor + 1}"
    if "level" in values:
        levels = values["level"][broken].unique().tolist()
        where += f", level {', '.join(map(str, levels[:5]))}{', ..' if len(levels) > 5 else ''}"
    return say(
        f"The loss is not finite in {where} ({int(broken.sum())} of {len(broken)} examples)",
        remedy="Lower learning_rate, or train with --precision float32 if it was mixed; weights so far are kept nowhere",
    )
