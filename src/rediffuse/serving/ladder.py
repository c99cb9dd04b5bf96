"""What is answered with when there is no time for the whole method, or when it fails: each step down is cheaper.

whole      as asked
one_draw   one reverse chain where several were asked: a list, without its uncertainty
classic    another model that is quick, where the service holds one
popular    what most people have taken
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum

from rediffuse.errors import InvalidConfig, say


class Rung(IntEnum):
    """How much of the method an answer comes from; larger is less."""

    WHOLE = 0
    ONE_DRAW = 1
    CLASSIC = 2
    POPULAR = 3

    @property
    def label(self) -> str:
        """Its name in answers and metrics."""
        return self.name.lower()


@dataclass
class Ladder:
    """Steps down while those who wait wait too long, and up again once they clearly do not.

    Raises: InvalidConfig when the waits do not rise from above 0.
    """

    waits_s: Sequence[float] = (0.15, 0.25, 0.35)
    """Estimated waits from which on answers come from rung 1, 2 and 3."""
    relief: float = 0.5
    """A rung is left upwards when the wait is below this share of what led to it: no flapping."""
    rung: Rung = Rung.WHOLE
    counts: Counter[Rung] = field(default_factory=Counter[Rung])
    """How often each rung was chosen."""

    def __post_init__(self) -> None:
        """Check the waits."""
        waits = [0.0, *self.waits_s]
        if len(waits) != len(Rung) or sorted(set(waits)) != waits:
            raise InvalidConfig(say("The waits of the ladder must rise", got=self.waits_s, remedy="Give three seconds"))

    def choose(self, wait_s: float) -> Rung:
        """The rung for the next batch. Args: wait_s: how long an ask that comes now would wait."""
        down = sum(wait_s >= limit for limit in self.waits_s)
        up = sum(wait_s >= limit * self.relief for limit in self.waits_s)
        self.rung = Rung(min(max(self.rung, down), up))
        self.counts[self.rung] += 1
        return self.rung
