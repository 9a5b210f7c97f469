"""``/metrics``: the plain integers of ``metrics.Metrics`` in Prometheus' text format."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from itertools import accumulate

from aiohttp import web
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector, CollectorRegistry

from eventd.metrics import FunctionMetrics, Histogram, Metrics

HELP: Mapping[str, str] = {
    "events_received": "Events that a source brought, by trigger type",
    "events_filtered": "Events that no rule wanted, by source key",
    "events_duplicate": "Events dropped because their key was accepted before",
    "invocations_accepted": "Asynchronous invocations on disk before they were acknowledged",
    "invocations_succeeded": "Asynchronous invocations that succeeded",
    "invocations_retried": "Attempts that were put back to run again",
    "dead_letters": "Invocations given up and kept with their reason",
    "http_requests": "HTTP requests, by status",
    "http_refused": "Requests refused before they were parsed as one (framing, limits, timeouts)",
    "instances_started": "Instances started",
    "instances_ended": "Instances ended",
    "instance_protocol_errors": "Instances killed for a frame that breaks the protocol",
    "log_lines": "Log lines of functions taken",
    "log_lines_dropped": "Log lines of functions dropped: the writer was behind",
    "records_dropped": "Records of finished attempts dropped: the writer was behind",
    "store_commits": "Synced commits of the store",
    "store_commit": "Time of a synced commit",
    "source_restarts": "Sources started again after an error",
}
"""What each attribute of ``Metrics`` counts."""

_LABEL = {"events_received": "type", "events_filtered": "source", "http_requests": "status"}

_FUNCTION = {
    "invocations": "Attempts that ended",
    "errors": "Attempts that ended with the function's own error",
    "timeouts": "Attempts that ran into the function's timeout",
    "out_of_memory": "Attempts that took down their instance for its memory",
    "throttled": "Calls refused because no instance was free in time",
    "cold_starts": "Attempts that waited for a new instance",
}
_FUNCTION_LABELS = ("service", "function", "version")

Gauges = Callable[[], Mapping[str, float]]
"""Values of this moment by name without prefix (``queue_waiting``, ``instances``)."""


class MetricsCollector(Collector):
    """Reads ``Metrics`` when asked; nothing is registered on the hot path."""

    def __init__(self, metrics: Metrics, gauges: Gauges) -> None:
        self._metrics = metrics
        self._gauges = gauges

    def describe(self) -> list[Metric]:
        return []  # the names are known only when collected

    def collect(self) -> Iterator[Metric]:
        for entry in fields(Metrics):
            if entry.name == "functions":
                continue
            value = getattr(self._metrics, entry.name)
            name, text = f"eventd_{entry.name}", HELP.get(entry.name, entry.name)
            if isinstance(value, Histogram):
                yield _histogram(f"{name}_seconds", text, [((), value)], ())
            elif isinstance(value, dict):
                family = CounterMetricFamily(name, text, labels=[_LABEL.get(entry.name, "key")])
                for key, count in sorted(value.items()):
                    family.add_metric([str(key)], count)
                yield family
            else:
                yield CounterMetricFamily(name, text, value=value)
        yield from self._functions()
        for name, amount in self._gauges().items():
            yield GaugeMetricFamily(f"eventd_{name}", name.replace("_", " "), value=amount)

    def _functions(self) -> Iterator[Metric]:
        rows: list[tuple[tuple[str, str, str], FunctionMetrics]] = sorted(
            self._metrics.functions.items(), key=lambda item: item[0]
        )
        for attribute, text in _FUNCTION.items():
            family = CounterMetricFamily(
                f"eventd_function_{attribute}", text, labels=_FUNCTION_LABELS
            )
            for key, counts in rows:
                family.add_metric(key, getattr(counts, attribute))
            yield family
        durations = [(key, counts.duration) for key, counts in rows]
        yield _histogram(
            "eventd_function_duration_seconds", "Time in the handler", durations, _FUNCTION_LABELS
        )


def routes(metrics: Metrics, gauges: Gauges = dict) -> list[web.RouteDef]:
    """``GET /metrics``, public."""
    registry = CollectorRegistry()
    registry.register(MetricsCollector(metrics, gauges))

    async def get_metrics(_: web.Request) -> web.Response:
        text = generate_latest(registry)
        return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE_LATEST})

    return [web.get("/metrics", get_metrics)]


def _histogram(
    name: str,
    text: str,
    rows: Sequence[tuple[tuple[str, ...], Histogram]],
    labels: tuple[str, ...],
) -> Metric:
    family = HistogramMetricFamily(name, text, labels=labels)
    for key, histogram in rows:
        limits = [*(f"{limit:g}" for limit in histogram.buckets), "+Inf"]
        counts = accumulate(histogram.counts)
        family.add_metric(key, list(zip(limits, counts, strict=True)), histogram.sum)
    return family
