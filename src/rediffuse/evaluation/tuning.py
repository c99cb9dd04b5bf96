"""Settings chosen on the selection part, for every method with the same number of trials."""

import math
from collections.abc import Callable, Mapping
from time import perf_counter
from typing import Any

from rediffuse.errors import InvalidConfig, InvalidInput, MissingExtra, TrainingDiverged, say
from rediffuse.evaluation.report import Trial
from rediffuse.protocols import Range, Tunable


def tune(
    space: Mapping[str, Tunable],
    value: Callable[[Mapping[str, Any]], tuple[float, float]],
    trials: int,
    *,
    seed: int,
    report: Callable[[Trial], None] = lambda _: None,
) -> list[Trial]:
    """Try settings: first none (what was given stays), then what a tree-structured Parzen estimator proposes.

    Args: space: key -> what may be tried; empty: there is one trial.
        value: settings -> selection metric, higher is better, and what it took in seconds; it may raise
            TrainingDiverged or InvalidConfig, which costs a trial like any other.
        trials: how many, the first included.   seed: of the proposals.
    Returns: all trials in order.
    Raises: InvalidInput when there is to be no trial; MissingExtra when optuna is not installed.
    Reference: Bergstra et al. 2011 (TPE), as optuna has it; a third of the trials, three at least, is drawn at random
    first. It does not learn from the given settings, which may lie outside the space.
    """
    if trials < 1:
        raise InvalidInput(say("There must be at least one trial", got=trials))
    out = [_tried({}, value)]
    report(out[0])
    if not space or trials == 1:
        return out
    try:
        import optuna
    except ImportError:
        raise MissingExtra(
            say("Tuning needs optuna, which is not installed", remedy='Run: pip install "rediffuse[tune]"')
        ) from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=max(3, trials // 3))
    study = optuna.create_study(direction="maximize", sampler=sampler)
    while len(out) < trials:
        asked = study.ask()
        out.append(_tried({key: _suggest(asked, key, values) for key, values in space.items()}, value))
        reached = out[-1].value
        study.tell(asked, reached, state=None if reached is not None else optuna.trial.TrialState.FAIL)
        report(out[-1])
    return out


def best(trials: list[Trial]) -> Trial:
    """The trial with the highest value, the first of equals. Raises: InvalidInput when all failed."""
    known = [trial for trial in trials if trial.value is not None]
    if not known:
        raise InvalidInput(
            say("Every setting failed in tuning", remedy="Give other settings with --set, or see the log")
        )
    return max(known, key=lambda trial: trial.value if trial.value is not None else 0.0)


def _tried(settings: Mapping[str, Any], value: Callable[[Mapping[str, Any]], tuple[float, float]]) -> Trial:
    began = perf_counter()
    try:
        reached, seconds = value(settings)
    except (TrainingDiverged, InvalidConfig):
        return Trial(dict(settings), None, round(perf_counter() - began, 3))
    return Trial(dict(settings), reached if math.isfinite(reached) else None, round(seconds, 3))


def _suggest(trial: Any, key: str, values: Tunable) -> Any:
    """Draw one setting. Choices go by their place, since they may be lists."""
    if not isinstance(values, Range):
        return values[trial.suggest_categorical(key, list(range(len(values))))]
    if values.whole:
        return trial.suggest_int(key, int(values.low), int(values.high), log=values.log)
    return trial.suggest_float(key, values.low, values.high, log=values.log)
