"""When to stop, and which epoch was best."""

import math

from rediffuse.training.stopping import Stopping


def test_only_a_strictly_better_value_counts() -> None:
    state = Stopping(patience=10)
    for epoch, value, best in ((5, 0.1, 5), (10, 0.1, 5), (15, 0.05, 5), (20, 0.2, 20)):
        state = state.after(epoch, value)
        assert state.best_epoch == best
    assert state.best == 0.2


def test_patience_counts_epochs_since_the_best() -> None:
    state = Stopping(patience=10).after(5, 0.1)
    assert not state.over(14)
    assert state.over(15)


def test_patience_runs_from_the_beginning_when_nothing_was_ever_better() -> None:
    state = Stopping(patience=10).after(5, -math.inf).after(10, math.nan)
    assert (state.best, state.best_epoch) == (-math.inf, 0)
    assert state.over(10)


def test_rounding_may_choose_another_epoch() -> None:
    """The authors compare values rounded to four digits: the later, truly better epoch does not count as better."""
    values = ((5, 0.12341), (10, 0.12344))
    exact, official = Stopping(20), Stopping(20, digits=4)
    for epoch, value in values:
        exact, official = exact.after(epoch, value), official.after(epoch, value)
    assert exact.best_epoch == 10
    assert (official.best_epoch, official.best) == (5, 0.1234)
