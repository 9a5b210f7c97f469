"""``GET /eventd/v1/status``: what runs, what waits, how each trigger fares."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from eventd.metrics import FunctionMetrics, Histogram, Metrics
from eventd.pool.report import InstanceReport
from eventd.sources import TriggerStatus
from eventd.store.interface import Metadata, QueueStatistics


@dataclass(frozen=True, slots=True)
class StatusSources:
    """Where the status comes from; each callable is cheap and never blocks.

    Attributes:
        about: facts of the daemon, by camelCase name (``version``, ``startedMs``, ``endpoint``,
            ``isolation``, ...); they are answered as they are.
        waiting_calls: synchronous calls that wait for an instance, by service and function.
    """

    metadata: Metadata
    metrics: Metrics
    queue: Callable[[], QueueStatistics]
    instances: Callable[[], Iterable[InstanceReport]]
    triggers: Callable[[], Iterable[TriggerStatus]]
    about: Callable[[], Mapping[str, Any]]
    waiting_calls: Callable[[], Mapping[tuple[str, str], int]] = dict


def routes(sources: StatusSources) -> list[web.RouteDef]:
    """The signed route ``GET /eventd/v1/status``."""

    async def get_status(_: web.Request) -> web.Response:
        return web.json_response(status(sources))

    return [web.get("/eventd/v1/status", get_status)]


def status(sources: StatusSources) -> dict[str, Any]:
    """The whole status as JSON; functions, instances and triggers in the order of their names."""
    queue = sources.queue()
    instances = sorted(sources.instances(), key=lambda one: (one.service, one.function, one.id))
    triggers = sorted(sources.triggers(), key=lambda one: (one.service, one.function, one.name))
    return {
        **sources.about(),
        "queue": {
            "waiting": queue.waiting,
            "claimed": queue.claimed,
            "deadLetters": queue.dead_letters,
        },
        "functions": _functions(sources, queue, instances),
        "instances": [_instance(one) for one in instances],
        "triggers": [_trigger(one) for one in triggers],
    }


def quantile_ms(histogram: Histogram, share: float) -> float | None:
    """The time in ms within which ``share`` (0-1) of the observations ended, interpolated inside
    its bucket; ``None`` without observations, the last limit for what lies beyond it."""
    if histogram.total == 0:
        return None
    wanted, below, lower = share * histogram.total, 0, 0.0
    for limit, count in zip(histogram.buckets, histogram.counts, strict=False):
        if count and below + count >= wanted:
            return 1000 * (lower + (limit - lower) * (wanted - below) / count)
        below += count
        lower = limit
    return 1000 * lower


def _functions(
    sources: StatusSources, queue: QueueStatistics, instances: Iterable[InstanceReport]
) -> list[dict[str, Any]]:
    counted: Counter[tuple[str, str]] = Counter()
    busy: Counter[tuple[str, str]] = Counter()
    for one in instances:
        counted[one.service, one.function] += 1
        busy[one.service, one.function] += one.load
    totals = _over_versions(sources.metrics)
    waiting_calls = sources.waiting_calls()
    rows = []
    for service in sources.metadata.services():
        for function in sources.metadata.functions(service.name):
            key = (service.name, function.name)
            metrics = totals.get(key) or FunctionMetrics()
            rows.append(
                {
                    "service": service.name,
                    "function": function.name,
                    "runtime": function.config.get("runtime", ""),
                    "instances": counted[key],
                    "busy": busy[key],
                    "waiting": queue.waiting_by_function.get(key, 0) + waiting_calls.get(key, 0),
                    "invocations": metrics.invocations,
                    "errors": metrics.errors,
                    "timeouts": metrics.timeouts,
                    "coldStarts": metrics.cold_starts,
                    "p50Ms": quantile_ms(metrics.duration, 0.5),
                    "p99Ms": quantile_ms(metrics.duration, 0.99),
                }
            )
    return rows


def _over_versions(metrics: Metrics) -> dict[tuple[str, str], FunctionMetrics]:
    """The counts of a function over all its versions."""
    totals: dict[tuple[str, str], FunctionMetrics] = {}
    for (service, function, _), counts in metrics.functions.items():
        total = totals.setdefault((service, function), FunctionMetrics())
        total.invocations += counts.invocations
        total.errors += counts.errors
        total.timeouts += counts.timeouts
        total.cold_starts += counts.cold_starts
        total.duration.total += counts.duration.total
        for index, count in enumerate(counts.duration.counts):
            total.duration.counts[index] += count
    return totals


def _instance(one: InstanceReport) -> dict[str, Any]:
    return {
        "instanceId": one.id,
        "service": one.service,
        "function": one.function,
        "version": one.version,
        "state": one.state,
        "busy": one.load,
        "slots": one.concurrency,
        "memoryMb": round(one.memory_mb, 1),
        "ageS": round(one.age_s, 1),
        "idleS": round(one.idle_s, 1),
        "served": one.served,
    }


def _trigger(one: TriggerStatus) -> dict[str, Any]:
    return {
        "service": one.service,
        "function": one.function,
        "trigger": one.name,
        "type": one.type,
        "text": one.error or one.text,
        "lag": one.lag,
        "healthy": one.healthy,
    }
