"""The most memory that a piece of work holds."""

import resource
from pathlib import Path

_CLEAR, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


def forget_peak() -> None:
    """Start counting anew, where the system can (Linux): what is held now is the least that will be reported."""
    if _CLEAR.exists():
        _CLEAR.write_text("5", encoding="ascii")


def peak_rss_mb() -> float:
    """The most memory this process has held since `forget_peak`, in megabytes; since its start where that is unknown."""
    if _STATUS.exists():
        line = next(line for line in _STATUS.read_text(encoding="ascii").splitlines() if line.startswith("VmHWM"))
        return round(int(line.split()[1]) / 1024, 1)
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)
