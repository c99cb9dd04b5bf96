"""The loop: best weights, interruptions, divergence."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from rediffuse.errors import TrainingDiverged
from rediffuse.networks.dropout import drop
from rediffuse.protocols import Progress
from rediffuse.training import loop
from rediffuse.training.checkpoint import FolderCheckpoint
from rediffuse.training.loop import Fit, TrainingConfig, fit

CONFIG = TrainingConfig(learning_rate=0.01, batch_size=8, epochs=12, validate_every=2, patience=100)


@pytest.fixture(autouse=True)
def _however_slow_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """No signs of life but where a test asks for them."""
    monkeypatch.setattr(loop, "PULSE_S", float("inf"))


class Line:
    """Noisy regression whose batches, dropout and buffer all move with the run's generator."""

    def __init__(self, scale: float = 1.0) -> None:
        first = torch.Generator().manual_seed(0)
        self.x = torch.randn(32, 4, generator=first)
        self.y = self.x.sum(1, keepdim=True)
        self.scale = scale
        self.module = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))
        with torch.no_grad():
            for weight in self.module.parameters():
                weight.normal_(0, 0.3, generator=first)
        self.module.train()

    def batches(self, generator: torch.Generator) -> Iterator[Tensor]:
        assert self.module.training
        yield from torch.randperm(32, generator=generator).split(8)

    def loss(self, batch: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        answer = self.module(drop(self.x[batch], 0.3, generator))
        error = (answer - self.y[batch]).square().squeeze(1) * self.scale
        return {"loss": error, "mse": error}


class Interrupted(Exception):  # noqa: N818
    """Stands for a kill."""


def run(
    validate: Callable[[Line], float] | None = None,
    *,
    config: TrainingConfig = CONFIG,
    store: FolderCheckpoint | None = None,
    stop_at: int | None = None,
    seed: int = 1,
) -> tuple[Line, Fit, list[Progress]]:
    line, reports = Line(), []

    def report(progress: Progress) -> None:
        reports.append(progress)
        if progress.epoch == stop_at:
            raise Interrupted

    score = None if validate is None else lambda: validate(line)
    found = fit(line, config, torch.Generator().manual_seed(seed), validate=score, report=report, checkpoint=store)
    return line, found, reports


def by_error(line: Line) -> float:
    assert not line.module.training
    with torch.no_grad():
        return -float((line.module(line.x) - line.y).square().mean())


def same(a: Line, b: Line) -> None:
    first, second = a.module.state_dict(), b.module.state_dict()
    assert list(first) == list(second)
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name


def test_a_run_is_a_function_of_its_seed() -> None:
    a, b, c = run(by_error), run(by_error), run(by_error, seed=2)
    same(a[0], b[0])
    assert a[1] == b[1]
    assert not torch.equal(a[0].module[0].weight, c[0].module[0].weight)
    assert not a[0].module.training


@pytest.mark.parametrize("stop_at", [1, 2, 3, 7, 8, 11, 12])
@pytest.mark.parametrize("validated", [True, False])
def test_an_interrupted_run_ends_bit_for_bit_as_if_it_had_not_been(
    tmp_path: Path, stop_at: int, validated: bool
) -> None:
    validate = by_error if validated else None
    whole, fitted, reports = run(validate)
    store = FolderCheckpoint(tmp_path / "run", "abc")
    with pytest.raises(Interrupted):
        run(validate, store=store, stop_at=stop_at)
    resumed, again, rest = run(validate, store=store)
    same(whole, resumed)
    assert again == fitted
    # What the first process had learned up to its last checkpoint is reported again.
    assert [r.epoch for r in rest] == list(range(1, 13))
    for ours, theirs in zip(rest, reports, strict=True):
        assert (ours.loss, ours.validation, ours.best) == (theirs.loss, theirs.validation, theirs.best)


class Eager(FolderCheckpoint):
    """Keeps a state after every step."""

    def due(self) -> bool:
        return True


@pytest.mark.parametrize("average", [0.0, 0.9])
@pytest.mark.parametrize("killed", range(1, 49, 3))
def test_a_run_goes_on_from_inside_an_epoch(tmp_path: Path, killed: int, average: float) -> None:
    config = CONFIG.model_copy(update={"average": average})
    whole, fitted, reports = run(by_error, config=config)
    store, line, steps = Eager(tmp_path / "run", "abc"), Line(), 0
    loss = line.loss

    def dies(batch: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        nonlocal steps
        steps += 1
        if steps == killed:
            raise Interrupted
        return loss(batch, generator)

    line.loss = dies
    with pytest.raises(Interrupted):
        fit(line, config, torch.Generator().manual_seed(1), validate=lambda: by_error(line), checkpoint=store)
    resumed, again, rest = run(by_error, config=config, store=store)
    same(whole, resumed)
    assert again == fitted
    assert [(r.loss, r.validation) for r in rest] == [(r.loss, r.validation) for r in reports]


def test_an_average_is_what_is_validated_and_kept() -> None:
    """Against the average computed by hand from the weights after each step."""
    config = CONFIG.model_copy(update={"average": 0.6, "epochs": 2, "validate_every": 2})
    line = Line()
    mine = {name: weight.detach().clone() for name, weight in line.module.named_parameters()}
    loss, steps = line.loss, 0

    def watched(batch: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        nonlocal steps
        if steps:
            decay = min(0.6, steps / (9 + steps))
            for name, weight in line.module.named_parameters():
                mine[name] = decay * mine[name] + (1 - decay) * weight.detach()
        steps += 1
        return loss(batch, generator)

    line.loss = watched
    seen: list[Tensor] = []
    fit(
        line,
        config,
        torch.Generator().manual_seed(1),
        validate=lambda: seen.append(line.module[0].weight.detach().clone()) or 1.0,  # type: ignore[func-returns-value]
    )
    assert steps == 8
    assert torch.equal(line.module[0].weight, seen[0])
    # The last step is in the average but was not watched: its share is 1 - d.
    assert not torch.allclose(seen[0], mine["0.weight"])
    decay = min(0.6, 8 / 17)
    last = (seen[0] - decay * mine["0.weight"]) / (1 - decay)
    torch.testing.assert_close(decay * mine["0.weight"] + (1 - decay) * last, seen[0])


def test_what_was_learned_before_stays_if_nothing_better_is_found() -> None:
    before = Line().module.state_dict()
    line, generator = Line(), torch.Generator().manual_seed(1)
    found = fit(line, CONFIG, generator, validate=scripted_on(line, [0.9, *[0.1] * 6]), continued=True)
    assert (found.best_epoch, found.best) == (0, 0.9)
    for name, tensor in line.module.state_dict().items():
        assert torch.equal(tensor, before[name])


def scripted_on(line: Line, values: list[float]) -> Callable[[], float]:
    """Validations in this order."""
    return lambda: scripted_next(line, values)


def scripted_next(line: Line, values: list[float]) -> float:
    assert not line.module.training
    return values.pop(0)


def test_signs_of_life_come_from_inside_an_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "PULSE_S", 0.0)
    reports = run(config=CONFIG.model_copy(update={"epochs": 1}))[2]
    assert [(r.partial, r.examples) for r in reports] == [(True, 8), (True, 16), (True, 24), (True, 32), (False, 0)]
    assert all(r.rate > 0 for r in reports)
    assert [r.epoch for r in reports] == [0, 0, 0, 0, 1]


def test_weights_that_are_not_finite_are_never_kept(tmp_path: Path) -> None:
    """A finite loss whose gradient is not: the first step ruins the weights."""

    class Steep(Line):
        def loss(self, batch: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
            del generator
            return {"loss": (self.module(self.x[batch]).squeeze(1) * 0).sqrt()}

    store = Eager(tmp_path / "run", "abc")
    with pytest.raises(TrainingDiverged, match=r"Weight '0\.weight' is not finite after epoch 1, batch 1\. Lower"):
        fit(Steep(), CONFIG, torch.Generator().manual_seed(1), checkpoint=store)
    assert store.load() is None


def test_the_levels_of_a_loss_that_is_not_finite_are_named() -> None:
    class Levelled(Line):
        def loss(self, batch: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
            level = torch.arange(len(batch)) % 4 + 1
            values = super().loss(batch, generator)["loss"]
            return {"loss": torch.where(level == 3, values * float("nan"), values), "level": level}

    with pytest.raises(TrainingDiverged, match=r"epoch 1, batch 1, level 3 \(2 of 8 examples\)"):
        fit(Levelled(), CONFIG, torch.Generator().manual_seed(1))


def test_mixed_precision_computes_in_bfloat16_and_keeps_float32() -> None:
    line, kinds = Line(), set[torch.dtype]()
    loss = line.loss

    def watched(batch: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        kinds.add(line.module[0](line.x[batch]).dtype)
        return {"loss": loss(batch, generator)["loss"].float()}

    line.loss = watched
    fit(line, CONFIG.model_copy(update={"epochs": 30}), torch.Generator().manual_seed(1), mixed=True)
    assert kinds == {torch.bfloat16}
    assert {weight.dtype for weight in line.module.parameters()} == {torch.float32}
    assert by_error(line) > -4


def test_a_run_may_be_interrupted_often(tmp_path: Path) -> None:
    whole, fitted, _ = run(by_error)
    store = FolderCheckpoint(tmp_path / "run", "abc")
    for stop_at in (3, 5, 9, 10):
        with pytest.raises(Interrupted):
            run(by_error, store=store, stop_at=stop_at)
    resumed, again, _ = run(by_error, store=store)
    same(whole, resumed)
    assert again == fitted


def scripted(values: list[float]) -> Callable[[Line], float]:
    """Validations in this order, whatever the weights."""
    left = iter(values)
    return lambda _: next(left)


def test_the_weights_of_the_best_validation_are_restored() -> None:
    snapshots: list[dict[str, Tensor]] = []
    values = iter([0.1, 0.3, 0.2, 0.3, 0.0, 0.1])

    def validate(line: Line) -> float:
        snapshots.append({name: t.clone() for name, t in line.module.state_dict().items()})
        return next(values)

    line, fitted, reports = run(validate)
    assert fitted == Fit(epochs=12, best_epoch=4, best=0.3)
    for name, tensor in line.module.state_dict().items():
        assert torch.equal(tensor, snapshots[1][name])
    assert [r.epoch for r in reports if r.best] == [2, 4]
    assert [r.validation for r in reports] == [None, 0.1, None, 0.3, None, 0.2, None, 0.3, None, 0.0, None, 0.1]
    assert all(r.epochs == 12 and r.seconds >= 0 for r in reports)


def test_patience_ends_a_run_and_an_ended_run_stays_ended(tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"patience": 4})
    store = FolderCheckpoint(tmp_path / "run", "abc")
    line, fitted, _ = run(scripted([0.2, 0.1, 0.1]), config=config, store=store)
    assert fitted == Fit(epochs=6, best_epoch=2, best=0.2)
    # Killed after the last validation, before the model was published: nothing is left to learn.
    again, refitted, reports = run(scripted([0.9]), config=config, store=store)
    same(line, again)
    assert refitted == fitted
    assert [r.epoch for r in reports] == [1, 2, 3, 4, 5, 6]


def test_without_validation_all_epochs_run_and_the_last_weights_stay() -> None:
    line, fitted, reports = run(config=CONFIG.model_copy(update={"patience": 1}))
    assert fitted == Fit(epochs=12, best_epoch=0, best=float("-inf"))
    assert len(reports) == 12
    assert reports[-1].loss < reports[0].loss
    assert by_error(line) > -3.5


def test_the_last_epoch_is_validated_in_any_case() -> None:
    reports = run(by_error, config=CONFIG.model_copy(update={"epochs": 3, "validate_every": 5}))[2]
    assert [r.validation is None for r in reports] == [True, True, False]


def test_rounding_as_the_authors_do_may_choose_another_epoch() -> None:
    values = [0.10001, 0.10004, 0.1, 0.1, 0.1, 0.1]
    exact, fitted, _ = run(scripted(values))
    rounded, official, _ = run(scripted(values), config=CONFIG.model_copy(update={"official": True}))
    assert (fitted.best_epoch, fitted.best) == (4, 0.10004)
    assert (official.best_epoch, official.best) == (2, 0.1)
    assert not torch.equal(exact.module[0].weight, rounded.module[0].weight)


@pytest.mark.parametrize("scale", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_ends_the_run(tmp_path: Path, scale: float) -> None:
    line, store = Line(scale), FolderCheckpoint(tmp_path / "run", "abc")
    calls = 0
    loss = line.loss

    def counted(batch: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        nonlocal calls
        calls += 1
        return loss(batch, generator)

    line.loss = counted
    with pytest.raises(TrainingDiverged, match=r"not finite in epoch 1, batch 1 \(8 of 8 examples\)\. Lower"):
        fit(line, CONFIG, torch.Generator().manual_seed(1), validate=lambda: 1.0, checkpoint=store)
    assert calls == 1
    assert store.load() is None


def test_the_reported_loss_is_the_mean_over_examples() -> None:
    class Uneven(Line):
        def batches(self, generator: torch.Generator) -> Iterator[Tensor]:
            yield from torch.arange(32).split(31)

        def loss(self, batch: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
            return {"loss": 0 * self.module(self.x[:2]).sum() + batch.double()}

    reports: list[Progress] = []
    fit(Uneven(), CONFIG.model_copy(update={"epochs": 1}), torch.Generator(), report=reports.append)
    assert reports[0].loss == pytest.approx(15.5)


def test_dropout_keeps_the_mean_and_repeats_its_draws() -> None:
    x = torch.full((400, 50), 2.0)
    dropped = drop(x, 0.25, torch.Generator().manual_seed(1))
    assert torch.equal(dropped, drop(x, 0.25, torch.Generator().manual_seed(1)))
    assert dropped.unique().tolist() == pytest.approx([0, 2 / 0.75])
    assert float((dropped == 0).double().mean()) == pytest.approx(0.25, abs=5 * (0.1875 / 20_000) ** 0.5)
    assert drop(x, 0, torch.Generator()) is x


def test_settings_are_checked() -> None:
    assert TrainingConfig().batch_size == 400
    for key in ("learning_rate", "batch_size", "epochs", "validate_every", "patience"):
        with pytest.raises(ValueError, match=key):
            TrainingConfig.make({key: 0})


def test_parts_learn_at_their_own_rate() -> None:
    """The first step of AdamW moves every weight by its learning rate."""
    line, before = Line(), Line().module.state_dict()
    one_step = CONFIG.model_copy(update={"epochs": 1, "learning_rate": 1e-3})
    line.x, line.y = line.x[:8], line.y[:8]
    line.batches = lambda generator: iter([torch.randperm(8, generator=generator)])  # type: ignore[method-assign]
    fit(line, one_step, torch.Generator().manual_seed(1), rates={"2": 0.1})
    moved = {name: float((now - before[name]).abs().max()) for name, now in line.module.state_dict().items()}
    assert moved["0.weight"] == pytest.approx(1e-3, rel=0.01)
    assert moved["2.weight"] == pytest.approx(1e-4, rel=0.01)
