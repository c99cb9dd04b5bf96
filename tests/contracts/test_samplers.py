"""Every sampler and every schedule that ships keeps the contracts."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import ClassVar

from rediffuse.noise.schedules import SCHEDULES
from rediffuse.protocols import Schedule
from rediffuse.samplers import SAMPLERS
from rediffuse.testing.contracts import SamplerContract, ScheduleContract


class TestEverySampler(SamplerContract):
    samplers = SAMPLERS


class TestEverySchedule(ScheduleContract):
    schedules: ClassVar[Mapping[str, Callable[[int], Schedule]]] = {
        name: partial(make, scale=0.5, low=0.001, high=0.01) for name, make in SCHEDULES.items()
    }
