"""When to stop, and which epoch was best."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Stopping:
    """The best validation so far; a new value makes a new `Stopping`."""

    patience: int
    """Epochs without a better value after which training ends."""
    digits: int | None = None
    """Compare values rounded to so many digits, as some published code does; None compares them as they are."""
    best: float = float("-inf")
    best_epoch: int = 0

    def after(self, epoch: int, value: float) -> "Stopping":
        """Take in the validation of an epoch; only a strictly better one counts."""
        shown = value if self.digits is None else round(value, self.digits)
        if not shown > self.best:
            return self
        return Stopping(self.patience, self.digits, shown, epoch)

    def over(self, epoch: int) -> bool:
        """Whether patience has run out at this epoch."""
        return epoch - self.best_epoch >= self.patience
