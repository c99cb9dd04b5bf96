"""Figures of a running service over the last minute, read from its counters."""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from rediffuse.serving.telemetry import Metrics

SPAN_S = 60.0
OWN = ("/ops", "/pages/")
"""Beginnings of routes that only serve this view; they are not counted."""
_LEAST_S = 1.0
QUANTILES = (0.5, 0.95, 0.99)

Steps = tuple[tuple[float, float], ...]
"""(upper limit in seconds, requests up to it), limits rising."""


@dataclass(frozen=True)
class Reading:
    """All counters at a moment."""

    at: float
    requests: Mapping[str, float]
    """By route."""
    failed: Mapping[str, float]
    """Of these, answered with a status from 400 on."""
    steps: Mapping[str, Steps]
    """Times by route."""
    lists: float
    events: Mapping[str, float]
    """By what became of them."""


@dataclass(frozen=True)
class Traffic:
    """A route within the span. Times are milliseconds at `QUANTILES`, None without requests."""

    route: str
    per_s: float
    failed: float
    ms: tuple[float | None, ...]


@dataclass(frozen=True)
class Sight:
    """What happened within a span."""

    span_s: float
    lists_per_s: float
    events_per_s: float
    routes: tuple[Traffic, ...]
    """The busiest first."""
    events: Mapping[str, float]
    """Since the start."""
    curve: tuple[float, ...]
    """Requests a second between readings, oldest first."""


@dataclass
class Watch:
    """Remembers readings of the last minute; every look adds one."""

    metrics: Metrics
    clock: Callable[[], float]
    """Seconds that only grow."""
    _readings: deque[Reading] = field(default_factory=deque[Reading])

    def __post_init__(self) -> None:
        """Begin with the counters of now."""
        self._readings.append(self._read())

    def look(self) -> Sight:
        """The figures since the oldest reading: a minute, or longer where nobody looked."""
        now = self._read()
        readings = self._readings
        if now.at - readings[-1].at >= _LEAST_S:
            readings.append(now)
        while len(readings) > 2 and readings[1].at <= now.at - SPAN_S:
            readings.popleft()
        first, curve = readings[0], list[float]()
        for earlier, later in zip(readings, list(readings)[1:], strict=False):
            curve.append(_sum(later.requests, earlier.requests) / (later.at - earlier.at))
        span = max(now.at - first.at, _LEAST_S)
        routes = [_traffic(route, first, now, span) for route in now.requests]
        return Sight(
            span,
            (now.lists - first.lists) / span,
            (now.events.get("stored", 0.0) - first.events.get("stored", 0.0)) / span,
            tuple(sorted((r for r in routes if r.per_s), key=lambda r: (-r.per_s, r.route))),
            now.events,
            tuple(curve),
        )

    def _read(self) -> Reading:
        requests, failed, steps = dict[str, float](), dict[str, float](), dict[str, list[tuple[float, float]]]()
        for sample in _samples(self.metrics.requests, "_total"):
            route = sample.labels["route"]
            requests[route] = requests.get(route, 0.0) + sample.value
            failed[route] = failed.get(route, 0.0) + sample.value * (sample.labels["status"] >= "400")
        for sample in _samples(self.metrics.seconds, "_bucket"):
            steps.setdefault(sample.labels["route"], []).append((float(sample.labels["le"]), sample.value))
        return Reading(
            self.clock(),
            requests,
            failed,
            {route: tuple(sorted(found)) for route, found in steps.items()},
            sum(sample.value for sample in _samples(self.metrics.lists, "_total")),
            {sample.labels["status"]: sample.value for sample in _samples(self.metrics.events, "_total")},
        )


def quantile(steps: Sequence[tuple[float, float]], share: float) -> float | None:
    """The time below which a share of requests stayed, straight between limits; None without requests.

    What lies beyond the last finite limit is said to be that limit.
    """
    total = steps[-1][1] if steps else 0.0
    if total <= 0:
        return None
    wanted, lower, below = share * total, 0.0, 0.0
    for limit, count in steps:
        if count >= wanted:
            return lower if limit == float("inf") else lower + (limit - lower) * (wanted - below) / (count - below)
        lower, below = limit, count
    return lower


def _traffic(route: str, first: Reading, now: Reading, span: float) -> Traffic:
    before = dict(first.steps.get(route, ()))
    steps = [(limit, count - before.get(limit, 0.0)) for limit, count in now.steps.get(route, ())]
    times = (quantile(steps, share) for share in QUANTILES)
    return Traffic(
        route,
        (now.requests[route] - first.requests.get(route, 0.0)) / span,
        now.failed[route] - first.failed.get(route, 0.0),
        tuple(None if time is None else 1000 * time for time in times),
    )


def _samples(metric: Collector, ending: str) -> list[Sample]:
    """Of a metric those whose name ends so."""
    found = (sample for family in metric.collect() for sample in family.samples if sample.name.endswith(ending))
    return [sample for sample in found if not sample.labels.get("route", "").startswith(OWN)]


def _sum(later: Mapping[str, float], earlier: Mapping[str, float]) -> float:
    return sum(later.values()) - sum(earlier.values())
