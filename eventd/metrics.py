"""Counters and histograms as plain integers, named in one place.

The hot path adds to attributes; ``/metrics`` reads them when asked (a labelled counter of a
client library costs a microsecond per increment, an attribute 0.03).
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field

LATENCY_BUCKETS_S = (
    0.0005,
    0.001,
    0.002,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    60.0,
)


@dataclass(slots=True)
class Histogram:
    """Cumulative buckets in seconds; ``observe`` costs one bisect."""

    buckets: tuple[float, ...] = LATENCY_BUCKETS_S
    counts: list[int] = field(init=False)
    total: int = 0
    sum: float = 0.0

    def __post_init__(self) -> None:
        self.counts = [0] * (len(self.buckets) + 1)

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(self.buckets, seconds)] += 1
        self.total += 1
        self.sum += seconds


@dataclass(slots=True)
class FunctionMetrics:
    """Per service, function and version."""

    invocations: int = 0
    errors: int = 0
    timeouts: int = 0
    out_of_memory: int = 0
    throttled: int = 0
    cold_starts: int = 0
    duration: Histogram = field(default_factory=Histogram)


@dataclass(slots=True)
class Metrics:
    """Every counter of the daemon. Attributes are read by ``api/metrics.py``, by name."""

    functions: dict[tuple[str, str, str], FunctionMetrics] = field(default_factory=dict)
    events_received: dict[str, int] = field(default_factory=dict)
    events_filtered: dict[str, int] = field(default_factory=dict)
    events_duplicate: int = 0
    invocations_accepted: int = 0
    invocations_succeeded: int = 0
    invocations_retried: int = 0
    dead_letters: int = 0
    http_requests: dict[str, int] = field(default_factory=dict)
    http_refused: int = 0
    instances_started: int = 0
    instances_ended: int = 0
    instance_protocol_errors: int = 0
    log_lines: int = 0
    log_lines_dropped: int = 0
    records_dropped: int = 0
    store_commits: int = 0
    store_commit: Histogram = field(default_factory=Histogram)
    source_restarts: int = 0

    def function(self, service: str, function: str, version: str) -> FunctionMetrics:
        key = (service, function, version)
        found = self.functions.get(key)
        if found is None:
            found = self.functions[key] = FunctionMetrics()
        return found
