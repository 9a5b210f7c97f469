"""What the pool tells about itself."""

from __future__ import annotations

from dataclasses import dataclass

from eventd.pool.instance import Instance
from eventd.pool.state import State


@dataclass(frozen=True, slots=True)
class PoolStatistics:
    """Counts at one moment, and (``immediate``, ``waited``, ``refused``) since the start."""

    instances: int
    starting: int
    idle: int
    running: int
    waiting: int
    immediate: int
    waited: int
    refused: int


@dataclass(frozen=True, slots=True)
class InstanceReport:
    """One instance as ``status`` shows it; ages in seconds."""

    id: str
    service: str
    function: str
    version: str
    state: str
    load: int
    concurrency: int
    memory_mb: float
    age_s: float
    idle_s: float
    served: int


def report(instance: Instance, now: float) -> InstanceReport:
    snapshot = instance.snapshot
    return InstanceReport(
        id=instance.id,
        service=snapshot.service,
        function=snapshot.function,
        version=snapshot.version_name,
        state=_state(instance),
        load=instance.load,
        concurrency=instance.concurrency,
        memory_mb=instance.memory_mb,
        age_s=now - instance.started_at,
        idle_s=0.0 if instance.load else now - instance.idle_since,
        served=instance.served,
    )


def _state(instance: Instance) -> str:
    if instance.state is State.READY:
        return "busy" if instance.load else "idle"
    return instance.state.name.lower()
